"""Kinds of timers, and setting one. What each does when it is due stands in clock.py.

Clock 0 is the steady one, clock 1 the wall's. A timer is a key, so it survives a restart.
"""

from enum import IntEnum
from typing import Final

from tq.core import tables
from tq.core.engine.step import Step

STEADY: Final = 0
WALL: Final = 1


class TimerKind(IntEnum):
    """What is to be done when a timer is due; part of the key on disk, so numbers are never used again."""

    SWEEP = 1
    UPLOADS = 2
    KEYS = 3


def set_timer(step: Step, kind: TimerKind, due_ms: int, subject: int = 0) -> None:
    """Ask for `kind` to be done at `due_ms` of the steady clock. `subject` names what it is about (a sweep)."""
    step.overlay.put(tables.TIMER, (STEADY, due_ms, int(kind), subject, 0, 0), True)
