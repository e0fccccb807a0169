"""Cancelling one task that has a record, whatever it does; and asking attempts to end.

A running task stays `running`, in the phase `stopping`, until its end or its loss: so its slot is held as long as its
processes live.
"""

from collections import defaultdict

from tq.core.engine.step import Step, TaskKey
from tq.core.task import Cause, Phase, State, Task, Trigger
from tq.core.vocabulary import AttemptRef, Stop


class Tally:
    """What a cancel did so far."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.stopping = 0
        self.ended = 0
        self.stops: dict[int, list[AttemptRef]] = defaultdict(list)


def ref_of(key: TaskKey, task: Task) -> AttemptRef:
    """Return the name of a task's latest attempt, with its fencing token."""
    return AttemptRef(*key, task.attempt, task.lease)


def cancel_task(step: Step, key: TaskKey, task: Task, tally: Tally) -> None:
    """Cancel a task that has a record, or count that it has ended."""
    if task.state.is_terminal:
        tally.ended += 1
    elif task.state is State.RUNNING:
        tally.stopping += 1
        if not is_cancelled(task):
            step.mark(key, task, phase=Phase.STOPPING, cause=Cause.CANCELLED)
            tally.stops[task.worker].append(ref_of(key, task))
    else:
        tally.cancelled += 1
        step.move(key, task, Trigger.CANCEL, ended_ms=step.times.wall_ms, cause=Cause.CANCELLED)


def is_cancelled(task: Task) -> bool:
    """Whether the running attempt was asked to stop by a cancel."""
    return task.phase is Phase.STOPPING and task.cause is Cause.CANCELLED


def send_stops(step: Step, tally: Tally) -> None:
    """Tell the workers that are connected; the others hear it when they reconcile."""
    for worker, refs in tally.stops.items():
        live = step.live.workers.get(worker)
        if live is not None and live.session is not None:
            step.effects.append(Stop(worker, live.session.number, tuple(refs), int(Cause.CANCELLED)))
    tally.stops.clear()
