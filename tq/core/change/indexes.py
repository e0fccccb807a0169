"""The index entry of a member's state: one at most, and it follows from the record and its job alone.

`Step.move` takes the old record's entry out and puts the new one's in; nobody else calls this. Counted in Progress is
what stands in an index by lane.
"""

from tq.core.model import tables
from tq.core.model.job import Progress
from tq.core.model.retry import Jobs, lane_of
from tq.core.model.task import State, Task, TaskKey
from tq.core.model.timers import retry_timer
from tq.core.model.view import Overlay

_QUEUED, _RUNNING, _RETRYING, _DEAD = State.QUEUED, State.RUNNING, State.RETRYING, State.DEAD


def index(overlay: Overlay, key: TaskKey, task: Task, progress: Progress, jobs: Jobs) -> None:
    """Put the entry of a member's state."""
    state = task.state
    if state is _RUNNING:
        overlay.put(tables.RUNNING, (task.worker, *key), lane_of(key, task, progress, jobs))
    elif state is _QUEUED:
        lane = lane_of(key, task, progress, jobs)
        progress.count_again(lane, 1)
        overlay.put(tables.AGAIN, (*key[:2], lane, task.since_ms, key[2]), True)
    elif state is _RETRYING:
        overlay.put(tables.TIMER, retry_timer(key, task), True)
    elif state is _DEAD:
        overlay.put(tables.DEAD, (task.ended_ms, *key), True)


def unindex(overlay: Overlay, key: TaskKey, task: Task, progress: Progress, jobs: Jobs) -> None:
    """Delete the entry of a member's state."""
    state = task.state
    if state is _RUNNING:
        overlay.delete(tables.RUNNING, (task.worker, *key))
    elif state is _QUEUED:
        lane = lane_of(key, task, progress, jobs)
        progress.count_again(lane, -1)
        overlay.delete(tables.AGAIN, (*key[:2], lane, task.since_ms, key[2]))
    elif state is _RETRYING:
        overlay.delete(tables.TIMER, retry_timer(key, task))
    elif state is _DEAD and task.purged:
        progress.purged -= 1
    elif state is _DEAD:
        overlay.delete(tables.DEAD, (task.ended_ms, *key))
