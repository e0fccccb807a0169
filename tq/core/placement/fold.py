"""How the soft state (live.py) follows from the store: from all of it at the start, then from what commands change.

The same functions do both, one for each table. Nothing else changes what Live knows of the workers, lanes and queues.
"""

from collections.abc import Callable
from typing import Any, Final

from tq.core.model import tables
from tq.core.model.job import Lane, Queue
from tq.core.model.task import Phase, State, Task, TaskKey
from tq.core.model.view import Changes, Key, Table, View, pages
from tq.core.placement.live import (
    LIVE_COUNT,
    LIVE_DAMAGED,
    LIVE_FLOOR,
    LIVE_GRANTED,
    LIVE_RECALLED,
    LIVE_SESSION,
    LIVE_TO_RECALL,
    LIVE_TROUBLE,
    LIVE_UPLOADS,
    LIVE_WIDTH,
    Live,
    LiveWorker,
    Session,
    Trouble,
    note,
)
from tq.limits import prefetch_max, prefetch_ms, prefetch_runs_latest, prefetch_runs_min, prefetch_runs_seen

_LASTING: Final[tuple[Table[Any], ...]] = (tables.RUNNING, tables.LANE, tables.LANE_NAME, tables.QUEUE)
_STARTED, _STOPPING, _ENDED = Phase.STARTED, Phase.STOPPING, Phase.ENDED
_CANCELLED: Final = State.CANCELLED


class FoldFailed(Exception):
    """The soft state is no longer that of the store: fatal, since going on would be a guess (docs/adr/0023)."""


def live_of(view: View) -> Live:
    """Return the soft state of a store, as a start finds it: nobody is connected."""
    live = Live()
    for table in _LASTING:
        for page in pages(view, table):
            fold(live, {table: dict(page)})
    return live


def fold(live: Live, changes: Changes) -> None:
    """Take over what a finished command changed, table by table in the order of `_FOLDS`."""
    found = [_PLACES[table] for table in changes if table in _PLACES]
    found.sort()
    for place in found:
        table, take = _FOLDS[place]
        take(live, changes[table], changes)


def _queues(live: Live, rows: dict[Key, Queue | None], _: Changes) -> None:
    for (name,), queue in rows.items():
        if queue is None:
            live.queues.pop(name, None)
        else:
            live.queues[name] = queue


def _lane_names(live: Live, rows: dict[Key, int | None], _: Changes) -> None:
    for (name,), number in rows.items():
        if number is None:  # its lane is another's now, with other run times
            known = live.lane_names.pop(name)
            _forget_turns(live, known)
            live.runs.pop(known, None)
            live.depths.pop(known, None)
        else:
            live.lane_names[name] = number


def _forget_turns(live: Live, given_away: int) -> None:
    """Forget when a queue had its turn, if the lane that is given away was its last."""
    queue = live.lanes[given_away].queue
    if not any(lane.queue == queue for number, lane in live.lanes.items() if number != given_away):
        live.granted.pop(queue, None)


def _lanes(live: Live, rows: dict[Key, Lane], _: Changes) -> None:
    for (number,), lane in rows.items():
        live.lanes[number] = lane


def _timers(live: Live, rows: dict[Key, bool | None], _: Changes) -> None:
    live.timers_changed = live.timers_changed or bool(rows)


def _sessions(live: Live, rows: dict[Key, Session | None], _: Changes) -> None:
    for (number,), session in rows.items():
        if session is not None:
            live.workers.setdefault(number, LiveWorker(number)).session = session
            live.gone.pop(number, None)
        elif number in live.workers:
            worker = live.workers[number]
            if worker.session is not None:
                note(live.gone, number, worker.session)
            worker.session = None
            if not worker.held:
                del live.workers[number]


def _troubles(live: Live, rows: dict[Key, Trouble | None], _: Changes) -> None:
    for (number,), trouble in rows.items():
        if number in live.workers:
            live.workers[number].trouble = trouble


def _running(live: Live, rows: dict[Key, int | None], changes: Changes) -> None:
    """Workers hold what they were given, until it has ended."""
    records = changes.get(tables.TASK, {})
    for (number, job, part, member), lane in rows.items():
        task = (job, part, member)
        worker = live.workers.get(number)
        if lane is not None:
            if worker is None:
                worker = live.workers[number] = LiveWorker(number)
            if task not in worker.held:
                worker.hold(task, lane)
            live.jobs.setdefault((job, part), {})[member] = number
        elif worker is not None:
            _release(live, worker, task, records.get(task))


def _release(live: Live, worker: LiveWorker, task: TaskKey, record: Task | None) -> None:
    lane = worker.release(task)
    if lane is None:
        return
    members = live.jobs[task[:2]]
    if members.get(task[2]) == worker.worker:
        del members[task[2]]
        if not members:
            del live.jobs[task[:2]]
    if worker.session is None and not worker.held:
        del live.workers[worker.worker]
    if record is not None and record.phase is _ENDED and record.state is not _CANCELLED:
        _learn(live, lane, record.run_us)


def _learn(live: Live, lane: int, run_us: int) -> None:
    """Remember a run time, and settle anew how deep the lane's chains may be.

    Every 64th run is enough, or one that took as long as a whole chain should: when an array of slow tasks follows
    on one of quick ones, what stands behind each of its first is asked back.
    """
    runs = live.runs.setdefault(lane, [])
    runs.append(max(run_us, 1))
    count = len(runs)
    if count % 64 and count > 32 and (run_us < prefetch_ms * 1_000 or live.depths.get(lane, 1) <= 1):
        return
    if count > prefetch_runs_seen + 64:
        del runs[:64]
    if len(runs) >= prefetch_runs_min:
        usual_us = max(_median(runs), _median(runs[-prefetch_runs_latest:]))
        live.depths[lane] = max(1, min(prefetch_max, prefetch_ms * 1_000 // usual_us))


def _median(runs: list[int]) -> int:
    """Return the lower median; `statistics` would cost every launcher its import."""
    return sorted(runs)[(len(runs) - 1) // 2]


def _tasks(live: Live, rows: dict[TaskKey, Task], _: Changes) -> None:
    """What a record says beyond who holds it: that it runs, and that a word which was lost decides nothing any more."""
    for task, record in rows.items():
        if record.phase is _STARTED:
            worker = live.workers.get(record.worker)
            if worker is not None and task in worker.held:
                worker.started.setdefault(task, record.since_ms)
        if live.failed_words and record.phase is not _STOPPING:  # a cancel has only asked for its end
            live.failed_words.pop(task, None)
            if task[:2] not in live.jobs:
                live.failed_words.pop(task[:2], None)


def _widths(live: Live, rows: dict[Key, int], _: Changes) -> None:
    for (number, lane), width in rows.items():
        live.workers[number].widen(lane, width)


def _recalled(live: Live, rows: dict[Key, bool], _: Changes) -> None:
    for number, *task in rows:
        live.workers[number].recalled.add(tuple(task))


def _to_recall(live: Live, rows: dict[Key, list[TaskKey]], _: Changes) -> None:
    live.to_recall = rows[()]


def _granted(live: Live, rows: dict[Key, int], _: Changes) -> None:
    for (queue,), sequence in rows.items():
        live.granted[queue] = sequence


def _floors(live: Live, rows: dict[Key, int], _: Changes) -> None:
    for (name,), floor in rows.items():
        live.floors[name] = floor


def _ended_jobs(live: Live, rows: dict[Key, bool | None], _: Changes) -> None:
    """A job whose dead letters are gone takes its old place, before the floor."""
    for (ended_ms, _number), there in rows.items():
        if there and ended_ms < live.floors["ended"]:
            live.floors["ended"] = ended_ms


def _damaged(live: Live, rows: dict[Key, bool], _: Changes) -> None:
    for job in rows:
        note(live.damaged, job, None)


def _uploads(live: Live, rows: dict[Key, tuple[str, int]], _: Changes) -> None:
    live.uploads_seen = rows.get((), live.uploads_seen)


def _counts(live: Live, rows: dict[Key, int], _: Changes) -> None:
    for (name,), more in rows.items():
        live.counts[name] = live.counts.get(name, 0) + more


_Fold = Callable[[Live, Any, Changes], None]
_FOLDS: Final[tuple[tuple[Table[Any], _Fold], ...]] = (
    (tables.QUEUE, _queues),
    (tables.LANE_NAME, _lane_names),  # before the lane that it had becomes another's
    (tables.LANE, _lanes),
    (tables.TIMER, _timers),
    (LIVE_SESSION, _sessions),
    (LIVE_TROUBLE, _troubles),
    (tables.RUNNING, _running),
    (tables.TASK, _tasks),  # of those that are held
    (LIVE_WIDTH, _widths),  # of those that are held
    (LIVE_RECALLED, _recalled),
    (LIVE_TO_RECALL, _to_recall),
    (LIVE_GRANTED, _granted),
    (LIVE_FLOOR, _floors),
    (tables.ENDED, _ended_jobs),  # below the floor
    (LIVE_DAMAGED, _damaged),
    (LIVE_UPLOADS, _uploads),
    (LIVE_COUNT, _counts),
)
_PLACES: Final = {table: place for place, (table, _) in enumerate(_FOLDS)}
