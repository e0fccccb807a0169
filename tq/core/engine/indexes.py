"""The index entry of a member's state: one at most, and it follows from the record and its job alone.

`Step.move` takes the old record's entry out and puts the new one's in; nobody else calls this. Counted in Progress is
what stands in an index by lane.
"""

from collections.abc import Callable

from tq.core import tables
from tq.core.job import Job, Progress
from tq.core.retry import runs_alone
from tq.core.task import State, Task
from tq.core.timers import retry_timer
from tq.core.view import Overlay

JobKey = tuple[int, int]
TaskKey = tuple[int, int, int]
Jobs = Callable[[JobKey], Job]


def lane_of(key: TaskKey, task: Task, progress: Progress, jobs: Jobs) -> int:
    """Return the lane in which a member stands, or from which it was leased: it follows from its losses."""
    # Most have no losses, and then nobody has to read the job.
    if task.losses and progress.lane_alone and runs_alone(jobs(key[:2]).crash_limit, task.losses):
        return progress.lane_alone
    return progress.lane


def index(overlay: Overlay, key: TaskKey, task: Task, progress: Progress, jobs: Jobs) -> None:
    """Put the entry of a member's state."""
    state = task.state
    if state is State.RUNNING:
        overlay.put(tables.RUNNING, (task.worker, *key), lane_of(key, task, progress, jobs))
    elif state is State.QUEUED:
        lane = lane_of(key, task, progress, jobs)
        progress.count_again(lane, 1)
        overlay.put(tables.AGAIN, (*key[:2], lane, task.since_ms, key[2]), True)
    elif state is State.RETRYING:
        overlay.put(tables.TIMER, retry_timer(key, task), True)
    elif state is State.DEAD:
        overlay.put(tables.DEAD, (task.ended_ms, *key), True)


def unindex(overlay: Overlay, key: TaskKey, task: Task, progress: Progress, jobs: Jobs) -> None:
    """Delete the entry of a member's state."""
    state = task.state
    if state is State.RUNNING:
        overlay.delete(tables.RUNNING, (task.worker, *key))
    elif state is State.QUEUED:
        lane = lane_of(key, task, progress, jobs)
        progress.count_again(lane, -1)
        overlay.delete(tables.AGAIN, (*key[:2], lane, task.since_ms, key[2]))
    elif state is State.RETRYING:
        overlay.delete(tables.TIMER, retry_timer(key, task))
    elif state is State.DEAD and task.purged:
        progress.purged -= 1
    elif state is State.DEAD:
        overlay.delete(tables.DEAD, (task.ended_ms, *key))
