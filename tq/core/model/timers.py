"""Kinds of timers and their keys. What each does when it is due stands in engine/clock.py.

Clock 0 is the steady one; the slices of sweeps stand in a row of their own, 2, by the steady clock, too: however many
there are, nothing that is due waits behind them. (1 is left for the wall's clock: nothing goes by that yet.) A timer
is a key, so it survives a restart; the key of a member's timer follows from its record, so that whatever moves the
member deletes it exactly.
"""

from enum import IntEnum
from typing import Final

from tq.core.model.task import Task, TaskKey

STEADY: Final = 0
SWEEPS: Final = 2


class TimerKind(IntEnum):
    """What is to be done when a timer is due; part of the key on disk, so numbers are never used again."""

    SWEEP = 1
    UPLOADS = 2
    KEYS = 3
    RETRY = 4


def timer(kind: TimerKind, due_ms: int, subject: int = 0) -> tuple[int, ...]:
    """Return the key of a timer by the steady clock. `subject` names what it is about (a sweep)."""
    return (SWEEPS if kind is TimerKind.SWEEP else STEADY, due_ms, int(kind), subject, 0, 0)


def retry_timer(key: TaskKey, task: Task) -> tuple[int, ...]:
    """Return the key of the timer at whose time a member that failed goes back to the queue."""
    return (STEADY, task.due_ms, int(TimerKind.RETRY), *key)
