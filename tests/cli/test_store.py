"""`tq store` on a directory that no server has open."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tq.core.model import tables
from tq.core.model.job import Demand, Lane, Meta
from tq.core.model.view import Changes
from tq.store.directory import hold_directory
from tq.store.disk import open_store


def make(data: Path, changes: Changes) -> None:
    with hold_directory(data) as lock:
        store = open_store(lock)
        store.write({tables.META: {(): Meta(7, epoch=1, sequence=1)}, **changes}, sequence=1, epoch=1, wall_ms=1)
        store.flush(1)
        store.close()


def test_a_whole_store_is_0(run: Run, tmp_path: Path) -> None:
    make(tmp_path / "data", {})
    ran = run("store", "check", "--data", "data", "-o", "json")
    assert (ran.status, json.loads(ran.out)) == (0, {"v": 1, "ok": True, "problems": [], "rows": 6, "sequence": 1})
    ran = run("store", "check", "--data", "data")
    assert (ran.status, ran.out) == (0, "")
    assert ran.err == f"tq: {tmp_path / 'data'} is whole: 6 rows, up to commit 1\n"


def test_a_broken_rule_is_named_and_1(run: Run, tmp_path: Path) -> None:
    make(tmp_path / "data", {tables.LANE: {(1,): Lane("default", Demand(), ready=5)}})
    ran = run("store", "check", "--data", "data")
    assert ran.status == 1
    assert "lane 1" in ran.out
    assert not json.loads(run("store", "check", "--data", "data", "-o", "json").out)["ok"]


def test_the_directory_may_come_from_the_environment(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "data", {})
    monkeypatch.setenv("TQ_DATA", str(tmp_path / "data"))
    stats = json.loads(run("store", "stats", "-o", "json").out)
    assert (stats["served"], stats["sequence"]) == (False, 1)


@pytest.mark.parametrize("verb", ["check", "stats", "compact", "salvage"])
def test_where_there_is_no_store_it_is_said(run: Run, tmp_path: Path, verb: str) -> None:
    ran = run("store", verb, "--data", "nothing")
    assert (ran.status, ran.out) == (78, "")
    assert "nothing" in ran.err
    assert not (tmp_path / "nothing").exists()


def test_a_held_directory_is_not_opened(run: Run, tmp_path: Path) -> None:
    make(tmp_path / "data", {})
    with hold_directory(tmp_path / "data"):
        ran = run("store", "check", "--data", "data")
    assert ran.status == 78
    assert "is held by pid" in ran.err


def test_compaction_says_what_it_gave_back(run: Run, tmp_path: Path) -> None:
    make(tmp_path / "data", {})
    ran = run("store", "compact", "--data", "data", "-o", "json")
    assert ran.status == 0
    shown = json.loads(ran.out)
    assert (shown["v"], shown["before_bytes"] > 0, shown["after_bytes"] > 0) == (1, True, True)
    assert run("store", "compact", "--data", "data").err.startswith(f"tq: {tmp_path / 'data'} had ")
    assert run("store", "check", "--data", "data").status == 0


def test_a_served_store_is_not_compacted_from_outside(run: Run, tmp_path: Path) -> None:
    make(tmp_path / "data", {})
    with hold_directory(tmp_path / "data"):
        ran = run("store", "compact", "--data", "data")
    assert ran.status == 78
    assert "is held by pid" in ran.err


def damage(data: Path) -> None:
    """Make a store, and take the watermark further than it: commits 2 to 3 are missing."""
    make(data, {tables.LANE: {(1,): Lane("default", Demand())}})
    (data / "watermark").write_bytes((3).to_bytes(8, "big"))


def test_a_whole_store_is_not_salvaged(run: Run, tmp_path: Path) -> None:
    make(tmp_path / "data", {})
    ran = run("store", "salvage", "--data", "data")
    assert (ran.status, ran.out, ran.err) == (0, "", f"tq: {tmp_path / 'data'} is whole: there is nothing to salvage\n")
    assert json.loads(run("store", "salvage", "--data", "data", "-o", "json").out) == {
        "v": 1, "salvaged": False, "losses": [], "kept": None,
    }  # fmt: skip


def test_a_damaged_store_says_what_to_do_and_is_salvaged(run: Run, tmp_path: Path) -> None:
    damage(tmp_path / "data")
    ran = run("store", "check", "--data", "data")
    assert ran.status == 78
    assert "acknowledged work is missing: 2 turns, 2 to 3" in ran.err
    assert "tq store salvage" in ran.err
    dry = run("store", "salvage", "--data", "data", "--dry-run")
    assert (dry.status, dry.out) == (0, "commits 2 to 3 are lost\n")
    assert "nothing was changed" in dry.err
    assert run("store", "check", "--data", "data").status == 78
    ran = run("store", "salvage", "--data", "data")
    assert (ran.status, ran.out) == (0, dry.out)
    assert ran.err == f"tq: {tmp_path / 'data'} is whole again; the damaged store is {tmp_path / 'data/damaged-1'}\n"
    assert run("store", "check", "--data", "data").status == 0
    with hold_directory(tmp_path / "data") as lock:
        store = open_store(lock)
        meta = store.get(tables.META, ())
        store.close()
    assert meta is not None
    assert meta.lineage != 7
    assert store.sequence == 4


def test_a_salvage_is_json_and_may_drop_the_damaged_store(run: Run, tmp_path: Path) -> None:
    damage(tmp_path / "data")
    shown = json.loads(run("store", "salvage", "--data", "data", "--drop-damaged", "-o", "json").out)
    assert (shown["salvaged"], shown["losses"], shown["kept"]) == (True, ["commits 2 to 3 are lost"], None)
    assert not (tmp_path / "data/damaged-1").exists()


def test_a_served_store_is_not_salvaged(run: Run, tmp_path: Path) -> None:
    damage(tmp_path / "data")
    with hold_directory(tmp_path / "data"):
        ran = run("store", "salvage", "--data", "data")
    assert ran.status == 78
    assert "is held by pid" in ran.err
