"""Of two words about the same job the later one counts, written down once more.

Also where the older one is a sweep that has not come to the job yet, and whatever is killed meanwhile: once a hold is
answered nothing of the job starts before a later release, and once a cancel of all of it is, nothing does before a
later retry. A crash takes back what it takes back of the store (ledger.put).
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from tests.sim.world import Violation
from tq.core.model.job import Progress
from tq.core.vocabulary import Cancel, Hold, Release, Retry

WHOLE: Final = -1  # in the place of a member: all of the job

Put = Callable[[dict, Any, Any], None]


class Words:
    """The latest word of each kind about each job, by its place among all words."""

    def __init__(self, put: Put, violated: Callable[[str], Violation]) -> None:
        self._put = put
        self._violated = violated
        self._said = 0
        self._about: dict[tuple[type, int, int], int] = {}
        self._wide: dict[type, int] = {}  # the latest by a filter that goes on as a sweep: it may come to any job

    def say(self, command: object, subjects: Iterable[tuple[int, int]], *, is_wide: bool) -> None:
        """Note a word that was answered, and what it is about as far as it is done."""
        self._said += 1
        for job, member in subjects:
            self._put(self._about, (type(command), job, member), self._said)
        if is_wide:
            self._put(self._wide, type(command), self._said)

    def check_hold(self, job: int, before: Progress, after: Progress) -> None:
        """A job is held and released by the later word alone."""
        verb, other = (Hold, Release) if after.hold else (Release, Hold)
        if before.hold is not after.hold and self._last(verb, job) < self._about.get((other, job, WHOLE), 0):
            raise self._violated(f"job {job} was changed by a {verb.__name__}, and a later word says {other.__name__}")

    def check_start(self, job: int, member: int, what: str) -> None:
        """Nothing of a job is leased, or begins a round, for an older word than the latest cancel of all of it."""
        retried = max(self._last(Retry, job), self._about.get((Retry, job, member), 0))
        if self._about.get((Cancel, job, WHOLE), 0) > retried:
            raise self._violated(f"({job}, 0, {member}) {what} after the cancel of its job was answered")

    def _last(self, verb: type, job: int) -> int:
        return max(self._about.get((verb, job, WHOLE), 0), self._wide.get(verb, 0))
