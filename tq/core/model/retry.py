"""What follows when an attempt fails or is lost: the one place that decides it.

Failures and losses are counted apart (semantics.md): retries bound failures, the crash limit bounds charged losses. A
task whose next charged loss would reach the limit runs alone on its worker, so a loss that ends a task is its own
doing: the task that kills its workers becomes a dead letter, and what ran beside it never does.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from tq.core.model.job import Job, JobKey, Progress
from tq.core.model.task import Cause, Task, TaskKey, Trigger

TEMPORARY: Final = 75  # EX_TEMPFAIL of sysexits.h: "try again later"

# What another attempt would meet again: the command is not there, the directory is missing, nobody knows the function.
_FINAL: Final = frozenset((Cause.SPAWN_FAILED, Cause.CWD_MISSING, Cause.UNKNOWN_FUNCTION))
_DOUBLINGS_MAX: Final = 62
_EXIT: Final = Cause.EXIT

Jobs = Callable[[JobKey], Job]


def after_failure(job: Job, failures: int, cause: Cause, code: int) -> Trigger:
    """Choose the trigger for a nack, given the failures of this round with it."""
    return Trigger.FAIL if failures <= job.retries and _is_retried(job, cause, code) else Trigger.GIVE_UP


def _is_retried(job: Job, cause: Cause, code: int) -> bool:
    if code in job.no_retry_on:
        return False
    if code in job.retry_on or (code == TEMPORARY and cause is Cause.EXIT):
        return True
    return not job.retry_on and cause not in _FINAL


def after_loss(job: Job, losses: int) -> Trigger:
    """Choose the trigger for a charged loss, given the charged losses of this round with it."""
    return Trigger.GIVE_UP if job.crash_limit and losses >= job.crash_limit else Trigger.LOSE


def runs_alone(crash_limit: int, losses: int) -> bool:
    """Whether the next charged loss would be the last one. A crash limit of 0 is none."""
    return 0 < crash_limit <= losses + 1


def lane_of(key: TaskKey, task: Task, progress: Progress, jobs: Jobs) -> int:
    """Return the lane in which a member stands, or from which it was leased: it follows from its losses."""
    # Most have no losses, and then nobody has to read the job.
    if task.losses and progress.lane_alone and runs_alone(jobs(key[:2]).crash_limit, task.losses):
        return progress.lane_alone
    return progress.lane


def backoff_ms(job: Job, task: TaskKey, attempt: int, failures: int) -> int:
    """Return how long a task waits before its next attempt, after so many failures in this round.

    Exponential with full jitter (Brooker, "Exponential Backoff And Jitter", 2015): a random part of a bound that
    doubles from the first to the longest. The dice are a hash of the task and the attempt, so that a replay waits as
    long. Where first and longest are the same, that is how long it waits.
    """
    first_ms, longest_ms = job.backoff_ms
    if first_ms >= longest_ms:
        return first_ms
    bound_ms = min(first_ms << min(failures - 1, _DOUBLINGS_MAX), longest_ms)
    dice = blake2b(repr((task, attempt)).encode(), digest_size=8).digest()
    return int.from_bytes(dice, "big") % (bound_ms + 1)


def is_success(cause: int, code: int) -> bool:
    """Whether an attempt that ended so has succeeded."""
    return cause == _EXIT and code == 0
