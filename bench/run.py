"""Measure tq on this machine, as ratios to floors and to peers of the same run. Writes bench/RESULTS.md.

    python bench/run.py [--only short,lone,peers] [--install] [--pairs 5] [--rounds 3] [--no-write]

It takes a quarter of an hour; nothing else should run on the machine. Servers listen on loopback, on free ports. A part
of a table is printed and not written.
"""

import argparse
import importlib.metadata
import os
import platform
import signal
import ssl
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import backlog
import idle
import measures
import streams
from beside import WORKLOADS, beside
from measures import Row
from rig import Rig
from scenery import Scenery

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
LIBRARIES: Final = ("trio", "rocksdict", "cbor2", "msgspec", "cryptography", "typer")
MEASURES: Final[dict[str, tuple[bool, Callable[[Rig, int], Iterator[Row]]]]] = {
    "submits": (False, measures.durable_submits),
    "slow-disk": (False, measures.slow_disk),
    "short": (True, measures.short_tasks),
    "functions": (False, measures.functions),
    "lone": (True, measures.lone_task),
    "cli": (True, measures.command_line),
    "bulk": (True, streams.bulk),
    "large": (True, measures.large_array),
    "backlog": (False, backlog.backlog),
    "idle": (True, idle.idle),
    "workers": (False, idle.workers),
}

QUIET_LOAD_MAX: Final = 0.5
BUSY: Final = ". **The machine was busy with other things: these figures are not to be used**"

PEERS: Final = "peers"

TABLES: Final = {
    "tq and what bounds it": """\
Figures are the median (lowest to highest) of {pairs} pairs, each between two runs of its floor.

{facts}

| what | tq | floor | ratio | wanted |
|---|---|---|---|---|
""",
    "tq beside its peers": """\
Figures are the median (lowest to highest) of {rounds} rounds, each of a peer between two runs of tq. The ratio says how
many times as fast tq is. Read [what is fair and what is not](README.md#beside-its-peers) before you quote one.

{facts}

| what | peer | tq | peer | tq is faster by | durable | output captured |
|---|---|---|---|---|---|---|
""",
}
HEAD: Final = """\
# Results

Written by `make bench` (bench/run.py); [README.md](README.md) says what each line is and how to read it.
"""


def measured(names: list[str], count: int, scratch: str) -> Iterator[Row]:
    """Yield the rows of the named measures, each with a server of its own. If one fails, the rest go on."""
    for name in names:
        with_worker, measure = MEASURES[name]
        try:
            with Rig(scratch) as rig:
                rig.start_server()
                if with_worker:
                    rig.start_worker()
                yield from measure(rig, count)
        except (Exception, SystemExit) as failure:  # noqa: BLE001 - the others are not to be lost for it
            print(f"{name} failed: {failure!r}", file=sys.stderr)
            yield Row(f"`{name}`", "failed")


def facts(scratch: str, load: float) -> str:
    """Return what is needed to read the figures: versions and the machine, never its name or its paths."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return "\n".join(
        [
            f"- {time.strftime('%Y-%m-%d')}, commit {commit or 'unknown'}",
            f"- {os.cpu_count()} cores ({processor()}), {memory_gib():.0f} GiB",
            f"- Linux {platform.release().partition('-')[0]}, {filesystem(scratch)}",
            f"- load average before it began: {load:.1f}{BUSY if load > QUIET_LOAD_MAX else ''}",
            f"- Python {platform.python_version()}, {platform.python_compiler()}, loop: {interpreter_ms():.0f} ms",
            f"- {ssl.OPENSSL_VERSION}, {versions}",
        ]
    )


def interpreter_ms() -> float:
    """Return how long this build of Python takes for a million turns of a small loop: builds of one version differ."""
    return min(timeit.repeat("seen[turn & 255] = turn, turn\nturn += 1", "seen = {}; turn = 0", number=10**6)) * 1_000


def processor() -> str:
    """Return the model name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def memory_gib() -> float:
    """Return the memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def filesystem(directory: str) -> str:
    """Return the type of the file system that holds a directory."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(place, kind) for place, kind in mounts if Path(directory).resolve().is_relative_to(place)]
    return max(holding, key=lambda one: len(one[0]))[1]


def written(title: str, text: str) -> None:
    """Put a table into the results page, in the place of its older self; the other stays as it is."""
    page = RESULTS.read_text() if RESULTS.exists() else ""
    sections = dict(section.split("\n\n", 1) for section in page.split("\n## ")[1:])
    sections[title] = text
    kept = (f"## {name}\n\n{sections[name].rstrip()}\n" for name in TABLES if name in sections)
    RESULTS.write_text("\n".join([HEAD, *kept]))


def printed(lines: Iterable[tuple[str, ...]]) -> str:
    """Print lines of a table as they come, and return them all."""
    table = []
    for one in lines:
        table.append(f"| {' | '.join(one)} |")
        print(table[-1], flush=True)
    return "\n".join(table)


def main() -> None:
    """Measure, print each line as it comes, and write the page."""
    parser = argparse.ArgumentParser(description="Measure tq on this machine")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3, help="of tq and its peers")
    parser.add_argument("--only", default="", help=f"with commas between: {', '.join([*MEASURES, PEERS])}")
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="of peers; repeatable; all if not given")
    parser.add_argument("--scratch", default="/var/tmp", help="a directory on the disk to measure")
    parser.add_argument("--install", action="store_true", help="install what the peers lack: PyPI, and as root Debian")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else [*MEASURES, PEERS]
    if unknown := set(chosen) - {*MEASURES, PEERS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started ends on the way out
    scenery = Scenery(options.scratch)
    if options.install and PEERS in chosen:
        scenery.install()
    load = os.getloadavg()[0]
    own, others = TABLES
    known = facts(options.scratch, load)
    mine = [name for name in chosen if name != PEERS]
    if mine:
        table = printed(measured(mine, options.pairs, options.scratch))
        if not options.no_write and set(mine) == set(MEASURES):
            written(own, TABLES[own].format(pairs=options.pairs, facts=known) + table)
    if PEERS in chosen:
        workloads = options.workload or list(WORKLOADS)
        table = printed(beside(workloads, options.scratch, options.rounds, scenery))
        if not options.no_write and workloads == list(WORKLOADS):
            known += f"\n- {scenery.versions()}"
            written(others, TABLES[others].format(rounds=options.rounds, facts=known) + table)


if __name__ == "__main__":
    main()
