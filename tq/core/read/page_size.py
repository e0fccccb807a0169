"""How much of a page of a list a job, a task or a dead letter takes at most: a page fits a frame, whatever they say.

In bytes as they leave the server, where a body is shown as the beginning of its command, and what was used as words
(server/sessions/present.py). Names are ASCII; a host, and the name of a function, need not be.
"""

from typing import Final

from tq.core.model.job import Job
from tq.core.model.task import Task
from tq.limits import function_chars_max

_JOB_BYTES: Final = 420  # its figures, the names of its fields, and a reason without the names in it
_TASK_BYTES: Final = 420
_ABSENT_BYTES: Final = 170  # of a member without a record
_ENDING_BYTES: Final = 150
_USAGE_BYTES: Final = 210
_COMMAND_BYTES: Final = 420
_ENTRY_BYTES: Final = 220
_FUNCTION_BYTES: Final = 4 * function_chars_max


def job_bytes(job: Job) -> int:
    """Return how much of a page a job takes at most."""
    return _JOB_BYTES + _command_bytes(job) + _names_bytes(job) + len(job.name) + sum(len(tag) + 3 for tag in job.tags)


def task_bytes(job: Job, task: Task | None) -> int:
    """Return how much of a page a task of a job takes at most."""
    entry = _ENTRY_BYTES if job.entries else 0
    if task is None:
        return _ABSENT_BYTES + _names_bytes(job) + entry
    usage = _USAGE_BYTES + len(task.result) if task.result else 0
    history = sum(_ENDING_BYTES + len(entry.host.encode()) for entry in task.history)
    return _TASK_BYTES + _names_bytes(job) + len(task.host.encode()) + usage + history + entry


def letter_bytes(job: Job, task: Task) -> int:
    """Return how much of a page a dead letter takes at most."""
    entry = _ENTRY_BYTES if job.entries else 0
    return _JOB_BYTES + _command_bytes(job) + _names_bytes(job) + len(job.name) + len(task.host.encode()) + entry


def _names_bytes(job: Job) -> int:
    """Return what the names of its queue and module take, which a reason repeats."""
    return 2 * len(job.queue) + len(job.demand.module.encode())


def _command_bytes(job: Job) -> int:
    shown = _COMMAND_BYTES + (_FUNCTION_BYTES if job.demand.module else 0)
    return min(4 * len(job.body), shown)  # a byte that is not text is shown as four
