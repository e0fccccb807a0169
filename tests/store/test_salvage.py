"""A store with damage of any kind is made whole of what can be read, says what it gave up, and can be served.

The kinds are those of tests/faults/test_wal_damage.py, and flipped bytes and missing files of every other kind.
TQ_SALVAGE_FILES sets how many files of a kind are damaged, one after the other (default 3, the largest ones).
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.test_rebuild import small_batches as small_batches  # noqa: PLC0414 - a fixture
from tests.support.backups import rows, tree
from tests.support.store import all_rows, disk_store, killed_store, read_store
from tests.support.wal import record_ends
from tests.support.worker_context import WORKERS, WorkerContext
from tq.core import vocabulary as v
from tq.core.engine.engine import Engine
from tq.core.model import tables
from tq.core.repair import invariants
from tq.errors import ConfigurationError, StoreDamaged, StoreError
from tq.limits import KIB
from tq.store import rocks, salvage
from tq.store.check import check_bytes
from tq.store.directory import hold_directory
from tq.store.keys import FAMILIES
from tq.store.salvage import Order, Salvaged

LINEAGE = 4_711
WALL_MS = 1_800_000_000_000
STEPS = 60
FILES = int(os.environ.get("TQ_SALVAGE_FILES", "3"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store with a past, as a killed server leaves it: several tables, blobs and live logs."""
    data = tmp_path_factory.mktemp("salvage") / "data"
    with pytest.MonkeyPatch.context() as patch:
        for family in rocks.memtable_bytes:
            patch.setitem(rocks.memtable_bytes, family, 64 * KIB)
        patch.setattr(invariants, "check", lambda *_: [])  # the engine is not what is tested here
        with killed_store(data) as store:
            life = WorkerContext(11, store=store).live(STEPS)
            store.flush_memtables()
            life.live(STEPS)
            store.flush(store.sequence)
    return data


class Damaged:
    """Copies of the template, hard-linked, each to be damaged in one place."""

    def __init__(self, template: Path, place: Path) -> None:
        self.template = template
        self.place = place
        self.count = 0

    def copy(self) -> Path:
        self.count += 1
        data = self.place / str(self.count)
        shutil.copytree(self.template, data, copy_function=os.link)
        for name in ("format", "watermark"):
            (data / name).unlink()
            shutil.copy(self.template / name, data / name)
        data.chmod(0o700)
        return data

    def files(self, pattern: str) -> list[Path]:
        return sorted(path for path in (self.template / "db").glob(pattern) if path.stat().st_size)

    def some(self, *patterns: str) -> list[Path]:
        """Return the largest files of each kind."""
        return [
            path
            for pattern in patterns
            for path in sorted(self.files(pattern), key=lambda path: -path.stat().st_size)[:FILES]
        ]

    def without(self, path: Path) -> Path:
        data = self.copy()
        (data / "db" / path.name).unlink()
        return data

    def changed(self, path: Path, change: Callable[[bytearray], Any]) -> Path:
        data = self.copy()
        raw = bytearray(path.read_bytes())
        cut = change(raw)
        (data / "db" / path.name).unlink()
        (data / "db" / path.name).write_bytes(raw if cut is None else cut)
        return data


@pytest.fixture
def damaged(template: Path, tmp_path: Path) -> Damaged:
    return Damaged(template, tmp_path)


def order(**more: Any) -> Order:
    return Order(LINEAGE, WALL_MS, **more)


def is_whole(data: Path) -> bool:
    """Whether nothing is wrong with a store: the damage was in bytes that say nothing, or in a file of the past."""
    try:
        with read_store(data) as store:
            return not (check_bytes(store).problems or invariants.check(store))
    except StoreError:
        return False


def make_whole(data: Path) -> Salvaged | None:
    """Salvage, first dry, and assert that what comes out is clean and can be served. None for a store that is whole."""
    if is_whole(data):
        assert salvage.salvage(data, order()) is None
        return None
    before = contents(data)
    dry = salvage.salvage(data, order(is_dry=True))
    assert dry is not None
    assert contents(data) == before
    done = salvage.salvage(data, order())
    assert done is not None
    assert (done.losses, done.counts, done.sequence) == (dry.losses, dry.counts, dry.sequence)
    assert done.kept == data / "damaged-1"
    kept = contents(data / "damaged-1")
    assert kept == {name: raw for name, raw in before.items() if name.startswith(("db/", "format", "watermark"))}
    with read_store(data) as store:
        assert check_bytes(store).problems == []
        assert invariants.check(store) == []
    serve(data)
    assert {name.partition("/")[0] for name in tree(data)} == {"db", "damaged-1", "format", "server.lock", "watermark"}
    return done


def contents(data: Path) -> dict[str, bytes]:
    """Return every file but logs of RocksDB's own and lock files, by name."""
    found = {name: (data / name) for name in tree(data)}
    return {
        name: path.read_bytes()
        for name, path in found.items()
        if path.is_file() and not re.search(r"LOG|LOCK|server\.lock|OPTIONS", name)
    }


def serve(data: Path) -> None:
    """Let an engine live on with the store, to the end of all that may run."""
    with pytest.MonkeyPatch.context() as patch, disk_store(data) as store:
        checks = [invariants.check(store)]
        patch.setattr(invariants, "check", lambda *_: [])
        life = WorkerContext.__new__(WorkerContext)
        meta = store.get(tables.META, ())
        assert meta is not None
        assert meta.lineage == LINEAGE
        life.store, life.delivery, life.now_ms, life.bounds = store, 0, meta.steady_ms, Engine(store).bounds
        life.jobs = [key[0] for key, _ in all_rows(store, tables.JOB)]
        life.engine = Engine(store)
        life.do(v.Recover(1))
        for worker in range(1, WORKERS + 1):
            life.join(worker, 1, slots=4)
        life.do(v.SetQueue("other", max=0))
        life.settle()
        patch.undo()
        assert [*checks, invariants.check(store)] == [[], []]


def test_a_whole_store_is_left_alone(damaged: Damaged) -> None:
    data = damaged.copy()
    before = contents(data)
    assert salvage.salvage(data, order()) is None
    assert contents(data) == before


def test_the_template_has_files_of_every_kind(damaged: Damaged) -> None:
    assert min(len(damaged.files(pattern)) for pattern in ("*.log", "*.sst", "*.blob", "MANIFEST-*")) >= 1
    assert len(damaged.files("*.log")) >= 2


def test_every_log_that_is_gone_or_cut_is_named_by_its_commits(damaged: Damaged) -> None:
    found = 0
    for log in damaged.some("*.log"):
        ends = record_ends(log)
        for size in (0, ends[0] - 3, ends[len(ends) // 2], ends[len(ends) // 2] + 9):
            done = make_whole(damaged.changed(log, lambda raw, size=size: raw[:size]) if size else damaged.without(log))
            if done is not None:
                found += 1
                lost = [re.match(r"commits? (\d+)(?: to (\d+))? (?:is|are) lost", loss) for loss in done.losses]
                assert any(lost), done.losses
    assert found


def test_lost_commits_are_those_that_a_start_names(damaged: Damaged) -> None:
    log = damaged.files("*.log")[-1]
    data = damaged.without(log)
    with pytest.raises(StoreDamaged) as caught, disk_store(data):
        pass
    named = re.search(r"turn (\d+) is|turns, (\d+) to (\d+), are", caught.value.message)
    assert named is not None
    done = make_whole(data)
    assert done is not None
    said = f"commit {named[1]} is lost" if named[1] else f"commits {named[2]} to {named[3]} are lost"
    assert said in "\n".join(done.losses)


def test_a_flipped_byte_in_a_log_is_passed_over(damaged: Damaged) -> None:
    found = 0
    for log in damaged.some("*.log"):
        for part in (3, 5, 9):

            def flip(raw: bytearray, part: int = part) -> None:
                raw[len(raw) // part] ^= 1

            done = make_whole(damaged.changed(log, flip))
            found += done is not None
    assert found


@pytest.mark.parametrize("at", [0.1, 0.5, 0.999])
def test_a_flipped_byte_in_any_table_file_or_blob_file_is_passed_over(damaged: Damaged, at: float) -> None:
    noticed = 0

    def flip(raw: bytearray) -> None:
        raw[int(len(raw) * at)] ^= 0x40

    for path in damaged.some("*.sst", "*.blob"):
        done = make_whole(damaged.changed(path, flip))
        if done is not None:
            noticed += 1
            assert done.losses
    assert noticed


def test_a_table_or_blob_file_that_is_gone_is_passed_over(damaged: Damaged) -> None:
    noticed = 0
    for path in damaged.some("*.sst", "*.blob"):
        done = make_whole(damaged.without(path))
        if done is not None:
            noticed += 1
            assert done.losses
    assert noticed


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*"])
@pytest.mark.parametrize("gone", [True, False])
def test_without_the_list_of_files_what_is_in_them_is_found(damaged: Damaged, pattern: str, gone: bool) -> None:
    (path,) = damaged.files(pattern)
    data = damaged.without(path) if gone else damaged.changed(path, lambda raw: bytes(len(raw)))
    done = make_whole(data)
    assert done is not None
    assert "its list of files is made anew" in done.losses[0]


@pytest.fixture
def closed(template: Path, tmp_path: Path) -> Damaged:
    """Copies of the store as it was closed: all is in tables, and the newest one of each family has marks alone."""
    data = tmp_path / "closed"
    shutil.copytree(template, data)
    with disk_store(data) as store:
        store.compact()  # one table for each family, so that none is merged with those that the close makes
    return Damaged(data, tmp_path / "damaged")


def newest(damaged: Damaged) -> list[Path]:
    return damaged.files("*.sst")[-len(FAMILIES) :]


def test_a_garbled_mark_is_damage_like_any_other(closed: Damaged) -> None:
    jobs = len(rows_of_jobs(closed.template))

    def flip(raw: bytearray) -> None:
        raw[1] ^= 1

    for path in newest(closed):
        data = closed.changed(path, flip)
        with pytest.raises(StoreDamaged), read_store(data):
            pass
        dry = salvage.salvage(data, order(is_dry=True))
        assert dry is not None
        assert dry.counts["jobs"] == jobs


def test_a_table_file_that_cannot_be_opened_hides_no_other(closed: Damaged) -> None:
    jobs, held = len(rows_of_jobs(closed.template)), 0
    for path in newest(closed):
        for data in (closed.without(path), closed.changed(path, lambda raw: raw[:-1])):
            with pytest.raises(StoreDamaged, match="damaged"), disk_store(data):
                pass
            dry = salvage.salvage(data, order(is_dry=True))
            assert dry is not None
            assert (dry.counts["jobs"], dry.counts["lost"], dry.counts["dead"]) == (jobs, 0, 0)
            held += any("is held: what it did last may be lost" in loss for loss in dry.losses)
    assert held == 4, "the file may have had the last that is known of a task, or of a job"


def test_the_jobs_of_the_other_table_files_are_there_and_wait_for_a_look(closed: Damaged) -> None:
    for path in newest(closed):
        done = make_whole(closed.without(path))
        assert done is not None
        assert done.counts["jobs"] == len(rows_of_jobs(closed.template))


def rows_of_jobs(data: Path) -> list[Any]:
    with read_store(data) as store:
        return list(all_rows(store, tables.JOB))


def test_a_garbled_watermark_says_nothing(damaged: Damaged) -> None:
    data = damaged.copy()
    (data / "watermark").write_bytes(b"\xff" * 8)
    with pytest.raises(StoreDamaged), disk_store(data):
        pass
    done = make_whole(data)
    assert done is not None
    assert any("watermark" in loss for loss in done.losses)
    assert done.sequence < 10_000


@pytest.mark.parametrize("name", ["watermark", "format"])
def test_without_one_of_the_small_files_all_is_there(damaged: Damaged, name: str) -> None:
    data = damaged.copy()
    (data / name).unlink()
    dry = salvage.salvage(data, order(is_dry=True))
    assert dry is not None
    assert any(name in loss for loss in dry.losses)
    assert salvage.salvage(data, order()) is not None
    serve(data)


def test_an_undamaged_store_whose_indexes_are_wrong_gets_them_anew(damaged: Damaged) -> None:
    data = damaged.copy()
    with disk_store(data) as store:
        ((key, lane), *_) = all_rows(store, tables.LANE)
        lane.counts[3] += 5
        sequence = store.sequence + 1
        store.write(
            {tables.LANE: {key: lane}, tables.READY: {(1, 1, 99_999, 0): True}}, sequence=sequence, epoch=1, wall_ms=1
        )
    before = rows(data)
    done = make_whole(data)
    assert done is not None
    assert done.losses == [loss for loss in done.losses if "uploads" in loss]
    assert rows(data) != before


def test_the_damaged_store_goes_when_that_is_asked_for(damaged: Damaged) -> None:
    data = damaged.without(damaged.files("*.log")[0])
    done = salvage.salvage(data, order(keeps_original=False))
    assert done is not None
    assert done.kept is None
    assert {name.partition("/")[0] for name in tree(data)} == {"db", "format", "server.lock", "watermark"}


class Cut(Exception):
    """The process dies here."""


@pytest.mark.parametrize("moved", range(7))
def test_a_salvage_that_was_cut_off_goes_on_and_no_server_starts_in_between(
    damaged: Damaged, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    data = damaged.without(damaged.files("*.log")[0])
    real, left = Path.rename, [moved]

    def rename(path: Path, target: Path) -> Path:
        if path.parent in (data, data / "salvaged") and path.name in ("db", "watermark", "format", "salvaging"):
            if not left[0]:
                raise Cut
            left[0] -= 1
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(Cut):
            salvage.salvage(data, order())
    with pytest.raises((ConfigurationError, StoreDamaged)) as caught, disk_store(data):
        pass
    if moved > 1:
        assert "tq store salvage" in caught.value.hint
    before = tree(data)
    dry = salvage.salvage(data, order(is_dry=True))
    assert dry is not None
    assert dry.kept is None
    assert tree(data) == before
    done = salvage.salvage(data, order())
    assert done is not None
    assert done.kept == data / "damaged-1"
    serve(data)


def test_a_disk_that_is_full_in_the_middle_is_left_as_full_as_it_was(
    damaged: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = damaged.without(damaged.files("*.log")[0])
    before = tree(data)

    def fail(*_arguments: object) -> int:
        raise StoreError("the store failed to write: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(salvage, "_copy_output", fail)
        with pytest.raises(StoreError, match=r"new store cannot be made: .* No space") as caught:
            salvage.salvage(data, order())
    assert "untouched" in caught.value.hint
    assert tree(data) == before
    serve(data) if salvage.salvage(data, order()) else pytest.fail("it was whole")


def test_too_little_room_and_another_format_are_said(damaged: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    data = damaged.without(damaged.files("*.log")[0])
    with monkeypatch.context() as patch:
        patch.setattr(salvage, "free_bytes", lambda _: 10)
        with pytest.raises(ConfigurationError, match="has 10 bytes free"):
            salvage.salvage(data, order())
    (data / "format").write_text("format 9\nwritten by tq 8.0\n")
    with pytest.raises(ConfigurationError, match=r"written by tq 8\.0"):
        salvage.salvage(data, order())
    with pytest.raises(ConfigurationError, match="no store in"):
        salvage.salvage(data / "nothing", order())
    with hold_directory(data), pytest.raises(ConfigurationError, match="is held by"):
        salvage.salvage(data, order())
