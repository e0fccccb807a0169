"""Ids of jobs and tasks as people write them, `42` and `43.7`, and what may be a name beside them.

The grammar is `JOB[.NODE][.MEMBER]`; a node's name begins with a letter. A member is named by its *value* (the number
that an array shows), inside tq by its *position*, from 0.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from tq.core.model.job import Job
from tq.errors import BadRequest, TaskNotFound
from tq.limits import name_chars_max

DEFAULT_QUEUE: Final = "default"
NAME_HINT: Final = f"use 1 to {name_chars_max} letters, digits, '.', '_' or '-'"
LABEL_HINT: Final = f"use KEY=VALUE, or KEY: at most {name_chars_max} letters, digits, '.', '_' or '-'"
ID_LIKE_HINT: Final = "put a letter in it, as in v1.4; a date may be one"
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_LABEL: Final = re.compile(r"[A-Za-z0-9._-]+(=[A-Za-z0-9._-]+)?")
_TRACE: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MEANS_IDS: Final = re.compile(r"all|last(?:\.[0-9.-]*)?|(?!\d+(?:-\d+){2,}\Z)[0-9.-]+")
_NAMED_MAX: Final = 20  # that an error names

# A job has at most 18 digits; a member is what the array shows, up to 2^63-1.
_ID: Final = re.compile(r"([1-9][0-9]{0,17})(?:\.([A-Za-z][A-Za-z0-9_-]*))?(?:\.(0|[1-9][0-9]{0,18}))?")


class TaskId(NamedTuple):
    """A parsed id: the job's number, the value of a member or None for the whole job."""

    job: int
    value: int | None = None

    def __str__(self) -> str:
        return str(self.job) if self.value is None else f"{self.job}.{self.value}"


def parse(text: str) -> TaskId:
    """Read an id, or raise BadRequest with what an id looks like."""
    match = _ID.fullmatch(text)
    if match is None:
        shown = text if len(text) <= 40 else text[:40] + "…"
        raise BadRequest(f"{shown!r} is not an id", hint="ids look like 42, or 43.7 for a task of an array")
    job, node, value = match.groups()
    if node is not None:
        raise TaskNotFound(f"job {job} has no node {node!r}")
    return TaskId(int(job), None if value is None else int(value))


def not_found(errors: Mapping[str, TaskNotFound]) -> TaskNotFound:
    """Return the one error for some words that name nothing: the only one's own, or one that has all the words."""
    first = next(iter(errors.values()))
    if len(errors) == 1:
        return first
    more = f" and {len(errors) - _NAMED_MAX} more" if len(errors) > _NAMED_MAX else ""
    return TaskNotFound(f"not found: {', '.join(list(errors)[:_NAMED_MAX])}{more}", hint=first.hint)


def position(job_number: int, job: Job, value: int) -> int:
    """Return the position of the member that shows `value`, or raise TaskNotFound."""
    place, rest = divmod(value - job.array_first, job.array_step)
    if not job.is_array or rest or not 0 <= place < job.size:
        hint = f"tq ls {job_number}" if job.is_array else f"job {job_number} is one task: write {job_number}"
        raise TaskNotFound(f"there is no task {job_number}.{value}", hint=hint)
    return place


def worker_id(worker: int) -> str:
    """Return a worker's id as people see it: `w` and 16 hex digits."""
    return f"w{worker:016x}"


def task_id(job_number: int, job: Job, member: int) -> str:
    """Return the id of the member at a position, as people write it."""
    return f"{job_number}.{value_of(job, member)}" if job.is_array else str(job_number)


def value_of(job: Job, member: int) -> int:
    """Return what an array shows for the member at a position."""
    return job.array_first + member * job.array_step


def is_name(text: str) -> bool:
    """Whether `text` may name something."""
    return len(text) <= name_chars_max and _NAME.fullmatch(text) is not None


def is_label(text: str) -> bool:
    """Whether `text` may be a label of a worker."""
    return len(text) <= name_chars_max and _LABEL.fullmatch(text) is not None


def is_trace(text: str) -> bool:
    """Whether `text` is a W3C traceparent."""
    return _TRACE.fullmatch(text) is not None


def means_ids(text: str) -> bool:
    """Whether a name stands for ids where one may be written (`42`, `43.1-5`, `last.7`, `all`), or was meant to."""
    return _MEANS_IDS.fullmatch(text) is not None
