"""A verb at work in one command: on what, how far it may look, and what it has done.

The verbs are in verbs.py; act.py walks over jobs and members for them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tq.core.change.step import Step
from tq.core.change.stop import Tally
from tq.core.model.job import JobKey
from tq.core.model.task import State, Task, TaskKey
from tq.core.read import selection
from tq.core.vocabulary import Selected, Where

Rows = Sequence[tuple[TaskKey, Task]]


class Acting(NamedTuple):
    """One verb at work in one step."""

    step: Step
    command: Selected
    where: Where
    states: frozenset[State]
    tally: Tally
    sweep: int = 0  # the number of the (whole) sweep whose slice this is; 0: the command itself
    given_ms: int = 0  # when the command of that sweep was given

    def means(self, key: JobKey, task: Task | None) -> bool:
        """Whether a member of a job is one of those that are to be acted on."""
        return selection.is_meant(self.where, self.states, self.step.progress(key), task)

    @property
    def those(self) -> str:
        """What is to be acted on, for a person."""
        return "the dead letters that are meant" if self.where.is_letter else "those that are meant"

    @property
    def is_whole(self) -> bool:
        """Whether every member of a matching job is meant."""
        return self.states == selection.ALL and not self.looks_closer

    @property
    def looks_closer(self) -> bool:
        """Whether a member's record, and not its state alone, says if it is meant."""
        return bool(self.where.cause) or self.where.is_letter

    def is_late(self, ended_ms: int) -> bool:
        """Whether what ended at this time (steady) had not when the command was given: that is not for it to remove."""
        return 0 < self.given_ms < ended_ms

    @property
    def is_passed_by(self) -> bool:
        """Whether a member may go from one state that is meant to another behind the walk, as starts go on."""
        return self.states != selection.ALL and sum(not state.is_terminal for state in self.states) > 1

    @property
    def left(self) -> int:
        """How many rows one command may still look at; one at least, so that it gets on."""
        return max(self.step.bounds.slice - self.tally.looked, 1)


class Verb(NamedTuple):
    """What a verb does.

    `begin` does the whole-job part and says whether records must be walked; `find` returns at most so many of them from
    a member on, and where to go on (None = that was all); `member` acts on one; `end` comes when the walk is over.
    """

    begin: Callable[[Acting, JobKey], bool]
    find: Callable[[Acting, JobKey, int, int], tuple[Rows, int | None]]
    member: Callable[[Acting, TaskKey, Task | None], None] | None
    end: Callable[[Acting, JobKey], None]
    has_members: bool = False  # whether a client may name single members
