"""A small house for tests of the core: an engine over a memory store, and workers that are only numbers."""

from typing import Any

from tq.core.engine.engine import Bounds, Engine, Finished
from tq.core.model import tables
from tq.core.model.task import Cause, Phase, Task
from tq.core.repair import invariants
from tq.core.vocabulary import (
    Answer,
    AttemptRef,
    Capacity,
    Command,
    End,
    Held,
    Join,
    Joined,
    Recall,
    Recover,
    Report,
    Start,
    Started,
    Stop,
    Submit,
    Submitted,
    Times,
)
from tq.store.memory import MemoryStore


class House:
    """Runs each command as a turn of its own, and checks every invariant after it."""

    def __init__(self, bounds: Bounds | None = None, store: Any = None) -> None:
        self.store = store or MemoryStore()
        self.bounds = bounds or Bounds()
        self.now_ms = 1_000
        self.delivery = 0
        self.finished: Finished
        self.restart()

    def restart(self) -> None:
        """Start the server anew on the same store."""
        self.engine = Engine(self.store, self.bounds)
        self.do(Recover(7))

    def do(self, command: Command, submitter: str = "me") -> Answer | None:
        """Apply one command as a turn; return its answer."""
        return self.turn(command, submitter=submitter)[0]

    def turn(self, *commands: Command, submitter: str = "me") -> list[Answer | None]:
        """Apply commands as one turn, commit it, check the invariants."""
        self.now_ms += 1
        turn = self.engine.begin(Times(self.now_ms, 1_700_000_000_000 + self.now_ms))
        answers = [turn.apply(command, submitter) for command in commands]
        self.finished = turn.finish()
        if self.finished.changes:
            self.store.write(
                self.finished.changes,
                sequence=self.finished.sequence,
                epoch=self.finished.epoch,
                wall_ms=self.finished.wall_ms,
            )
        assert turn.bugs == []
        assert invariants.check(self.store, self.engine.live) == []
        return answers

    def submit(self, **fields: Any) -> int:
        """Submit a job; return its number."""
        answer = self.do(Submit("", b"body", **fields))
        assert isinstance(answer, Submitted)
        return int(answer.id)

    def array(self, size: int, **fields: Any) -> int:
        """Submit an array; return its number."""
        return self.submit(size=size, is_array=True, **fields)

    def join(
        self,
        worker: int = 5,
        session: int = 1,
        slots: int = 1,
        held: tuple[Held, ...] = (),
        modules: tuple[str, ...] = (),
        **more: Any,
    ) -> Joined:
        """Connect a worker."""
        capacity = Capacity(slots=slots, cpus_milli=slots * 1000, host=f"host{worker}", modules=modules)
        answer = self.do(Join(worker, session, capacity, held, **more))
        assert isinstance(answer, Joined)
        return answer

    def starts(self) -> list[AttemptRef]:
        """Return the attempts that the last turn sent out."""
        return [
            assignment.attempt
            for effect in self.finished.effects
            if isinstance(effect, Start)
            for assignment in effect.attempts
        ]

    def stops(self) -> list[AttemptRef]:
        """Return the attempts that the last turn asked to end."""
        return [ref for effect in self.finished.effects if isinstance(effect, Stop) for ref in effect.attempts]

    def recalls(self) -> list[AttemptRef]:
        """Return the attempts that the last turn asked back."""
        return [ref for effect in self.finished.effects if isinstance(effect, Recall) for ref in effect.attempts]

    def report(
        self, *refs: AttemptRef, code: int = 0, cause: Cause = Cause.EXIT, run_us: int = 500, **peer: int
    ) -> None:
        """Report the ends of attempts, all alike; `peer` are worker and session."""
        self.delivery += 1
        ends = tuple(End(ref, int(cause), code, run_us, b"usage") for ref in refs)
        self.do(Report(peer.get("worker", 5), peer.get("session", 1), self.delivery, ends))

    def started(self, *refs: AttemptRef, worker: int = 5, session: int = 1) -> None:
        """Say that attempts have started."""
        self.do(Started(worker, session, refs))

    def task(self, job: int, member: int = 0) -> Task:
        """Return a member's record."""
        task = self.store.get(tables.TASK, (job, 0, member))
        assert task is not None
        return task

    def counted(self, name: str) -> int:
        """Return one of the live counters."""
        return self.engine.live.counts.get(name, 0)


def held(*refs: AttemptRef, phase: Phase = Phase.STARTED) -> tuple[Held, ...]:
    """Return a list of what a worker holds."""
    return tuple(Held(ref, int(phase)) for ref in refs)
