"""What has ended of that which a program waits for, told as it ends: the tasks of a job, or jobs. Pure.

Who drives it (drivers/asker.py, drivers/sync_asker.py) asks `wait` as long as there is something to wait for, and
follows `look` with each answer: it gives what has ended since. Each is told once. A job is read page by page, as its
tasks start and end: what is kept of it are the ids on a few pages, and those of tasks that run for long, however many
there are.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from tq import limits
from tq.client.sansio import dialogues, validate
from tq.client.sansio.dialogues import Flow, Glance, Page, Pages
from tq.client.sansio.documents import expect
from tq.client.sansio.results import ENDED, TaskResult
from tq.core import vocabulary as v
from tq.errors import BadRequest, TaskNotFound, TimedOut, TooLarge


class _Kept(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def lineage(self) -> int: ...


_T = TypeVar("_T")
_J = TypeVar("_J", bound=_Kept)
_READ_MAX: Final = 4  # pages that are read again and again: then the first one is left
_LEFT_MAX: Final = 1_000  # with more that are left behind, what is behind them is told when some of them have ended
_GLANCE_MAX: Final = 250
_NAMED_MAX: Final = 5


def together(jobs: Iterable[_J], kind: type[_J]) -> tuple[dict[str, _J], int]:
    """Return the jobs that a program waits for by their ids, and their store (0 where there are none).

    Raises BadRequest for what is not a list of jobs, TooLarge for too many, TaskNotFound for jobs of several stores.
    """
    given: Any = jobs
    found: dict[str, _J] = {}
    lineages: set[int] = set()
    for job in given if isinstance(given, Iterable) and not isinstance(given, str) else [given]:
        if job is given or not isinstance(job, kind):
            raise BadRequest(
                f"what is waited for are jobs, in a list, and not {validate.shown(job)}",
                hint="as `submit` returns them, or as in client.job(id)",
            )
        found[job.id] = job
        lineages.add(job.lineage)
    if len(found) > limits.wait_ids_max:
        raise TooLarge(
            f"{len(found)} jobs cannot be waited for at once; wait_ids_max is {limits.wait_ids_max}",
            hint="`map` makes one job of many tasks, and its as_completed tells of each; or wait for some at a time",
        )
    if len(lineages) > 1:
        raise TaskNotFound("these jobs are of several stores", hint="wait for those of each alone")
    return found, next(iter(lineages), 0)


def no_jobs() -> BadRequest:
    """Return what is said to who waits for one of no jobs."""
    return BadRequest("there are no jobs to wait for", hint="of an empty list none will ever end")


class Ends(Protocol[_T]):
    """Something that ends piece by piece."""

    def is_over(self) -> bool:
        """Whether all of it has been told."""
        ...

    def wait(self) -> v.Wait:
        """Return what to ask, now and after each reconnection."""
        ...

    def look(self, waited: v.Waited) -> Pages[_T]:
        """Take an answer, and return the pages of what has ended since the one before."""
        ...

    def late(self, timeout_s: float) -> TimedOut:
        """Return what is said when the rest has not ended in time."""
        ...


class _Page(NamedTuple):
    """A page that was read: which tasks are on it, which of them have not ended, and where the next one is."""

    tasks: list[str]
    runs: list[str]
    next: str | None


class TaskEnds:
    """How the tasks of a job ended. An answer says only that something has changed: the job is looked through.

    A page is read again in each look until all on it have ended, so that many ends cost one question. What runs for
    long must not be in the way of what started after it: then its page is left behind.
    """

    def __init__(self, job: str) -> None:
        self._job = job
        self._first: str | None = ""  # the first page that was not left; None behind the last one
        self._is_in_the_way = False  # the first page: many behind it have begun
        self._told: set[str] = set()  # of the pages from there on
        self._left: dict[str, None] = {}  # what runs of the pages before; for their order
        self._page: str | None = None  # in this look: the page to read
        self._read: deque[_Page] = deque()  # from the first one on
        self._unseen: deque[str] = deque()  # of what was left
        self._found: deque[str] = deque()  # of that, what has ended
        self._outcomes: tuple[v.Outcome, ...] = ()  # how it stood when that was said last

    def is_over(self) -> bool:
        """Whether each task has been told."""
        return self._first is None and not self._left

    def wait(self) -> v.Wait:
        """Return the question for the whole job, however many of its tasks are left: it costs the server least."""
        return v.Wait((self._job,))

    def look(self, waited: v.Waited) -> Pages[TaskResult]:
        """Return the pages of what has ended since the last look."""
        self._outcomes = waited.outcomes
        self._page, self._unseen = self._first, deque(self._left)
        self._is_in_the_way = False
        self._read.clear()
        self._found.clear()
        return self._step

    def late(self, timeout_s: float) -> TimedOut:
        """Return what is said when not all tasks have ended in time."""
        return dialogues.late(self._job, timeout_s, self._outcomes)

    def _step(self, _from: str) -> Page[TaskResult]:
        told: list[TaskResult] = []
        if self._found:
            told = yield from self._fetch(self._found.popleft())
        elif self._unseen:
            yield from self._glance()
        elif self._page is not None:
            told = yield from self._turn(self._page)
        goes_on = self._found or self._unseen or self._page is not None
        return told, "on" if goes_on else ""

    def _glance(self) -> Flow[None]:
        """Find out which of those that were left behind have ended."""
        some = [self._unseen.popleft() for _ in range(min(len(self._unseen), _GLANCE_MAX))]
        waited = expect(v.Waited, (yield Glance(v.Wait(tuple(some)))))
        runs = {outcome.id for outcome in waited.outcomes if outcome.ended < outcome.size}
        self._found.extend(task for task in some if task not in runs)  # also what the answer had no room for

    def _fetch(self, task: str) -> Flow[list[TaskResult]]:
        results = expect(v.Results, (yield v.GetResults(task))).items
        ended = [TaskResult(result) for result in results if result.state in ENDED]
        for result in ended:
            self._left.pop(result.id, None)
        return ended

    def _turn(self, page: str) -> Flow[list[TaskResult]]:
        """Read a page, and choose the next one: none behind tasks that have not started."""
        answer = expect(v.Results, (yield v.GetResults(self._job, page)))
        new = [result for result in answer.items if result.id not in self._told]
        ended = [TaskResult(result) for result in new if result.state in ENDED]
        self._told.update(result.id for result in ended)
        runs = [result for result in new if result.state not in ENDED]
        self._read.append(_Page([one.id for one in answer.items], [one.id for one in runs], answer.next or None))
        self._leave()
        self._page = (answer.next or None) if all(result.attempt for result in runs) else None
        if self._page is not None and len(self._read) == _READ_MAX:
            # What runs of the first one may have ended meanwhile; if it has not, and there is room, it is left now.
            self._page = None if self._is_in_the_way else self._first
            self._is_in_the_way = True
            self._read.clear()
        return ended

    def _leave(self) -> None:
        """Leave the pages of which nothing runs, and one that is in the way of others."""
        while self._read:
            page = self._read[0]
            may_go = self._is_in_the_way and len(self._left) + len(page.runs) <= _LEFT_MAX
            if page.runs and not may_go:
                return
            self._is_in_the_way = False
            self._read.popleft()
            self._told.difference_update(page.tasks)
            self._left.update(dict.fromkeys(page.runs))
            self._first = page.next


class JobEnds(Generic[_T]):
    """Which of some jobs have ended; each is told as what stands for it here."""

    def __init__(self, jobs: dict[str, _T]) -> None:
        self._jobs = jobs

    def is_over(self) -> bool:
        """Whether each job has been told."""
        return not self._jobs

    def wait(self) -> v.Wait:
        """Return the question for those that are left."""
        return v.Wait(tuple(self._jobs))

    def look(self, waited: v.Waited) -> Pages[_T]:
        """Return the jobs that have ended by an answer; nothing is to be asked for that."""
        ended = [outcome.id for outcome in waited.outcomes if outcome.ended >= outcome.size]
        told = [self._jobs.pop(job) for job in ended if job in self._jobs]

        def page(_from: str) -> Page[_T]:
            yield from ()
            return told, ""

        return page

    def late(self, timeout_s: float) -> TimedOut:
        """Return what is said when those that are left have not ended in time."""
        if len(self._jobs) == 1:
            return dialogues.late(next(iter(self._jobs)), timeout_s)
        which = ", ".join(self._jobs) if len(self._jobs) <= _NAMED_MAX else f"{len(self._jobs)} jobs"
        return TimedOut(
            f"none of {which} has ended within {timeout_s:g} s", hint="they go on: wait again, or cancel them"
        )
