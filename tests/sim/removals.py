"""What a purge or a forget takes, written down once more: only what had ended when somebody said so.

Such a command may be a sweep that comes to a job long after; what was retried meanwhile and ends again, or ends for the
first time, nobody has meant.
"""

from collections.abc import Mapping
from typing import Any, Final

from tests.sim.ledger import Ledger
from tq.core import tables
from tq.core.vocabulary import Forget, Purge

WHOLE: Final = -1  # in the place of a member: the job itself


class Removals:
    """What may be removed, by the attempt or the time with which it had ended; a crash takes none of it back."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._letters: dict[tuple[int, int], int] = {}
        self._jobs: dict[int, int] = {}

    def given(self, command: object, subjects: Mapping[tuple[int, int], Any]) -> None:
        """Note what a command may remove, as that stands when it is given."""
        for (job, member), seen in subjects.items():
            if isinstance(command, Purge) and seen.is_letter:
                self._letters[job, member] = seen.task.attempt
            elif isinstance(command, Forget) and member == WHOLE and seen.progress.is_ended:
                self._jobs[job] = seen.progress.ended_steady_ms

    def retained(self, job: int, ended_ms: int) -> None:
        """The janitor removes a job that ended then."""
        self._jobs[job] = ended_ms

    def check(self, changes: Mapping[Any, Any]) -> None:
        """Look at what a turn has removed, before the ledger takes it over."""
        ledger = self._ledger
        for key, task in changes.get(tables.TASK, {}).items():
            was = ledger.tasks.get(key)
            is_new = task is not None and task.purged and (was is None or not was.purged or was.round != task.round)
            if is_new and self._letters.get((key[0], key[2])) != task.attempt:
                raise ledger.world.violated(f"{key} was purged, which died after that was asked for: {task}")
        for key, progress in changes.get(tables.PROGRESS, {}).items():
            before = ledger.progress.get(key)
            if before is None or before.forgetting or not before.is_ended:
                continue
            if (progress is None or progress.forgetting) and self._jobs.get(key[0]) != before.ended_steady_ms:
                raise ledger.world.violated(
                    f"job {key[0]} was forgotten, which ended after that was asked for: {before}"
                )
