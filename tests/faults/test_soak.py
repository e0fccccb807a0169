"""A steady load for as long as one likes: memory, files, disk and tombstones of server and worker stay level.

Jobs come, run and are forgotten at one pace, over connections that come and go. What is measured is sampled all the
time; the first third warms up, and over the rest a line is fitted to each series. How much that line grows, as a part
of the level, is what must be small: it says the same whatever the machine's speed.

TQ_SOAK_SECONDS sets how long (default 60), TQ_SOAK_JOBS_PER_S the pace. The store's bounds are small
(tests/support/small_server.py), so that a minute sees many full logs, compactions and expired keys; with
TQ_SOAK_BOUNDS=real they are the real ones, which wants an hour.
"""

import os
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.server.process import command, wait_for
from tests.support import processes
from tests.support.town import Town
from tq.core.vocabulary import Cancel, List, Logs, StoreStatistics, Wait

SECONDS: Final = float(os.environ.get("TQ_SOAK_SECONDS", "60"))
JOBS_PER_S: Final = float(os.environ.get("TQ_SOAK_JOBS_PER_S", "40"))
BOUNDS: Final = os.environ.get("TQ_SOAK_BOUNDS", "small")
SAMPLE_S: Final = 0.3
ARRAY: Final = 8
WARM: Final = 1 / 3  # of the samples


class Level(NamedTuple):
    """How level a series must be: growth over what is looked at, as a part of its mean, or in its own unit."""

    part_max: float
    units_max: float


# Python gives memory back by whole arenas, RocksDB compacts when it likes: what is looked for is what never ends.
LEVELS: Final = {
    "rss_kib": Level(0.05, 1_024),
    "descriptors": Level(0.05, 10),  # the store's files come and go
    "disk_bytes": Level(0.35, 512 * 1024),
    "tombstones": Level(0.35, 3_000),  # a compaction takes some thousands at once; a leak would be a multiple of that
    "rows": Level(0.35, 2_000),
}


def sample(here: Town, client: Any) -> dict[str, float]:
    """Return every figure that is looked at, as it is now."""
    worker = here.workers[0]
    found: dict[str, float] = {}
    for name, pid in {"server": here.server.process.pid, "worker": worker.pid, "launcher": worker.launcher}.items():
        found[f"{name} rss_kib"] = processes.rss_kib(pid)
        found[f"{name} descriptors"] = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    found["server disk_bytes"] = used_bytes(here.server.data)
    found["worker disk_bytes"] = used_bytes(here.place / "worker")
    families = client.ask(StoreStatistics()).value["families"].values()
    found["server tombstones"] = sum(family["tombstones"] for family in families)
    found["server rows"] = sum(family["rows_about"] for family in families)
    return found


def used_bytes(place: Path) -> int:
    """Return how many bytes lie below a directory; what goes away meanwhile is not there.

    Without the store's diary of its own doings (LOG), which is cut at 4 MiB and would take half an hour to get there.
    """
    total = 0
    for directory, _, names in os.walk(place):
        for name in names:
            if name.startswith("LOG"):
                continue
            with suppress(OSError):
                total += Path(directory, name).lstat().st_size
    return total


def growth(values: list[float]) -> float:
    """Return how much the line that fits best rises from the first value to the last."""
    return statistics.linear_regression(range(len(values)), values).slope * (len(values) - 1)


def load(client: Any, number: int) -> int:
    """Submit one job, and look at it in some way; return how many tasks it has."""
    fields: dict[str, Any] = {"key": f"soak-{time.time_ns()}", "name": f"soak-{number % 50}"}
    is_array = number % 3 == 0
    if is_array:
        fields |= {"size": ARRAY, "is_array": True}
    job = client.ask(command("echo", f"job {number}", **fields)).id
    match number % 10:
        case 1:
            list(client.subscribe(lambda: Wait((job,), "done")))
            assert list(client.subscribe(lambda: Logs(f"{job}.1" if is_array else job)))
        case 2:
            client.ask(List(limit=50))
        case 3 if is_array:
            with suppress(Exception):  # it may have ended
                client.ask(Cancel((job,)))
    return ARRAY if is_array else 1


@pytest.mark.slow
@pytest.mark.timeout(120 + 2 * SECONDS)
def test_under_a_steady_load_nothing_grows(tmp_path: Path) -> None:
    here = Town(tmp_path, "--keep", "1s", "--heartbeat", "250ms")
    if BOUNDS == "small":
        here.server.program = "tests.support.small_server"
    series: dict[str, list[float]] = {}
    jobs = tasks = 0
    try:
        here.server.start()
        here.worker(slots=2)
        begun_s = time.monotonic()
        with here.client() as watcher:
            while (now_s := time.monotonic()) < begun_s + SECONDS:
                with here.client() as client:  # a new connection for each sample's worth of jobs
                    while jobs < (now_s - begun_s + SAMPLE_S) * JOBS_PER_S:
                        tasks += load(client, jobs)
                        jobs += 1
                for name, value in sample(here, watcher).items():
                    series.setdefault(name, []).append(value)
                time.sleep(max(0.0, now_s + SAMPLE_S - time.monotonic()))
            wait_for(watcher, watcher.ask(command("true")).id)
        report(series, jobs, tasks)
        assert {name: text for name, text in map(judged, series.items()) if text} == {}
        assert jobs > SECONDS, "it was a load"
        here.check_store()
    finally:
        here.close()


def looked_at(values: list[float]) -> list[float]:
    return values[round(len(values) * WARM) :]


def judged(named: tuple[str, list[float]]) -> tuple[str, str]:
    """Return a series' name, and what is wrong with it, "" for nothing."""
    name, values = named[0], looked_at(named[1])
    level = LEVELS[name.split()[1]]
    rise, mean = growth(values), statistics.fmean(values)
    is_level = rise <= max(level.part_max * mean, level.units_max)
    return name, "" if is_level else f"grows by {rise:.0f} of {mean:.0f}: {[round(value) for value in values]}"


def report(series: dict[str, list[float]], jobs: int, tasks: int) -> None:
    print(f"{jobs} jobs, {tasks} tasks in {SECONDS:g} s, bounds {BOUNDS}, {len(next(iter(series.values())))} samples")
    for name, values in series.items():
        seen = looked_at(values)
        print(f"  {name:22} mean {statistics.fmean(seen):12.0f}  min {min(seen):12.0f}  max {max(seen):12.0f}  "
              f"growth {growth(seen):10.0f}")  # fmt: skip


def test_a_series_that_grows_is_noticed() -> None:
    rising = [100.0 + number for number in range(90)]

    assert judged(("server descriptors", rising))[1]
    assert not judged(("server descriptors", [100.0, 101.0] * 45))[1]
