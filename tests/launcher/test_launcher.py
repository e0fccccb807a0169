"""The launcher starts what it is told, as it is told, and says how it ended. Real processes, one real launcher each."""

import hashlib
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launcher import Link, body, marker, processes, ref, usage
from tq import limits
from tq.core.model.task import Cause
from tq.launcher import program, protocol
from tq.wire import plain
from tq.wire.body import Body

WORKER_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/h", "LANG": "C.UTF-8", "LC_TIME": "C", "TZ": "UTC", "USER": "u",
    "SHELL": "/bin/sh", "TMPDIR": "/t", "LD_BIND_NOW": "1", "PYTHONPATH": "/p", "TQ_TOKEN": "secret",
    "TQ_TOKEN_FILE": "f", "TQ_JOIN": "join", "NOTIFY_SOCKET": "@n", "OTHER": "o",
}  # fmt: skip


@pytest.fixture
def link() -> Iterator[Link]:
    with Link() as one:
        yield one


# ---------------------------------------------------------------- how it ended


@pytest.mark.parametrize("code", [0, 1, 77, 126, 127, 255])
def test_an_exit_code_is_reported_as_it_is(link, code):
    end = link.run(body("sh", "-c", f"exit {code}"))

    assert (end.cause, end.code) == (Cause.EXIT, code)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGRTMIN])
def test_a_signal_is_reported_with_its_number(link, number):
    end = link.run(body("sh", "-c", f"kill -{int(number)} $$"))

    assert (end.cause, end.code) == (Cause.SIGNAL, -number)


def test_usage_has_times_and_what_was_written(link):
    end = link.run(body("sh", "-c", "echo four; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; printf xx >&2"))

    used = usage(end)
    assert used.written == (5, 2)
    assert used.dropped == (0, 0)
    assert used.user_us + used.system_us > 0
    assert end.run_us > 0


def test_peak_memory_is_the_tasks_and_never_the_launchers(link):
    small = link.run(body("true"), 1)
    large = link.run(body(sys.executable, "-c", "x = b'1' * 200_000_000"), 2)

    assert usage(small).peak_kib == 0
    assert usage(large).peak_kib > 190_000


def test_a_launcher_without_a_free_descriptor_lives_on_and_tells_how_an_attempt_ended(link, tmp_path):
    """It looks at its own peak memory for each large process, and at what a success has returned."""
    code = (
        "import os; x = b'1' * 100_000_000; open(os.environ['TQ_RESULT'], 'w').write('[7]');"
        "open('up', 'w').close(); open('go').read()"
    )
    for name in ("up", "go"):
        os.mkfifo(tmp_path / name)
    files = {"stdout": b"out", "stderr": b"err"}  # no pipe of its own makes room when it ends
    link.spawn(body(sys.executable, "-c", code, cwd=str(tmp_path), **files), [one := ref(1)])
    (tmp_path / "up").read_text()
    open_ones = {int(path.name) for path in Path(f"/proc/{link.process.pid}/fd").iterdir()}
    first_free = min(set(range(1_000)) - open_ones)
    before = resource.prlimit(link.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(link.process.pid, resource.RLIMIT_NOFILE, (first_free, before[1]))
    (tmp_path / "go").write_text("")
    link.until(lambda: one in link.ends)
    resource.prlimit(link.process.pid, resource.RLIMIT_NOFILE, before)

    assert (link.ends[one].cause, link.ends[one].code) == (Cause.EXIT, 0), usage(link.ends[one]).error
    assert plain.loads(link.ends[one].value) == [7]
    assert link.run(body("true"), 2).code == 0


# ---------------------------------------------------------------- what cannot be run


def script(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_127_is_what_does_not_exist(link, tmp_path):
    nowhere = link.run(body("tq-no-such-program"), 1)
    no_file = link.run(body(str(tmp_path / "none")), 2)
    no_interpreter = link.run(body(script(tmp_path / "s", "#! /bin/sh\r\necho of another system\r\n")), 3)

    assert [(e.cause, e.code) for e in (nowhere, no_file, no_interpreter)] == [(Cause.SPAWN_FAILED, 127)] * 3
    assert "not found in PATH" in usage(nowhere).error
    assert "no such file" in usage(no_file).error
    assert r"its interpreter '/bin/sh\r' does not exist" in usage(no_interpreter).error


def test_126_is_what_cannot_be_run(link, tmp_path):
    ends = [
        link.run(body(script(tmp_path / "plain", "x", 0o644)), 1),
        link.run(body(str(tmp_path)), 2),
        link.run(body(script(tmp_path / "text", "neither binary nor script\n")), 3),
        link.run(body("true", "x" * 140_000), 4),
        link.run(body("true", "nul\0inside"), 5),
        link.run(body("plain", environment={"PATH": os.fsencode(tmp_path)}), 6),
    ]

    assert [(e.cause, e.code) for e in ends] == [(Cause.SPAWN_FAILED, 126)] * 6
    assert all(usage(e).error for e in ends)
    assert "directory" in usage(ends[1]).error
    assert "too long" in usage(ends[3]).error


@pytest.mark.parametrize(
    "words, where, path",
    [
        ((b"/no/\xff",), "/", b"/bin"),
        ((b"\xff",), "/", b"/bin"),
        ((b"no",), "/", b"/\xff"),
        (("€" * 2_000,), "/", b"/bin"),
        (("true",), b"/\xff", b"/bin"),
    ],
)
def test_a_name_that_is_no_text_or_too_long_for_one_is_told_within_bounds(link, words, where, path):
    end = link.run(body(*words, cwd=where, environment={"PATH": path}), 1)

    assert end.cause in {Cause.SPAWN_FAILED, Cause.CWD_MISSING}
    assert usage(end).error
    assert len(end.result) <= limits.result_inline_bytes_max


def test_a_program_that_runs_and_exits_127_is_no_failed_spawn(link):
    assert link.run(body("sh", "-c", "no-such-command")).cause == Cause.EXIT


def test_a_missing_directory_is_its_own_cause(link, tmp_path):
    missing = link.run(body("true", cwd=str(tmp_path / "none")), 1)
    no_directory = link.run(body("true", cwd=script(tmp_path / "file", "")), 2)

    assert [e.cause for e in (missing, no_directory)] == [Cause.CWD_MISSING] * 2
    assert 127 not in {missing.code, no_directory.code}
    assert str(tmp_path / "none") in usage(missing).error


def test_a_body_that_is_none_fails_its_attempts_and_nothing_else(link):
    assert link.run(b"\xff\xff", 1).cause == Cause.SPAWN_FAILED
    assert link.run(body(), 2).cause == Cause.SPAWN_FAILED
    assert link.run(body("true"), 3).code == 0


def test_the_program_is_looked_for_in_the_tasks_own_path(link, tmp_path):
    script(tmp_path / "mine", "#!/bin/sh\necho found\n")

    link.run(body("mine", environment={"PATH": b"/nonexistent:" + os.fsencode(tmp_path)}))

    assert link.text(ref(1)) == b"found\n"


def test_a_program_that_appears_later_is_found(link, tmp_path):
    late = body("late", environment={"PATH": os.fsencode(tmp_path)})
    assert link.run(late, 1).code == 127

    script(tmp_path / "late", "#!/bin/sh\n")
    assert link.run(late, 2).code == 0

    (tmp_path / "late").unlink()
    assert link.run(late, 3).code == 127


def test_what_the_path_led_to_is_looked_for_again_after_a_second_or_a_failure(monkeypatch, tmp_path):
    now = [100.0]
    monkeypatch.setattr(program.time, "monotonic", lambda: now[0])
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    path = os.fsencode(f"{first}:{second}")
    tool = program.Program(Body((b"tool",), b"/", {"PATH": path}), {})
    script(second / "tool", "")
    assert tool.path(tool.argv) == os.fsencode(second / "tool")
    script(first / "tool", "")
    assert tool.path(tool.argv) == os.fsencode(second / "tool")
    now[0] += 1.1
    assert tool.path(tool.argv) == os.fsencode(first / "tool")
    (first / "tool").unlink()
    tool.explain(os.fsencode(first / "tool"), FileNotFoundError(2, "gone"))
    assert tool.path(tool.argv) == os.fsencode(second / "tool")


# ---------------------------------------------------------------- what a task gets


def test_the_environment_is_exactly_what_it_should_be():
    with Link(environment=WORKER_ENVIRONMENT) as link:
        own = {"MINE": b"1", "HOME": b"/mine", "TQ_TASK": b"forged"}
        link.spawn(body("env", "-0", environment=own), [ref(7, 2)], is_array=True, queue="q", trace="00-ab-cd-01")
        link.until(lambda: link.ends)

        assert dict(item.split(b"=", 1) for item in link.text(ref(7, 2)).split(b"\0")[:-1]) == {
            b"PATH": b"/usr/local/bin:/usr/bin:/bin", b"HOME": b"/mine", b"LANG": b"C.UTF-8", b"LC_TIME": b"C",
            b"TZ": b"UTC", b"USER": b"u", b"SHELL": b"/bin/sh", b"TMPDIR": b"/t", b"MINE": b"1",
            b"TQ_JOB": b"7", b"TQ_TASK": b"7.3", b"TQ_MEMBER": b"3", b"TQ_ATTEMPT": b"1", b"TQ_FENCE": b"1007",
            b"TQ_QUEUE": b"q", b"TQ_WORKER": link.worker.encode(), b"TRACEPARENT": b"00-ab-cd-01",
            b"TQ_DIR": b"/", b"TQ_RESULT": link.place.path + b"/1.json",
        }  # fmt: skip


def test_a_task_that_is_no_array_has_no_member(link):
    names = ["TQ_TASK", "TQ_MEMBER", "TRACEPARENT", "TQ_ENTRY", "TQ_DEADLINE", "TQ_TMPDIR"]
    inherited = dict.fromkeys(("TQ_TASK", "TQ_MEMBER", "TQ_ENTRY", "TQ_DEADLINE", "TQ_TMPDIR"), b"of its submitter")
    link.run(body("sh", "-c", "".join(f"echo ${{{name}-none}};" for name in names), environment=inherited), 42)

    assert link.text(ref(42)).split() == [b"42"] + 5 * [b"none"]


def test_a_task_with_a_time_limit_knows_its_deadline(link):
    before = int(time.time())
    link.run(body("sh", "-c", "echo $TQ_DEADLINE", time_limit_ms=3_600_000))

    assert before + 3_600 <= int(link.text(ref(1))) <= time.time() + 3_600


def test_nothing_of_the_launcher_is_inherited_but_the_three_streams(link):
    link.run(body("ls", "-l", "/proc/self/fd"))

    lines = link.text(ref(1)).decode().splitlines()[1:]
    targets = {line.split()[8]: line.split()[10] for line in lines}
    assert set(targets) == {"0", "1", "2", "3"}  # 3 is the listing's own
    assert targets["0"] == "/dev/null"
    assert targets["3"].startswith("/proc/")
    assert not any("socket" in line for line in lines)


def test_a_task_has_default_signals_its_own_session_and_no_core(link):
    code = "import os, resource as r; print(os.getsid(0) == os.getpgrp() == os.getpid(), r.getrlimit(r.RLIMIT_CORE)[0])"
    link.run(body(sys.executable, "-S", "-c", code), 1)
    link.run(body("grep", "-E", "SigBlk|SigIgn", "/proc/self/status"), 2)

    assert link.text(ref(1)) == b"True 0\n"
    assert link.text(ref(2)).split() == [b"SigBlk:", b"0" * 16, b"SigIgn:", b"0" * 16]


def test_ignored_signals_of_whoever_started_the_worker_are_not_inherited():
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        with Link() as link:
            link.run(body("grep", "SigIgn", "/proc/self/status"))
            assert link.text(ref(1)).split() == [b"SigIgn:", b"0" * 16]
    finally:
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)


def test_directory_and_umask_are_the_tasks(link, tmp_path):
    for job, umask in enumerate((0o027, 0o077, 0o000), 1):
        link.run(body("sh", "-c", f"pwd; : >made{job}", cwd=str(tmp_path), umask=umask), job)
        assert link.text(ref(job)).strip() == os.fsencode(tmp_path)
        assert stat.S_IMODE((tmp_path / f"made{job}").stat().st_mode) == 0o666 & ~umask


def test_it_stands_in_no_tasks_directory_which_somebody_may_want_to_unmount(link, tmp_path):
    link.begin(body("sh", "-c", "echo ready; exec sleep 1000", cwd=str(tmp_path)), 1)
    link.run(body("tq-no-such-program", cwd=str(tmp_path)), 2)

    assert Path(f"/proc/{link.process.pid}/cwd").readlink() == Path("/")


def test_small_input_is_read_from_its_beginning_by_every_member(link):
    link.spawn(body("cat", stdin=b"in\0put\n"), [ref(1, m) for m in range(5)], is_array=True)
    link.until(lambda: len(link.ends) == 5)

    assert [link.text(ref(1, m)) for m in range(5)] == [b"in\0put\n"] * 5


def test_large_input_comes_in_pieces_and_outlives_its_forgetting_while_somebody_waits(link):
    data = os.urandom(600_000)
    for piece in protocol.input_frames(9, data):
        link.say(piece)
    link.spawn(body("sha256sum"), [ref(1, 0), ref(1, 1), ref(1, 2)], is_array=True, stdin=9, width=1)
    link.say(protocol.Forget(9))
    link.until(lambda: len(link.ends) == 3)

    assert len({link.text(ref(1, m)) for m in range(3)}) == 1
    assert link.text(ref(1, 0)).split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_an_input_cannot_be_written_by_the_task(link):
    link.spawn(
        body("sh", "-c", "cat; echo x >&0 || echo x > /dev/stdin", stdin=b"whole"), [ref(1, 0), ref(1, 1)], width=1
    )
    link.until(lambda: len(link.ends) == 2)

    assert [(link.ends[one].code != 0, link.text(one)) for one in link.order] == 2 * [(True, b"whole")]


def test_an_input_that_never_came_hands_the_attempt_back(link):
    link.spawn(body("cat"), [ref(1)], stdin=5)
    link.until(lambda: link.recalled)

    assert link.recalled[ref(1)].cause == Cause.WORKER_TROUBLE
    assert link.recalled[ref(1)].error


# ---------------------------------------------------------------- how many at once


def test_nothing_starts_without_slots():
    with Link(slots=0) as link:
        link.spawn(body("true"), [ref(1)])
        pong = link.ping()
        assert (pong.live, pong.queued) == (0, 1)
        link.say(protocol.Slots(1))
        link.until(lambda: link.ends)


def test_width_and_slots_bound_what_runs_at_once(link, tmp_path):
    count = body("sh", "-c", "mkdir $TQ_TASK; ls -d 1.* | wc -l; sleep 0.01; rmdir $TQ_TASK", cwd=str(tmp_path))
    link.say(protocol.Slots(3))
    link.spawn(count, [ref(1, m) for m in range(12)], is_array=True, width=2)
    link.until(lambda: len(link.ends) == 12)

    assert max(int(link.text(ref(1, m))) for m in range(12)) == 2


def test_a_lane_is_first_in_first_out(link):
    refs = [ref(1, m) for m in range(40)]
    link.spawn(body("true"), refs, is_array=True, width=1)
    link.until(lambda: len(link.ends) == 40)

    assert link.order == refs


def test_a_full_lane_does_not_hold_up_another(link):
    link.begin(body("sh", "-c", "echo ready; exec sleep 1000"), 1, lane=1, width=1)
    link.spawn(body("true"), [ref(2)], lane=1, width=1)
    link.spawn(body("true"), [ref(3)], lane=2, width=1)
    link.until(lambda: ref(3) in link.ends)

    assert ref(2) not in link.ends


def test_the_latest_width_of_a_lane_counts(link):
    first = link.begin(body("sh", "-c", "echo ready; exec sleep 1000"), 1, lane=1, width=1)
    link.spawn(body("true"), [ref(2)], lane=1, width=1)
    link.spawn(body("true"), [], lane=1, width=2)
    link.until(lambda: ref(2) in link.ends)

    assert first not in link.ends


def test_an_attempt_is_not_started_twice(link):
    for _ in range(2):
        link.begin(body("sh", "-c", "echo ready; exec sleep 1000"), 1)
    pong = link.ping()
    assert (pong.live, pong.queued) == (1, 0)


def test_recall_gives_back_what_has_not_started_and_leaves_the_rest(link):
    running = link.begin(body("sh", "-c", "echo ready; exec sleep 1000"), 1, width=1)
    waiting = [ref(2, m) for m in range(3)]
    link.spawn(body("true"), waiting, width=1)
    link.say(protocol.Recall((running, *waiting[:2], ref(99))))
    link.until(lambda: link.recalled)

    assert set(link.recalled) == set(waiting[:2])
    assert link.ping().queued == 1
    link.stop(running)
    link.until(lambda: waiting[2] in link.ends)
    assert waiting[0] not in link.ends


def test_a_recalled_attempt_may_come_again(link):
    running = link.begin(body("sh", "-c", "echo ready; exec sleep 1000"), 1, width=1)
    link.spawn(body("true"), [ref(2)], width=1)
    link.say(protocol.Recall((ref(2),)))
    link.until(lambda: link.recalled)
    link.spawn(body("true"), [ref(2)], width=1)
    link.stop(running)
    link.until(lambda: ref(2) in link.ends)


def test_only_what_runs_for_a_moment_is_reported_as_started(link):
    link.spawn(body("sleep", "0.2"), [ref(1)])
    link.spawn(body("true"), [ref(2)])
    link.until(lambda: len(link.ends) == 2)

    assert ref(1) in link.started
    assert ref(2) not in link.started or link.ends[ref(2)].run_us >= 20_000  # on a machine that is busy


def test_a_spawn_that_fails_frees_its_slot(link):
    link.spawn(body("tq-no-such-program"), [ref(1, m) for m in range(200)], is_array=True)
    link.until(lambda: len(link.ends) == 200)

    assert (link.ping().live, link.ping().queued) == (0, 0)


def test_many_short_tasks_all_end_once(link):
    link.say(protocol.Slots(8))
    link.spawn(body("true"), [ref(1, m) for m in range(1000)], is_array=True)
    link.until(lambda: len(link.ends) == 1000)

    assert {end.code for end in link.ends.values()} == {0}


# ---------------------------------------------------------------- the process itself


def test_a_terminal_or_a_task_cannot_end_it_by_mistake(link):
    link.ping()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGTSTP):
        link.process.send_signal(number)

    assert link.run(body("true")).code == 0
    assert os.getsid(link.process.pid) == link.process.pid


def test_it_is_small_and_idle_without_work(link):
    link.run(body("true"))
    before = Path(f"/proc/{link.process.pid}/stat").read_text().split()[13:15]
    link.hear(0.3)

    assert Path(f"/proc/{link.process.pid}/stat").read_text().split()[13:15] == before
    assert link.memory_kib("VmRSS") < 24_000


def test_it_needs_no_trio():
    heavy = {"trio", "cryptography", "socket", "asyncio"}
    code = f"import sys, tq.launcher.launcher; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_frame_that_is_none_ends_it_and_all_it_runs(link):
    mark = marker()
    link.begin(body("sh", "-c", f"(setsid sleep {mark} &); echo ready; exec sleep {mark}"))
    link.socket.sendall(b"\xff\xff\xff\xff")

    assert link.process.wait(30) != 0
    assert processes(mark) == []


def test_many_slots_raise_the_launchers_limit_of_files_and_not_the_tasks():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        link = Link(slots=200)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with link:
        refs = tuple(ref(1, m) for m in range(200))
        link.spawn(body("sh", "-c", "ulimit -Sn; exec sleep 1000"), refs, width=200)
        for one in refs:
            link.say(protocol.Follow(one, 1000))
        link.until(lambda: len(link.outputs) == 200)
        link.say(protocol.Stop(refs, Cause.CANCELLED))
        link.until(lambda: len(link.ends) == 200)

        assert {link.text(one) for one in link.ends} == {b"256\n"}
        assert not any(usage(end).output_held for end in link.ends.values())


def test_trouble_of_the_machine_hands_attempts_back_and_ends_nothing(link):
    link.say(protocol.Slots(50))
    link.ping()
    resource.prlimit(link.process.pid, resource.RLIMIT_NOFILE, (40, 40))
    link.spawn(body("sleep", "1000"), [ref(1, m) for m in range(50)])
    link.until(lambda: link.recalled)
    pong = link.ping()

    assert {message.cause for message in link.recalled.values()} == {Cause.WORKER_TROUBLE}
    assert all(message.error for message in link.recalled.values())
    assert pong.live + len(link.recalled) == 50
    assert pong.live > 5
    assert link.ends == {}


def test_nonsense_in_a_body_ends_at_most_its_own_attempt(link):
    link.run(body("true", stop_signal=9999, umask=-1, kill_after_ms=-5, time_limit_ms=2**62), 1)
    one = link.begin(body("sh", "-c", "echo ready; exec sleep 1000", stop_signal=0, kill_after_ms=2**62), 2)
    assert link.stop(one, 99).code == -signal.SIGTERM
    assert link.run(body("true", environment={"": b"x", "a=b": b"y", "n\0": b"z"}), 3).code == 126
    assert link.run(body("true", cwd="/\0"), 4).cause == Cause.CWD_MISSING
    assert link.run(body(""), 5).code == 127
    assert link.run(body("true"), 6).code == 0
