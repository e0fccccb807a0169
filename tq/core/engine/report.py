"""Reports, handbacks and losses: how an attempt leaves its worker."""

from collections.abc import Collection
from typing import Any, Final

from msgspec.structs import replace

from tq.core.bulk.act import act
from tq.core.bulk.sweeps import awaits_retry
from tq.core.bulk.verbs import VERBS
from tq.core.change.fence import current_task, is_current_session, passes_over
from tq.core.change.lanes import stand_alone
from tq.core.change.measured import clip_run_us, run_us_max
from tq.core.change.step import Step, ending, history_with
from tq.core.change.stop import is_cancelled, is_requeued
from tq.core.change.worker_backoff import note_success, note_trouble
from tq.core.model import retry, tables
from tq.core.model.task import Cause, Phase, State, Task, TaskKey, Trigger, cause_of
from tq.core.placement.live import LIVE_SESSION
from tq.core.vocabulary import Acknowledge, Cancel, End, Handback, Report, Started, TaskChanged, WorkerLost
from tq.limits import result_inline_bytes_max

_STOPPED: Final = (Cause.DRAIN, Cause.CUT_OFF)
_MAY_HAVE_RUN: Final = (*_STOPPED, Cause.LOST)
_GIVEN_BACK: Final = (*_STOPPED, Cause.REQUEUE)
_LOST, _CANCELLED = Cause.LOST, Cause.CANCELLED
_ACK: Final = Trigger.ACK


def started(step: Step, command: Started) -> None:
    """Note that attempts run. It needs no flush of its own: a lost note costs nothing."""
    if not is_current_session(step, command.worker, command.session):
        return
    note_success(step, command.worker, (ref.lease for ref in command.attempts))
    for ref in command.attempts:
        key = ref.task
        task = current_task(step, key, ref, command.worker, Phase.ASSIGNED)
        if task is not None and task.phase is Phase.ASSIGNED:
            mark_started(step, key, task)
            step.effects.append(TaskChanged(ref.job, ref.part))


def mark_started(step: Step, key: TaskKey, task: Task) -> Task:
    """Set the phase of an assigned attempt that runs."""
    return step.mark(
        key, task, phase=Phase.STARTED, started_ms=step.times.wall_ms, since_ms=step.times.steady_ms, has_run=True
    )


def report(step: Step, command: Report) -> None:
    """Accept what ended, by the fence; acknowledge the delivery whatever it held, so that it is not sent for ever."""
    if not is_current_session(step, command.worker, command.session):
        return
    note_success(step, command.worker, (end.attempt.lease for end in command.ends if end.cause != Cause.LOST))
    phase = Phase.STARTED
    for end in command.ends:
        key = end.attempt.task
        task = current_task(step, key, end.attempt, command.worker, phase)
        if task is not None:
            _end(step, key, task, end)
    step.effects.append(Acknowledge(command.worker, command.session, command.delivery))


def _end(step: Step, key: TaskKey, task: Task, end: End) -> None:
    cause = cause_of(end.cause)
    if cause is _LOST:
        lose(step, key, _after(task, end), charged=True)
    elif is_cancelled(task) or step.progress(key[:2]).cancelling:
        step.move(key, task, Trigger.CANCEL, **_ended(step, task, _CANCELLED, end))
    elif is_requeued(task) or cause in _GIVEN_BACK:
        why = Cause.REQUEUE if is_requeued(task) else cause
        began = end.run_us or task.started_ms  # else it was stopped before its start, and leaves no line
        give_back(step, key, _after(task, end), why if began else Cause.NONE, end.code)
    elif retry.is_success(cause, end.code):
        fields = _ended(step, task, cause, end)
        if end.value:
            fields |= _returned(step, key, end.value)
        step.move(key, task, _ACK, **fields)
    else:
        _fail(step, key, task, end, cause)


def _ended(step: Step, task: Task, cause: Cause, end: End) -> dict[str, Any]:
    """Return the fields of a record whose latest attempt ended as its worker says, with a run time that is possible."""
    run_us = clip_run_us(end.run_us, run_us_max(task, step.times))
    fields = ending(step, cause, end.code, run_us, end.result)
    if run_us != end.run_us:
        fields["run_clipped"] = True
    return fields


def _after(task: Task, end: End) -> Task:
    """Return the record of a task whose attempt ended so, but counts as not ended: it may have run all the same."""
    return replace(task, has_run=True) if end.run_us else task


def _fail(step: Step, key: TaskKey, task: Task, end: End, cause: Cause) -> None:
    job, failures = step.job(key[:2]), task.failures + 1
    trigger = retry.after_failure(job, failures, cause, end.code)
    fields = _ended(step, task, cause, end) | _returned(step, key, end.value)
    if trigger is Trigger.FAIL:
        fields["due_ms"] = step.times.steady_ms + retry.backoff_ms(job, key, task.attempt, failures)
    step.move(key, task, trigger, failures=failures, **fields)
    if trigger is Trigger.GIVE_UP:
        _check_fails(step, key)


def _returned(step: Step, key: TaskKey, value: bytes) -> dict[str, Any]:
    """Return the fields of a record that keep what its attempt returned; a large value goes to a table of its own."""
    if not value:
        return {}
    if len(value) <= result_inline_bytes_max:
        return {"value": value, "value_bytes": len(value)}
    step.overlay.put(tables.RESULT, key, value)
    return {"value_bytes": len(value)}


def _check_fails(step: Step, key: TaskKey) -> None:
    """A member has died: end its array early if more are dead than may be, and no retry is about to bring some back."""
    job, progress = step.job(key[:2]), step.progress(key[:2])
    has_too_many = 0 <= job.max_fails < progress.counts[State.DEAD]
    alive = sum(progress.counts[: State.SUCCEEDED])
    if has_too_many and alive and not progress.cancelling and not awaits_retry(step, key[:2]):
        act(step, VERBS[Cancel], Cancel((str(key[0]),)))


def handback(step: Step, command: Handback) -> None:
    """Take attempts back, uncharged: those that have not run, that a drain or a cut has stopped, or may have ended."""
    if not is_current_session(step, command.worker, command.session):
        return
    if command.cause == Cause.WORKER_TROUBLE:
        note_trouble(step, command)
    for ref in command.attempts:
        key = ref.task
        task = current_task(step, key, ref, command.worker, Phase.ASSIGNED)
        if task is not None:
            # What could not be started has not run: a try each minute would push all else out of a short history.
            # What was stopped, or stood in a launcher that died, may have run unheard: for less than the moment after
            # which a start is told, or while the worker was cut off.
            may_have_run = command.cause in _MAY_HAVE_RUN
            if may_have_run:
                task = replace(task, has_run=True)
            give_back(step, key, task, cause_of(command.cause) if may_have_run else Cause.NONE)
    step.effects.append(Acknowledge(command.worker, command.session, command.delivery))


def give_back(step: Step, key: TaskKey, task: Task, cause: Cause = Cause.NONE, code: int = 0) -> None:
    """Return an attempt to the queue, uncharged; a cancelled one ends. One that has run stays in the history."""
    history = task.history
    if cause is not Cause.NONE:
        history = history_with(task, cause, code, step.times.wall_ms, charged=False)
    if is_cancelled(task) or step.progress(key[:2]).cancelling:
        step.move(key, task, Trigger.CANCEL, **ending(step, _CANCELLED, 0, 0), history=history)
    else:
        step.move(key, task, Trigger.HAND_BACK, phase=Phase.NONE, charged=False, cause=Cause.NONE, history=history)


def worker_lost(step: Step, command: WorkerLost) -> None:
    """Take everything back from a worker that is gone, unless a newer session has begun.

    A session whose Join was never applied counts too: nobody watches the older one any more.
    """
    live = step.live.workers.get(command.worker)
    if live is None or live.session_number > command.session:
        step.count("superseded")
        return
    lose_worker(step, command.worker)


def lose_worker(step: Step, worker: int, spared: Collection[TaskKey] = ()) -> None:
    """Lose all attempts of a worker: those that run and the oldest assigned ones, one for each slot, are charged.

    Those that are `spared` have ended, and somebody is about to say how: their loss decides nothing.
    """
    live = step.live.workers[worker]
    # By the records: after a restart of the server the soft state knows neither who runs nor who is the oldest.
    found = ((key, step.task(key)) for key in live.held)
    held = sorted(((key, task) for key, task in found if task is not None), key=lambda pair: pair[1].lease)
    charged = {key for key, task in held if task.phase in (Phase.STARTED, Phase.STOPPING)}
    may_run = max(live.capacity.slots if live.session else live.slots_used, 1)
    for key, _ in held:
        if len(charged) >= may_run:
            break
        charged.add(key)
    for key, task in held:
        if passes_over(step, key):
            continue
        lose(step, key, task, charged=key in charged and key not in spared)
    step.overlay.delete(LIVE_SESSION, (worker,))
    step.count("workers_lost")


def lose(step: Step, key: TaskKey, task: Task, *, charged: bool) -> None:
    """Lose one running attempt: back to the queue, claimable; or the end, at the crash limit or when cancelled."""
    task = replace(task, has_run=True)  # charged or not: nobody knows
    if is_cancelled(task) or is_requeued(task) or step.progress(key[:2]).cancelling:
        give_back(step, key, task, _LOST)
        return
    losses = task.losses + charged
    job = step.job(key[:2])
    trigger = retry.after_loss(job, losses) if charged else Trigger.LOSE
    step.count("losses")
    if trigger is Trigger.LOSE:
        ended_ms = step.times.wall_ms
        if retry.runs_alone(job.crash_limit, losses):
            stand_alone(step, key[:2])
        step.move(key, task, trigger, phase=Phase.LOST, losses=losses, charged=charged, ended_ms=ended_ms)
    else:
        step.move(key, task, trigger, losses=losses, charged=True, **ending(step, Cause.LOST, 0, 0))
        _check_fails(step, key)
