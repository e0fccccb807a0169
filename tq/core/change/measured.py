"""What a worker says that it measured of an attempt, as far as that is possible. Pure.

A worker is believed up to a bound that the server knows by itself. What exceeds it is clipped to it, and said to be
clipped: a fault of one worker's clock, or a lie, must not pass for a measurement.
"""

from typing import Final

from tq.core.model.task import Task
from tq.core.vocabulary.words import Times
from tq.limits import cpus_max, measured_slack_ms

_DRIFT: Final = 256  # a clock that is off by more than one part in so many is broken


def run_us_max(task: Task, times: Times) -> int:
    """Return how long the latest attempt of a task can have run: since it was given to its worker, and some slack.

    By whichever of the server's clocks says more. The wall clock may have gone back meanwhile, and the steady one does
    not count while the machine is off. When an attempt was given is known by the wall; the steady clock knows when it
    was heard to have started, which is later by as much as the wall says.
    """
    since_ms = times.wall_ms - task.leased_ms
    if task.started_ms:
        heard_ms = max(task.started_ms - task.leased_ms, 0)
        since_ms = max(since_ms, times.steady_ms - task.since_ms + heard_ms)
    since_ms = max(since_ms, 0)
    return (since_ms + since_ms // _DRIFT + measured_slack_ms) * 1_000


def clip_run_us(run_us: int, most_us: int) -> int:
    """Return a run time that is possible: 0 stays: it never ran. What is below 0 ran, and becomes the least."""
    return max(min(run_us, most_us), 1) if run_us else 0


def cpu_us_max(run_us: int) -> int:
    """Return how much CPU time can have been used in a run time, on the largest machine; its clock is coarse."""
    return run_us * cpus_max + measured_slack_ms * 1_000
