"""An engine over a store that has lost rows: what the server fails at, and no check of invariants lets pass."""

from typing import Any

from tq.core.engine.engine import Bounds, Engine, Finished
from tq.core.model import tables
from tq.core.model.view import BEHIND_NAMES, Key
from tq.core.vocabulary import Command, Start, Times
from tq.store.memory import MemoryStore


class Damaged:
    """An engine over a store with damage, which no check of invariants would let pass."""

    def __init__(self, store: MemoryStore, bounds: Bounds = Bounds()) -> None:  # noqa: B008 - frozen
        self.store = store
        self.now_ms = 10_000
        self.engine = Engine(store, bounds)
        self.finished: Finished
        self.bugs: list[tuple[Any, Exception]] = []

    def do(self, command: Command) -> Any:
        turn = self.engine.begin(Times(self.now_ms, self.now_ms))
        answer = turn.apply(command)
        self.finished = turn.finish()
        self.bugs = turn.bugs
        changes, sequence = self.finished.changes, self.finished.sequence
        if changes:
            self.store.write(changes, sequence=sequence, epoch=1, wall_ms=self.now_ms)
        return answer

    def started(self) -> list[int]:
        starts = (effect for effect in self.finished.effects if isinstance(effect, Start))
        return [one.attempt.job for start in starts for one in start.attempts]

    def due_ms(self) -> int | None:
        return self.engine.next_due_ms(Times(self.now_ms, 0))


def without(store: MemoryStore, table: Any, key: Key, record: Any = None) -> None:
    """Take a row away, as damage does; or put it back."""
    meta = store.get(tables.META, ())
    assert meta is not None
    meta.sequence += 1
    changes = {table: {key: record}, tables.META: {(): meta}}
    store.write(changes, sequence=meta.sequence, epoch=1, wall_ms=1)


def without_lane(store: MemoryStore, number: int) -> None:
    """Take a lane away with its name, so that no start derives it anew."""
    for key, named in store.scan(tables.LANE_NAME, ("",), (BEHIND_NAMES,), 99):
        if named == number:
            without(store, tables.LANE_NAME, key)
    without(store, tables.LANE, (number,))
