"""`tq backup`: a whole file or none, whatever happens on the way; `tq restore` says what it made."""

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tests.support.backups import make_backup
from tq import __version__
from tq.core import vocabulary as v
from tq.errors import NotAllowed, NotDone, StoreError


def parts(data: bytes, *, cut_at: int = -1) -> Iterable[Any]:
    """Return the answers that carry an archive in three parts; the connection is cut behind part `cut_at`."""
    third = len(data) // 3 + 1
    found: list[Any] = [v.BackupPart(at, data[at : at + third], len(data), 7) for at in range(0, len(data), third)]
    return [*found[:cut_at], ..., found[-1]] if cut_at >= 0 else found


DATA = bytes(range(256)) * 5


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if not path.name.startswith(".local"))


def test_a_backup_is_written_whole_and_private(run: Run, server: FakeServer, place: Path) -> None:
    server.says[v.Backup] = lambda _: parts(DATA)
    ran = run("backup", "b.tar")
    assert (ran.status, ran.out, ran.err) == (0, "", "tq: b.tar has 1.2 KiB: the store up to commit 7\n")
    assert (place / "b.tar").read_bytes() == DATA
    assert (place / "b.tar").stat().st_mode & 0o777 == 0o600
    assert names(place) == ["b.tar"]
    shown = json.loads(run("backup", "b.tar", "-o", "json").out)
    assert shown == {"v": 1, "file": str(place / "b.tar"), "size_bytes": len(DATA), "sequence": 7}


def test_after_a_lost_connection_it_begins_anew(run: Run, server: FakeServer, place: Path) -> None:
    answers = [parts(DATA, cut_at=1), parts(DATA[::-1], cut_at=2), parts(DATA)]
    server.says[v.Backup] = lambda _: answers.pop(0)
    assert run("backup", "b.tar").status == 0
    assert (place / "b.tar").read_bytes() == DATA
    assert answers == []


@pytest.mark.parametrize(
    "error,status", [(NotDone("busy"), 75), (NotAllowed("no"), 4), (StoreError("broken"), 74)], ids=str
)
def test_what_is_refused_leaves_the_older_backup(
    run: Run, server: FakeServer, place: Path, error: Exception, status: int
) -> None:
    def refuse(_: Any) -> Any:
        raise error

    (place / "b.tar").write_bytes(b"older")
    server.says[v.Backup] = refuse
    assert run("backup", "b.tar").status == status
    assert (place / "b.tar").read_bytes() == b"older"
    assert names(place) == ["b.tar"]


def test_a_connection_that_never_holds_leaves_the_older_backup(run: Run, server: FakeServer, place: Path) -> None:
    (place / "b.tar").write_bytes(b"older")
    server.says[v.Backup] = lambda _: parts(DATA, cut_at=1)
    ran = run("backup", "b.tar")
    assert ran.status == 69
    assert "lost 5 times" in ran.err
    assert (place / "b.tar").read_bytes() == b"older"
    assert names(place) == ["b.tar"]


@pytest.mark.parametrize("wrong", ["gap", "short", "other"])
def test_parts_that_do_not_make_a_whole_are_a_failure(run: Run, server: FakeServer, place: Path, wrong: str) -> None:
    one, two, three = parts(DATA)
    server.says[v.Backup] = lambda _: {"gap": [one, three], "short": [one, two], "other": [v.Done()]}[wrong]
    assert run("backup", "b.tar").status == 76
    assert names(place) == []


def test_where_nothing_can_be_written_it_is_said(run: Run, server: FakeServer, place: Path) -> None:
    server.says[v.Backup] = lambda _: parts(DATA)
    ran = run("backup", "nowhere/b.tar")
    assert ran.status == 78
    assert "cannot be written: No such file or directory" in ran.err
    (place / "dir").mkdir()
    assert "is not a plain file" in run("backup", "dir").err
    assert not server.asked


def test_a_disk_that_cannot_take_it_is_not_filled(
    run: Run, server: FakeServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "b.tar").write_bytes(b"older")
    server.says[v.Backup] = lambda _: [v.BackupPart(0, DATA, 1 << 60, 7), v.BackupPart(len(DATA), DATA, 1 << 60, 7)]
    ran = run("backup", "b.tar")
    assert (ran.status, names(place), (place / "b.tar").read_bytes()) == (78, ["b.tar"], b"older")
    assert "cannot be written: No space left on device" in ran.err

    disk = os.statvfs(place)
    unknown = os.statvfs_result((disk.f_bsize, disk.f_frsize, *[0] * 8))
    monkeypatch.setattr(os, "fstatvfs", lambda _: unknown)
    server.says[v.Backup] = lambda _: parts(DATA)
    assert run("backup", "b.tar").status == 0


def test_a_link_stays_a_link_and_there_is_no_backup_to_stdout(run: Run, server: FakeServer, place: Path) -> None:
    server.says[v.Backup] = lambda _: parts(DATA)
    (place / "b.tar").write_bytes(b"older")
    for name, to in (("to-file", "b.tar"), ("to-nothing", "nowhere"), ("stdout", "/proc/self/fd/1")):
        (place / name).symlink_to(to)
        ran = run("backup", name)
        assert (ran.status, (place / name).is_symlink()) == (78, True)
        assert f"{name} is not a plain file" in ran.err
    assert run("backup", "-").status == 78
    assert names(place) == ["b.tar", "stdout", "to-file", "to-nothing"]
    assert (place / "b.tar").read_bytes() == b"older"
    assert not server.asked


def test_two_backups_into_one_file_do_not_mix_and_what_a_killed_one_left_is_taken(
    run: Run, server: FakeServer, place: Path
) -> None:
    server.says[v.Backup] = lambda _: parts(DATA)
    left = place / ".b.tar.part"
    left.write_bytes(b"x" * 10_000)
    left.chmod(0o644)
    with left.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        ran = run("backup", "b.tar")
    assert (ran.status, names(place)) == (78, [".b.tar.part"])
    assert "another backup is being written" in ran.err
    assert run("backup", "b.tar").status == 0
    assert names(place) == ["b.tar"]
    assert (place / "b.tar").read_bytes() == DATA
    assert (place / "b.tar").stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_have_put_there_under_another_name_is_not_written(
    run: Run, server: FakeServer, place: Path
) -> None:
    server.says[v.Backup] = lambda _: parts(DATA)
    (place / "precious").write_bytes(b"precious")
    (place / ".b.tar.part").hardlink_to(place / "precious")
    ran = run("backup", "b.tar")
    assert ran.status == 78
    assert "another name" in ran.err
    assert (place / "precious").read_bytes() == b"precious"
    assert (place / "precious").stat().st_mode & 0o777 != 0o600


def test_a_restore_says_what_it_made_and_how_to_serve_it(run: Run, place: Path) -> None:
    make_backup(place / "old", place / "b.tar")
    ran = run("restore", "b.tar", "--data", "new")
    assert (ran.status, ran.out) == (0, "")
    assert f"{place / 'new'} is the store up to commit 5" in ran.err
    assert f"tq server --data {place / 'new'}" in ran.err
    assert json.loads(run("restore", "b.tar", "--data", "again", "-o", "json").out) == {
        "v": 1, "data": str(place / "again"), "sequence": 5, "version": __version__,
    }  # fmt: skip


def test_a_restore_that_is_refused_says_why(run: Run, place: Path) -> None:
    make_backup(place / "old", place / "b.tar")
    ran = run("restore", "b.tar", "--data", "old")
    assert (ran.status, ran.out) == (78, "")
    assert "is not empty" in ran.err
    assert "hint:" in ran.err
    (place / "b.tar").write_bytes((place / "b.tar").read_bytes()[:-1_000])
    ran = run("restore", "b.tar", "--data", "new")
    assert ran.status == 78
    assert "is damaged" in ran.err
    assert not (place / "new").exists()
