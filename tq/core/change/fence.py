"""The fence: what a worker's word about an attempt is worth.

A word counts if attempt, lease and worker are those of the task's latest attempt and that attempt is still its own:
running, or lost and waiting again with no successor leased (then the word claims it back). Everything else is stale and
changes nothing (semantics.md, Delivery 2 and 4).
"""

from collections.abc import Collection
from enum import Enum, auto
from typing import Final

from tq.core.change.step import Step
from tq.core.model.task import Phase, State, Task, TaskKey, Trigger
from tq.core.model.view import Key
from tq.core.placement.live import LIVE_SESSION
from tq.core.vocabulary import AttemptRef


class Verdict(Enum):
    """What a worker's word about an attempt is worth."""

    CURRENT = auto()
    CLAIM = auto()
    KNOWN = auto()  # the attempt's end was accepted before
    STALE = auto()


_RUNNING: Final = State.RUNNING
_TASK_FIELDS: Final = 3
_CURRENT: Final = Verdict.CURRENT


def judge(step: Step, task: Task | None, ref: AttemptRef, worker: int) -> Verdict:
    """Compare a word with the record. A worker speaks for those who lived on its state directory before, too."""
    if task is None or task.attempt != ref.attempt or task.lease != ref.lease:
        return Verdict.STALE
    if task.worker != worker and task.worker not in predecessors(step, worker):
        return Verdict.STALE
    if task.state is _RUNNING:
        return _CURRENT
    if task.phase is Phase.ENDED:
        return Verdict.KNOWN
    if task.state is State.QUEUED and task.phase is Phase.LOST:
        return Verdict.CLAIM
    return Verdict.STALE


def predecessors(step: Step, worker: int) -> tuple[int, ...]:
    """Return the ids that lived on this worker's state directory before it, and on those that it has taken over."""
    session = step.overlay.changes.get(LIVE_SESSION, {}).get((worker,))
    if session is None:
        live = step.live.workers.get(worker)
        session = live.session if live else None
    return session.predecessors if session else ()


def claim(step: Step, ref: AttemptRef, task: Task, worker: int, phase: Phase) -> Task:
    """Give a lost attempt back to its worker, and take back the charge."""
    losses = task.losses - 1 if task.charged else task.losses
    step.count("claims")
    return step.move(ref.task, task, Trigger.CLAIM, worker=worker, phase=phase, losses=losses, charged=False)


def passes_over(step: Step, key: TaskKey) -> bool:
    """Note that a command about many attempts is at this one; return whether it failed here, and goes on without it."""
    step.at = key
    return bool(step.failed_at) and (key in step.failed_at or key[:2] in step.failed_at)


def to_blame(at: Key, passed: Collection[Key]) -> Key:
    """Return what a command is to pass over that failed at this place: an attempt, or all of a job, as where it failed
    at another attempt of that before: a worker may hold thousands of one array.
    """
    is_task = len(at) == _TASK_FIELDS
    job = at[:2] if is_task else at[-2:]
    return at if is_task and not any(key[:2] == job for key in passed) else job


def current_task(step: Step, key: TaskKey, ref: AttemptRef, worker: int, phase: Phase) -> Task | None:
    """Return the record of a task if the word about its attempt `ref` counts (claiming it back if need be), or None and
    count what it was.
    """
    if passes_over(step, key):
        return None
    task = step.task(key)
    verdict = judge(step, task, ref, worker)
    if task is not None and verdict is _CURRENT:
        return task
    if task is not None and verdict is Verdict.CLAIM and not step.progress(key[:2]).cancelling:
        return claim(step, ref, task, worker, phase)
    step.count("known_reports" if verdict is Verdict.KNOWN else "stale_reports")
    return None


def is_current_session(step: Step, worker: int, session: int) -> bool:
    """Whether a peer's command comes from its current session; if not, it is dropped and counted."""
    live = step.live.workers.get(worker)
    if live is not None and live.session_number == session:
        return True
    step.count("superseded")
    return False
