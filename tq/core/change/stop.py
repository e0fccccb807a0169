"""Cancelling one task that has a record, whatever it does; and asking attempts to end.

A running task stays `running`, in the phase `stopping`, until its end or its loss: so its slot is held as long as its
processes live.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from tq.core.change.step import Step, history_with_last
from tq.core.model.job import JobKey
from tq.core.model.task import Cause, Phase, State, Task, TaskKey, Trigger
from tq.core.placement.live import LIVE_RECALLED, LIVE_TO_RECALL, LiveWorker
from tq.core.vocabulary import AttemptRef, Recall, Stop

_STOPPING: Final = Phase.STOPPING


class Tally:
    """What a command that acts on many did so far; `why` says for a person why the last one was left alone.

    `signal` is what running attempts are to be stopped with, 0 = as their submitters said.
    """

    def __init__(self, signal: int = 0) -> None:
        self.signal = signal
        self.done = 0
        self.stopping = 0
        self.unchanged = 0
        self.looked = 0  # rows that were looked at for it: jobs and records
        self.why = ""
        self.stops: dict[tuple[int, Cause], list[AttemptRef]] = defaultdict(list)

    def leave(self, why: str) -> None:
        """Count one that was left as it was."""
        self.unchanged += 1
        self.why = why


def ref_of(key: TaskKey, task: Task) -> AttemptRef:
    """Return the name of a task's latest attempt, with its fencing token."""
    return AttemptRef(*key, task.attempt, task.lease)


def cancel_task(step: Step, key: TaskKey, task: Task, tally: Tally) -> None:
    """Cancel a task that has a record, or count that it has ended."""
    if task.state.is_terminal:
        tally.unchanged += 1
    elif task.state is State.RUNNING:
        if is_cancelled(task) and not tally.signal:
            tally.stopping += 1
        else:
            stop_task(step, key, task, Cause.CANCELLED, tally)
    else:
        tally.done += 1
        history = history_with_last(task)  # how its latest attempt ended gives way to the end of the task
        step.move(key, task, Trigger.CANCEL, ended_ms=step.times.wall_ms, cause=Cause.CANCELLED, history=history)


def stop_task(step: Step, key: TaskKey, task: Task, cause: Cause, tally: Tally) -> None:
    """Ask a running attempt to end. A cancel overrides what it was asked to stop for before."""
    step.mark(key, task, phase=Phase.STOPPING, cause=cause)
    tally.stopping += 1
    tally.stops[task.worker, cause].append(ref_of(key, task))


def is_requeued(task: Task) -> bool:
    """Whether the running attempt was asked to stop so that it goes back to the queue."""
    return task.phase is _STOPPING and task.cause in (Cause.REQUEUE, Cause.DRAIN)


def is_cancelled(task: Task) -> bool:
    """Whether the running attempt was asked to stop by a cancel."""
    return task.phase is _STOPPING and task.cause is Cause.CANCELLED


def send_stops(step: Step, tally: Tally) -> None:
    """Tell the workers that are connected; the others hear it when they reconcile."""
    for (worker, cause), refs in tally.stops.items():
        live = step.live.workers.get(worker)
        if live is not None and live.session is not None:
            step.effects.append(Stop(worker, live.session.number, tuple(refs), int(cause), tally.signal))
    tally.stops.clear()


def held_of(step: Step, job: JobKey) -> list[TaskKey]:
    """Return the tasks of a job that workers have."""
    return [(*job, member) for member in step.live.jobs.get(job, ())]


def recall_assigned(step: Step, tasks: Iterable[TaskKey]) -> None:
    """Have these attempts asked back, as far as they have not started: by Dispatch, a slice a turn, since tens of
    thousands may wait at workers. What is away meanwhile is asked when it is back (engine/join.py).
    """
    mine = step.overlay.changes[LIVE_TO_RECALL]
    if () not in mine:
        mine[()] = [*step.live.to_recall]  # once: a hold may have thousands of jobs
    mine[()].extend(tasks)


def recall_next(step: Step) -> None:
    """Ask for the next slice of what is to be asked back."""
    live, recalled = step.live, step.overlay.changes[LIVE_RECALLED]
    waiting: dict[LiveWorker, list[AttemptRef]] = defaultdict(list)
    for key in live.to_recall[: step.bounds.slice]:
        worker = live.workers.get(live.jobs.get(key[:2], {}).get(key[2], 0))
        if worker is None or worker.session is None or key in worker.started or key in worker.recalled:
            continue
        task = step.task(key)
        if task is not None and task.phase is Phase.ASSIGNED and (worker.worker, *key) not in recalled:
            waiting[worker].append(ref_of(key, task))
            step.overlay.put(LIVE_RECALLED, (worker.worker, *key), True)
    for worker, refs in waiting.items():
        step.effects.append(Recall(worker.worker, worker.session_number, tuple(refs)))
    step.overlay.put(LIVE_TO_RECALL, (), live.to_recall[step.bounds.slice :])
