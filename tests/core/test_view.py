"""Overlay: reads through it equal a plain dict with the same changes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.ground import Ground
from tests.support.house import House
from tq.core.change.stop import ref_of
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.job import KeyUse
from tq.core.model.view import Overlay, pages
from tq.core.vocabulary import Acted, Cancel, Command, Forget, Purge, Retain, Submit, Tick, Times, Where
from tq.limits import key_chars_max, key_ttl_ms
from tq.store.memory import MemoryStore

KEYS = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5))
CHANGES = st.lists(st.tuples(KEYS, st.booleans()), max_size=30)


def _put_all(target, changes, model):
    for (job, part, since), present in changes:
        key = (job, part, 1, since, 0)
        if present:
            target.put(tables.AGAIN, key, True)
            model[key] = True
        else:
            target.delete(tables.AGAIN, key)
            model.pop(key, None)


@given(CHANGES, CHANGES, CHANGES, KEYS, KEYS, st.integers(1, 10))
def test_layers_read_as_one_map(below, middle, above, low, high, limit):
    store = MemoryStore()
    model = {}
    first = Overlay(store)
    _put_all(first, below, model)
    store.write(first.changes, sequence=1, epoch=1, wall_ms=1)
    second = Overlay(store)
    _put_all(second, middle, model)
    third = Overlay(second)
    _put_all(third, above, model)

    expected = sorted((key, True) for key in model if low <= key < high)[:limit]
    assert list(third.scan(tables.AGAIN, low, high, limit)) == expected
    assert all(third.get(tables.AGAIN, key) for key in model)


def test_a_dropped_layer_leaves_nothing():
    below = Overlay(MemoryStore())
    above = Overlay(below)
    above.put(tables.READY, (1, 2, 3, 0), True)

    assert below.get(tables.READY, (1, 2, 3, 0)) is None


def test_a_scan_after_a_later_put_sees_it():
    overlay = Overlay(MemoryStore())
    overlay.put(tables.READY, (1, 2, 3, 0), True)
    assert len(overlay.scan(tables.READY, (1,), (2,), 10)) == 1
    overlay.put(tables.READY, (1, 2, 2, 0), True)
    assert [key for key, _ in overlay.scan(tables.READY, (1,), (2,), 10)] == [(1, 2, 2, 0), (1, 2, 3, 0)]


def test_pages_reach_the_last_name_that_there_can_be():
    store = MemoryStore()
    last = ("\U0010ffff" * key_chars_max,)
    store.write({tables.KEY: {last: KeyUse(b"", 1, 1)}}, sequence=1, epoch=1, wall_ms=1)
    assert [key for page in pages(store, tables.KEY) for key, _ in page] == [last]


def test_pages_walk_tables_whose_key_is_a_name():
    store = MemoryStore()
    assert list(pages(store, tables.LANE_NAME)) == []
    overlay = Overlay(store)
    for number in range(2_500):
        overlay.put(tables.LANE_NAME, (f"n{number:04}",), number)
    assert [record for page in pages(overlay, tables.LANE_NAME) for _, record in page] == list(range(2_500))


SIZE = 60
SLICE = 5


def ended(table: Any, **fields: Any) -> House:
    """Return a house with jobs that have ended, one in each millisecond."""
    house = House(Bounds(slice=SLICE), Ground(table, 1))
    for number in range(1, SIZE + 1):
        house.do(Submit(f"key {number}", b"body", **fields))
        house.do(Cancel((str(number),)))
    return house


def passed_by(house: House, command: Command) -> int:
    """Do a command, without a look at the invariants; return how many deleted rows were passed over."""
    house.now_ms += 1
    house.store.passed = house.store.read = 0
    turn = house.engine.begin(Times(house.now_ms, house.now_ms))
    turn.apply(command)
    done = turn.finish()
    if done.changes:
        house.store.write(done.changes, sequence=done.sequence, epoch=done.epoch, wall_ms=done.wall_ms)
    assert turn.bugs == []
    return int(house.store.passed)


def test_retention_passes_over_no_more_than_the_last_slice_forgot() -> None:
    house = ended(tables.ENDED)
    house.now_ms += 10_000
    for _ in range(SIZE // SLICE):
        assert passed_by(house, Retain(1_000)) <= SLICE
    assert len(house.store.deleted) == SIZE
    passed_by(house, Retain(1_000))
    assert passed_by(house, Retain(1_000)) == 0
    house.do(Tick())  # with the invariants


def test_a_job_is_forgotten_at_its_old_age_once_its_dead_letters_are_gone() -> None:
    """It comes back to its place, behind which retention has gone on."""
    house = House()
    house.join(slots=1)
    letter, sound, young = (house.submit(retries=0, queue=queue) for queue in "abc")
    house.report(ref_of((letter, 0, 0), house.task(letter)), code=1)
    house.report(*house.starts())
    house.now_ms += 60_000
    house.report(*house.starts())
    assert house.do(Retain(1_000)) == Acted(1)
    assert house.do(Retain(1_000)) == Acted(0)
    assert house.store.get(tables.JOB, (sound, 0)) is None
    house.do(Purge((str(letter),)))
    assert house.do(Retain(1_000)) == Acted(1)
    assert house.store.get(tables.JOB, (letter, 0)) is None
    assert house.store.get(tables.JOB, (young, 0)) is not None


def test_a_filter_begins_at_the_first_job_that_there_is() -> None:
    house = ended(tables.JOB)
    keep = house.submit(queue="keep")
    house.do(Forget((), Where(queue="default")))
    while house.store.scan(tables.SWEEP, (0,), (1 << 62,), 1):
        house.do(Tick())
    assert len(house.store.deleted) == SIZE
    passed_by(house, Cancel((), Where(queue="none")))
    assert passed_by(house, Cancel((), Where(queue="none"))) == 0
    assert house.do(Cancel((), Where(queue="keep"))) == Acted(1)
    house.do(Forget((str(keep),)))
    assert house.do(Cancel((), Where())) == Acted(0)
    last = house.submit()
    assert house.do(Cancel((), Where())) == Acted(1)
    assert house.do(Forget((), Where())) == Acted(1)
    assert last == keep + 1


@pytest.mark.parametrize("is_late", [False, True])
def test_the_keys_of_forgotten_jobs_go_without_a_look_at_those_before_them(is_late: bool) -> None:
    house = ended(tables.KEY_END)
    house.do(Forget((), Where()))
    while house.store.scan(tables.SWEEP, (0,), (1 << 62,), 1):
        house.do(Tick())
    house.now_ms += key_ttl_ms if is_late else key_ttl_ms - 4 * SIZE
    for _ in range(3 * SIZE):
        house.now_ms += house.engine.next_due_ms(Times(house.now_ms, 0)) or 0
        assert passed_by(house, Tick()) <= SLICE
        assert house.store.read <= SLICE
        if len(house.store.deleted) == SIZE:
            break
    assert not house.store.scan(tables.KEY, ("",), ("l",), 1)
    house.do(Tick())
    assert house.engine.next_due_ms(Times(house.now_ms, 0)) is None
