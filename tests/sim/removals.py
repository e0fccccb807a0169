"""What a purge or a forget takes, written down once more: only what had ended when somebody said so.

Such a command may be a sweep that comes to a job long after; what was retried meanwhile and ends again, or ends for the
first time, nobody has meant. What ends in the same millisecond, by the times of turns, was told of to nobody before.
"""

from collections.abc import Mapping
from typing import Any, Final

from tests.sim.ledger import Ledger
from tq.core.model import tables
from tq.core.model.job import Progress
from tq.core.model.task import State, Task
from tq.core.vocabulary import Forget, Purge

WHOLE: Final = -1  # in the place of a member: the job itself


class Removals:
    """What may be removed, by the attempt or the time with which it had ended; a crash takes none of it back."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._letters: dict[tuple[int, int], int] = {}
        self._jobs: dict[int, int] = {}
        self._meant: dict[tuple[int, int], int] = {}  # when these jobs and members were meant; 0 = in this turn

    def given(self, command: object, subjects: Mapping[tuple[int, int], Any]) -> None:
        """Note what a command may remove, as that stands when it is given."""
        for (job, member), seen in subjects.items() if isinstance(command, Purge | Forget) else ():
            self._note(job, member, seen.task, seen.progress)
            self._meant[job, member] = 0

    def _note(self, job: int, member: int, task: Task | None, progress: Progress | None) -> None:
        if task is not None and task.state is State.DEAD:
            self._letters[job, member] = task.attempt
        if member == WHOLE and progress is not None and progress.is_ended:
            self._jobs[job] = progress.ended_steady_ms

    def retained(self, job: int, ended_ms: int) -> None:
        """The janitor removes a job that ended then."""
        self._jobs[job] = ended_ms

    def check(self, changes: Mapping[Any, Any]) -> None:
        """Look at what a turn has removed, before the ledger takes it over."""
        ledger = self._ledger
        tasks, progresses = changes.get(tables.TASK, {}), changes.get(tables.PROGRESS, {})
        now_ms = changes[tables.META][()].steady_ms
        self._meant = {subject: now_ms for subject, at_ms in self._meant.items() if at_ms in (0, now_ms)}
        for job, member in self._meant:
            self._note(job, member, tasks.get((job, 0, member)), progresses.get((job, 0)))
        for key, task in tasks.items():
            was = ledger.tasks.get(key)
            is_new = task is not None and task.purged and (was is None or not was.purged or was.round != task.round)
            if is_new and self._letters.get((key[0], key[2])) != task.attempt:
                raise ledger.world.violated(f"{key} was purged, which died after that was asked for: {task}")
        for key, progress in progresses.items():
            before = ledger.progress.get(key)
            if before is None or before.forgetting or not before.is_ended:
                continue
            if (progress is None or progress.forgetting) and self._jobs.get(key[0]) != before.ended_steady_ms:
                raise ledger.world.violated(
                    f"job {key[0]} was forgotten, which ended after that was asked for: {before}"
                )
