"""What follows when an attempt fails or is lost: the one place that decides it.

Failures and losses are counted apart (semantics.md): retries bound failures, the crash limit bounds charged losses.
"""

from tq.core.job import Job
from tq.core.task import Cause, Task, Trigger


def after_failure(_job: Job, _task: Task) -> Trigger:
    """Choose the trigger for a nack. Retries by policy are not built yet, so the first failure is the last."""
    return Trigger.GIVE_UP


def after_loss(job: Job, losses: int) -> Trigger:
    """Choose the trigger for a loss, given the charged losses of this round with it. 0 as a limit is none."""
    return Trigger.GIVE_UP if job.crash_limit and losses >= job.crash_limit else Trigger.LOSE


def is_success(cause: int, code: int) -> bool:
    """Whether an attempt that ended so has succeeded."""
    return cause == Cause.EXIT and code == 0
