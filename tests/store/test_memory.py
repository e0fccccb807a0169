"""A crash of the store in memory loses what was not flushed: all of it, or all but a prefix."""

import pytest

from tests.support.store import all_rows, commit, some_changes, write
from tq.core.model.tables import LANE_NAME, RUNNING, TASK
from tq.core.model.task import State, Task
from tq.errors import StoreError
from tq.store.memory import MemoryStore

TABLES = (TASK, RUNNING, LANE_NAME)


def contents(store: MemoryStore) -> list[object]:
    return [list(all_rows(store, table)) for table in TABLES]


def test_a_crash_keeps_what_was_flushed_and_nothing_else() -> None:
    store = MemoryStore()
    for number in range(1, 20):
        commit(store, some_changes(number))
    before = contents(store)
    for number in range(20, 30):
        write(store, some_changes(number))
    write(store, {TASK: {(number, 0, 0): None for number in range(1, 30)}})
    after = store.crash()
    assert contents(after) == before
    assert (after.sequence, after.flushed, after.unflushed) == (19, 19, 0)


@pytest.mark.parametrize("surviving", range(5))
def test_a_crash_may_keep_any_prefix_of_the_rest(surviving: int) -> None:
    store, other = MemoryStore(), MemoryStore()
    for number in range(1, 5):
        (commit if number == 1 else write)(store, some_changes(number))
        if number <= 1 + surviving:
            commit(other, some_changes(number))
    after = store.crash(surviving)
    assert contents(after) == contents(other)
    assert after.sequence == other.sequence
    commit(after, some_changes(9))


def test_output_and_turns_survive_in_the_order_in_which_they_were_written() -> None:
    store = MemoryStore()
    store.put_output((1, 0, 0), 1, 1, 0, b"one")
    write(store, {TASK: {(1, 0, 0): Task(State.RUNNING)}})
    store.put_output((1, 0, 0), 1, 1, 0, b"one and two")
    assert store.unflushed == 3
    after = store.crash(2)
    assert after.output((1, 0, 0), 1) == [(1, 0, b"one")]
    assert after.get(TASK, (1, 0, 0)) is not None


def test_a_row_that_is_put_and_deleted_between_scans_is_gone() -> None:
    store = MemoryStore()
    commit(store, {TASK: {(1, 0, 1): Task(State.QUEUED)}})
    commit(store, {TASK: {(1, 0, 2): Task(State.QUEUED)}})
    commit(store, {TASK: {(1, 0, 2): None}})
    commit(store, {TASK: {(1, 0, 2): Task(State.HELD)}})
    assert list(all_rows(store, TASK)) == [((1, 0, 1), Task(State.QUEUED)), ((1, 0, 2), Task(State.HELD))]


def test_after_a_crash_the_old_store_takes_nothing_more() -> None:
    store = MemoryStore()
    store.crash()
    with pytest.raises(StoreError, match="crashed"):
        write(store, {})


def test_after_a_failure_every_write_and_flush_fails() -> None:
    store = MemoryStore()
    write(store, some_changes(1))
    store.fail("the disk is gone")
    for _ in range(2):
        with pytest.raises(StoreError, match="the disk is gone"):
            store.flush(1)
        with pytest.raises(StoreError, match="the disk is gone"):
            write(store, {})
    assert store.get(TASK, (1, 0, 0)) is not None
