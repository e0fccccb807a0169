"""What a program wants, as questions and answers: generators that yield a command and are sent its answer. Pure.

The clients drive them, each in its own way (api.py with trio, direct.py without): `Wait` is answered when all is done.
"""

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from math import inf, isnan
from typing import Any, TypeVar

import msgspec

from tq import limits
from tq.client.call import pack_entry
from tq.client.expected import expect
from tq.client.results import TaskCancelled, TaskResult
from tq.client.runs import begun, cut, other_upload, packed
from tq.core import vocabulary as v
from tq.errors import BadRequest, TimedOut

_T = TypeVar("_T")
Flow = Generator[v.ClientCommand, v.Answer, _T]


def submitting(request: v.Submit, items: Iterable[Any] | None = None) -> Flow[v.Submitted]:
    """Submit a request; `items` are plain data, one for each task of an array, and are sent first.

    Nothing runs before all are there. Raises BadRequest for an item that is no plain data, or if there is none.
    """
    if items is not None:
        request = yield from _uploading(request, items)
    return expect(v.Submitted, (yield request))


def _uploading(request: v.Submit, items: Iterable[Any]) -> Flow[v.Submit]:
    digest = begun(request)
    size, before, is_there = 0, b"", False
    for run in cut(_batches(items)):
        digest.update(packed(run))
        after = digest.digest()
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


def _batches(items: Iterable[Any]) -> Iterator[list[bytes]]:
    try:
        rest = iter(items)
    except TypeError:
        raise BadRequest(f"the items are a list, or whatever has an end, and not {repr(items)[:100]}") from None
    while batch := [pack_entry(item) for item in islice(rest, limits.entries_items_max)]:
        yield batch


def waiting(job: str) -> Flow[None]:
    """Wait for the end of a job or task."""
    expect(v.Waited, (yield v.Wait((job,))))


def check_timeout(timeout_s: Any) -> float:
    """Return how long may be waited. Raises BadRequest for what is no time."""
    if timeout_s is None:
        return inf
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or isnan(timeout_s):
        raise BadRequest(f"timeout_s cannot be {repr(timeout_s)[:100]}", hint="seconds; None for no end")
    return max(timeout_s, 0)


def timed_out(job: str, timeout_s: float | None) -> TimedOut:
    """Return what is said to who does not wait any longer."""
    return TimedOut(f"{job} has not ended within {timeout_s:g} s", hint="it goes on: wait again, or cancel it")


def page(job: str, place: str) -> Flow[tuple[list[TaskResult], str]]:
    """Return how tasks stand: one, or those of an array in order from `place` on, and where to go on ("" = nowhere)."""
    answer = expect(v.Results, (yield v.GetResults(job, place)))
    return [TaskResult(result) for result in answer.items], answer.next


def values(job: str, results: list[TaskResult]) -> Any:
    """Return what a job returned: of an array a list.

    Raises for the first task that failed; else for the first that was cancelled, which a failure may have led to.
    """
    if errors := [result.error for result in results if result.error is not None]:
        raise min(errors, key=lambda error: isinstance(error, TaskCancelled))
    found = [result.value for result in results]
    return found[0] if len(results) == 1 and results[0].id == job else found


def peek(job: str) -> Flow[str]:
    """Return the state of a job or task as it is now."""
    answer = expect(v.Document, (yield v.Get(job)))
    return str(answer.value["state"])


def cancelling(job: str) -> Flow[int]:
    """Cancel a job or task; return how many tasks that stopped, or will."""
    answer = expect(v.Acted, (yield v.Cancel((job,))))
    return answer.done + answer.stopping
