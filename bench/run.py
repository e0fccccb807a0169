"""Measure tq on this machine, as ratios to floors of the same run. Writes bench/RESULTS.md.

    python bench/run.py [--pairs 5] [--only submits,short,lone,cli,large] [--scratch DIRECTORY] [--no-write]

It takes some minutes; nothing else should run on the machine. Servers listen on loopback, on free ports.
"""

import argparse
import importlib.metadata
import os
import platform
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import measures
from measures import Row
from rig import Rig

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
LIBRARIES: Final = ("trio", "rocksdict", "cbor2", "msgspec", "cryptography", "typer")
MEASURES: Final[dict[str, tuple[bool, Callable[[Rig, int], Iterator[Row]]]]] = {
    "submits": (False, measures.durable_submits),
    "short": (True, measures.short_tasks),
    "lone": (True, measures.lone_task),
    "cli": (True, measures.command_line),
    "large": (True, measures.large_array),
}

HEAD: Final = """\
# Results

Written by `make bench` (bench/run.py); [README.md](README.md) says what each line is and how to read it. Figures are
the median (lowest to highest) of {pairs} pairs, each between two runs of its floor.

{facts}

| what | tq | floor | ratio | wanted |
|---|---|---|---|---|
"""


def measured(names: list[str], count: int, scratch: str) -> Iterator[Row]:
    """Yield the rows of the named measures, each with a server of its own."""
    for name in names:
        with_worker, measure = MEASURES[name]
        with Rig(scratch) as rig:
            rig.start_server()
            if with_worker:
                rig.start_worker()
            yield from measure(rig, count)


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
            f"- Linux {platform.release()}, {filesystem(scratch)}",
            f"- load average of the machine before it began: {load:.1f} (figures of a busy machine are no figures)",
            f"- Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, {versions}",
        ]
    )


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


def main() -> None:
    """Measure, print each line as it comes, and write the page."""
    parser = argparse.ArgumentParser(description="Measure tq on this machine")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", default=",".join(MEASURES), help="names of measures, with commas between")
    parser.add_argument("--scratch", default="/var/tmp", help="a directory on the disk to measure")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    load, lines = os.getloadavg()[0], []
    for row in measured(options.only.split(","), options.pairs, options.scratch):
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    if not options.no_write:
        head = HEAD.format(pairs=options.pairs, facts=facts(options.scratch, load))
        RESULTS.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
