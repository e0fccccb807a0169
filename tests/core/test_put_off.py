"""A bug in the server's own work costs what it is about: that is put off, and the server and all else go on (I12)."""

from typing import Any

import pytest

from tests.server.rig import Loop
from tests.support.house import House
from tq.core import put_off, tables
from tq.core.engine import Engine, Finished, clock, dispatch
from tq.core.engine.stop import ref_of
from tq.core.live import Live
from tq.core.task import State
from tq.core.view import Key
from tq.core.vocabulary import Capacity, Command, Dispatch, Get, Join, Start, Status, Tick, Times
from tq.errors import StoreError
from tq.store.memory import MemoryStore


class Life:
    """An engine over a store with damage, which no check of invariants would let pass."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.now_ms = 10_000
        self.engine = Engine(store)
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


def without(store: MemoryStore, table: Any, key: Key) -> None:
    """Take a row away, as damage does."""
    meta = store.get(tables.META, ())
    assert meta is not None
    meta.sequence += 1
    changes = {table: {key: None}, tables.META: {(): meta}}
    store.write(changes, sequence=meta.sequence, epoch=1, wall_ms=1)


def two_that_failed() -> tuple[House, int, int]:
    """Return a house with two jobs that wait for their next attempt."""
    house = House()
    house.join(slots=2)
    jobs = [house.submit(retries=1, backoff_ms=(10, 10), queue=queue) for queue in ("a", "b")]
    for number in jobs:
        house.report(ref_of((number, 0, 0), house.task(number)), code=1)
    return house, jobs[0], jobs[1]


def test_a_timer_that_fails_is_put_off_and_the_others_go_on() -> None:
    house, poison, sound = two_that_failed()
    without(house.store, tables.PROGRESS, (poison, 0))
    life = Life(house.store)
    rows = life.store.scan(tables.TIMER, (0,), (1,), 99)
    life.do(Tick())

    assert [(type(what), type(error)) for what, error in life.bugs] == [(Tick, KeyError)]
    assert life.store.get(tables.TASK, (sound, 0, 0)).state is State.QUEUED  # type: ignore[union-attr]
    assert life.store.get(tables.TASK, (poison, 0, 0)).state is State.RETRYING  # type: ignore[union-attr]
    left = life.store.scan(tables.TIMER, (0,), (1,), 99)
    assert [key[3] for key, _ in left] == [poison]
    assert left[0] in rows
    for wait_ms in (1_000, 2_000, 4_000):
        assert life.due_ms() == wait_ms
        life.do(Tick())
        assert life.bugs == []
        life.now_ms += wait_ms
        assert life.due_ms() == 0
        life.do(Tick())
        assert len(life.bugs) == 1


def test_a_timer_that_fails_is_tried_at_each_start_and_done_once_it_can_be() -> None:
    house, poison, _ = two_that_failed()
    progress = house.store.get(tables.PROGRESS, (poison, 0))
    without(house.store, tables.PROGRESS, (poison, 0))
    Life(house.store).do(Tick())
    life = Life(house.store)
    life.do(Tick())
    assert len(life.bugs) == 1

    meta = life.store.get(tables.META, ())
    assert meta is not None
    meta.sequence += 1
    life.engine.meta = meta
    changes = {tables.PROGRESS: {(poison, 0): progress}, tables.META: {(): meta}}
    life.store.write(changes, sequence=meta.sequence, epoch=1, wall_ms=1)
    life.now_ms += 1_000
    life.do(Tick())
    assert life.bugs == []
    assert life.store.get(tables.TASK, (poison, 0, 0)).state is State.QUEUED  # type: ignore[union-attr]
    assert life.due_ms() is None


def test_a_lane_that_fails_is_put_off_and_says_so_and_the_others_lease() -> None:
    house = House()
    poison, same, other = house.submit(queue="a"), house.submit(queue="a"), house.submit(queue="b")
    without(house.store, tables.PROGRESS, (poison, 0))
    life = Life(house.store)
    life.do(Join(5, 1, Capacity(slots=4)))

    assert [(type(what), type(error)) for what, error in life.bugs] == [(Dispatch, KeyError)]
    assert life.started() == [other]
    assert "the server fails at starting it" in life.do(Get(str(same))).value["reason"]
    assert life.bugs == []
    assert [(one["queue"], one["tasks"]) for one in life.do(Status()).value["stuck"]] == [("a", 2)]
    assert life.due_ms() == 1_000
    life.now_ms += 1_000
    life.do(Tick())
    assert len(life.bugs) == 1
    assert life.due_ms() == 2_000


def test_what_no_lane_is_to_blame_for_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(House().store)
    monkeypatch.setattr(dispatch, "_recall", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        life.do(Tick())


def test_so_do_a_disk_that_fails_a_fold_that_does_and_more_bugs_than_an_accident(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house, poison, _ = two_that_failed()

    def fail(*_: Any) -> None:
        raise StoreError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(clock, "_retry", fail)
        with pytest.raises(StoreError):
            Life(house.store).do(Tick())
    with monkeypatch.context() as patch:
        life = Life(house.store)
        patch.setattr(Live, "fold", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            life.do(Tick())
    without(house.store, tables.PROGRESS, (poison, 0))
    monkeypatch.setattr(put_off, "put_off_max", 0)
    with pytest.raises(KeyError):
        Life(house.store).do(Tick())


def test_the_loop_hands_on_what_was_put_off_and_answers_everybody() -> None:
    house, poison, _ = two_that_failed()
    without(house.store, tables.PROGRESS, (poison, 0))
    loop = Loop(house.store)
    loop.now_ms = 10_000
    loop.start()
    loop.ask("status", Status())
    loop.run()
    loop.flush()
    loop.run()
    assert [type(what) for what in loop.bugs] == [Tick]
    assert loop.pipeline.counters.bugs == 1
    assert "status" in loop.answers()
