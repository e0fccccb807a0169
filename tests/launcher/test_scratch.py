"""What an attempt returns, and what is left of what it wrote. Real launchers.

Hostile tasks point at directories below tmp_path only.
"""

import json
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
import trio.lowlevel
from hypothesis import given
from hypothesis import strategies as st

from tests.support.launcher import Link, body, ref, usage
from tq import limits
from tq.core.model.task import Cause
from tq.core.vocabulary import Assignment
from tq.errors import ConfigurationError
from tq.launcher import protocol, result_file, scratch
from tq.wire import plain
from tq.worker.launcher_link import open_launcher


@pytest.fixture
def link() -> Iterator[Link]:
    with Link() as one:
        yield one


def sh(text: str, **fields: object) -> bytes:
    return body("sh", "-c", text, **fields)


def at(made: scratch.Made) -> Path:
    return Path(os.fsdecode(made.path))


def inside(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def names_below(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*")}


def mode(directory: Path) -> int:
    return stat.S_IMODE(directory.lstat().st_mode)


def names(link: Link) -> set[str]:
    """Return what is in the launcher's directory."""
    return {path.name for path in inside(at(link.place))}


# ---------------------------------------------------------------- what a task returns


def test_the_json_in_tq_result_is_what_the_task_returns(link):
    value = {"loss": 0.25, "steps": [1, 2, None, True], "name": "\u00fc\u0000\U0001f600", "least": -(2**63)}
    end = link.run(sh(f"cat > $TQ_RESULT <<'E'\n{json.dumps(value)}\nE"))

    assert (end.cause, end.code) == (Cause.EXIT, 0)
    assert plain.loads(end.value) == value
    assert names(link) == set()


def test_null_is_a_value_and_no_file_is_none(link):
    assert plain.loads(link.run(sh("echo null > $TQ_RESULT"), 1).value) is None
    assert link.run(body("true"), 2).value == b""


def test_who_makes_room_by_removing_the_launchers_directory_harms_no_attempt_that_starts_later(link):
    shutil.rmtree(at(link.place))
    end = link.run(sh("echo [1] > $TQ_RESULT"), 1)
    assert (end.code, plain.loads(end.value)) == (0, [1])

    [made] = scratch.leftovers(at(link.place).parent)
    assert mode(at(made)) == 0o700
    shutil.rmtree(at(made))
    assert link.run(sh("echo [2] > $TQ_TMPDIR/x; mv $TQ_TMPDIR/x $TQ_RESULT", has_tmpdir=True), 2).code == 0


def test_a_result_that_is_moved_into_place_counts(link):
    end = link.run(sh("echo [1] > $TQ_TMPDIR/x; mv $TQ_TMPDIR/x $TQ_RESULT", has_tmpdir=True))

    assert plain.loads(end.value) == [1]


@pytest.mark.parametrize(
    "text", ["", "test $TQ_MEMBER -gt 1 || mkdir ${TQ_RESULT%/*}/somebody; "], ids=["", "not alone"]
)
def test_of_many_that_end_together_each_has_its_own_result_or_none(link, text):
    members = [ref(1, member) for member in range(40)]
    link.spawn(sh(f"{text}test $((TQ_MEMBER % 10)) != 0 || printf $TQ_MEMBER > $TQ_RESULT"), members, is_array=True)
    link.until(lambda: len(link.ends) == len(members))
    ends = [link.ends[member] for member in members]

    assert {end.code for end in ends} == {0}
    found = {number: plain.loads(end.value) for number, end in enumerate(ends) if end.value}
    assert found == {9: 10, 19: 20, 29: 30, 39: 40}


@pytest.mark.parametrize(
    "text, why",
    [
        (": > $TQ_RESULT", "empty"),
        ("echo '{\"a\":' > $TQ_RESULT", "not JSON"),
        ("echo '1 2' > $TQ_RESULT", "not JSON"),
        ("echo NaN > $TQ_RESULT", "not JSON"),
        ("printf '\"\\377\"' > $TQ_RESULT", "not JSON"),
        ("echo 9223372036854775808 > $TQ_RESULT", "64 bits"),
        ("echo 1e400 > $TQ_RESULT", "not JSON"),
        ("head -c 2000 /dev/zero | tr '\\0' '[' > $TQ_RESULT", "TQ_RESULT"),
        ("(head -c 40 /dev/zero | tr '\\0' '['; head -c 40 /dev/zero | tr '\\0' ']') > $TQ_RESULT", "levels"),
        ("head -c 200000 /dev/zero > $TQ_RESULT", "result_bytes_max"),
        ("mkdir $TQ_RESULT", "not a regular file"),
        ("mkfifo $TQ_RESULT", "not a regular file"),
        ("ln -s $TQ_RESULT $TQ_RESULT", "not a regular file"),
        ("ln -s /dev/zero $TQ_RESULT", "not a regular file"),
    ],
)
def test_a_success_with_a_result_that_is_none_says_so(link, text, why):
    end = link.run(sh(text))

    assert (end.cause, end.code, end.value) == (Cause.BAD_RESULT, 0, b"")
    assert why in usage(end).error
    assert link.run(body("true"), 2).cause == Cause.EXIT  # and the next one is not told of it


def test_a_value_up_to_the_bound_is_carried_and_the_bound_is_of_the_packed_value_too(link):
    fits = link.run(sh(f"(printf '\"'; head -c {limits.result_bytes_max - 5} /dev/zero | tr '\\0' x; printf '\"')"
                       " > $TQ_RESULT"), 1)  # fmt: skip
    grows = link.run(sh("(echo '[0.5'; yes ,0.5 | head -n 20000; echo ']') > $TQ_RESULT"), 2)

    assert len(plain.loads(fits.value)) == limits.result_bytes_max - 5
    assert grows.cause == Cause.BAD_RESULT
    assert "result_bytes_max" in usage(grows).error


def test_what_a_failure_left_is_no_value(link):
    failed = link.run(sh("echo 1 > $TQ_RESULT; exit 3"), 1)
    cancelled = link.stop(link.begin(sh("trap 'exit 0' TERM; echo 1 > $TQ_RESULT; echo ready; while :; do :; done"), 2))

    assert (failed.cause, failed.code, failed.value) == (Cause.EXIT, 3, b"")
    assert (cancelled.cause, cancelled.code, cancelled.value) == (Cause.CANCELLED, 0, b"")
    assert link.run(body("true"), 3).value == b""
    assert names(link) == set()


def test_a_result_is_of_the_attempt_that_wrote_it_and_of_no_other(link):
    text = "[ $((TQ_MEMBER % 3)) = 0 ] || echo $TQ_MEMBER > $TQ_RESULT"
    refs = [ref(1, member) for member in range(60)]
    link.spawn(sh(text), refs, is_array=True)
    link.until(lambda: len(link.ends) == 60)

    for one in refs:
        number = one.member + 1
        value = link.ends[one].value
        assert value == b"" if number % 3 == 0 else plain.loads(value) == number


def test_many_large_values_pass_the_frame_bound(link):
    text = "(printf '\"'; head -c 120000 /dev/zero | tr '\\0' x; printf '\"') > $TQ_RESULT"
    link.say(protocol.Slots(8))
    link.spawn(sh(text), [ref(1, member) for member in range(40)], is_array=True)
    link.until(lambda: len(link.ends) == 40)

    assert {len(end.value) > 120_000 for end in link.ends.values()} == {True}


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_PLAIN = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
)


@given(_PLAIN)
def test_any_json_comes_out_as_it_went_in(value):
    assert plain.loads(result_file._packed(json.dumps(value).encode())) == value


# ---------------------------------------------------------------- TQ_TMPDIR


def test_who_asks_gets_an_empty_private_directory_for_each_attempt(link):
    text = "ls -A $TQ_TMPDIR; stat -c %a $TQ_TMPDIR | grep -v 700; echo ${TQ_TMPDIR##*/} >&2; touch $TQ_TMPDIR/x"
    for job in (1, 2):
        assert link.run(sh(text, has_tmpdir=True), job).code == 0
        assert link.text(ref(job)) == b""
    assert link.text(ref(1), 2) != link.text(ref(2), 2)


def test_an_empty_directory_goes_at_once_and_a_full_one_is_named_for_removal(link):
    link.run(sh("mkdir $TQ_TMPDIR/a; rmdir $TQ_TMPDIR/a", has_tmpdir=True), 1)
    assert names(link) == set()
    link.run(sh("mkdir -p $TQ_TMPDIR/a/b; echo > $TQ_TMPDIR/a/b/c", has_tmpdir=True), 2)
    link.until(lambda: link.left)

    assert {at(made).name for made in link.left} == names(link)
    assert scratch.remove(link.left[0]) == ""
    assert names(link) == set()


def test_the_umask_of_the_attempt_before_does_not_take_it_away(link):
    link.run(body("true", umask=0o777), 1)
    link.run(sh("stat -c %a $TQ_TMPDIR", has_tmpdir=True), 2)

    assert link.text(ref(2)) == b"700\n"


def test_where_no_directory_can_be_made_the_attempt_goes_back(link):
    shutil.rmtree(at(link.place).parent)
    link.spawn(body("true", has_tmpdir=True), [ref(1)])
    link.until(lambda: ref(1) in link.recalled)

    assert link.recalled[ref(1)].cause == Cause.WORKER_TROUBLE
    assert link.run(body("true"), 2).code == 0  # who asked for none needs none


# ---------------------------------------------------------------- hostile tasks


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Make a directory that nobody may touch."""
    (tmp_path / "victim" / "deep").mkdir(parents=True)
    (tmp_path / "victim" / "deep" / "file").write_text("precious")
    (tmp_path / "victim" / "deep" / "file").chmod(0o640)
    (tmp_path / "victim").chmod(0o750)
    return tmp_path / "victim"


def look(directory: Path) -> list[tuple[str, int, bytes]]:
    """Return name, mode and contents of all that is in a directory, and of itself."""
    paths = sorted([directory, *directory.rglob("*")])
    return [(str(path), path.lstat().st_mode, path.read_bytes() if path.is_file() else b"") for path in paths]


HOSTILE = [
    "rm -rf $TQ_TMPDIR; ln -s VICTIM $TQ_TMPDIR",
    "ln -s VICTIM $TQ_TMPDIR/link; ln -s VICTIM/deep/file $TQ_TMPDIR/file; ln VICTIM/deep/file $TQ_TMPDIR/hard",
    "mv $TQ_TMPDIR $TQ_TMPDIR.away; mkdir $TQ_TMPDIR; echo mine > $TQ_TMPDIR/mine; ln -s VICTIM $TQ_TMPDIR/link",
    "rm -rf $TQ_TMPDIR; touch $TQ_TMPDIR",
    "ln -s VICTIM/deep/file $TQ_RESULT; mkdir -p $TQ_TMPDIR/a; ln -s ../../../../../../VICTIM $TQ_TMPDIR/a/up",
    "mkdir -p $TQ_TMPDIR/a/b; ln -s VICTIM $TQ_TMPDIR/a/b/link; chmod 0 $TQ_TMPDIR/a/b $TQ_TMPDIR/a $TQ_TMPDIR",
    "cd $TQ_TMPDIR; d=.; for i in $(seq 300); do d=$d/deep; done; mkdir -p $d; ln -s VICTIM $d/link",
    'mkfifo $TQ_TMPDIR/f; touch "$TQ_TMPDIR/ * -rf"; ln -s VICTIM "$TQ_TMPDIR/-"',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_task_does_nothing_but_its_own_is_touched(tmp_path, victim, text):
    before = look(victim)
    with Link() as link:
        link.run(sh(text.replace("VICTIM", str(victim)), has_tmpdir=True))
        for made in link.left:
            scratch.remove(made)
        if not any(path.name.endswith(".away") for path in at(link.place).iterdir()):
            assert scratch.remove(link.place) == ""
    assert look(victim) == before


def test_a_directory_that_was_put_in_place_of_one_that_was_made_here_stays(tmp_path, victim):
    made = scratch.make_root(tmp_path)
    place = at(made)
    place.rename(tmp_path / "away")
    victim.rename(place)

    assert "something else" in scratch.remove(made)
    assert (place / "deep/file").read_text() == "precious"


def test_a_link_that_was_put_in_place_of_one_that_was_made_here_stays(tmp_path, victim):
    made = scratch.make_root(tmp_path)
    place = at(made)
    place.rename(tmp_path / "away")
    place.symlink_to(victim)

    assert "something else" in scratch.remove(made)
    assert (victim / "deep/file").read_text() == "precious"


def test_a_directory_in_which_something_is_mounted_is_left_alone(tmp_path, monkeypatch):
    made = scratch.make_root(tmp_path)
    inside = os.fsencode(tmp_path / at(made).name / "a")
    mount = b"36 35 0:36 / " + inside.replace(b" ", rb"\040") + b" rw - tmpfs tmpfs rw\n"
    table = tmp_path / "mountinfo"
    table.write_bytes(mount)
    monkeypatch.setattr(scratch, "_MOUNTS", table)

    assert "mounted" in scratch.remove(made)
    assert at(made).is_dir()
    table.write_bytes(mount.replace(b"scratch-", b"scratch-0"))
    assert scratch.remove(made) == ""


def test_what_cannot_be_removed_is_left_and_said(tmp_path, monkeypatch):
    def too_deep(*_: object, **__: object) -> None:
        raise RecursionError

    too_deep.avoids_symlink_attacks = True
    made = scratch.make_root(tmp_path)
    monkeypatch.setattr(shutil, "rmtree", too_deep)

    assert "not all" in scratch.remove(made)


def as_nobody(work: Callable[[], None]) -> int:
    """Do something as a user whom modes keep out, in a child; return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_a_task_has_shut_is_removed_and_what_it_points_at_stays_as_it_is():
    def work() -> None:
        with TemporaryDirectory() as place:
            outside = Path(place, "outside")
            outside.mkdir()
            outside.chmod(0o500)
            home = Path(place, "home")
            home.mkdir()
            made = scratch.make_root(home)
            module = at(made) / "7.d" / "cache" / "module"
            (module / "deep").mkdir(parents=True)
            (module / "deep" / "file").touch(0o400)
            (module / "link").symlink_to(outside)
            for path, shut in ((module / "deep", 0), (module, 0o555), (module.parent, 0o300), (at(made) / "7.d", 0)):
                path.chmod(shut)
            assert scratch.remove(made) == ""
            assert inside(home) == []
            assert mode(outside) == 0o500

            made = scratch.make_root(home)
            at(made).chmod(0)
            scratch._open_up(made.path, None, made.device, made.inode + 1)  # another one is in its place
            assert mode(at(made)) == 0
            at(made).rename(home / "away")
            at(made).symlink_to(outside)
            scratch._open_up(made.path, None, made.device)
            assert mode(outside) == 0o500

    assert as_nobody(work) == 0


# ---------------------------------------------------------------- whose it is


async def test_the_directory_goes_with_its_launcher_even_with_one_that_is_killed(tmp_path: Path) -> None:
    async with open_launcher(tmp_path) as launcher:
        (root,) = inside(tmp_path)
        assert mode(root) == 0o700
        launcher.send(protocol.Slots(1))
        data = sh("mkdir -p $TQ_TMPDIR/a/b; touch $TQ_TMPDIR/a/b/c; kill -9 $PPID; exec sleep 5", has_tmpdir=True)
        attempts = (Assignment(ref(1), 1),)
        launcher.send(protocol.Spawn(1, 1, False, "default", "", data, 0, "0" * 16, attempts))
        with trio.fail_after(30):
            async for messages in launcher:
                assert [type(message) for message in messages] == [protocol.Started]
        assert names_below(root) == {"1.d", "a", "b", "c"}
    assert launcher.process.returncode == -signal.SIGKILL
    assert inside(tmp_path) == []


async def test_what_an_attempt_left_is_removed_while_the_launcher_runs_on(tmp_path: Path) -> None:
    async with open_launcher(tmp_path) as launcher:
        (root,) = inside(tmp_path)
        launcher.send(protocol.Slots(1))
        attempts = (Assignment(ref(1), 1),)
        data = sh("mkdir -p $TQ_TMPDIR/a/b; touch $TQ_TMPDIR/a/b/c", has_tmpdir=True)
        launcher.send(protocol.Spawn(1, 1, False, "default", "", data, 0, "0" * 16, attempts))
        with trio.fail_after(30):
            while not isinstance((await anext(launcher))[-1], protocol.Ended):
                pass
            while inside(root):
                await trio.lowlevel.checkpoint()


async def test_the_next_worker_removes_what_one_that_was_killed_has_left(tmp_path: Path) -> None:
    left = at(scratch.make_root(tmp_path))
    (left / "7.d").mkdir()
    (tmp_path / "scratch-1").mkdir()  # a name that is not its own
    async with open_launcher(tmp_path):
        with trio.fail_after(30):
            while left in inside(tmp_path):
                await trio.lowlevel.checkpoint()
    assert [path.name for path in inside(tmp_path)] == ["scratch-1"]


async def test_a_worker_that_cannot_make_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "scratch.new").touch()
    with pytest.raises(ConfigurationError, match="cannot make"):
        async with open_launcher(tmp_path):
            pass
