"""Stores for tests: on disk and in memory, and turns to write into them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tq.core.model.tables import LANE_NAME, READY, RUNNING, TASK
from tq.core.model.task import State, Task
from tq.core.model.view import BEHIND_NAMES, Changes, Key, Table, View
from tq.store.directory import hold_directory
from tq.store.disk import DiskStore, open_for_reading, open_store
from tq.store.memory import MemoryStore

R = TypeVar("R")


@contextmanager
def disk_store(data: Path) -> Iterator[DiskStore]:
    """Open the store in `data` as a server does, and close it cleanly at the end."""
    with hold_directory(data) as lock:
        store = open_store(lock)
        try:
            yield store
        finally:
            store.close()


@contextmanager
def killed_store(data: Path) -> Iterator[DiskStore]:
    """Open the store in `data`, and leave it at the end as a killed process does: its logs not flushed, nothing closed.

    RocksDB flushes its memtables when it is closed, so the files are copied before (without its lock file: whoever
    opens that one in this process drops the lock).
    """
    with hold_directory(data) as lock:
        store = open_store(lock)
        try:
            yield store
            store._trimmer.join()
            store._db._db.cancel_all_background(True)  # else a file may go while it is copied
            shutil.copytree(data / "db", data / "killed", ignore=shutil.ignore_patterns("LOCK"))
            mark = (data / "watermark").read_bytes()
        finally:
            store.abandon()
        shutil.rmtree(data / "db")
        (data / "killed").rename(data / "db")
        (data / "watermark").write_bytes(mark)


@contextmanager
def read_store(data: Path) -> Iterator[DiskStore]:
    """Open the store in `data` for reading only."""
    with hold_directory(data, create=False) as lock:
        store = open_for_reading(lock)
        try:
            yield store
        finally:
            store.close()


def all_rows(store: View, table: Table[R], page: int = 1_000) -> Iterator[tuple[Key, R]]:
    """Yield all rows of a table in key order, `page` at a time."""
    beyond = (BEHIND_NAMES,) if table.fields == ("name",) else (1 << 64,)
    low: Key = ()
    while rows := store.scan(table, low, beyond, page):
        yield from rows
        low = (*rows[-1][0], 0)


def write(store: DiskStore | MemoryStore, changes: Changes) -> int:
    """Write the changes as the next turn, not yet durable; return its number."""
    sequence = store.sequence + 1
    store.write(changes, sequence=sequence, epoch=1, wall_ms=1_000 * sequence)
    return sequence


def commit(store: DiskStore | MemoryStore, changes: Changes) -> int:
    """Write the changes as the next turn and make them durable."""
    sequence = write(store, changes)
    store.flush(sequence)
    return sequence


def some_changes(number: int, padding: int = 0) -> dict[Any, dict[Any, Any]]:
    """Return the changes of a small turn that touch three families; `padding` bytes in the task's record."""
    return {
        TASK: {(number, 0, 0): Task(State.RUNNING, attempt=number, result=b"r" * padding)},
        RUNNING: {(7, number, 0, 0): number, (7, number - 1, 0, 0): None},
        READY: {(1, 100, number, 0): True},
        LANE_NAME: {(f"lane {number % 10}",): number},
    }
