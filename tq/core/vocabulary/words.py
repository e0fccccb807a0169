"""What all words of the core are made of, and the name of an attempt, which commands, answers and effects share."""

from typing import NamedTuple

import msgspec


class Times(NamedTuple):
    """The two clocks of a command: `steady_ms` never goes back; `wall_ms` is what the system says."""

    steady_ms: int
    wall_ms: int


class Word(msgspec.Struct, frozen=True, array_like=True):
    """Base of all words: only the options of the struct."""


class AttemptRef(Word, frozen=True, array_like=True, gc=False):
    """Names one attempt, with its fencing token. `member` is a position (from 0), never a value."""

    job: int
    part: int
    member: int
    attempt: int
    lease: int

    @property
    def task(self) -> tuple[int, int, int]:
        """The key of its task in TASK."""
        return (self.job, self.part, self.member)
