"""What a program wants, as questions and answers: generators that yield a command and are sent its answer.

The clients drive them, each in its own way (drivers/asker.py with trio, drivers/sync_asker.py without): `Wait` is
answered when all is done or the time is over, a `Glance` at once. What a question raises is thrown into the flow.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from time import monotonic
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

import msgspec

from tq import limits
from tq.client.sansio import validate
from tq.client.sansio.documents import document, expect
from tq.client.sansio.requests import Asked
from tq.client.sansio.results import TaskCancelled, TaskResult
from tq.client.sansio.runs import begun, cut, other_upload, packed
from tq.core import vocabulary as v
from tq.errors import AlreadyEnded, BadRequest, TaskNotFound, TimedOut

Count = TypeVar("Count")  # `Acted`, or what is awaited for it
_T = TypeVar("_T")


class Glance(NamedTuple):
    """A `Wait` that waits for nothing: its first answer says how things stand, of as many of its ids as it holds."""

    wait: v.Wait


Asking = v.ClientCommand | Glance
Flow = Generator[Asking, v.Answer, _T]
Page = Flow[tuple[list[_T], str]]  # some of a list, and where it goes on ("" = nowhere)
Pages = Callable[[str], Page[_T]]  # that begins where an earlier one said
Document = dict[str, Any]

_PAGE_ITEMS: Final = 250
_SILENT_S: Final = 60.0
_PARTS: Final = {"force": bool, "priority": int, "throttle": int}  # of what acts


def submitting(asked: Asked) -> Flow[v.Submitted]:
    """Submit a request, behind what is uploaded for it: nothing runs before all of that is there.

    Raises BadRequest if there is no entry, and what is wrong with one of them.
    """
    request = asked.submit
    for piece in asked.pieces:
        expect(v.Uploaded, (yield piece))
    if asked.entries is not None:
        request = yield from _uploading(request, asked.entries)
    return expect(v.Submitted, (yield request))


def _uploading(request: v.Submit, entries: Iterable[bytes]) -> Flow[v.Submit]:
    digest = begun(request)
    size, before, is_there = 0, b"", False
    for run in cut(_batches(entries)):
        digest.update(packed(run))
        after = digest.digest() if run else before
        if not is_there:
            there = expect(v.Uploaded, (yield v.AddEntries(request.key, size, run, before, after)))
            is_there = bool(there.job)  # the key has made its job: the submit will tell whether it is this one
            if not is_there and (there.received < size + len(run) or _differs(there, size + len(run), after)):
                raise other_upload(request.key)
        size, before = size + len(run), after
    if not size:
        raise BadRequest("there are no items", hint="an array has at least one task")
    return msgspec.structs.replace(request, size=size, entries_key=request.key, entries_digest=before)


def _differs(there: v.Uploaded, size: int, digest: bytes) -> bool:
    return there.received == size and there.digest != digest


def _batches(entries: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the entries in batches, and an empty one where they come slowly: the server is to hear that more will."""
    batch: list[bytes] = []
    told_s = monotonic()
    for entry in entries:
        batch.append(entry)
        if len(batch) < limits.entries_items_max and monotonic() - told_s < _SILENT_S:
            continue
        is_slow = len(batch) < limits.entries_items_max
        yield batch
        if is_slow:
            yield []
        batch, told_s = [], monotonic()
    if batch:
        yield batch


# ---------------------------------------------------------------- one job or task


def waiting(job: str, timeout_s: float | None) -> Flow[None]:
    """Wait for the end of a job or task. Raises TimedOut."""
    try:
        waited = expect(v.Waited, (yield v.Wait((job,))))
    except TimedOut:
        raise late(job, timeout_s) from None
    if not waited.done:
        raise late(job, timeout_s, waited.outcomes)


def late(job: str, timeout_s: float | None, outcomes: Iterable[v.Outcome] = ()) -> TimedOut:
    """Return what is said of what has not ended in time, and what keeps it from starting, if that is known."""
    reason = "".join(f": {one.reason}" for one in outcomes if one.id == job and one.reason)
    return TimedOut(f"{job} has not ended within {timeout_s:g} s{reason}", hint="it goes on: wait again, or cancel it")


def results(job: str) -> Pages[TaskResult]:
    """Return the pages of how tasks stand: one, or those of an array in order."""

    def ask(page: str) -> Page[TaskResult]:
        answer = expect(v.Results, (yield v.GetResults(job, page)))
        return [TaskResult(result) for result in answer.items], answer.next

    return ask


def values(job: str, results: list[TaskResult]) -> Any:
    """Return what a job returned: of an array a list.

    Raises for the first task that failed; else for the first that was cancelled, which a failure may have led to.
    """
    if errors := [result.error for result in results if result.error is not None]:
        first = min(errors, key=lambda error: isinstance(error, TaskCancelled))
        if len(errors) > 1:
            more = len(errors) - 1
            first.add_note(f"{more} more of its {len(results)} tasks failed or were cancelled: see results()")
        raise first
    found = [result.value for result in results]
    return found[0] if len(results) == 1 and results[0].id == job else found


def showing(command: v.Get | v.Status) -> Flow[Document]:
    """Return a document, with the keys and values of `-o json`."""
    answer = expect(v.Document, (yield command))
    shown: Document = document(answer.value)
    return shown


def check_attempt(attempt: int) -> int:
    """Return the number of an attempt, or raise BadRequest for what is none."""
    validate.check({"attempt": attempt}, {"attempt": int})
    return attempt


# ---------------------------------------------------------------- many


class Acted(int):
    """On how many tasks or jobs a verb acted at once.

    `goes_on`: those are not all. The server goes on with the rest by itself, beyond this count; as long as it does,
    `status()["sweeps"]` tells of it.
    """

    goes_on: bool

    def __new__(cls, count: int, *, goes_on: bool = False) -> Self:
        """Make it of a count."""
        acted = super().__new__(cls, count)
        acted.goes_on = goes_on
        return acted

    def __repr__(self) -> str:
        return f"{int(self)}{', and it goes on' if self.goes_on else ''}"


def acting(kind: type[v.Selected], ids: tuple[str, ...], where: v.Where | None, **more: Any) -> Flow[Acted]:
    """Act on jobs and tasks, and return on how many at once; 0 where there was nothing to do (any more)."""
    validate.check(more, _PARTS)
    command = kind(ids, where, **more)
    try:
        answer = expect(v.Acted, (yield command))
    except AlreadyEnded:
        return Acted(0)
    return Acted(answer.done + answer.stopping, goes_on=answer.sweeping)


def where(filters: Mapping[str, Any], *, is_letter: bool = False) -> v.Where:
    """Return which jobs, or dead letters, filters mean: what is None means all. Raises BadRequest.

    An empty text or list is refused: it would mean all, too, and whoever passes one on has probably lost it.
    """
    said = {name: value for name, value in filters.items() if value is not None}
    if isinstance(said.get("state"), str):
        said["state"] = (said["state"],)
    validate.check(said, {**dict.fromkeys(said, str), "state": validate.Texts})
    if empty := [name for name, value in said.items() if not value]:
        raise BadRequest(f"the {empty[0]} to look for is empty", hint="leave it out for all")
    states = ("dead",) if is_letter else tuple(said.pop("state", ()))
    return v.Where(states=states, is_letter=is_letter, **said)


def jobs(where: v.Where) -> Pages[Document]:
    """Return the pages of the jobs that a filter means, newest first; of dead letters, oldest first."""
    if where.is_letter:
        letters = msgspec.structs.replace(where, states=(), is_letter=False)
        return listed(lambda page: v.DeadLetters(letters, _PAGE_ITEMS, page))
    filters = (where.states, where.queue, where.tag, where.name)
    return listed(lambda page: v.List("", *filters, _PAGE_ITEMS, page))


def listed(ask: Callable[[str], v.ClientCommand]) -> Pages[Document]:
    """Return the pages of what a command lists, as documents with the keys and values of `-o json`."""
    return partial(_page, ask)


def _page(ask: Callable[[str], v.ClientCommand], page: str) -> Page[Document]:
    answer = expect(v.Page, (yield ask(page)))
    return [document(item) for item in answer.items], answer.next


def every(kind: type[v.Workers | v.Queues]) -> Pages[Document]:
    """Return the pages of all that there are of a kind, by name."""
    return listed(lambda page: kind(_PAGE_ITEMS, page))


def setting(
    name: str, paused: bool | None, at_once: int | None, retries: int | None, *, new: bool = False
) -> Flow[None]:
    """Set what is not None of a queue; of one that is not there yet only with `new`."""
    said = {"name": name, "paused": paused, "at_once": at_once, "retries": retries, "new": new}
    given = {part: value for part, value in said.items() if value is not None}
    validate.check(given, {"name": str, "paused": bool, "at_once": int, "retries": int, "new": bool})
    if len(given) < 3:
        raise BadRequest(f"set what of the queue {name}?", hint="say paused, at_once or retries")
    try:
        expect(v.Done, (yield v.SetQueue(name, paused, at_once, retries, known=not new)))
    except TaskNotFound as unknown:
        hint = f"{unknown.hint}; new=True makes it"
        raise TaskNotFound(unknown.message, hint=hint) from None


def draining(worker: str, *, on: bool, deadline_s: float | None = None) -> Flow[None]:
    """Have a worker start nothing more, or again; what runs may end within `deadline_s` (None: without end)."""
    validate.check({"worker": worker}, {"worker": str})
    deadline_ms = -1
    if deadline_s is not None:
        validate.check({"deadline_s": deadline_s}, {"deadline_s": float})
        deadline_ms = validate.ms(deadline_s, "deadline_s")
    expect(v.Done, (yield v.Drain(worker, on, deadline_ms)))


class Acts(Generic[Count]):
    """What can be done to jobs and tasks. Each returns to how many it was done, 0 where there was nothing to do: so
    whatever is asked twice does no harm. Where there are many, that is how many at once (see `Acted`).
    """

    def __init__(
        self, follow: Callable[[Flow[Acted]], Count], ids: tuple[str, ...] = (), where: v.Where | None = None
    ) -> None:
        self._follow = follow
        self._ids = ids
        self._where = where

    def cancel(self) -> Count:
        """Cancel what has not ended, and return how many tasks that were. Those that run are stopped."""
        return self._act(v.Cancel)

    def hold(self) -> Count:
        """Start nothing more of these jobs until a release. What runs goes on. Returns how many jobs that were."""
        return self._act(v.Hold)

    def release(self) -> Count:
        """Let held jobs go on, and return how many that were."""
        return self._act(v.Release)

    def requeue(self) -> Count:
        """Stop what runs and put it back into the queue, and return how many tasks that were. It is no failure."""
        return self._act(v.Requeue)

    def retry(self, *, force: bool = False) -> Count:
        """Run again what failed, was cancelled or expired, in a new round with all its retries; with `force` what
        succeeded, too. Returns how many tasks that were.
        """
        return self._act(v.Retry, force=force)

    def set_priority(self, priority: int) -> Count:
        """Change the priority of jobs that have not ended: -100 (last) to 100 (first). Returns how many that were."""
        return self._act(v.SetPriority, priority=priority)

    def set_at_once(self, at_once: int) -> Count:
        """Let at most so many tasks of arrays run at once (0: no bound). What runs goes on. Returns how many jobs that
        were.
        """
        return self._act(v.SetThrottle, throttle=at_once)

    def forget(self) -> Count:
        """Remove ended jobs with their records and output, and return how many that were."""
        return self._act(v.Forget)

    def purge(self) -> Count:
        """Take tasks out of the dead letter queue, and return how many that were. They stay dead."""
        return self._act(v.Purge)

    def _act(self, kind: type[v.Selected], **more: Any) -> Count:
        return self._follow(acting(kind, self._ids, self._where, **more))
