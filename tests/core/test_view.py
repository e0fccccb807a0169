"""Overlay: reads through it equal a plain dict with the same changes."""

from hypothesis import given
from hypothesis import strategies as st

from tq.core.model import tables
from tq.core.model.job import KeyUse
from tq.core.model.view import Overlay, pages
from tq.limits import key_chars_max
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
