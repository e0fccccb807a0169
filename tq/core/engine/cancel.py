"""Cancel: whole jobs or single members.

However large a job, its untouched members are one field; those that have a record are cancelled at once as far as one
command goes, and by a sweep beyond.
"""

from tq.core import ids, tables
from tq.core.engine.step import JobKey, Step
from tq.core.engine.stop import Tally, cancel_task, send_stops
from tq.core.engine.sweep import begin_sweep
from tq.core.job import Progress
from tq.core.task import Cause, State, Trigger
from tq.core.vocabulary import Cancel, Cancelled
from tq.errors import AlreadyEnded, BadRequest, TaskNotFound, TooLarge
from tq.limits import page_items_max


def cancel(step: Step, command: Cancel) -> Cancelled:
    """Cancel all that is named. If all of it has ended already, refuse with AlreadyEnded."""
    if not command.ids:
        raise BadRequest("name what to cancel")
    if len(command.ids) > page_items_max:
        raise TooLarge(f"at most {page_items_max} ids at once (page_items_max)")
    targets = [_target(step, text) for text in dict.fromkeys(command.ids)]
    tally = Tally()
    sweeping = False
    for key, member in targets:
        if member is None:
            sweeping |= _cancel_job(step, key, tally)
        else:
            _cancel_member(step, (*key, member), tally)
    if not tally.cancelled and not tally.stopping and not sweeping:
        raise AlreadyEnded(f"{', '.join(command.ids[:5])} had ended already")
    send_stops(step, tally)
    return Cancelled(tally.cancelled, tally.stopping, tally.ended, sweeping)


def _target(step: Step, text: str) -> tuple[JobKey, int | None]:
    number, value = ids.parse(text)
    job = step.overlay.get(tables.JOB, (number, 0))
    if job is None:
        raise TaskNotFound(f"there is no job {number}")
    return (number, 0), None if value is None else ids.position(number, job, value)


def _cancel_job(step: Step, key: JobKey, tally: Tally) -> bool:
    """Cancel a job; return whether a sweep goes on with the rest."""
    progress = step.progress(key)
    tally.ended += sum(progress.counts[State.SUCCEEDED :])
    if not progress.first.is_terminal and progress.untouched:
        tally.cancelled += step.move_untouched(key, Trigger.CANCEL)
    touched = _touched_alive(progress)
    if not touched or progress.cancelling:
        return progress.cancelling
    if touched > step.bounds.slice or progress.size - progress.untouched > step.bounds.slice:
        progress.cancelling = True
        begin_sweep(step, "cancel", key)
        return True
    for task_key, task in step.overlay.scan(tables.TASK, key, (key[0], key[1] + 1), step.bounds.slice):
        if not task.state.is_terminal:
            cancel_task(step, task_key, task, tally)
    return False


def _touched_alive(progress: Progress) -> int:
    """Count the members that have a record and have not ended."""
    alive = sum(progress.counts[: State.SUCCEEDED])
    return alive if progress.first.is_terminal else alive - progress.untouched


def _cancel_member(step: Step, key: tuple[int, int, int], tally: Tally) -> None:
    task = step.task(key)
    if task is not None:
        cancel_task(step, key, task, tally)
    elif step.progress(key[:2]).first.is_terminal:
        tally.ended += 1
    else:
        step.move(key, None, Trigger.CANCEL, ended_ms=step.times.wall_ms, cause=Cause.CANCELLED)
        tally.cancelled += 1
