"""What must always hold of a store: everything derived is derived anew from the records and compared.

Run by tests and the simulator after each step, and by `tq store check` on real stores: it reads page by page and keeps
only counts. It says what is wrong in sentences; it mends nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from operator import add
from typing import Any, Final

from tq.core.model import tables
from tq.core.model.job import Job, JobKey, Lane, Progress
from tq.core.model.retry import lane_of
from tq.core.model.task import STATES, Phase, State, Task, TaskKey
from tq.core.model.timers import TimerKind, retry_timer
from tq.core.model.view import Table, View, pages
from tq.core.placement.fit import could_fit, places
from tq.core.placement.live import FLOORED, Live
from tq.core.read.job_index import listed_of, number_of, rows_from, rows_of

_NONE: Final = [0] * STATES


def check(view: View, live: Live | None = None, *, findings_max: int = 100) -> list[str]:
    """Return what is wrong, at most `findings_max` findings; an empty list is a clean store."""
    findings: list[str] = []
    for finding in _findings(view, live):
        findings.append(finding)
        if len(findings) >= findings_max:
            break
    return findings


def _findings(view: View, live: Live | None) -> Iterator[str]:
    lanes: dict[int, Lane] = {number: lane for (number,), lane in _rows(view, tables.LANE)}
    counts: dict[int, list[int]] = {}  # by lane
    ready: Counter[int] = Counter()
    index_rows: Counter[str] = Counter()
    named_from = rows_from(view.get(tables.META, ()))
    jobs, tasks = _beside(view, tables.JOB), _beside(view, tables.TASK)
    for key, progress in _rows(view, tables.PROGRESS):
        for _, job in jobs(key):
            yield from _check_job(view, key, job, progress, tasks(key), lanes, index_rows)
            if key[0] >= named_from:
                yield from _check_rows(view, key[0], job, progress, index_rows)
            break
        else:
            yield f"{_named(key)} has progress and no record"
        counts[progress.lane] = list(map(add, counts.get(progress.lane, _NONE), progress.counts))
        for lane in progress.lanes:
            ready[lane] += progress.is_ready_in(lane)
    yield from _check_lanes(view, lanes, counts, ready)
    yield from _check_index_sizes(view, index_rows, named_from)
    yield from _check_keys(view)
    if live is not None:
        yield from _check_live(view, live)


def _rows(view: View, table: Table[Any]) -> Iterator[tuple[Any, Any]]:
    for page in pages(view, table):
        yield from page


def _beside(view: View, table: Table[Any]) -> Callable[[JobKey], Iterator[tuple[Any, Any]]]:
    """Return what yields the rows of one job after the other, asked in order: the table is read once, page by page.

    To look each up by itself costs a seek a job, several times as much.
    """
    rows = _rows(view, table)
    row = next(rows, None)

    def beside(key: JobKey) -> Iterator[tuple[Any, Any]]:
        nonlocal row
        while row is not None and row[0][:2] <= key:
            found, row = row, next(rows, None)
            if found[0][:2] == key:
                yield found

    return beside


def _named(key: JobKey) -> str:
    return f"job {key[0]}.{key[1]}" if key[1] else f"job {key[0]}"


def _check_job(
    view: View,
    key: JobKey,
    job: Job,
    progress: Progress,
    tasks: Iterator[tuple[Any, Task]],
    lanes: dict[int, Lane],
    index_rows: Counter[str],
) -> Iterator[str]:
    """Check I15 (counts), I3 (attempts), and the index entries of one job's members."""
    name = _named(key)
    counts = [0] * STATES
    records = ahead = purged = 0
    again: dict[int, int] = {}
    for task_key, task in tasks:
        records += 1
        counts[task.state] += 1
        ahead += task_key[2] >= progress.cursor
        if task.state is State.QUEUED:
            lane = lane_of(task_key, task, progress, lambda _: job)
            again[lane] = again.get(lane, 0) + 1
        purged += task.state is State.DEAD and task.purged
        yield from _check_task(view, task_key, task, progress, job, index_rows)
        if job.crash_limit and task.losses > job.crash_limit:
            yield f"{name} member {task_key[2]} has {task.losses} losses, over its crash limit (I6)"
        if task.failures > job.retries + 1:
            yield f"{name} member {task_key[2]} has {task.failures} failures, over its {job.retries} retries (I6)"
    counts[progress.first] += progress.size - records
    if counts != progress.counts:
        yield f"{name} counts {progress.counts}, and has {counts} (I15)"
    said = (progress.untouched, progress.ahead, progress.purged, *map(progress.again_in, progress.lanes))
    found = (progress.size - records, ahead, purged, *(again.get(lane, 0) for lane in progress.lanes))
    if found != said:
        yield f"{name} says untouched, ahead, purged, again {said}, has {found}"
    if progress.cursor > progress.size or (progress.untouched and progress.cursor + progress.ahead > progress.size):
        yield f"{name} has its cursor at {progress.cursor} of {progress.size}"
    for lane in progress.lanes:
        record = lanes.get(lane)
        if record is not None and (record.queue, record.demand) != (job.queue, job.demand):
            yield f"{name} is in lane {lane}, which is that of queue {record.queue}"
        ready = progress.is_ready_in(lane)
        if ready is not progress.is_startable(lane):
            yield f"{name} is {'' if ready else 'not '}marked ready in lane {lane} against its counts"
        if ready and not view.get(tables.READY, (lane, progress.rank, *key)):
            yield f"{name} is ready and has no READY entry in lane {lane}"
        index_rows["ready"] += ready
    if progress.is_ended is not (progress.ended_ms > 0):
        yield f"{name} has ended_ms {progress.ended_ms} against its counts"
    if progress.ended_ms and not progress.kept and not view.get(tables.ENDED, (progress.ended_place, key[0])):
        yield f"{name} has ended and has no ENDED entry"
    index_rows["ended"] += progress.ended_ms > 0 and not progress.kept


def _check_task(
    view: View, key: TaskKey, task: Task, progress: Progress, job: Job, index_rows: Counter[str]
) -> Iterator[str]:
    """Check that the one index entry of a member's state is there (that there is no other, sizes show)."""
    name = f"task {key[0]} member {key[2]}"
    lane = lane_of(key, task, progress, lambda _: job)
    if task.state is State.RUNNING:
        index_rows["running"] += 1
        if view.get(tables.RUNNING, (task.worker, *key)) != lane:
            yield f"{name} is running and has no RUNNING entry with its lane"
        if task.phase not in (Phase.ASSIGNED, Phase.STARTED, Phase.STOPPING) or not task.attempt or not task.lease:
            yield f"{name} is running in phase {task.phase.word}, attempt {task.attempt}, lease {task.lease}"
    elif task.state is State.QUEUED:
        index_rows["again"] += 1
        if not view.get(tables.AGAIN, (*key[:2], lane, task.since_ms, key[2])):
            yield f"{name} came back and has no AGAIN entry"
        if lane == progress.lane and (task.since_ms, key[2]) < (progress.floor_since_ms, progress.floor_member):
            yield f"{name} came back and stands below its job's floor: it would never start"
    elif task.state is State.RETRYING:
        index_rows["retries"] += 1
        if view.get(tables.TIMER, retry_timer(key, task)) is None:
            yield f"{name} waits for its next attempt and has no timer"
    elif task.state is State.DEAD and not task.purged:
        is_there = view.get(tables.DEAD, (task.ended_ms, *key)) is not None
        index_rows["dead"] += is_there
        if not is_there and not progress.forgetting:
            yield f"{name} is dead and not in the dead letter queue"
    if task.state.is_terminal and task.phase in (Phase.ASSIGNED, Phase.STARTED, Phase.STOPPING):
        yield f"{name} has ended in phase {task.phase.word}"


def _check_lanes(
    view: View, lanes: dict[int, Lane], counts: dict[int, list[int]], ready: Counter[int]
) -> Iterator[str]:
    for number, lane in lanes.items():
        expected = counts.pop(number, _NONE)
        if lane.counts != expected:
            yield f"lane {number} counts {lane.counts}, its jobs have {expected} (I15)"
        if lane.ready != ready[number]:
            yield f"lane {number} counts {lane.ready} ready jobs, has {ready[number]}"
        floor = (number, lane.floor_rank, lane.floor_job, lane.floor_part)
        below = view.scan(tables.READY, (number,), floor, 1)
        if below:
            yield f"lane {number} has {below[0][0]} below its floor {floor}: it would never start"
    for number in counts:
        yield f"lane {number} has jobs and no record"


def _check_rows(view: View, number: int, job: Job, progress: Progress, index_rows: Counter[str]) -> Iterator[str]:
    """Check that a job is found by its words and states (that nothing else is, sizes show)."""
    if progress.listed != listed_of(progress):
        yield f"job {number} is listed by states {progress.listed:b}, its counts want {listed_of(progress):b}"
    for row in rows_of(number, job, progress.listed):
        index_rows["named"] += 1
        if view.get(tables.NAMED, row) is None:
            yield f"job {number} is not found by its name, a tag, its queue or a state"


def _check_index_sizes(view: View, expected: Counter[str], named_from: int) -> Iterator[str]:
    indexes: tuple[Table[Any], ...] = (tables.READY, tables.RUNNING, tables.AGAIN, tables.DEAD, tables.ENDED)
    for table in indexes:
        size = sum(map(len, pages(view, table)))
        if size != expected[table.name]:
            yield f"index {table.name} has {size} entries, the records want {expected[table.name]}"
    named = sum(number_of(key) >= named_from for key, _ in _rows(view, tables.NAMED))
    if named != expected["named"]:
        yield f"index named has {named} entries, the records want {expected['named']}"
    retries = sum(1 for page in pages(view, tables.TIMER) for key, _ in page if key[2] == TimerKind.RETRY)
    if retries != expected["retries"]:
        yield f"there are {retries} timers of retries, the records want {expected['retries']}"


def _check_keys(view: View) -> Iterator[str]:
    for (name,), key in _rows(view, tables.KEY):
        if not key.is_forgotten and view.get(tables.JOB, (key.job, 0)) is None:
            yield f"key {name!r} names job {key.job}, which is not there (I2)"


def _check_live(view: View, live: Live) -> Iterator[str]:
    """Check I8 (reservations), and that memory says what the store says."""
    held: Counter[int] = Counter()
    for (worker, *task), lane in _rows(view, tables.RUNNING):
        held[worker] += 1
        if worker not in live.workers or live.workers[worker].held.get((task[0], task[1], task[2])) != lane:
            yield f"worker {worker:x} holds {task} in the store and not in memory"
    for number, worker in live.workers.items():
        if len(worker.held) != held[number]:
            yield f"worker {number:x} holds {len(worker.held)} in memory, {held[number]} in the store"
        used = sum(load.width for load in worker.loads.values())
        if used != worker.slots_used or any(not 0 < load.width <= load.held for load in worker.loads.values()):
            yield f"worker {number:x} counts {worker.slots_used} slots used, its lanes use {used} (I8)"
        if worker.session is not None and used > max(worker.capacity.slots, len(worker.started)):
            yield f"worker {number:x} has {used} of {worker.capacity.slots} slots reserved (I8)"
    for clock, floor in live.timer_floors.items():
        below = view.scan(tables.TIMER, (clock,), (clock, floor), 1)
        if below:
            yield f"the timer {below[0][0]} stands below its floor {floor}: it would never be done"
    for table in FLOORED:
        below = view.scan(table, (0,), (live.floors[table.name],), 1)
        if below:
            yield f"{table.name} has {below[0][0]} below its floor {live.floors[table.name]}: it would never be found"
    for (number,), lane in _rows(view, tables.LANE):
        if lane != live.lanes.get(number):
            yield f"lane {number} differs between store and memory"


def idle_room(view: View, live: Live, steady_ms: int) -> list[str]:
    """Return where a worker has room beside ready work that fits: nothing, right after a Dispatch that was not cut.

    Where something waits to run alone, one worker is kept empty for it: which one is not looked at.
    """
    found = []
    kept = sum(lane.ready > 0 for lane in live.lanes.values() if lane.alone)
    for number, lane in live.lanes.items():
        if not view.scan(tables.READY, (number,), (number + 1,), 1):
            continue
        fitting = [worker for worker in live.workers.values() if could_fit(worker, lane.queue, lane.demand)]
        free = [worker for worker in fitting if worker.slots_used < worker.capacity.slots]
        if (
            len(free) > (0 if lane.alone else kept)
            and next(places(live, number, free, steady_ms, {}), None) is not None
        ):
            found.append(f"lane {number} is ready, and worker {free[0].worker:x} has a free slot")
    return found
