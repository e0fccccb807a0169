"""Tick: do what is due. The core has no clock of its own; the times come in with the command.

A tick does a bounded number of timers, and one slice of one sweep; what is left is due at once again.
"""

from tq.core import tables
from tq.core.engine.act import continue_sweep
from tq.core.engine.forget import expire_keys
from tq.core.engine.step import Step, TaskKey
from tq.core.engine.upload import expire_uploads
from tq.core.engine.verbs import VERBS
from tq.core.task import State, Trigger
from tq.core.timers import STEADY, SWEEPS, TimerKind

DUE_PER_TICK = 100


def tick(step: Step) -> None:
    """Do what is due by now, oldest first."""
    due_ms = step.times.steady_ms + 1
    rows = step.overlay.scan(tables.TIMER, (STEADY,), (STEADY, due_ms), DUE_PER_TICK)
    swept = False  # an older release has put sweeps among the others
    for key, _ in (*rows, *step.overlay.scan(tables.TIMER, (SWEEPS,), (SWEEPS, due_ms), 1)):
        if key[2] == TimerKind.SWEEP and swept:
            continue  # in a step of its own: it must see what the one before has made of their jobs
        swept = swept or key[2] == TimerKind.SWEEP
        step.overlay.delete(tables.TIMER, key)
        if key[2] == TimerKind.RETRY:
            _retry(step, (key[3], key[4], key[5]))
        elif key[2] == TimerKind.SWEEP:
            continue_sweep(step, key[3], VERBS)
        elif key[2] == TimerKind.UPLOADS:
            expire_uploads(step)
        elif key[2] == TimerKind.KEYS:
            expire_keys(step)


def _retry(step: Step, key: TaskKey) -> None:
    """Put a member that failed back into the queue: it has waited long enough."""
    task = step.task(key)
    if task is not None and task.state is State.RETRYING:
        step.move(key, task, Trigger.OPEN)
