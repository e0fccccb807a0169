"""tq beside its peers, in one run: tq, a floor, tq, a peer, tq, another peer, tq, …, and that several times.

The ratio of a peer in a round is between it and the mean of the two figures of tq around it; what is reported is the
median of the rounds. A peer that cannot perform here is left out with its reason; one that fails is too, with its last
words, and the others go on.
"""

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import measures
from measures import HERE, shown
from peers.stage import Figures, Peer
from rig import NOOP, Rig
from scenery import Scenery, peers, said

PERFORM_S_MAX: Final = 120.0
STOP_S_MAX: Final = 30.0


class Line(NamedTuple):
    """One line of the table."""

    what: str
    peer: str
    tq: str
    figure: str
    ratio: str
    durable: str
    captured: str


class Workload(NamedTuple):
    """What is asked of tq, and of the peers that offer it. `tq` answers as a peer does (peers/stage.py)."""

    what: str
    tq: Callable[[Rig], Figures]
    has_worker: bool = True
    allow: str = ""
    floor: tuple[str, Callable[[Rig], float]] | None = None


class Rival(NamedTuple):
    """What stands beside tq in a line: a floor or a peer. `perform` raises Failed."""

    name: str
    durable: str
    captured: str
    perform: Callable[[], Figures]


class Round(NamedTuple):
    """A rival's figures between two of tq's."""

    before: Figures
    rival: Figures
    after: Figures

    @property
    def ratio(self) -> float:
        """How many times as fast tq is."""
        if "rate" in self.rival:
            return statistics.mean((self.before["rate"], self.after["rate"])) / self.rival["rate"]
        return self.rival["p50_ms"] / statistics.mean((self.before["p50_ms"], self.after["p50_ms"]))


class Failed(Exception):
    """A peer did not perform."""


DISK: Final = ("fdatasync, one by one", measures.fdatasync)
WORKLOADS: Final[dict[str, Workload]] = {
    "processes": Workload(
        "`true` as a process, 2 at once, /s",
        lambda rig: {"rate": measures.array_rate(rig, measures.SMALL)},
        floor=("executor loop", measures.executor_loop),
    ),
    "process latency": Workload(
        "submit of `true` to its end, one at a time", lambda rig: measures.latency(measures.results_ms(rig, 100))
    ),
    "functions": Workload(
        "functions that do nothing, in bulk, 2 at once, /s",
        lambda rig: {"rate": measures.array_rate(rig, measures.CALLS, NOOP)},
        allow="builtins",
        floor=("warm processes alone", measures.pool),
    ),
    "function latency": Workload(
        "submit of such a function to its result, one at a time",
        lambda rig: measures.latency(measures.results_ms(rig, 100, NOOP)),
        allow="builtins",
    ),
    "submits, 1 connection": Workload(
        "durable submits, 1 connection, /s", lambda rig: measures.load(rig, 1, 1_000), has_worker=False, floor=DISK
    ),
    "submits, 64 connections": Workload(
        "durable submits, 64 connections, /s", lambda rig: measures.load(rig, 64, 6_400), has_worker=False, floor=DISK
    ),
}


def beside(chosen: list[str], scratch: str, count: int, scenery: Scenery) -> Iterator[Line]:
    """Yield the lines of the chosen workloads, each with a server of tq of its own."""
    able = {}
    for file, peer in peers().items():
        if lack := scenery.lacks(peer):
            said(f"without {peer.name}: {lack}")
        else:
            able[file] = peer
    for name in chosen:
        workload = WORKLOADS[name]
        taking = {file: peer for file, peer in able.items() if name in peer.workloads}
        try:
            with Rig(scratch) as rig:
                rig.start_server()
                if workload.has_worker:
                    rig.start_worker(allow=workload.allow)
                yield from lines(workload, rig, count, [*floor(workload, rig), *rivals(taking, name, scratch, scenery)])
        except (Exception, SystemExit) as failure:  # noqa: BLE001 - the others are not to be lost for it
            said(f"tq failed at {name}: {failure!r}")
            yield Line(workload.what, "", "failed", "", "", "", "")


def floor(workload: Workload, rig: Rig) -> Iterator[Rival]:
    """Yield the floor of a workload, if it has one."""
    if workload.floor is not None:
        name, rate = workload.floor
        yield Rival(f"*floor: {name}*", "", "", lambda: {"rate": rate(rig)})


def rivals(taking: dict[str, Peer], name: str, scratch: str, scenery: Scenery) -> Iterator[Rival]:
    """Yield the peers that take part in a workload."""
    for file, peer in taking.items():
        command = (scenery.interpreter(peer), "-P", "-m", f"peers.{file}", name, str(peer.workloads[name][1]))
        yield Rival(peer.name, peer.durable, peer.captured, lambda command=command: perform(command, scratch))


def lines(workload: Workload, rig: Rig, count: int, taking: list[Rival]) -> Iterator[Line]:
    """Yield the lines of one workload."""
    rounds: dict[Rival, list[Round]] = {rival: [] for rival in taking}
    failed: set[Rival] = set()
    workload.tq(rig)
    tq = workload.tq(rig)
    for rival in taking * count:
        if rival in failed:
            continue
        try:
            figures = rival.perform()
        except Failed as failure:
            said(f"{rival.name} failed: {failure}")
            failed.add(rival)
            continue
        before, tq = tq, workload.tq(rig)
        rounds[rival].append(Round(before, figures, tq))
    for rival in taking:
        yield line(workload, rival, [] if rival in failed else rounds[rival])


def line(workload: Workload, rival: Rival, rounds: list[Round]) -> Line:
    """Return the line of a rival; no rounds stand for one that failed."""
    tq = figure = ratio = ""
    if rounds:
        tq = together([one.after for one in rounds])
        figure = together([one.rival for one in rounds])
        ratio = shown([one.ratio for one in rounds], 2)
    return Line(workload.what, rival.name, tq, figure or "failed", ratio, rival.durable, rival.captured)


def together(figures: list[Figures]) -> str:
    """Return the figures of several rounds as one."""
    if "rate" in figures[0]:
        return shown([one["rate"] for one in figures])
    p50, p99 = (statistics.median(one[key] for one in figures) for key in ("p50_ms", "p99_ms"))
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def end(process: subprocess.Popen[bytes]) -> None:
    """End a peer that still performs; it ends its servers."""
    process.terminate()
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def perform(command: tuple[str, ...], scratch: str) -> Figures:
    """Let a peer perform once, in a directory of its own, and return its figures."""
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with (
        tempfile.TemporaryDirectory(prefix="tq-bench-", dir=scratch, ignore_cleanup_errors=True) as directory,
        tempfile.TemporaryFile("w+") as words,
    ):
        process = subprocess.Popen(
            [*command, directory], cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=words
        )
        try:
            told = process.communicate(timeout=PERFORM_S_MAX)[0]
        except subprocess.TimeoutExpired:
            raise Failed(f"not done within {PERFORM_S_MAX:.0f} s") from None
        finally:
            end(process)
        if process.returncode:
            words.seek(0)
            raise Failed(f"it ended with {process.returncode}: …{words.read().strip()[-400:]}")
        figures: Figures = json.loads(told)
        return figures
