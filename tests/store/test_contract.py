"""What every store does: one suite for the store in memory and the one on disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.store import all_rows, commit, disk_store, some_changes, write
from tq.core.model.job import Entries, Forgotten, Meta
from tq.core.model.tables import BODY, ENTRIES, ENTRY_AT, FORGOTTEN, LANE_NAME, META, READY, RUNNING, TASK
from tq.core.model.task import State, Task
from tq.core.model.view import Overlay
from tq.errors import BadRequest, StoreError, TooLarge
from tq.limits import output_head_slots, output_ring_slots, output_slot_bytes
from tq.store.disk import DiskStore
from tq.store.memory import MemoryStore
from tq.store.seam import Store

AnyStore = MemoryStore | DiskStore


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyStore]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        with disk_store(tmp_path / "data") as opened:
            yield opened


def test_both_implement_the_seam(store: AnyStore) -> None:
    seam: Store = store
    assert seam.get(TASK, (1, 0, 0)) is None


def test_what_is_written_is_read_at_once_and_before_the_flush(store: AnyStore) -> None:
    write(store, some_changes(5))
    assert store.get(TASK, (5, 0, 0)) == Task(State.RUNNING, attempt=5)
    assert store.get(READY, (1, 100, 5, 0)) is True
    assert store.get(RUNNING, (7, 5, 0, 0)) == 5
    assert store.get(LANE_NAME, ("lane 5",)) == 5
    assert store.flushed == 0


def test_none_deletes_whether_the_row_exists_or_not(store: AnyStore) -> None:
    commit(store, {TASK: {(1, 0, 0): Task(State.QUEUED), (1, 0, 1): None}})
    commit(store, {TASK: {(1, 0, 0): None}})
    assert store.get(TASK, (1, 0, 0)) is None
    assert store.scan(TASK, (), (9,), 10) == []


def test_the_only_row_of_meta_stands_at_the_empty_key(store: AnyStore) -> None:
    commit(store, {META: {(): Meta(lineage=2**63 - 1, epoch=3)}})
    assert store.get(META, ()) == Meta(lineage=2**63 - 1, epoch=3)
    assert store.scan(META, (), (0,), 10) == [((), Meta(lineage=2**63 - 1, epoch=3))]


def test_bytes_are_stored_as_they_are(store: AnyStore) -> None:
    data = bytes(range(256)) * 512
    commit(store, {BODY: {(1, 0): data, (1, 1): b""}})
    assert store.get(BODY, (1, 0)) == data
    assert store.get(BODY, (1, 1)) == b""


def test_a_scan_is_ordered_half_open_and_bounded(store: AnyStore) -> None:
    commit(store, {READY: {(lane, rank, job, 0): True for lane in (2, 1) for rank in (100, 0) for job in (300, 2)}})
    assert [key for key, _ in store.scan(READY, (1,), (2,), 100)] == [
        (1, 0, 2, 0),
        (1, 0, 300, 0),
        (1, 100, 2, 0),
        (1, 100, 300, 0),
    ]
    assert [key for key, _ in store.scan(READY, (1, 0, 300), (1, 100, 2, 0), 100)] == [(1, 0, 300, 0)]
    assert len(store.scan(READY, (), (2**64,), 3)) == 3
    assert store.scan(READY, (1,), (2,), 0) == []
    assert store.scan(READY, (2,), (1,), 10) == []


def test_a_scan_stays_in_its_table(store: AnyStore) -> None:
    commit(store, some_changes(5))
    assert [key for key, _ in store.scan(READY, (), (2**64,), 100)] == [(1, 100, 5, 0)]
    assert [key for key, _ in store.scan(LANE_NAME, (), ("z",), 100)] == [("lane 5",)]


def test_all_rows_come_page_by_page(store: AnyStore) -> None:
    commit(store, {TASK: {(1, 0, member): Task(State.QUEUED) for member in range(25)}, META: {(): Meta(lineage=1)}})
    commit(store, {LANE_NAME: {(f"{'ä' * n}",): n for n in range(7)}})
    assert [key for key, _ in all_rows(store, TASK, page=4)] == [(1, 0, member) for member in range(25)]
    assert [value for _, value in all_rows(store, LANE_NAME, page=2)] == list(range(7))
    assert [key for key, _ in all_rows(store, META, page=1)] == [()]


def test_a_record_that_was_read_is_the_readers_own(store: AnyStore) -> None:
    commit(store, {META: {(): Meta(lineage=1)}})
    mine = store.get(META, ())
    assert mine is not None
    mine.epoch = 99
    again = store.get(META, ())
    assert again is not None
    assert again.epoch == 0


def test_turns_follow_on_each_other(store: AnyStore) -> None:
    commit(store, {})
    for sequence in (1, 3, 0):
        with pytest.raises(ValueError, match="does not follow"):
            store.write({}, sequence=sequence, epoch=1, wall_ms=0)
    with pytest.raises(ValueError, match="not written yet"):
        store.flush(2)
    assert (store.sequence, store.flushed) == (1, 1)


def test_a_closed_store_takes_nothing_more(store: AnyStore) -> None:
    commit(store, some_changes(1))
    store.close()
    store.close()
    with pytest.raises(StoreError):
        write(store, {})
    with pytest.raises(StoreError):
        store.flush(1)
    with pytest.raises(StoreError):
        store.put_output((1, 0, 0), 1, 1, 0, b"x")


def test_output_is_kept_by_attempt_and_ordered_by_stream_and_offset(store: AnyStore) -> None:
    slot = output_slot_bytes
    store.put_output((1, 0, 0), 1, 2, 0, b"err")
    store.put_output((1, 0, 0), 1, 1, slot, b"second")
    store.put_output((1, 0, 0), 1, 1, 0, b"f" * slot)
    store.put_output((1, 0, 0), 2, 1, 0, b"other attempt")
    store.put_output((1, 0, 1), 1, 1, 0, b"other member")
    assert store.output((1, 0, 0), 1) == [(1, 0, b"f" * slot), (1, slot, b"second"), (2, 0, b"err")]
    assert store.output((1, 0, 0), 3) == []


def test_a_repeated_slot_changes_nothing_and_a_longer_one_replaces_it(store: AnyStore) -> None:
    for data in (b"a", b"ab", b"ab"):
        store.put_output((1, 0, 0), 1, 1, 0, data)
    assert store.output((1, 0, 0), 1) == [(1, 0, b"ab")]


def test_output_keeps_its_head_and_its_end_and_never_more(store: AnyStore) -> None:
    slots = output_head_slots + 3 * output_ring_slots + 7
    for number in range(slots):
        store.put_output((1, 0, 0), 1, 1, number * output_slot_bytes, b"%d" % number)
    kept = [int(slot.data) for slot in store.output((1, 0, 0), 1)]
    assert kept == [*range(output_head_slots), *range(slots - output_ring_slots, slots)]


def test_one_slot_of_an_output_is_found_until_a_later_one_takes_its_place(store: AnyStore) -> None:
    ring = output_ring_slots * output_slot_bytes
    late = output_head_slots * output_slot_bytes
    store.put_output((1, 0, 0), 1, 1, 0, b"head")
    store.put_output((1, 0, 0), 1, 1, late, b"old")
    store.put_output((1, 0, 0), 1, 2, late, b"err")
    store.put_output((1, 0, 0), 2, 1, late, b"other attempt")
    assert store.output((1, 0, 0), 1, (1, 0)) == [(1, 0, b"head")]
    assert store.output((1, 0, 0), 1, (1, late)) == [(1, late, b"old")]
    assert store.output((1, 0, 0), 1, (2, late)) == [(2, late, b"err")]
    assert store.output((1, 0, 0), 1, (1, output_slot_bytes)) == []

    store.put_output((1, 0, 0), 1, 1, late + ring, b"new")
    assert store.output((1, 0, 0), 1, (1, late)) == []
    assert store.output((1, 0, 0), 1, (1, late + ring)) == [(1, late + ring, b"new")]


def test_output_past_its_bounds_is_refused_and_not_stored(store: AnyStore) -> None:
    with pytest.raises(TooLarge, match="output_slot_bytes"):
        store.put_output((1, 0, 0), 1, 1, 0, b"x" * (output_slot_bytes + 1))
    with pytest.raises(BadRequest, match="begins no slot"):
        store.put_output((1, 0, 0), 1, 1, 1, b"x")
    with pytest.raises(BadRequest, match="begins no slot"):
        store.put_output((1, 0, 0), 1, 1, -output_slot_bytes, b"x")
    with pytest.raises(BadRequest, match="neither 1 nor 2"):
        store.put_output((1, 0, 0), 1, 3, 0, b"x")
    assert store.output((1, 0, 0), 1) == []


_keys = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 3))
_turns = st.lists(st.dictionaries(_keys, st.none() | st.integers(0, 9), max_size=8), max_size=6)
_bounds = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@given(turns=_turns, low=_bounds, high=_bounds, limit=st.integers(0, 20))
def test_both_stores_say_what_a_plain_dict_says(
    tmp_path_factory: pytest.TempPathFactory,
    turns: list[dict[tuple[int, int, int], int | None]],
    low: tuple[int, ...],
    high: tuple[int, ...],
    limit: int,
) -> None:
    memory, plain = MemoryStore(), dict[tuple[int, int, int], Task]()
    with disk_store(tmp_path_factory.mktemp("store") / "data") as disk:
        for turn in turns:
            changes = {key: None if value is None else Task(State.QUEUED, attempt=value) for key, value in turn.items()}
            for store in (memory, disk):
                commit(store, {TASK: changes})
            plain.update({key: task for key, task in changes.items() if task is not None})
            for key in [key for key, task in changes.items() if task is None]:
                plain.pop(key, None)
        expected = [(key, plain[key]) for key in sorted(plain) if low <= key < high][:limit]
        assert memory.scan(TASK, low, high, limit) == expected
        assert disk.scan(TASK, low, high, limit) == expected
        assert Overlay(disk).scan(TASK, low, high, limit) == expected


def test_a_forgotten_job_goes_with_its_records_output_and_blobs_and_takes_nobody_elses(store: AnyStore) -> None:
    for job in (6, 7, 8):
        commit(store, {TASK: {(job, 0, 1): Task(State.SUCCEEDED)}, BODY: {(job, 0): b"in"}})
        store.put_output((job, 0, 1), 1, 1, 0, b"out")
        commit(store, {ENTRIES: {(job + 10, 0): Entries((b"e",))}, ENTRY_AT: {(job + 10, 0): True}})
    commit(store, {TASK: {(7, 0, 5): Task(State.DEAD)}, FORGOTTEN: {(7,): Forgotten((7, 17))}})

    assert [key[0] for key, _ in store.scan(TASK, (0,), (99,), 10)] == [6, 8]
    assert [key[0] for key, _ in store.scan(BODY, (0,), (99,), 10)] == [6, 8]
    assert [key[0] for key, _ in store.scan(ENTRIES, (0,), (99,), 10)] == [16, 18]
    assert [key[0] for key, _ in store.scan(ENTRY_AT, (0,), (99,), 10)] == [16, 18]
    assert [len(store.output((job, 0, 1), 1)) for job in (6, 7, 8)] == [1, 0, 1]
