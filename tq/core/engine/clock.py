"""Tick: do what is due. The core has no clock of its own; the times come in with the command.

A tick does a bounded number of timers; what is left is due at once again.
"""

from tq.core import tables
from tq.core.engine.act import continue_sweep
from tq.core.engine.forget import expire_keys
from tq.core.engine.step import Step
from tq.core.engine.timers import STEADY, TimerKind
from tq.core.engine.upload import expire_uploads
from tq.core.engine.verbs import VERBS

DUE_PER_TICK = 100


def tick(step: Step) -> None:
    """Do what is due by now, oldest first."""
    rows = step.overlay.scan(tables.TIMER, (STEADY,), (STEADY, step.times.steady_ms + 1), DUE_PER_TICK)
    for key, _ in rows:
        step.overlay.delete(tables.TIMER, key)
        if key[2] == TimerKind.SWEEP:
            continue_sweep(step, key[3], VERBS)
        elif key[2] == TimerKind.UPLOADS:
            expire_uploads(step)
        elif key[2] == TimerKind.KEYS:
            expire_keys(step)
