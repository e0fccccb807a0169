"""The store on disk: what survives, what is noticed, and that the first failure is the last word."""

import gc
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.store import all_rows, commit, disk_store, killed_store, read_store, some_changes, write
from tq import __version__
from tq.core.model.job import Forgotten
from tq.core.model.tables import BODY, FORGOTTEN, LANE_NAME, TASK
from tq.core.model.task import State, Task
from tq.errors import ConfigurationError, StoreDamaged, StoreError
from tq.store import directory, recent, rocks, turns
from tq.store.check import check_bytes
from tq.store.directory import hold_directory
from tq.store.disk import DiskStore, open_for_reading, open_store
from tq.store.keys import KEYS, TRIMMED_KEY, turn_key


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def logs(data: Path) -> list[Path]:
    return sorted((data / "db").glob("*.log"))


def turn_keys(store: DiskStore, family: str) -> int:
    return sum(key < TRIMMED_KEY for key, _ in store.raw_rows(family, turn_key(0), 1_000_000))


def test_everything_is_there_after_a_clean_close_and_no_log_is_left_to_trust(data: Path) -> None:
    with disk_store(data) as store:
        for number in range(1, 50):
            commit(store, some_changes(number))
        store.put_output((1, 0, 0), 1, 1, 0, b"printed")
    assert sum(path.stat().st_size for path in logs(data)) == 0
    for path in logs(data):
        path.unlink()
    with disk_store(data) as store:
        assert store.sequence == store.flushed == 49
        assert len(list(all_rows(store, TASK))) == 49
        assert store.output((1, 0, 0), 1) == [(1, 0, b"printed")]
        assert [turn_keys(store, family) for family in ("state", "tasks", "bodies", "queues", "output")] == [0] * 5


def test_everything_written_is_there_after_the_death_of_the_process(data: Path) -> None:
    for life in range(3):
        with killed_store(data) as store:
            assert store.sequence == 10 * life
            for number in range(10 * life + 1, 10 * life + 11):
                commit(store, some_changes(number))
    with disk_store(data) as store:
        assert len(list(all_rows(store, TASK))) == 30
        assert turn_keys(store, "queues") == 30


def test_a_store_that_was_closed_cleanly_twice_still_knows_its_last_turn(data: Path) -> None:
    with disk_store(data) as store:
        commit(store, some_changes(1))
    for _ in range(2):
        with disk_store(data) as store:
            assert store.sequence == 1


def test_a_log_that_is_gone_is_noticed(data: Path) -> None:
    with killed_store(data) as store:
        for number in range(1, 21):
            commit(store, some_changes(number))
    for path in logs(data):
        path.unlink()
    for opened in (read_store, disk_store):
        with pytest.raises(StoreDamaged, match="20 turns, 1 to 20, are not in all families"), opened(data):
            pass


def test_a_database_that_is_gone_is_noticed_and_not_made_anew(data: Path) -> None:
    with disk_store(data) as store:
        commit(store, some_changes(1))
    (data / "db").rename(data / "elsewhere")
    with pytest.raises(StoreDamaged, match="is gone"), disk_store(data):
        pass
    (data / "elsewhere").rename(data / "db")
    (data / "db" / "CURRENT").unlink()
    with pytest.raises(StoreDamaged, match="is gone"), disk_store(data):
        pass


def test_what_a_first_start_that_was_killed_has_left_is_no_damage(data: Path) -> None:
    with hold_directory(data) as lock:
        directory.prepare(data)
        (data / "db").mkdir()
        with pytest.raises(ConfigurationError, match="there is no store"):
            open_for_reading(lock)
    with disk_store(data) as store:
        assert store.sequence == 0


def test_a_refused_store_is_let_go_of(data: Path) -> None:
    with killed_store(data) as store:
        commit(store, some_changes(1))
    for path in logs(data):
        path.rename(path.with_suffix(".kept"))
    with pytest.raises(StoreDamaged), disk_store(data):
        pass
    with pytest.raises(StoreDamaged, match="turn 1 is not in all families"), disk_store(data):
        pass


def test_the_first_failure_is_for_ever_and_reads_go_on(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk_store(data) as store:
        commit(store, some_changes(1))
        write(store, some_changes(2))

        def fail() -> None:
            raise Exception("IO error: No space left on device")  # noqa: TRY002 - as rocksdict raises

        with monkeypatch.context() as patch:
            patch.setattr(store._db, "sync_log", fail)
            with pytest.raises(StoreError, match="failed to flush: IO error: No space left"):
                store.flush(2)
        for _ in range(2):
            with pytest.raises(StoreError, match="failed to flush"):
                store.flush(2)
            with pytest.raises(StoreError, match="failed to flush"):
                write(store, some_changes(3))
            with pytest.raises(StoreError, match="failed to flush"):
                store.put_output((1, 0, 0), 1, 1, 0, b"x")
        assert store.flushed == 1
        assert store.get(TASK, (2, 0, 0)) is not None
    with disk_store(data) as store:
        assert store.get(TASK, (1, 0, 0)) is not None


@pytest.mark.parametrize("name", ["watermark", "db", "."])
@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_store_that_was_removed_or_replaced_takes_nothing_more(data: Path, name: str, *, is_replaced: bool) -> None:
    with disk_store(data) as store:
        commit(store, some_changes(1))
        store.free_bytes()
        (data / name).resolve().rename(data.with_name("elsewhere"))
        if is_replaced:
            data.mkdir(mode=0o700, exist_ok=True)
            (data / "watermark").write_bytes(bytes(8))
        with pytest.raises(StoreError, match="removed or replaced"):
            store.free_bytes()
        with pytest.raises(StoreError, match="removed or replaced"):
            write(store, some_changes(2))
        store.abandon()


def test_where_no_more_files_may_be_open_the_hint_is_not_the_disk(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk_store(data) as store:
        commit(store, some_changes(1))
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()  # what others have left open must not be closed meanwhile
    with hold_directory(data) as lock:
        spare = os.dup(0)  # the limit is on numbers, and what others have left open has gaps
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 2, hard))
        try:
            with pytest.raises(StoreError, match="Too many open files") as caught:
                open_store(lock)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    assert "ulimit -n" in caught.value.hint
    with disk_store(data) as store:
        assert store.get(TASK, (1, 0, 0)) is not None


@pytest.mark.parametrize("failed", [rocks.read_error, rocks.write_error])
def test_nor_is_it_once_the_store_is_open(failed: Callable[[str, Exception], StoreError]) -> None:
    assert "ulimit -n" in failed("jobs", OSError("IO error: While open a file: 7.sst: Too many open files")).hint
    assert "ulimit -n" not in failed("jobs", OSError("IO error: While open a file: 7.sst: Permission denied")).hint


def test_a_failed_write_changes_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk_store(data) as store:

        def fail(batch: object) -> None:
            raise Exception("IO error: broken")  # noqa: TRY002 - as rocksdict raises

        monkeypatch.setattr(store._db, "write", fail)
        with pytest.raises(StoreError, match="failed to write"):
            write(store, some_changes(1))
        assert store.sequence == 0
        assert store.get(TASK, (1, 0, 0)) is None


def test_changes_that_cannot_be_encoded_leave_the_store_as_it_was(data: Path) -> None:
    wrong: Any = object()
    with disk_store(data) as store:
        with pytest.raises(TypeError):
            write(store, {LANE_NAME: {("a",): 1, ("b",): wrong}})
        assert store.get(LANE_NAME, ("a",)) is None
        assert commit(store, {LANE_NAME: {("a",): 1}}) == 1


def test_a_damaged_table_file_is_noticed_by_scan_and_get(data: Path) -> None:
    dice = random.Random(5)
    with disk_store(data) as store:
        for job in range(200):
            commit(store, {TASK: {(job, 0, 0): Task(State.QUEUED, result=dice.randbytes(1_000))}})
    tables = sorted((data / "db").glob("*.sst"), key=lambda path: path.stat().st_size)
    raw = bytearray(tables[-1].read_bytes())
    raw[len(raw) // 2] ^= 1
    tables[-1].write_bytes(raw)
    with read_store(data) as store:
        with pytest.raises(StoreDamaged, match="damaged"):
            store.scan(TASK, (), (1_000,), 1_000)
        assert 0 < _failing_gets(store) < 200
        assert any("family tasks" in problem for problem in check_bytes(store).problems)


def _failing_gets(store: DiskStore) -> int:
    failed = 0
    for job in range(200):
        try:
            assert store.get(TASK, (job, 0, 0)) is not None
        except StoreDamaged:
            failed += 1
    return failed


def test_a_record_that_is_none_is_damage_and_named(data: Path) -> None:
    with disk_store(data) as store:
        _put_raw(store, "tasks", KEYS[TASK].pack(1, 0, 0), b"\xc1nonsense")
        with pytest.raises(StoreDamaged, match=r"\(1, 0, 0\) of table task"):
            store.get(TASK, (1, 0, 0))
        with pytest.raises(StoreDamaged, match="of table task"):
            store.scan(TASK, (), (9,), 9)


def _put_raw(store: DiskStore, family: str, key: bytes, value: bytes) -> None:
    from tq.store import rocks

    batch = rocks.batch()
    batch.put(key, value, store._families[family].handle)
    store._db.write(batch)


def test_a_check_counts_every_row_and_names_what_is_wrong(data: Path) -> None:
    with disk_store(data) as store:
        for number in range(1, 4):
            write(store, some_changes(number))
        store.put_output((1, 0, 0), 1, 1, 0, b"printed")
        good = check_bytes(store)
        assert good.problems == []
        assert good.rows == {"turn": 15, "task": 3, "running": 1, "ready": 3, "lane_name": 3, "output": 1}
        _put_raw(store, "tasks", KEYS[TASK].pack(1, 0, 0), b"\xc1")
        _put_raw(store, "queues", KEYS[TASK].pack(1, 0, 1), store_value(store))
        _put_raw(store, "bodies", KEYS[BODY].pack(1, 1) + b"longer", b"")
        _put_raw(store, "state", b"\xfe?", b"")
        problems = check_bytes(store).problems
        assert len(problems) == 5
        assert f"the store was served last by tq {__version__}" in problems[4]
        assert "belongs to no table" in problems[0]
        assert "table task" in problems[1]
        assert "body" in problems[2]
        assert "stands in family queues instead of tasks" in problems[3]


def store_value(store: DiskStore) -> bytes:
    return next(value for key, value in store.raw_rows("tasks", b"\x13", 10) if key == KEYS[TASK].pack(2, 0, 0))


def test_a_store_opened_for_reading_changes_nothing(data: Path) -> None:
    with killed_store(data) as store:
        for number in range(1, 5):
            commit(store, some_changes(number))
    before = {path: path.read_bytes() for path in sorted((data / "db").glob("*.log"))}
    with read_store(data) as store:
        assert store.sequence == 4
        assert len(list(all_rows(store, TASK))) == 4
        with pytest.raises(StoreError):
            write(store, some_changes(5))
    assert {path: path.read_bytes() for path in sorted((data / "db").glob("*.log"))} == before


def test_a_store_needs_the_lock(data: Path) -> None:
    lock = hold_directory(data)
    lock.release()
    for opened in (open_store, open_for_reading):
        with pytest.raises(Exception, match=r"not locked|no store"):
            opened(lock)


def test_turn_keys_go_once_all_memtables_are_flushed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_TURNS", 10)
    with killed_store(data) as store:
        for number in range(1, 36):
            commit(store, some_changes(number))
            store._trimmer.join()
        assert [turn_keys(store, family) for family in ("state", "tasks", "bodies", "queues", "output")] == [5] * 5
        assert len(logs(data)) >= 1
    with disk_store(data) as store:
        assert store.sequence == 35
        assert len(list(all_rows(store, TASK))) == 35


def test_before_a_trim_every_family_is_flushed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_TURNS", 10)
    with killed_store(data) as store:
        for number in range(1, 11):
            commit(store, some_changes(number))
        store._trimmer.join()
    for path in logs(data):
        path.unlink()
    with disk_store(data) as store:
        assert store.sequence == 10
        assert len(list(all_rows(store, TASK))) == 10


@pytest.mark.parametrize("last", [28, 29, 31, 32])
def test_a_log_that_is_gone_behind_a_trim_is_noticed(data: Path, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    monkeypatch.setattr(turns, "_TURNS", 10)
    with killed_store(data) as store:
        for number in range(1, last + 1):
            commit(store, some_changes(number))
            store._trimmer.join()
    gone = [path for path in logs(data) if path.stat().st_size]
    for path in gone:
        path.unlink()
    assert gone
    with pytest.raises(StoreDamaged, match="not in all families"), disk_store(data):
        pass


def test_trims_are_due_by_turns_by_bytes_and_by_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    now, flushes = [0.0], list[int]()
    monkeypatch.setattr(turns.time, "monotonic", lambda: now[0])
    trimmer = turns.Trimmer(lambda: not flushes.append(1), trimmed=100)

    def due(turn: int) -> int:
        trimmer.flushed(turn)
        trimmer.join()
        return trimmer.take()

    assert due(100_099) == 0
    assert due(100_100) == 100_100
    assert due(100_101) == 0
    trimmer.wrote(256 * 1024 * 1024)
    assert due(100_102) == 100_102
    now[0] += 3_600
    assert due(100_102) == 0
    assert due(100_103) == 100_103
    assert len(flushes) == 3


def test_without_a_thread_a_trim_waits_and_no_flush_fails(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(turns, "_TURNS", 1)
    with disk_store(data) as store:
        with monkeypatch.context() as lack:
            lack.setattr(turns.threading.Thread, "start", refuse)
            commit(store, some_changes(1))
            commit(store, some_changes(2))
            assert store._trimmer.take() == 0
        commit(store, some_changes(3))
        store._trimmer.join()
        assert store._trimmer.take() == store.sequence


def test_statistics_do_not_mind_a_log_that_goes_meanwhile(data: Path) -> None:
    with disk_store(data) as store:
        (data / "db" / "999999.log").symlink_to("gone")  # as a listing sees what was removed since

        assert store.statistics()["log_files"] >= 1


def test_statistics_are_plain_and_name_the_bounds(data: Path) -> None:
    with disk_store(data) as store:
        commit(store, some_changes(1))
        found = store.statistics()
    assert found["sequence"] == found["flushed"] == 1
    assert found["log_bytes"] > 0
    assert found["settings"]["log_bytes_max"] == 256 * 1024 * 1024
    assert set(found["families"]) == {"state", "tasks", "bodies", "queues", "output"}


def test_compaction_keeps_every_row_and_gives_back_what_was_forgotten(data: Path) -> None:
    task = Task(State.SUCCEEDED, result=b"u" * 50)
    with disk_store(data) as store:
        for first in range(0, 20_000, 1_000):
            commit(store, {TASK: {(1, 0, member): task for member in range(first, first + 1_000)}})
        store.put_output((2, 0, 0), 1, 1, 0, b"printed")
        commit(store, {TASK: {(2, 0, 0): task}})
        store.compact()
        full = store.statistics()["families"]["tasks"]["table_bytes"]
        commit(store, {FORGOTTEN: {(1,): Forgotten()}})
        store.compact()
        assert store.statistics()["families"]["tasks"]["table_bytes"] < full / 10
        assert [key for key, _ in all_rows(store, TASK)] == [(2, 0, 0)]
    with disk_store(data) as store:
        assert [key for key, _ in all_rows(store, TASK)] == [(2, 0, 0)]
        assert store.output((2, 0, 0), 1) == [(1, 0, b"printed")]


@pytest.mark.parametrize("seed", range(20))
def test_what_was_written_last_is_read_as_it_is_on_disk(data: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(recent, "rows_max", 7)
    dice = random.Random(seed)
    all_keys = [(job, 0, member) for job in (1, 2) for member in range(12)]
    with disk_store(data) as store:
        for turn in range(60):
            keys = dice.sample(all_keys, dice.randint(1, 9))
            rows = {key: dice.choice((Task(State.QUEUED, attempt=turn), None)) for key in keys}
            forgotten = {FORGOTTEN: {(1,): Forgotten()}} if dice.random() < 0.1 else {}
            commit(store, {TASK: rows, **forgotten})
            there = dict(store.scan(TASK, (), (9,), 100))
            assert [store.get(TASK, key) for key in all_keys] == [there.get(key) for key in all_keys]
