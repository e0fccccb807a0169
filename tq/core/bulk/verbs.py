"""What each verb on jobs and members does: cancel, hold, release, requeue, retry, set priority, forget."""

from typing import Final

from tq.core.bulk.progress import Acting, Rows, Verb
from tq.core.bulk.sweeps import awaits, began
from tq.core.change.forget import begin_forgetting, forget_dead_letter, forget_job
from tq.core.change.step import Step, came_back, history_with_last
from tq.core.change.stop import cancel_task, held_of, recall_assigned, stop_task
from tq.core.model import tables
from tq.core.model.entries import EntryReader
from tq.core.model.job import JobKey, Progress
from tq.core.model.task import Cause, Phase, State, Task, TaskKey, Trigger, is_legal
from tq.core.vocabulary import Cancel, Forget, Hold, Purge, Release, Requeue, Retry, SetPriority, SetThrottle
from tq.limits import priority_max

_BY_INDEX: Final = 1 << 31  # no member is at or behind this position
_BEHIND_ALL: Final = 2 * _BY_INDEX


def _touched(progress: Progress, first: int, last: int) -> int:
    """Count the members with a record in the states from `first` to before `last`."""
    found = sum(progress.counts[first:last])
    return found - progress.untouched if first <= progress.first < last else found


def _begin_cancel(acting: Acting, key: JobKey) -> bool:
    progress = acting.step.progress(key)
    acting.tally.unchanged += sum(progress.counts[State.SUCCEEDED :])
    if acting.is_whole:
        progress.cancelled_sweep = acting.step.meta().next_sweep
    if progress.untouched and not progress.first.is_terminal and acting.means(key, None):
        acting.tally.done += acting.step.move_untouched(key, Trigger.CANCEL)
    if not _touched(progress, 0, State.SUCCEEDED):
        progress.cancelling = False  # what an earlier cancel was about has ended by itself
        return False
    progress.cancelling = progress.cancelling or acting.is_whole  # an earlier cancel may be about more than this one
    return True


def _cancel_member(acting: Acting, key: TaskKey, task: Task | None) -> None:
    step = acting.step
    if task is not None:
        cancel_task(step, key, task, acting.tally)
    elif step.progress(key[:2]).first.is_terminal:
        acting.tally.unchanged += 1
    else:
        step.move(key, None, Trigger.CANCEL, ended_ms=step.times.wall_ms, cause=Cause.CANCELLED)
        acting.tally.done += 1


def _end_cancel(acting: Acting, key: JobKey) -> None:
    if acting.is_whole:
        acting.step.progress(key).cancelling = False


def _begin_hold(acting: Acting, key: JobKey) -> bool:
    progress = acting.step.progress(key)
    if progress.is_ended or (progress.hold and not awaits(acting, key, Release)):
        acting.tally.leave("was held already" if progress.hold else "had ended already")
        return False
    _hold(acting, progress, on=True)
    if progress.first is State.QUEUED and progress.untouched:
        acting.step.move_untouched(key, Trigger.HOLD)
    recall_assigned(acting.step, held_of(acting.step, key))
    acting.tally.done += 1
    return False


def _begin_release(acting: Acting, key: JobKey) -> bool:
    progress = acting.step.progress(key)
    if not progress.hold and not awaits(acting, key, Hold):
        acting.tally.leave("was not held")
        return False
    _hold(acting, progress, on=False)
    if progress.first is State.HELD:
        acting.step.move_untouched(key, Trigger.OPEN)
    acting.tally.done += 1
    return False


def _hold(acting: Acting, progress: Progress, *, on: bool) -> None:
    """Set the hold of a job; what an older command has still to do about that is over."""
    progress.hold = on
    progress.held_sweep = began(acting)


def _begin_requeue(acting: Acting, key: JobKey) -> bool:
    running = acting.step.progress(key).counts[State.RUNNING]
    if not running:
        acting.tally.leave("does not run")
    return running > 0


def _requeue_member(acting: Acting, key: TaskKey, task: Task | None) -> None:
    if task is None or task.state is not State.RUNNING or task.phase is Phase.STOPPING:
        acting.tally.leave("does not run")
        return
    stop_task(acting.step, key, task, Cause.REQUEUE, acting.tally)


def _begin_retry(acting: Acting, key: JobKey) -> bool:
    progress = acting.step.progress(key)
    if progress.cancelling or awaits(acting, key, Cancel):
        acting.tally.leave("is being cancelled")
        return False
    trigger, moved = _retry_trigger(acting, progress.first), 0
    if trigger is not None and progress.untouched and acting.means(key, None):
        moved = acting.step.move_untouched(key, trigger)
    acting.tally.done += moved
    has_ended = _touched(progress, State.SUCCEEDED, len(State)) > 0
    if not has_ended and not moved:
        acting.tally.leave("has not ended")
    return has_ended


def _retry_member(acting: Acting, key: TaskKey, task: Task | None) -> None:
    if acting.step.progress(key[:2]).cancelling or awaits(acting, key[:2], Cancel):
        acting.tally.leave("is being cancelled")
        return
    state = task.state if task else acting.step.progress(key[:2]).first
    trigger = _retry_trigger(acting, state)
    if trigger is None:
        acting.tally.leave("did not fail; --force runs it again" if state is State.SUCCEEDED else "has not ended")
        return
    if not _has_entry(acting, key):
        acting.tally.leave("has lost its input; submit it anew")
        return
    acting.step.move(
        key,
        task,
        trigger,
        round=(task.round if task else 1) + 1,
        failures=0,
        losses=0,
        charged=False,
        purged=False,
        phase=Phase.NONE,
        cause=Cause.NONE,
        history=history_with_last(task),
    )
    acting.tally.done += 1


def _has_entry(acting: Acting, key: TaskKey) -> bool:
    """Whether a member has the input that it was submitted with: a salvage may not have found it."""
    step, job = acting.step, acting.step.job(key[:2])
    if not job.has_lost_entries:
        return True
    step.entries = step.entries or EntryReader(step.overlay)
    try:
        step.entries.entry(job.entries, key[2])
    except KeyError:
        return False
    return True


def _retry_trigger(acting: Acting, state: State) -> Trigger | None:
    if is_legal(state, Trigger.RETRY):
        return Trigger.RETRY
    forced = isinstance(acting.command, Retry) and acting.command.force
    return Trigger.FORCE_RETRY if forced and is_legal(state, Trigger.FORCE_RETRY) else None


def _begin_purge(acting: Acting, key: JobKey) -> bool:
    letters = acting.step.progress(key).dead_letters
    if not letters:
        acting.tally.leave("has no dead letters")
    return letters > 0


def _purge_member(acting: Acting, key: TaskKey, task: Task | None) -> None:
    if task is None or task.state is not State.DEAD or task.purged or acting.is_late(task.since_ms):
        acting.tally.leave("is not a dead letter")
        return
    acting.step.purge(key, task)
    acting.tally.done += 1


def _begin_priority(acting: Acting, key: JobKey) -> bool:
    if not isinstance(acting.command, SetPriority):
        raise TypeError(acting.command)
    progress = acting.step.progress(key)
    if progress.is_ended:
        acting.tally.leave("had ended already")
        return False
    progress.ranked_sweep = began(acting)
    acting.step.set_rank(key, priority_max - acting.command.priority)
    acting.tally.done += 1
    return False


def _begin_throttle(acting: Acting, key: JobKey) -> bool:
    """Bound an array anew. What runs goes on, also above the bound; what has not started comes back."""
    if not isinstance(acting.command, SetThrottle):
        raise TypeError(acting.command)
    progress = acting.step.progress(key)
    if progress.is_ended or progress.size == 1:
        acting.tally.leave("had ended already" if progress.is_ended else "is one task")
        return False
    progress.throttle, progress.throttled_sweep = acting.command.throttle, began(acting)
    if 0 < progress.throttle < progress.counts[State.RUNNING]:
        recall_assigned(acting.step, held_of(acting.step, key))
    acting.tally.done += 1
    return False


def _begin_forget(acting: Acting, key: JobKey) -> bool:
    progress = acting.step.progress(key)
    if not progress.is_ended or acting.is_late(progress.ended_steady_ms):
        acting.tally.leave("has not ended; cancel it first")
        return False
    if not progress.dead_letters:
        _end_forget(acting, key)
        return False
    begin_forgetting(acting.step, key)
    return True


def _forget_member(acting: Acting, key: TaskKey, task: Task | None) -> None:
    if task is not None:
        forget_dead_letter(acting.step, key, task)


def _end_forget(acting: Acting, key: JobKey) -> None:
    forget_job(acting.step, key)
    acting.tally.done += 1


def _nothing(_acting: Acting, _key: JobKey) -> None:
    return


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


VERBS: Final[dict[type, Verb]] = {
    Cancel: Verb(_begin_cancel, find_alive, _cancel_member, _end_cancel, has_members=True),
    Hold: Verb(_begin_hold, find_records, None, _nothing),
    Release: Verb(_begin_release, find_records, None, _nothing),
    Requeue: Verb(_begin_requeue, find_running, _requeue_member, _nothing, has_members=True),
    Retry: Verb(_begin_retry, find_records, _retry_member, _nothing, has_members=True),
    SetThrottle: Verb(_begin_throttle, find_records, None, _nothing),
    SetPriority: Verb(_begin_priority, find_records, None, _nothing),
    Purge: Verb(_begin_purge, find_records, _purge_member, _nothing, has_members=True),
    Forget: Verb(_begin_forget, find_records, _forget_member, _end_forget),
}
