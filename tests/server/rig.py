"""The commit loop without trio: a real engine over a store in memory, stepped by hand, with every departure noted."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tq.core.engine.engine import Engine
from tq.core.vocabulary import Answer, Command, Effect, Recover, Recovered, Submit, Times
from tq.errors import TqError
from tq.server.commit.commit_loop import Pipeline, Point
from tq.server.commit.intake import Inlet, Intake, Request
from tq.store.memory import MemoryStore
from tq.wire.body import Body
from tq.wire.codec import dumps

BODY = dumps(Body((b"true",), b"/"))


def submit(key: str = "", **fields: Any) -> Submit:
    return Submit(key, fields.pop("body", BODY), **fields)


class Loop:
    """`left` is what has left the server so far: answers as (name, answer), effects as they are."""

    def __init__(self, store: MemoryStore | None = None, engine: Any = None) -> None:
        self.store = store or MemoryStore()
        self.engine = engine or Engine(self.store)
        self.intake = Intake()
        self.inlet = self.intake.inlet()
        self.now_ms = 1_000
        self.lap = 0.0
        self.lap_step = 0.0
        self.left: list[Any] = []
        self.flushes: list[int] = []  # asked for, not done
        self.bugs: list[Command] = []
        self.rereads: Callable[[Any], Iterable[tuple[Inlet, Request]]] = lambda _: ()
        self.recovered: Recovered | None = None
        self.pipeline = Pipeline(
            self.engine,
            self.store,
            self.intake,
            times=lambda: Times(self.now_ms, 1_800_000_000_000 + self.now_ms),
            lap_ms=self._lap_ms,
            flush=self._ask_flush,
            release=self._release,
            rereads=lambda effects: self.rereads(effects),  # noqa: PLW0108 - a test sets it
            on_bug=lambda command, _times, _error: self.bugs.append(command),  # type: ignore[arg-type]
        )
        self.steps: Iterator[Point] = self.pipeline.steps(Recover(7), self._recovered)

    def start(self) -> "Loop":
        """Run Recover to its end."""
        self.run()
        self.flush()
        self.run()
        assert self.recovered is not None
        self.left.clear()
        return self

    def ask(self, name: str, command: Any, inlet: Inlet | None = None) -> None:
        """Put a request; its answer is noted under `name` when it leaves."""
        request = Request(command, "me", lambda answer: self.left.append((name, answer)))
        (self.inlet if inlet is None else inlet).put([request])

    def to(self, point: Point) -> None:
        """Step until the loop stands at a point."""
        for here in self.steps:
            if here is point:
                return
        raise AssertionError(f"the loop ended before {point}")

    def run(self) -> Point | None:
        """Step until the loop must wait; return where, None at its end."""
        for here in self.steps:
            if here is Point.IDLE and not self.pipeline.has_work:
                return here
            if here is Point.FLUSHING and not self.pipeline.is_flushed:
                return here
        return None

    def flush(self) -> None:
        """Let the committer finish the flush that it was asked for."""
        sequence = self.flushes.pop(0)
        self.store.flush(sequence)
        self.pipeline.flushed(sequence)

    def settle(self) -> None:
        """Run, and flush whatever is asked for, until nothing is left to do."""
        while self.run() is Point.FLUSHING:
            self.flush()

    def answers(self) -> dict[str, Answer | TqError]:
        """Return the answers that have left, by name."""
        return {entry[0]: entry[1] for entry in self.left if isinstance(entry, tuple)}

    def _ask_flush(self, sequence: int) -> bool:
        self.flushes.append(sequence)
        return False

    def _release(self, effects: Sequence[Effect]) -> None:
        self.left.extend(effects)

    def _recovered(self, answer: Recovered) -> None:
        self.recovered = answer

    def _lap_ms(self) -> float:
        self.lap += self.lap_step
        return self.lap
