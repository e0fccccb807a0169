"""Tick: do what is due. The core has no clock of its own; the times come in with the command.

A tick does a bounded number of timers, and one slice of one sweep; what is left is due at once again.
"""

from collections.abc import Collection, Iterable

from tq.core.bulk import act, sweeps
from tq.core.bulk.verbs import VERBS
from tq.core.change.forget import expire_keys
from tq.core.change.step import Step, wait_until
from tq.core.change.upload import expire_uploads
from tq.core.model import tables
from tq.core.model.task import State, TaskKey, Trigger
from tq.core.model.timers import STEADY, SWEEPS, TimerKind
from tq.core.model.view import Key, Row
from tq.limits import put_off_ms

DUE_PER_TICK = 100


def due(step: Step, resting: Collection[Key] = ()) -> list[Key]:
    """Return the timers to be done by this tick, oldest first; those that rest are passed over."""
    due_ms = step.times.steady_ms + 1
    keys: list[Key] = []
    rows: list[Row] = []
    for of, most in ((STEADY, DUE_PER_TICK), (SWEEPS, 1)):
        low = (of, step.live.timer_floors[of])
        rows += step.overlay.scan(tables.TIMER, low, (of, due_ms), most + len(resting))
    swept = False  # an older release has put sweeps among the others
    for key, _ in rows:
        is_sweep = key[2] == TimerKind.SWEEP
        if key in resting or (is_sweep and swept):
            continue  # a sweep is in a step of its own: it must see what the one before has made of their jobs
        swept = swept or is_sweep
        keys.append(key)
    return keys


def tick(step: Step, keys: Iterable[Key]) -> None:
    """Do what these timers are for."""
    kinds = set[int]()
    for key in keys:
        step.overlay.delete(tables.TIMER, key)
        kinds.add(key[2])
        if key[2] == TimerKind.RETRY:
            _retry(step, (key[3], key[4], key[5]))
        elif key[2] == TimerKind.SWEEP:
            act.continue_sweep(step, key[3], VERBS)
    if TimerKind.UPLOADS in kinds:  # once for however many: it is about all that are due
        expire_uploads(step)
    if TimerKind.KEYS in kinds:
        expire_keys(step)


def narrow(step: Step, keys: Iterable[Key], at: Key) -> None:
    """These timers failed where the step stood: what of a sweep is about other jobs goes on without them."""
    for key in keys:
        if key[2] == TimerKind.SWEEP:
            sweeps.narrow(step, key[3], at)


def delay(step: Step, keys: Iterable[Key]) -> None:
    """These timers failed, as so many do that nobody could remember them: let them be due again after a long rest.

    That is a step back from leaving the store as it is; but one damaged row may be about a million members.
    """
    due_ms = step.times.steady_ms + put_off_ms[1]
    for key in keys:
        member = (key[3], key[4], key[5])
        task = step.task(member) if key[2] == TimerKind.RETRY else None
        if task is not None:
            wait_until(step, member, task, due_ms)
        else:
            step.overlay.delete(tables.TIMER, key)
            step.overlay.put(tables.TIMER, (key[0], due_ms, *key[2:]), True)


def _retry(step: Step, key: TaskKey) -> None:
    """Put a member that failed back into the queue: it has waited long enough."""
    task = step.task(key)
    if task is not None and task.state is State.RETRYING:
        step.move(key, task, Trigger.OPEN)
