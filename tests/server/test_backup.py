"""A backup leaves nothing behind, however it ends; there is one at a time, and none on a disk that is nearly full."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.backups import tree
from tests.support.store import commit, disk_store, some_changes
from tq.core.model.job import Meta
from tq.core.model.tables import META
from tq.core.vocabulary import BackupPart, Times
from tq.errors import NotDone
from tq.server.operation.backup import Backups, clear
from tq.store import archive
from tq.store.directory import Room
from tq.store.disk import DiskStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    dice = random.Random(1)
    with disk_store(tmp_path / "data") as opened:
        for number in range(1, 30):
            opened.put_output((number, 0, 0), 1, 1, 0, dice.randbytes(16_000))
            commit(opened, some_changes(number))
        commit(opened, {META: {(): Meta(9, epoch=2, sequence=30)}})
        (opened.data / "identity").mkdir(mode=0o700)
        (opened.data / "identity/ca.key").write_bytes(b"the key")
        yield opened


def backups(store: DiskStore, room: Room = Room.NORMAL) -> Backups:
    return Backups(store, lambda: Times(1, 1_800_000_000_000), lambda: room)


class Receiver:
    """Takes the parts of a backup; `gate` keeps the next one waiting while it is not set."""

    def __init__(self) -> None:
        self.parts: list[tuple[BackupPart, bool]] = []
        self.gate = trio.Event()
        self.begun = trio.Event()

    async def __call__(self, answer: Any, *, more: bool) -> None:
        self.begun.set()
        await self.gate.wait()
        self.parts.append((answer, more))


@asynccontextmanager
async def begun(made: Backups) -> AsyncIterator[Receiver]:
    """Begin a backup, and hold it at its first part while the block lasts; then let it end."""
    receiver = Receiver()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run, receiver)
        with trio.fail_after(20):
            await receiver.begun.wait()
        yield receiver
        receiver.gate.set()


async def test_the_parts_are_the_archive_and_only_the_last_says_so(store: DiskStore, tmp_path: Path) -> None:
    async with begun(backups(store)) as receiver:
        commit(store, some_changes(31))  # behind the commit that is being sent
        assert (store.data / "backup").exists()
    parts = [part for part, _ in receiver.parts]
    assert [more for _, more in receiver.parts] == [True] * (len(parts) - 1) + [False]
    assert len(parts) > 1
    (tmp_path / "b.tar").write_bytes(b"".join(part.data for part in parts))
    assert {part.size_bytes for part in parts} == {(tmp_path / "b.tar").stat().st_size}
    head = archive.check(tmp_path / "b.tar")
    assert (head.sequence, head.epoch, head.lineage, head.made_ms) == (30, 2, f"{9:016x}", 1_800_000_000_000)
    assert "backup" not in tree(store.data)


async def test_there_is_one_at_a_time(store: DiskStore) -> None:
    made = backups(store)
    async with begun(made):
        with pytest.raises(NotDone, match="another backup"):
            await made.run(Receiver())
        assert (store.data / "backup").exists()
    async with begun(made) as receiver:
        pass
    assert receiver.parts


async def test_one_that_nobody_wants_any_more_is_cleared_away(store: DiskStore) -> None:
    made = backups(store)
    async with trio.open_nursery() as nursery:
        receiver = Receiver()
        nursery.start_soon(made.run, receiver)
        await receiver.begun.wait()
        nursery.cancel_scope.cancel()
    assert "backup" not in tree(store.data)
    async with begun(made):
        pass


async def test_without_a_thread_none_is_made_and_the_next_one_may_be(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    made = backups(store)
    with monkeypatch.context() as lack:
        lack.setattr(trio.to_thread, "run_sync", refuse)
        with pytest.raises(NotDone, match="new thread"):
            await made.run(Receiver())
    async with begun(made):
        pass


async def test_none_is_made_on_a_disk_that_is_nearly_full(store: DiskStore) -> None:
    with pytest.raises(NotDone, match="too full"):
        await backups(store, Room.CRITICAL).run(Receiver())
    async with begun(backups(store, Room.LOW)):
        pass


async def test_what_goes_wrong_is_said_and_cleared_away(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise OSError(28, "No space left on device")

    made = backups(store)
    with monkeypatch.context() as patch:
        patch.setattr(store._db, "checkpoint", fail)
        with pytest.raises(NotDone, match="No space left on device"):
            await made.run(Receiver())
    assert "backup" not in tree(store.data)
    async with begun(made):
        pass


def test_what_a_killed_server_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("backup/000001.sst", "backup.tmp/CURRENT", "db/CURRENT", "backup.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    clear(tmp_path)
    assert tree(tmp_path) == ["backup.tar", "db", "db/CURRENT"]
