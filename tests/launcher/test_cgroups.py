"""The level of containment that nothing escapes, beside the one that every machine has. Real cgroups, where there are.

Only cgroups that these tests made are touched: below the one that `cgroups.find` makes for a home in tmp_path.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.support.launcher import Link, body, marker, processes, ref, usage, wait_count, wait_gone
from tq.cli.verbs import doctor
from tq.core.model.task import Cause
from tq.core.vocabulary import Assignment
from tq.launcher import cgroups, protocol
from tq.launcher.attempt import Attempt, Order
from tq.launcher.cgroups import Cgroup, Memory
from tq.launcher.program import Program
from tq.wire.body import Body
from tq.wire.codec import loads
from tq.worker.launcher_link import open_launcher
from tq.worker.state_dir import Last, settle

GRANDCHILDREN = 50
# Each in a session of its own, with an empty environment; half of them ignore TERM. None holds the output: that would
# keep every end for two seconds (test_containment.py).
FAMILY = f"""
for i in $(seq {GRANDCHILDREN // 2}); do
    env -i setsid sleep MARK >&- 2>&- &
    env -i setsid sh -c "trap '' TERM; sleep MARK; :" >&- 2>&- &
done
echo ready; wait
"""
# Never more than this many live, and none for long: each forks and exits, in a new session.
RABBITS = """
import os, sys
for _ in range(10):
    if os.fork() == 0:
        while True:
            if os.fork():
                os._exit(0)
            os.setsid()
print("ready", flush=True)
import signal; signal.pause()
"""


def take(home: Path) -> bytes:
    """Return the cgroup of a worker that died when it had just begun."""
    taken = cgroups.find(home)
    taken.release()
    return taken.path


@pytest.fixture
def root(tmp_path: Path) -> Iterator[bytes]:
    """Return a cgroup of this test's own."""
    try:
        root = take(tmp_path)
    except cgroups.Unavailable as error:
        pytest.skip(f"no cgroup: {error}")
    yield root
    cgroups.remove(root)
    assert not os.path.exists(root)  # noqa: PTH110 - bytes


@pytest.fixture
def mark() -> Iterator[str]:
    mark = marker()
    yield mark
    wait_gone(mark)


@pytest.fixture(params=["group", "cgroup"])
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    cgroup = request.getfixturevalue("root") if request.param == "cgroup" else b""
    with Link(cgroup=cgroup) as one:
        yield one


def below(root: bytes) -> set[str]:
    """Return the names of the cgroups in another; a worker of somebody else's removes one in which nothing is."""
    try:
        return {path.name for path in Path(os.fsdecode(root)).iterdir() if path.is_dir()}
    except FileNotFoundError:
        return set()


def own_cgroup(text: bytes) -> str:
    """Return the last name of the cgroup of version 2 in what /proc/self/cgroup says."""
    return next(line for line in text.decode().splitlines() if line.startswith("0::")).rpartition("/")[2]


# ---------------------------------------------------------------- both levels


def test_nothing_of_a_cancelled_task_is_left_whatever_it_forked(link, mark):
    one = link.begin(body("sh", "-c", FAMILY.replace("MARK", mark)))
    wait_count(mark, GRANDCHILDREN)
    end = link.stop(one)

    assert end.cause == Cause.CANCELLED
    assert processes(mark) == []


def test_nothing_is_left_of_a_task_that_just_ends_either(link, mark):
    end = link.run(body("sh", "-c", FAMILY.replace("MARK", mark).replace("wait", "")))

    assert (end.cause, end.code) == (Cause.EXIT, 0)
    assert processes(mark) == []


def test_another_task_is_not_touched(link, mark):
    link.spawn(body("sleep", mark), [ref(1)])
    wait_count(mark, 1)
    link.stop(link.begin(body("sh", "-c", "setsid sleep 1000 >&- 2>&- & echo ready; wait"), 2))

    assert len(processes(mark)) == 1
    link.stop(ref(1))


# ---------------------------------------------------------------- level `cgroup`


def test_an_attempt_has_one_of_its_own_until_its_lane_is_known_to_be_short(root):
    with Link(cgroup=root) as link:
        for job in (1, 2):
            link.run(body("cat", "/proc/self/cgroup"), job, lane=7)
        link.run(body("cat", "/proc/self/cgroup"), 3, lane=8)

        assert [own_cgroup(link.text(ref(job))) for job in (1, 2, 3)] == ["1", "short", "2"]
        assert below(root) == {"short"}
        launcher = Path(f"/proc/{link.process.pid}/cgroup").read_bytes()
        assert own_cgroup(launcher) == "short"


def test_what_is_started_is_in_it_from_its_first_moment(root, mark):
    text = f"for i in $(seq 20); do setsid sh -c 'cat /proc/self/cgroup; exec sleep {mark}' & done; wait"
    with Link(cgroup=root) as link:
        link.spawn(body("sh", "-c", text), [ref(1)])
        link.say(protocol.Follow(ref(1), 1 << 20))
        link.until(lambda: link.text(ref(1)).count(b"\n0::") == 20)
        link.stop(ref(1), kill_after_ms=0)
        lines = [line for line in link.text(ref(1)).splitlines() if line.startswith(b"0::")]

    assert len(lines) == 20
    assert {line.rpartition(b"/")[2] for line in lines} == {b"1"}


def test_what_forks_without_end_is_ended(root, mark):
    with Link(cgroup=root) as link:
        end = link.stop(link.begin(body(sys.executable, "-c", RABBITS, mark)))

    assert end.cause == Cause.CANCELLED
    assert processes(mark) == []


def test_cgroups_that_a_task_made_inside_of_its_own_go_with_the_launcher_at_the_latest(root):
    inside = os.fsdecode(root) + "/1/inner"
    text = f"mkdir {inside}; sleep 1000 >&- 2>&- & echo $! > {inside}/cgroup.procs"
    with Link(cgroup=root) as link:
        end = link.run(body("sh", "-c", text))
        assert end.code == 0

    assert not Path(os.fsdecode(root)).exists()


def test_a_spawn_that_fails_leaves_none(root):
    with Link(cgroup=root) as link:
        link.run(body("/no/such/program"), 1)
        link.run(body("true", cwd="/no/such/directory"), 2)
        link.run(body("cat", "/proc/self/cgroup"), 3)

        assert own_cgroup(link.text(ref(3))) == "3"
        assert below(root) == {"short"}


def test_without_the_cgroup_that_it_was_promised_a_launcher_runs_on_as_a_group(tmp_path):
    with Link(cgroup=os.fsencode(tmp_path / "gone")) as link:
        assert link.run(body("true")).code == 0


async def test_when_a_launcher_is_killed_nothing_of_its_attempts_lives(root, mark, tmp_path):
    async with open_launcher(tmp_path, root) as launcher:
        launcher.send(protocol.Slots(1))
        text = FAMILY.replace("MARK", mark).replace("echo ready", "kill -9 $PPID")
        attempts = (Assignment(ref(1), 1),)
        launcher.send(protocol.Spawn(1, 1, False, "default", "", body("sh", "-c", text), 0, "0" * 16, attempts))
        with trio.fail_after(30):
            async for _ in launcher:
                pass
    assert launcher.process.returncode == -signal.SIGKILL
    assert processes(mark) == []
    assert below(root) == set()


def test_a_launcher_whose_worker_is_dead_leaves_no_cgroup_behind(root, mark):
    with Link(cgroup=root) as link:
        link.begin(body("sh", "-c", FAMILY.replace("MARK", mark)))
        wait_count(mark, GRANDCHILDREN)
        assert below(root) == {"short", "1"}

    assert not Path(os.fsdecode(root)).exists()
    with Link(cgroup=root) as link:  # and the next one does not need it
        link.run(body("cat", "/proc/self/cgroup"))
        assert own_cgroup(link.text(ref(1))) == "1"


def test_the_next_worker_kills_what_was_left_when_all_died_at_once(root, mark, tmp_path):
    link = Link(cgroup=root)
    link.begin(body("sh", "-c", FAMILY.replace("MARK", mark)))
    wait_count(mark, GRANDCHILDREN)
    parents = [link.process.pid, *link.children()]
    for pid in parents:
        os.kill(pid, signal.SIGKILL)
    link.close()
    assert processes(mark) != []

    assert take(tmp_path) == root
    wait_gone(mark)
    assert below(root) == set()


def left_behind(home: Path, mark: str) -> Path:
    """Let worker and launcher of this home die at once, beside a task; return the cgroup in which it lives on."""
    root = take(home)
    link = Link(cgroup=root)
    link.begin(body("sh", "-c", FAMILY.replace("MARK", mark)))
    wait_count(mark, GRANDCHILDREN)
    for pid in [link.process.pid, *link.children()]:
        os.kill(pid, signal.SIGKILL)
    link.close()
    return Path(os.fsdecode(root))


def test_who_takes_over_from_a_dead_worker_kills_what_that_one_left(root, mark, tmp_path):
    """First of all, since its attempts are given to others then."""
    with settle(tmp_path / "state") as first, settle(tmp_path / "state") as second:
        first.remember(Last(1, 7, 1))
        second.remember(Last(2, 7, 1))
        left = left_behind(second.path, mark)
    assert processes(mark) != []
    with settle(tmp_path / "state") as heir:
        assert heir.last.workers == (1, 2)
    assert not left.exists()
    wait_gone(mark)


def test_what_lives_beside_a_worker_of_another_store_is_not_touched(root, mark, tmp_path):
    with settle(tmp_path / "state") as first, settle(tmp_path / "state") as second:
        first.remember(Last(1, 7, 1))
        second.remember(Last(2, 8, 1))
        left = left_behind(second.path, mark)
    try:
        with settle(tmp_path / "state") as heir:
            assert heir.last.workers == (1,)
            cgroups.remove(take(heir.path))
        assert "populated 1" in (left / "cgroup.events").read_text()
        wait_count(mark, GRANDCHILDREN)
    finally:
        cgroups.remove(os.fsencode(left))


def test_empty_cgroups_of_workers_that_are_gone_for_good_go_with_the_next_one_anywhere(root, tmp_path):
    (tmp_path / "gone").mkdir()
    gone = Path(os.fsdecode(take(tmp_path / "gone")))
    for name in ("short", "17", "17/inner"):
        (gone / name).mkdir()
    not_ours = gone.with_name(gone.name + "-not-ours")
    not_ours.mkdir()

    assert take(tmp_path) == root

    assert not gone.exists()
    assert not_ours.exists()
    not_ours.rmdir()


def test_one_that_is_removed_while_it_is_taken_is_made_again(root, tmp_path, monkeypatch):
    lock, removals = cgroups._lock, [None] * 2

    def late(path: bytes) -> int:
        if removals:
            removals.pop()
            Path(os.fsdecode(path)).rmdir()
        return lock(path)

    monkeypatch.setattr(cgroups, "_lock", late)
    assert take(tmp_path) == root
    assert (Path(os.fsdecode(root)) / "cgroup.procs").exists()


def test_one_that_a_worker_has_taken_is_removed_by_no_other_though_nothing_is_in_it(root, tmp_path):
    """Its launcher may be just about to enter what the other one has found empty."""
    (tmp_path / "other").mkdir()
    taken = cgroups.find(tmp_path / "other")
    entered = Path(os.fsdecode(taken.path), "1")
    entered.mkdir()
    assert take(tmp_path) == root
    assert entered.exists()
    with Link(cgroup=taken.path) as link:
        link.run(body("true"))
    assert "short" in below(taken.path), "a launcher that ends leaves it to its worker"
    taken.release()
    assert take(tmp_path) == root
    assert not entered.parent.exists()


def test_a_worker_that_begins_waits_for_who_looks_and_not_for_ever(root, tmp_path, monkeypatch):
    held = cgroups.find(tmp_path)
    monkeypatch.setattr(cgroups, "_EMPTY_S", 0.0)
    with pytest.raises(cgroups.Unavailable, match="held by another process"):
        cgroups.find(tmp_path)
    monkeypatch.setattr(cgroups, "_EMPTY_S", 60.0)
    monkeypatch.setattr(cgroups.time, "sleep", lambda _: held.release())
    assert take(tmp_path) == root


def test_what_dead_workers_have_left_alive_is_told_and_nothing_of_living_ones(root, mark, tmp_path):
    (tmp_path / "dead").mkdir()
    (tmp_path / "gone").mkdir()
    left = left_behind(tmp_path / "dead", mark)
    shutil.rmtree(tmp_path / "dead")
    try:
        with Link(cgroup=root) as link:
            link.begin(body("sh", "-c", "echo ready; exec sleep 1000"))
            found = dict(cgroups.abandoned())
            assert set(processes(mark)) <= set(found[left])
            assert Path(os.fsdecode(root)) not in found, "its launcher ends what is in it"
        (finding,) = [one for one in doctor._abandoned() if str(left) in one.text]
        assert finding.status == "warn"
        Path(finding.hint.rpartition("> ")[2]).write_text("1")
        wait_gone(mark)
        assert left not in dict(cgroups.abandoned())
        taken = cgroups.find(tmp_path / "gone")
        assert not left.exists(), "once nothing is in it, the next worker removes it"
        with subprocess.Popen(["sleep", "1000"]) as process:
            Path(os.fsdecode(taken.path), "cgroup.procs").write_text(str(process.pid))
            assert Path(os.fsdecode(taken.path)) not in dict(cgroups.abandoned()), "its worker lives"
            process.kill()
        taken.remove()
    finally:
        cgroups.remove(os.fsencode(left))


LATE = """
import os, sys
from tq.launcher import cgroups
root, open_file, count = os.fsencode(sys.argv[1]), os.open, 0
def late(path, flags):
    global count
    if path.endswith(b"/short/cgroup.procs") and count < 2:
        count += 1
        os.rmdir(root + b"/short")
        os.rmdir(root)
    return open_file(path, flags)
os.open = late
held = cgroups.Cgroups(root)
print(count, open("/proc/self/cgroup").read())
held.close()
"""


def test_a_launcher_that_begins_while_another_worker_removes_it_is_in_it(root):
    said = subprocess.run([sys.executable, "-c", LATE, os.fsdecode(root)], capture_output=True, check=True).stdout
    assert said.startswith(b"2 ")
    assert own_cgroup(said) == "short"


def test_what_cannot_be_tidied_up_beside_it_takes_nobody_his_own(root, tmp_path, monkeypatch):
    def fail(_: Path) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "iterdir", fail)
    assert take(tmp_path) == root


def test_nothing_beside_it_is_touched(root, tmp_path):
    (tmp_path / "other").mkdir()
    other = take(tmp_path / "other")
    with subprocess.Popen(["sleep", "1000"]) as process:
        Path(os.fsdecode(other), "cgroup.procs").write_text(str(process.pid))
        cgroups.clear(root)
        assert process.poll() is None
        process.kill()
    cgroups.remove(other)


# ---------------------------------------------------------------- where there is none


def fake(tmp_path: Path, cgroup: str = "0::/here\n", mount: str = "cgroup2 cgroup2 rw") -> Path:
    """Make what /proc/self would say of a cgroup file system in tmp_path."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text("4:memory:/elsewhere\n" + cgroup)
    (proc / "mountinfo").write_text(f"30 25 0:26 / {tmp_path}/fs rw,relatime - {mount}\n")
    return proc


def test_a_machine_with_version_1_alone_has_none(tmp_path):
    with pytest.raises(cgroups.Unavailable, match="version 2"):
        cgroups.find(tmp_path, fake(tmp_path, mount="cgroup cgroup rw,memory"))


def test_who_is_outside_of_what_is_mounted_has_none(tmp_path):
    with pytest.raises(cgroups.Unavailable, match="outside"):
        cgroups.find(tmp_path, fake(tmp_path, cgroup=""))


def test_where_none_can_be_made_there_is_none(tmp_path):
    with pytest.raises(cgroups.Unavailable, match=r"cannot make a cgroup in .*/fs/here: No such file"):
        cgroups.find(tmp_path, fake(tmp_path))


@pytest.mark.parametrize(
    "files, why", [({}, "cgroup.kill"), ({"cgroup.kill": "", "cgroup.type": "threaded"}, "threaded")]
)
def test_a_kernel_or_a_place_without_what_is_needed_has_none(tmp_path, files, why):
    proc = fake(tmp_path)
    place = tmp_path.lstat()
    made = tmp_path / f"fs/here/tq-{place.st_dev:x}-{place.st_ino:x}"
    made.mkdir(parents=True)
    for name, text in files.items():
        (made / name).write_text(text)
    with pytest.raises(cgroups.Unavailable, match=why):
        cgroups.find(tmp_path, proc)

    assert made.exists() is bool(files)  # an empty one goes again


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    "files, memory",
    [
        ({}, Memory(0, is_out=False)),
        ({"memory.peak": "4194304\n", "memory.events": "low 0\noom 0\noom_kill 0\n"}, Memory(4096, is_out=False)),
        ({"memory.peak": "8192\n", "memory.events": "oom 1\noom_kill 2\noom_group_kill 0\n"}, Memory(8, is_out=True)),
        ({"memory.peak": "nonsense", "memory.events": "oom_kill"}, Memory(0, is_out=False)),
    ],
)
def test_peak_and_out_of_memory_are_those_of_the_cgroup(tmp_path, files, memory):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert Cgroup(os.fsencode(tmp_path)).memory() == memory


@pytest.mark.parametrize(
    "code, asked, cause",
    [(-9, 0, Cause.OOM), (137, 0, Cause.OOM), (0, 0, Cause.EXIT), (-9, Cause.CANCELLED, Cause.CANCELLED)],
)
def test_a_failure_after_memory_ran_out_is_for_that(code, asked, cause):
    spawn = protocol.Spawn(1, 1, False, "q", "", body("x"), 0, "0" * 16, ())
    attempt = Attempt(ref(1), 1, Order(spawn, Program(loads(spawn.body, Body), {}), None))
    attempt.code, attempt.cause = code, asked
    attempt.note(Memory(4096, is_out=True))
    end = attempt.end()

    assert (end.cause, usage(end).peak_kib) == (cause, 4096)


# ---------------------------------------------------------------- without a free descriptor


def test_what_cannot_be_looked_at_may_hold_something(tmp_path):
    (tmp_path / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    cgroup = Cgroup(os.fsencode(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, before[1]))
    try:
        may_hold_something = cgroup.kill()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert may_hold_something
    assert not cgroup.kill()
    assert not Cgroup(os.fsencode(tmp_path / "gone")).kill()
