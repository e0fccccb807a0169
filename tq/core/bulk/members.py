"""How the members that a verb may act on are found in one job, without a look at those that it may not."""

from typing import Final

from tq.core.bulk.progress import Acting, Rows
from tq.core.change.step import Step, came_back
from tq.core.model import tables
from tq.core.model.job import JobKey
from tq.core.model.task import State, Task, TaskKey

_BY_INDEX: Final = 1 << 31  # no member is at or behind this position
_BEHIND_ALL: Final = 2 * _BY_INDEX


def find_records(acting: Acting, key: JobKey, member: int, limit: int) -> tuple[Rows, int | None]:
    """Find all records of a job, in order."""
    found = acting.step.overlay.scan(tables.TASK, (*key, member), (key[0], key[1] + 1), limit)
    acting.tally.looked += len(found)
    rows = [((job, part, place), task) for (job, part, place), task in found]
    return rows, rows[-1][0][2] + 1 if len(rows) >= limit else None


def find_alive(acting: Acting, key: JobKey, member: int, limit: int) -> tuple[Rows, int | None]:
    """Find the records of a job that have not ended: by who holds them, then by who came back. Not by a scan of all.

    But where some wait for their next attempt, a record must be seen, or one may go from index to index behind the
    walk, by the records. What a walk began with it keeps, or it would pass some over: from `_BY_INDEX` on its places
    are those of the first way.
    """
    step = acting.step
    may_wait = State.RETRYING in acting.states and step.progress(key).counts[State.RETRYING] > 0
    if 0 < member < _BY_INDEX or (not member and (may_wait or acting.looks_closer or acting.is_passed_by)):
        rows, rest = find_records(acting, key, member, limit)
        return [row for row in rows if not row[1].state.is_terminal], rest
    running, rest = find_running(acting, key, max(member - _BY_INDEX, 0), limit)
    if rest is not None:
        return running, _BY_INDEX + rest
    back_in = State.HELD if step.progress(key).hold else State.QUEUED  # how what came back is shown
    if back_in not in acting.states or acting.looks_closer:
        return running, None  # those that came back and are not meant would be found again for ever
    back: list[TaskKey] = []
    for lane in step.progress(key).lanes:
        back += (_task_key(key, row[4]) for row, _ in came_back(step, key, lane, limit - len(running) - len(back)))
    acting.tally.looked += len(back)
    # What was acted on has left this index, so the next slice begins at its beginning again.
    rest = _BEHIND_ALL if len(running) + len(back) >= limit else None
    return [*running, *((task_key, _record(step, task_key)) for task_key in back)], rest


def find_running(acting: Acting, key: JobKey, member: int, limit: int) -> tuple[Rows, int | None]:
    """Find the records of a job that are running, in order."""
    step = acting.step
    held = sorted(place for place in step.live.jobs.get(key, ()) if place >= member)
    acting.tally.looked += len(held[:limit])
    found = ((_task_key(key, place), _record(step, _task_key(key, place))) for place in held[:limit])
    # What this very command has brought back stands among those that came back, too: the soft state is older.
    rows = [(task_key, task) for task_key, task in found if task.state is State.RUNNING]
    return rows, held[limit] if len(held) > limit else None


def _task_key(key: JobKey, member: int) -> TaskKey:
    return (*key, member)


def _record(step: Step, key: TaskKey) -> Task:
    task = step.task(key)
    if task is None:
        raise KeyError(key)
    return task
