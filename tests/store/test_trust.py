"""What another user could have put there, or could change, is refused by name: on the way, at the end, by a link."""

import errno
import grp
import json
import os
import pwd
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tq.errors import ConfigurationError
from tq.store import trust
from tq.store.files import make_directory

OTHER = 65_534
THIRD = 65_533
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file two directories down, all of it ours."""
    path = tmp_path / "one" / "two" / "file"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"text")
    return path


@pytest.fixture(autouse=True)
def no_groups_are_known_yet() -> Iterator[None]:
    trust._is_own_group.cache_clear()
    yield
    trust._is_own_group.cache_clear()


def refused(path: Path, place: Path, why: str, *, named: Path | None = None) -> ConfigurationError:
    """See that a path is refused because of this place on the way to it; return the error."""
    for look in (trust.check, trust.read):
        with pytest.raises(ConfigurationError) as caught:
            look(path, named=named)
        assert ("cannot be trusted" in caught.value.message) == (place != path)
        assert f"{place} " in caught.value.message
        assert why in caught.value.message + caught.value.hint
    return caught.value


def test_what_is_ours_is_read_and_what_is_missing_is_nobodys(file: Path) -> None:
    assert trust.read(file) == b"text"
    assert trust.read(file, bytes_max=2) == b"te"
    trust.check(file.parent)
    trust.check(file.parent / "missing" / "more")
    trust.check(file / "below a file")
    with pytest.raises(FileNotFoundError):
        trust.read(file.parent / "missing")


@pytest.mark.parametrize("up", [0, 1, 2])
@pytest.mark.parametrize("mode", [0o777, 0o702])
def test_where_others_may_write_the_place_is_named_and_how_to_close_it(file: Path, up: int, mode: int) -> None:
    place = (file, *file.parents)[up]
    place.chmod(mode)
    error = refused(file, place, f"other users may write to {place} (mode {mode:04o})")
    assert error.hint.endswith(f"chmod go-w {place}")
    place.chmod(mode & ~0o022)
    assert trust.read(file) == b"text"


@pytest.mark.parametrize("up", [0, 1, 2])
def test_what_another_user_owns_is_named_with_who_it_is(file: Path, up: int) -> None:
    place = (file, *file.parents)[up]
    os.chown(place, OTHER, OTHER)
    refused(file, place, f"belongs to user {trust._name(OTHER)}, not to root")


def test_nothing_is_said_of_the_way_to_what_is_not_there_unless_it_is_to_be_made(file: Path) -> None:
    file.parent.chmod(0o777)
    with pytest.raises(FileNotFoundError):
        trust.read(file.parent / "missing")
    with pytest.raises(ConfigurationError):
        trust.check(file.parent / "missing")


def test_what_is_roots_is_good_for_everybody_and_what_is_a_third_users_is_not(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    assert trust.read(file) == b"text"
    os.chown(file.parent, OTHER, OTHER)
    assert trust.read(file) == b"text"
    os.chown(file, THIRD, THIRD)
    refused(file, file, f"belongs to user {THIRD}, neither to this one ({OTHER}) nor to root")


def test_in_a_sticky_directory_only_what_is_ours_counts(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert trust.read(file) == b"text"
    refused_end = pytest.raises(ConfigurationError, match="may write to")
    with refused_end:
        trust.check(file.parent)
    os.chown(file, OTHER, OTHER)
    refused(file, file, "belongs to user")


def test_a_link_that_another_user_laid_in_a_sticky_directory_is_a_trap(file: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "link"
    link.symlink_to(file.parent)
    assert trust.read(link / "file") == b"text"
    os.chown(link, OTHER, OTHER, follow_symlinks=False)
    refused(link / "file", link, "belongs to user")
    with pytest.raises(ConfigurationError, match="belongs to user"):
        trust.check_way(link / "file")


@pytest.mark.parametrize("is_relative", [False, True])
def test_the_way_that_a_link_leads_is_looked_at_too(file: Path, tmp_path: Path, is_relative: bool) -> None:
    (tmp_path / "from").mkdir()
    link = tmp_path / "from" / "link"
    link.symlink_to("../one/./two" if is_relative else file.parent)
    again = tmp_path / "again"
    again.symlink_to(link)
    assert trust.read(again / "file") == b"text"
    file.parents[1].chmod(0o777)
    refused(again / "file", file.parents[1], "may write to")


def test_links_that_lead_in_a_circle_are_an_error_as_for_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many") as caught:
        trust.check(tmp_path / "a")
    assert caught.value.errno == errno.ELOOP


def test_a_path_from_here_is_looked_at_from_the_root_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert trust.read(Path("file")) == trust.read(Path("../two/file")) == b"text"
    file.parents[1].chmod(0o777)
    for path in (Path("file"), Path("../two/file")):
        with pytest.raises(ConfigurationError, match=f"{file.parents[1]} "):
            trust.check(path)


GID = 54_321
ME, SHE = SimpleNamespace(pw_uid=0, pw_gid=0), SimpleNamespace(pw_uid=1_001, pw_gid=GID)


@pytest.mark.parametrize(
    "members, users, held, is_own",
    [
        (["me"], [ME], [], True),  # a user's private group
        ([], [SimpleNamespace(pw_uid=0, pw_gid=GID)], [], True),  # as above: it is the user's first
        (["me", "she"], [ME], [], False),
        (["me"], [ME, SHE], [], False),  # hers by her entry in passwd
        (["me", "gone"], [ME], [], False),  # of whom nothing is known
        ([], [ME], [GID], False),  # for programs that are set-gid
        (None, [ME], [GID], True),  # of a container
        (None, [ME], [], False),
        (None, [SHE], [GID], False),
    ],
)
def test_a_group_may_write_in_which_nobody_else_is(
    file: Path, monkeypatch: pytest.MonkeyPatch, members: list[str] | None, users: list[object], held: list[int],
    is_own: bool,
) -> None:  # fmt: skip
    def group(gid: int) -> object:
        if members is None:
            raise KeyError(gid)
        return SimpleNamespace(gr_mem=members)

    named = {"me": ME, "she": SHE}
    monkeypatch.setattr(grp, "getgrgid", group)
    monkeypatch.setattr(pwd, "getpwall", lambda: users)
    monkeypatch.setattr(pwd, "getpwnam", named.__getitem__)
    monkeypatch.setattr(os, "getgroups", lambda: held)
    os.chown(file.parent, 0, GID)
    file.parent.chmod(0o775)
    if is_own:
        assert trust.read(file) == b"text"
    else:
        refused(file, file.parent, "may write to")


def test_a_list_that_lets_another_user_in_is_not_taken_for_the_users_own_group(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "_is_own_group", lambda _group, _user: True)
    file.parent.chmod(0o775)
    assert trust.read(file) == b"text"
    nobody = 0xFFFFFFFF
    entries = [(0x01, 7, nobody), (0x02, 7, OTHER), (0x04, 5, nobody), (0x10, 7, nobody), (0x20, 5, nobody)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(file.parent, "system.posix_acl_access", packed)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error}")
    refused(file, file.parent, "may write to")


def test_the_owner_of_the_root_counts_as_root_but_only_on_the_way(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.lstat

    def unmapped(path: object, **more: object) -> object:
        found = real(path, **more)  # type: ignore[arg-type]
        if path != "/":
            return found
        return os.stat_result((*found[:4], OTHER, *found[5:10]))

    monkeypatch.setattr(os, "lstat", unmapped)
    os.chown(file.parent, OTHER, OTHER)
    assert trust.read(file) == b"text"
    os.chown(file, OTHER, OTHER)
    refused(file, file, "belongs to user")
    os.chown(file, 0, 0)
    file.parents[1].chmod(0o1777)  # in which anybody without a number here may have made it
    refused(file, file.parent, "belongs to user")


def test_root_may_name_the_directory_of_another_user(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = file.parent
    for path in (data, file):
        os.chown(path, OTHER, OTHER)
    assert trust.read(file, named=data) == b"text"
    refused(file, data, "not to root")
    os.chown(file, THIRD, THIRD)
    refused(file, file, "not to root", named=data)
    os.chown(file, OTHER, OTHER)
    data.parent.chmod(0o1777)  # whoever made it there may be anybody
    refused(file, data, "not to root", named=data)
    data.parent.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: THIRD)
    refused(file, data, "neither to this one", named=data)


def test_what_this_program_was_handed_is_taken_as_it_is(file: Path) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"piped")
    os.close(theirs)
    file.chmod(0o666)
    with file.open("rb") as opened, os.fdopen(ours, "rb") as pipe:
        assert trust.read(Path(f"/dev/fd/{pipe.fileno()}"), bytes_max=5) == b"piped"
        assert trust.read(Path(f"/proc/self/fd/{opened.fileno()}")) == b"text"
    assert trust.read(Path("/dev/null")) == b""


def test_what_takes_the_place_of_a_file_behind_the_look_is_seen_when_it_is_open(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trust._walk

    def slow(path: Path, *users: object, **more: object) -> bool:
        found = real(path, *users, **more)  # type: ignore[arg-type]
        os.chown(file, OTHER, OTHER)
        return found

    monkeypatch.setattr(trust, "_walk", slow)
    with pytest.raises(ConfigurationError, match="belongs to user"):
        trust.read(file)
    with file.open("rb") as opened, pytest.raises(ConfigurationError, match="belongs to user"):
        trust.check_opened(opened.fileno(), file)


def test_the_directories_above_one_that_is_made_are_closed_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_directory(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    made = [tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/c"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o700] * 3


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
@pytest.mark.parametrize("owner, status", [(OTHER, 69), (0, 69), (THIRD, 78)])
def test_a_user_who_is_not_root_believes_his_own_file_and_roots(tmp_path: Path, owner: int, status: int) -> None:
    """A process of that user, who may read this Python and this directory all the same, but write nowhere else."""
    state = tmp_path / "home/.local/state/tq"
    state.mkdir(parents=True)
    for place in (state, *state.parents[:3]):
        os.chown(place, OTHER, OTHER)
    (state / "connection.json").write_text(json.dumps({"url": "tq://127.0.0.1:1", "token": "tqa_none", "ca": "0" * 64}))
    os.chown(state / "connection.json", owner, owner)
    reads = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    ran = subprocess.run(
        ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", *reads, sys.executable, "-m", "tq", "ls"],
        env={**os.environ, "HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if "setpriv: " in ran.stderr:
        pytest.skip(ran.stderr)
    assert (ran.returncode, "belongs to user" in ran.stderr) == (status, status == 78), ran.stderr
