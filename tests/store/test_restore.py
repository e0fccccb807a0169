"""A restored store is the one that was backed up, at its commit, under another name; and only in a fresh directory."""

import threading
from pathlib import Path

import pytest

from tests.faults import commit_turns
from tests.support.backups import IDENTITY, make_backup, pack, rows, tree
from tests.support.store import all_rows, disk_store, read_store
from tq.core.model.tables import BODY, LANE_NAME, META, READY, TASK
from tq.errors import ConfigurationError
from tq.store import archive, files, restore, rocks
from tq.store.check import check_bytes
from tq.store.directory import RESTORING, hold_directory


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    make_backup(tmp_path / "data", tmp_path / "backup.tar", turns=30)
    return tmp_path / "backup.tar"


def test_every_row_is_there_under_another_lineage_and_the_directory_is_private(backup: Path, tmp_path: Path) -> None:
    data = tmp_path / "new"
    head = restore.restore(backup, data, 123)
    assert rows(data) == rows(tmp_path / "data")
    assert (head.sequence, head.lineage, head.epoch) == (30, "0000000000000009", 3)
    with disk_store(data) as store:
        assert check_bytes(store).problems == []
        assert store.output((1, 0, 0), 1)[0].data == b"printed" * 500
        meta = store.get(META, ())
        assert meta is not None
        assert (meta.lineage, meta.epoch, meta.sequence, meta.steady_ms) == (123, 3, 31, 5)
        assert store.sequence == 31
    assert (data / "identity/ca.key").read_bytes() == IDENTITY["identity/ca.key"]
    assert data.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in (data / "identity").iterdir()} == {0}
    assert not any(name.startswith((RESTORING, archive.HEAD, archive.SEAL)) for name in tree(data))


def test_a_backup_between_turns_is_the_store_at_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushes of the memtables and of the log go on in other threads, as in a server; turn keys are trimmed."""
    for family in rocks.memtable_bytes:
        monkeypatch.setitem(rocks.memtable_bytes, family, 64 * 1024)
    monkeypatch.setattr("tq.store.turns._TURNS", 60)
    backups = []
    with disk_store(tmp_path / "data") as store:
        for turn in range(1, 401):
            store.put_output((turn, 0, 0), 1, 1, 0, commit_turns.output(turn))
            store.write(commit_turns.changes(turn), sequence=turn, epoch=1, wall_ms=turn)
            if turn % 7 == 0:
                store.flush(turn)
            if turn % 50 == 13:
                flushing = threading.Thread(target=store.flush_memtables)
                flushing.start()
                backups.append((pack(store, tmp_path / f"{turn}.tar"), tmp_path / f"{turn}.tar"))
                flushing.join()
                assert backups[-1][0] == turn
    for turn, path in backups:
        place = tmp_path / f"unpacked-{turn}"
        place.mkdir(mode=0o700)
        archive.unpack(path, place)
        with read_store(place) as store:
            assert store.sequence == turn
            assert check_bytes(store).problems == []
            assert [key for key, _ in all_rows(store, TASK)] == [
                (job, 0, m) for job in range(1, turn + 1) for m in range(3)
            ]
            assert sum(1 for _ in all_rows(store, READY)) == 40 * turn - (turn - 5)
            assert sum(1 for _ in all_rows(store, BODY)) == turn
            assert store.get(LANE_NAME, ("latest",)) == turn
            assert all(store.output((job, 0, 0), 1) == [(1, 0, commit_turns.output(job))] for job in range(1, turn + 1))


@pytest.mark.parametrize("name", ["db", "format", "file", ".hidden", "connection.json"])
def test_a_directory_that_is_not_empty_is_never_touched(backup: Path, tmp_path: Path, name: str) -> None:
    data = tmp_path / "new"
    data.mkdir(mode=0o700)
    (data / name).write_text("mine")
    with pytest.raises(ConfigurationError, match="is not empty"):
        restore.restore(backup, data, 1)
    assert tree(data) == [name]
    assert (data / name).read_text() == "mine"


def test_a_store_is_not_taken_for_a_restore_that_was_cut_off(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / RESTORING).mkdir()
    with pytest.raises(ConfigurationError, match="is not empty"):
        restore.restore(backup, tmp_path / "data", 1)
    with disk_store(tmp_path / "data") as store:
        assert store.sequence == 30
    assert not (tmp_path / "data" / RESTORING).exists()


def test_a_file_a_served_directory_and_an_open_one_are_refused(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is not a directory"):
        restore.restore(backup, tmp_path / "file", 1)
    with hold_directory(tmp_path / "held"), pytest.raises(ConfigurationError, match="is held by"):
        restore.restore(backup, tmp_path / "held", 1)


def test_too_little_room_is_said_before_anything_is_written(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "free_bytes", lambda _: 1_000)
    with pytest.raises(ConfigurationError, match="has 1000 bytes free; a restore needs"):
        restore.restore(backup, tmp_path / "new", 1)
    assert tree(tmp_path / "new") == ["server.lock"]


class Cut(Exception):
    """The process dies here."""


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_where_a_restore_was_cut_off_no_server_starts_and_another_restore_begins_anew(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    data = tmp_path / "new"
    real, left = Path.rename, [moved]

    def rename(path: Path, target: Path) -> Path:
        if path.parent.name == RESTORING:
            if not left[0]:
                raise Cut
            left[0] -= 1
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        patch.setattr(restore, "_clear", lambda _: None)  # a killed process clears nothing
        with pytest.raises(Cut):
            restore.restore(backup, data, 1)
    with pytest.raises(ConfigurationError, match=r"a restore into .* was cut off") as caught, disk_store(data):
        pass
    assert "tq restore" in caught.value.hint
    restore.restore(backup, data, 5)
    assert rows(data) == rows(tmp_path / "data")


def test_a_restore_that_fails_leaves_nothing(backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archive, "sync_directory", fail)
        with pytest.raises(OSError, match="No space"):
            restore.restore(backup, tmp_path / "new", 1)
    assert tree(tmp_path / "new") == ["server.lock"]
    restore.restore(backup, tmp_path / "new", 1)


def test_what_a_restore_cannot_have_made_is_never_removed(backup: Path, tmp_path: Path) -> None:
    """Somebody's own directory may well have a folder of that name in it."""
    (tmp_path / "home" / RESTORING).mkdir(parents=True)
    (tmp_path / "home" / "thesis").write_text("years")
    with pytest.raises(ConfigurationError, match=r"is not empty \(it has thesis"):
        restore.restore(backup, tmp_path / "home", 1)
    assert (tmp_path / "home" / "thesis").read_text() == "years"
    assert (tmp_path / "home" / RESTORING).is_dir()


def test_the_part_that_says_that_all_are_there_is_never_durable_before_the_others(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut between two renames may keep either of them."""
    data = tmp_path / "new"
    done: list[str] = []
    rename, sync = Path.rename, files.sync_directory

    def renamed(path: Path, target: Path) -> Path:
        if path.parent == data / RESTORING:
            done.append(path.name)
        return rename(path, target)

    def synced(directory: Path) -> None:
        sync(directory)
        if directory == data:
            done.append("sync")

    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(files, "sync_directory", synced)
    restore.restore(backup, data, 123)
    assert done == ["identity", "db", "watermark", "sync", "format", "sync"]
