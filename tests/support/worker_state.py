"""`Slots` for tests: names of attempts, messages about them, and slots in a session."""

from typing import Any

from tq.core.model.task import Cause
from tq.core.vocabulary import Assignment, AttemptRef, Capacity, End
from tq.wire import messages as m
from tq.worker.instructions import Instruction, Say
from tq.worker.state import WorkerState

CAPACITY = Capacity(slots=2)


def ref(job: int, member: int = 0, attempt: int = 1, lease: int = 5) -> AttemptRef:
    return AttemptRef(job, 0, member, attempt, lease)


def assign(*refs: AttemptRef, delivery: int = 1, stdin: int = 0) -> m.Assign:
    return m.Assign(delivery, 1, 2, False, "default", "", b"body", stdin, tuple(Assignment(one, 1) for one in refs))


def end(one: AttemptRef, cause: int = Cause.EXIT, code: int = 0) -> End:
    return End(one, cause, code, 10)


def said(instructions: list[Instruction]) -> list[m.Message]:
    return [one.message for one in instructions if isinstance(one, Say)]


def joined(slots: WorkerState | None = None, **answer: Any) -> WorkerState:
    """Return slots with a session in which both sides agree."""
    slots = slots or WorkerState(CAPACITY)
    slots.connected()
    slots.receive(m.Reconciled(answer.get("stop", ()), answer.get("settled", ())))
    return slots


def holding(*refs: AttemptRef) -> WorkerState:
    slots = joined()
    slots.receive(assign(*refs))
    return slots


def reconcile(slots: WorkerState) -> m.Reconcile:
    """Begin a session; return the one list that it begins with."""
    (message,) = said(slots.connected())
    assert isinstance(message, m.Reconcile)
    return message
