"""A data directory that is not ours, open to others, newer than this program or on a network disk is not touched."""

import os
import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.support.store import commit, disk_store, read_store, some_changes
from tq import __version__
from tq.errors import ConfigurationError, StoreDamaged
from tq.limits import MIB
from tq.store import directory, salvage
from tq.store.directory import Room, hold_directory, low_water_bytes, room


def test_a_new_directory_is_closed_to_others(tmp_path: Path) -> None:
    with disk_store(tmp_path / "a" / "data"):
        pass
    assert (tmp_path / "a" / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "data" / "format").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o755, 0o701, 0o770, 0o750])
def test_a_directory_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").touch()
    (tmp_path / "data").chmod(mode)
    with pytest.raises(ConfigurationError, match="open to other users") as caught:
        hold_directory(tmp_path / "data")
    assert "chmod 700" in caught.value.hint
    assert not (tmp_path / "data" / "server.lock").exists()


def test_a_path_that_rocksdb_cannot_be_told_is_refused_and_a_link_to_it_is_none(tmp_path: Path) -> None:
    data = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(ConfigurationError, match=r"is not UTF-8: b'.*caf\\xe9'") as caught:
        hold_directory(data)
    assert "symbolic link" in caught.value.hint
    assert not data.exists()
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    with disk_store(tmp_path / "link") as store:
        commit(store, some_changes(1))


def test_an_empty_directory_of_ours_is_closed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    hold_directory(tmp_path / "data").release()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_foreign_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(ConfigurationError, match=f"belongs to user {other - 1}"):
        hold_directory(tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("name", ["format", "watermark", "db", "db/CURRENT", "db/*.sst"])
def test_a_file_that_this_user_may_not_read_is_named_and_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data = tmp_path / "data"
    with disk_store(data) as store:
        commit(store, some_changes(1))
    (closed,) = sorted(data.glob(name))[:1]
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and real(path, mode))
    for use in (hold_directory, lambda place: salvage.salvage(place, salvage.Order(1, 1))):
        with pytest.raises(ConfigurationError, match=re.escape(f"may not read {closed}")) as caught:
            use(data)
        assert "chown -R" in caught.value.hint
    monkeypatch.undo()
    hold_directory(data).release()  # and it is not held


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(ConfigurationError, match="cannot be made"):
        hold_directory(tmp_path / "data")


def test_a_newer_store_is_refused_and_says_which_version_wrote_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with disk_store(data) as store:
        commit(store, some_changes(1))
    (data / "format").write_text("format 2\nwritten by tq 7.1.0\n")
    for opened in (disk_store, read_store):
        with pytest.raises(ConfigurationError, match=r"written by tq 7\.1\.0 \(format 2\)"), opened(data):
            pass
    assert (data / "format").read_text() == "format 2\nwritten by tq 7.1.0\n"


@pytest.mark.parametrize(
    "version, is_newer", [("0.10.0", True), ("9.0rc1", True), ("0.1.0rc1", False), ("0.0.99", False)]
)
def test_an_older_version_leaves_a_store_alone_whose_format_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, is_newer: bool
) -> None:
    data = tmp_path / "data"
    with disk_store(data):
        pass
    (data / "format").write_text(f"format 1\nwritten by tq {version}\n")
    monkeypatch.setattr(directory, "__version__", "0.1.0")
    for opened in (disk_store, read_store):
        refused = pytest.raises(ConfigurationError, match=f"written by tq {version}") if is_newer else nullcontext()
        with refused, opened(data):
            pass
    assert (version in (data / "format").read_text()) == is_newer


def test_a_store_of_this_format_says_who_wrote_it_last(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with disk_store(data):
        pass
    (data / "format").write_text("format 1\nwritten by tq 0.0.1\n")
    with disk_store(data):
        pass
    assert (data / "format").read_text() == f"format 1\nwritten by tq {__version__}\n"


def test_a_store_without_its_own_files_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with disk_store(data) as store:
        commit(store, some_changes(1))
    (data / "watermark").rename(data / "elsewhere")
    with pytest.raises(StoreDamaged, match="watermark is missing"), disk_store(data):
        pass
    (data / "elsewhere").rename(data / "watermark")
    (data / "format").write_text("nonsense")
    with pytest.raises(StoreDamaged, match="not a format"), disk_store(data):
        pass
    (data / "format").unlink()
    with pytest.raises(ConfigurationError, match="did not make"), disk_store(data):
        pass


def test_a_check_of_a_directory_without_a_store_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no store"), read_store(tmp_path / "data"):
        pass
    assert list(tmp_path.iterdir()) == []


LATIN = "\udce9"  # a name that is not UTF-8
MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:5 / {nfs} rw shared:2 - nfs4 server:/x rw
24 22 0:6 / {deep} rw - tmpfs tmpfs rw
25 24 0:7 / {hidden} rw - xfs /dev/sdb rw
26 24 0:8 / {hidden} rw - fuse.sshfs host: rw
27 22 0:9 / {accented} rw - cifs //server/x rw
"""


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path.resolve() / "m"
    places = {name: base / name for name in ("a b", "c", "c/d", "é", LATIN)}
    for place in places.values():
        place.mkdir(parents=True)
    named = {"nfs": "a b", "deep": "c", "hidden": "c/d", "accented": "é"}
    text = MOUNTS.format(**{name: str(places[place]).replace(" ", "\\040") for name, place in named.items()})
    text += f"28 22 0:10 / {places[LATIN]} rw - 9p x rw\n"
    (tmp_path / "mountinfo").write_bytes(os.fsencode(text))
    monkeypatch.setattr(directory, "_MOUNTS", tmp_path / "mountinfo")
    return base


def test_the_file_system_is_that_of_the_deepest_and_latest_mount(mounts: Path) -> None:
    assert directory.file_system(mounts) == "ext4"
    assert directory.file_system(mounts / "a b") == "nfs4"
    assert directory.file_system(mounts / "c") == "tmpfs"
    assert directory.file_system(mounts / "c/d") == "fuse.sshfs"
    assert directory.file_system(mounts / "é") == "cifs"
    assert directory.file_system(mounts / LATIN) == "9p"


def test_a_network_file_system_is_refused_unless_allowed(mounts: Path) -> None:
    for place in ("a b", "c/d"):
        with pytest.raises(ConfigurationError, match="network file system") as caught:
            hold_directory(mounts / place / "data")
        assert "--data-on-network" in caught.value.hint
        hold_directory(mounts / place / "data", allow_network=True).release()
    hold_directory(mounts / "c" / "data").release()


def test_the_kernel_says_what_file_system_this_is(tmp_path: Path) -> None:
    assert directory.file_system(tmp_path) != ""


def test_the_room_on_the_disk_has_two_marks() -> None:
    assert low_water_bytes == 512 * MIB
    assert room(low_water_bytes) is Room.NORMAL
    assert room(low_water_bytes - 1) is Room.LOW
    assert room(low_water_bytes // 2) is Room.LOW
    assert room(low_water_bytes // 2 - 1) is Room.CRITICAL


def test_free_bytes_are_those_of_the_disk(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    assert 0 < directory.free_bytes(tmp_path) <= found.f_blocks * found.f_frsize
