"""What is measured, each beside its floor in the same run: machines differ, and the same machine differs by the hour.

A pair is floor, tq, floor; its ratio is tq's rate over the mean of the two floors around it. What is reported is the
median of the pairs, with the lowest and the highest.
"""

import json
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from peers.stage import Figures, latency
from rig import BODY, NOOP, Rig

from tq.client.drivers.blocking import Client

HERE: Final = Path(__file__).parent
TQ: Final = Path(sys.executable).with_name("tq")
SMALL: Final = 3_000
CALLS: Final = 20_000
LARGE: Final = 10_000_000
FLUSH_US: Final = 400


class Row(NamedTuple):
    """One line of the report."""

    what: str
    tq: str
    floor: str = ""
    ratio: str = ""
    wanted: str = ""


def pairs(
    count: int, floor: Callable[[], float], tq: Callable[[], float]
) -> tuple[list[float], list[float], list[float]]:
    """Return the floors, tq's rates and the ratios of `count` pairs."""
    floors, rates, ratios = [floor()], [], []
    for _ in range(count):
        rates.append(tq())
        floors.append(floor())
        ratios.append(rates[-1] / statistics.mean(floors[-2:]))
    return floors, rates, ratios


def shown(values: list[float], digits: int = 0) -> str:
    """Return the median of several values, with the lowest and the highest."""
    middle = statistics.median(values)
    return f"{middle:,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def compared(what: str, wanted: str, count: int, floor: Callable[[], float], tq: Callable[[], float]) -> Row:
    """Return the row of a rate beside its floor."""
    floors, rates, ratios = pairs(count, floor, tq)
    return Row(what, f"{shown(rates)} /s", f"{shown(floors)} /s", shown(ratios, 2), wanted)


def executor_loop(rig: Rig) -> float:
    """Return the rate of the bare executor loop."""
    return float(rig.run(sys.executable, str(HERE / "executor_loop.py"), str(SMALL), "2"))


def pool(rig: Rig) -> float:
    """Return the rate of functions in a launcher and its warm processes alone."""
    return float(rig.run(sys.executable, str(HERE / "pool_rate.py"), str(CALLS), "2"))


def fdatasync(rig: Rig) -> float:
    """Return the rate of durable appends on the disk that holds the rig."""
    return float(rig.run(sys.executable, str(HERE / "fdatasync.py"), str(rig.directory), "0.7"))


def load(rig: Rig, connections: int, submits: int) -> Figures:
    """Return what load.py measured."""
    answer: Figures = json.loads(rig.run(sys.executable, str(HERE / "load.py"), str(connections), str(submits)))
    return answer


# ---------------------------------------------------------------- with a server alone


def durable_submits(rig: Rig, count: int) -> Iterator[Row]:
    """Submits that are each answered when on disk, over one connection and over sixty-four."""
    for connections, submits, wanted in ((1, 1_000, "at least 0.3"), (64, 12_800, "at least 2")):
        load(rig, connections, submits // 10)
        seen: list[Figures] = []

        def rate(connections: int = connections, submits: int = submits, seen: list[Figures] = seen) -> float:
            seen.append(load(rig, connections, submits))
            return seen[-1]["rate"]

        peers = "one open connection" if connections == 1 else f"{connections} connections together"
        row = compared(f"durable submits, {peers}, against fdatasync", wanted, count, lambda: fdatasync(rig), rate)
        p50, p99 = (statistics.median(one[key] for one in seen) for key in ("p50_ms", "p99_ms"))
        yield row._replace(tq=f"{row.tq}; p50 {p50:.2f} ms, p99 {p99:.2f} ms")


def slow_disk(rig: Rig, count: int) -> Iterator[Row]:
    """The same on a disk with about 2,000 flushes a second, which is what the wanted ratios were set on."""
    rig.stop("server")
    rig.environment = {**rig.environment, **slowed(rig)}
    rig.start_server()
    for row in durable_submits(rig, count):
        yield row._replace(what=f"{row.what}, where a flush takes {FLUSH_US} us longer")


def slowed(rig: Rig) -> dict[str, str]:
    """Return the environment in which each flush takes longer, for tq and its floor alike."""
    library = rig.directory / "slow_disk.so"
    compiler = shutil.which("gcc") or shutil.which("cc") or sys.exit("there is no C compiler")
    rig.run(compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "slow_disk.c"), "-ldl")
    return {"LD_PRELOAD": str(library), "TQ_BENCH_FLUSH_US": str(FLUSH_US)}


# ---------------------------------------------------------------- with a worker


def short_tasks(rig: Rig, count: int) -> Iterator[Row]:
    """An array of `true` on two slots, from submit to the last result, against the bare loop that does only that."""
    array_rate(rig, SMALL)
    yield compared(
        f"array of {SMALL:,} `true`, 2 slots, captured, durable, against the executor loop",
        "at least 0.75",
        count,
        lambda: executor_loop(rig),
        lambda: array_rate(rig, SMALL),
    )


def functions(rig: Rig, count: int) -> Iterator[Row]:
    """An array of functions that do nothing on two slots, from submit to the last value, and one at a time."""
    rig.start_worker(allow="builtins")
    array_rate(rig, CALLS // 10, NOOP)
    yield compared(
        f"array of {CALLS:,} functions that do nothing, 2 slots, captured, durable, against their pool alone",
        "10,000 /s",
        count,
        lambda: pool(rig),
        lambda: array_rate(rig, CALLS, NOOP),
    )
    took_ms = results_ms(rig, count * 100, NOOP)
    yield Row("submit of one such function to its result, one at a time", quantiles(took_ms), wanted="p50 < 4 ms")


def array_rate(rig: Rig, size: int, body: bytes = BODY) -> float:
    """Return how many tasks of an array end in a second, from its submit to its last result."""
    with rig.client() as client:
        client.connect()
        begin = time.perf_counter()
        outcome = rig.wait(client, rig.submit(client, size, name="small", body=body))
        took_s = time.perf_counter() - begin
    assert outcome.succeeded == size, outcome
    return size / took_s


def lone_task(rig: Rig, count: int) -> Iterator[Row]:
    """Submit one `true`, wait for its result, repeat."""
    took_ms = results_ms(rig, count * 100)
    yield Row("submit of one `true` to its result, one at a time", quantiles(took_ms), wanted="p50 < 3 ms, p99 < 10 ms")


def results_ms(rig: Rig, count: int, body: bytes = BODY) -> list[float]:
    """Return the ms from the submit of one task to its result, one after the other, after a few to warm up."""
    took_ms = []
    with rig.client() as client:
        for _ in range(count + 5):
            begin = time.perf_counter()
            outcome = rig.wait(client, rig.submit(client, body=body))
            took_ms.append((time.perf_counter() - begin) * 1_000)
            assert outcome.state == "succeeded", outcome
    return took_ms[5:]


def quantiles(took_ms: list[float]) -> str:
    """Return the middle and the slow end of some times, for people."""
    figures = latency(took_ms)
    return f"p50 {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms"


def command_line(rig: Rig, count: int) -> Iterator[Row]:
    """Wall time of the program itself."""
    for what, arguments, wanted in (
        ("`python -c pass`", (sys.executable, "-c", "pass"), ""),
        ("`tq --version`", (str(TQ), "--version"), "< 50 ms"),
        ("`tq submit -- true`, id on disk", (str(TQ), "submit", "--", "true"), "< 100 ms"),
    ):
        took_ms = [wall_s(rig, *arguments) * 1_000 for _ in range(count * 4 + 1)][1:]
        yield Row(what, f"{shown(took_ms)} ms", wanted=wanted)


def wall_s(rig: Rig, *arguments: str) -> float:
    """Return the wall time of a program in seconds."""
    begin = time.perf_counter()
    rig.run(*arguments)
    return time.perf_counter() - begin


def large_array(rig: Rig, count: int) -> Iterator[Row]:
    """Ten million tasks in one job: what the submit costs, the server's memory, its rate, and a restart with it."""
    size = f"array of {LARGE:,}"
    start_up_s = statistics.median(wall_s(rig, str(TQ), "--version") for _ in range(5))
    before_mib = rig.rss_mib("server")
    begin = time.perf_counter()
    job = rig.run(str(TQ), "submit", "--array", f"1-{LARGE}", "--", "true").strip()
    submit_s = time.perf_counter() - begin - start_up_s
    yield Row(f"{size}: `tq submit`, beyond the program's start-up", f"{submit_s:.3f} s", wanted="< 1 s")
    grown_mib = rig.rss_mib("server") - before_mib
    yield verbs(rig, size, job, count)
    with rig.client() as client:
        yield drain_rates(rig, client, job, count)
        drained = rig.outcome(client, job).ended
    rig.stop("worker")
    later_mib = rig.rss_mib("server") - before_mib
    memory = f"{grown_mib:.1f} MiB at the submit, {later_mib:.1f} MiB after {drained:,} of them"
    yield Row(f"{size}: growth of the server's memory", memory, wanted="< 50 MB")
    for how, name in ((signal.SIGTERM, "clean stop"), (signal.SIGKILL, "kill -9")):
        rig.stop("server", how)
        yield Row(f"{size}: restart after a {name}, to the first answer", f"{rig.start_server():.2f} s", wanted="< 2 s")


def verbs(rig: Rig, size: str, job: str, count: int) -> Row:
    """Return what it takes to act on a large array and to look at it, beyond the same with a single task."""
    rig.run(str(TQ), "queue", "pause", "default")
    single = rig.run(str(TQ), "submit", "--", "true").strip()
    more_ms: dict[str, list[float]] = {verb: [] for verb in ("hold", "release", "show", "ls")}
    for _ in range(count):
        for verb, found in more_ms.items():
            small_s, large_s = (wall_s(rig, str(TQ), verb, which) for which in (single, job))
            found.append((large_s - small_s) * 1_000)
    took = [f"{verb} {statistics.median(found):+.0f} ms" for verb, found in more_ms.items()]
    rig.run(str(TQ), "queue", "resume", "default")
    return Row(f"{size}: verbs, beyond the same with a single task", ", ".join(took), wanted="< 50 ms")


def drain_rates(rig: Rig, client: Client, job: str, count: int) -> Row:
    """Return the rate of a large array beside that of small ones, which overtake it by their priority."""

    def rate_of_small() -> float:
        small = rig.submit(client, SMALL * 3, name="small", priority=100)
        return rate_between(rig, client, small, SMALL, SMALL * 3)

    def rate_of_large() -> float:
        start = rig.outcome(client, job).ended + SMALL
        return rate_between(rig, client, job, start, start + SMALL * 2)

    rate_of_large()
    floors, rates, ratios = pairs(count, rate_of_small, rate_of_large)
    what = f"array of {LARGE:,}: its rate, against arrays of {SMALL * 3:,}"
    return Row(what, f"{shown(rates)} /s", f"{shown(floors)} /s", shown(ratios, 2), "about 1")


def rate_between(rig: Rig, client: Client, job: str, first: int, last: int) -> float:
    """Return how many tasks of a job end in a second, from the time when `first` have ended until `last` have."""
    begin = ended_at_begin = 0.0
    while True:
        ended, now = rig.outcome(client, job).ended, time.perf_counter()
        if ended < first:
            begin, ended_at_begin = now, ended
        elif ended >= last:
            return (ended - ended_at_begin) / (now - begin)
        time.sleep(0.02)
