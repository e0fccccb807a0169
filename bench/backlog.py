"""What a backlog of single jobs costs: filling it, the server's memory, a restart with it, and the rate beside it."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from typing import Final

from measures import HERE, Row, pairs, shown
from rig import Rig

from tq.client.drivers.blocking import Client
from tq.core import vocabulary as v

JOBS: Final = 1_000_000
BATCH: Final = 100
TIMED: Final = 3_000
LEAD: Final = 500  # ended before the clock starts
ROOM: Final = 1_500  # queued still when the clock stops


def backlog(rig: Rig, count: int) -> Iterator[Row]:
    """A million single jobs in a paused queue; then they run, in turns with jobs on an otherwise empty server."""
    what = f"{JOBS:,} single jobs queued"
    before_mib = rig.rss_mib("server")
    with rig.client() as client:
        rig.ask(client, v.SetQueue("default", paused=True))
    yield Row(f"{what}: {BATCH} submits together, durable", f"{fill(rig, JOBS):,.0f} /s")
    memory = f"{rig.rss_mib('server'):.0f} MiB (empty: {before_mib:.0f})"
    yield Row(f"{what}: the server's memory after that", memory, wanted="< 250 MB")
    for how, name in ((signal.SIGTERM, "clean stop"), (signal.SIGKILL, "kill -9")):
        rig.stop("server", how)
        yield Row(f"{what}: restart after a {name}, to the first answer", f"{rig.start_server():.2f} s", wanted="< 2 s")
    yield Row(f"{what}: the server's memory after that", f"{rig.rss_mib('server'):.0f} MiB", wanted="< 250 MB")
    with Rig(rig.scratch) as empty:
        empty.start_server()
        with rig.client() as full_client, empty.client() as empty_client:
            empty.ask(empty_client, v.SetQueue("default", paused=True))
            rig.start_worker()
            empty.start_worker()
            yield rate_beside(rig, full_client, empty, empty_client, count)
            ran = ended(rig, full_client)
    yield Row(f"{what}: the server's memory after {ran:,} of them ran", f"{rig.rss_mib('server'):.0f} MiB")


def fill(rig: Rig, count: int) -> float:
    """Submit single jobs, many together, and return how many a second."""
    load = json.loads(rig.run(sys.executable, str(HERE / "load.py"), "1", str(count), str(BATCH)))
    return float(load["rate"])


def rate_beside(rig: Rig, full_client: Client, empty: Rig, empty_client: Client, count: int) -> Row:
    """Return the rate at which single jobs end with a backlog behind them, and without."""

    def without() -> float:
        fill(empty, LEAD + TIMED + ROOM)
        return rate_of(empty, empty_client, until_empty=True)

    def beside() -> float:
        return rate_of(rig, full_client)

    without(), beside()
    floors, rates, ratios = pairs(count * 2, without, beside)
    what = f"single jobs of `true`, {JOBS:,} queued, against an empty server ({count * 2} pairs)"
    return Row(what, f"{shown(rates)} /s", f"{shown(floors)} /s", shown(ratios, 2), "at least 0.9")


def rate_of(rig: Rig, client: Client, *, until_empty: bool = False) -> float:
    """Let a paused queue run for a while, and return how many of its tasks end in a second."""
    start = ended(rig, client) + LEAD
    rig.ask(client, v.SetQueue("default", paused=False))
    begin = until(rig, client, start)
    end = until(rig, client, start + TIMED)
    if not until_empty:
        rig.ask(client, v.SetQueue("default", paused=True))
    while busy(rig, client, with_queued=until_empty):
        time.sleep(0.02)
    rig.ask(client, v.SetQueue("default", paused=True))
    return (end[1] - begin[1]) / (end[0] - begin[0])


def until(rig: Rig, client: Client, count: int) -> tuple[float, int]:
    """Wait until so many tasks have ended, and return when that was and how many it are."""
    while (now := ended(rig, client)) < count:
        time.sleep(0.02)
    return time.perf_counter(), now


def tasks(rig: Rig, client: Client) -> dict[str, int]:
    """Return the number of tasks by state."""
    counts: dict[str, int] = rig.ask(client, v.Status()).value["tasks"]
    return counts


def ended(rig: Rig, client: Client) -> int:
    """Return how many tasks have succeeded so far."""
    return tasks(rig, client)["succeeded"]


def busy(rig: Rig, client: Client, *, with_queued: bool) -> int:
    """Return how many tasks run, or still will."""
    counts = tasks(rig, client)
    return counts["running"] + (counts["queued"] if with_queued else 0)
