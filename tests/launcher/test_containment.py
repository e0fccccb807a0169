"""Nothing outlives its attempt, and nothing outlives the launcher (level `group`)."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.launcher import Link, body, marker, processes, ref, state_of, usage, wait_count, wait_gone
from tq.core.model.task import Cause
from tq.launcher import containment, protocol

SLEEPS = 'until [ "$(cat /proc/$!/comm)" = sleep ]; do :; done'  # the last background process has become `sleep`
STUBBORN = "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


@pytest.fixture
def link() -> Iterator[Link]:
    with Link() as one:
        yield one


@pytest.fixture
def mark() -> Iterator[str]:
    one = marker()
    yield one
    for pid in processes(one):  # only after a failure
        os.kill(pid, signal.SIGKILL)


def sh(text: str, **fields: object) -> bytes:
    return body("sh", "-c", text, **fields)


def python(text: str, *arguments: str, **fields: object) -> bytes:
    return body(sys.executable, "-S", "-c", text, *arguments, **fields)


# ---------------------------------------------------------------- stop


def test_a_stop_sends_the_signal_to_the_group(link, mark):
    one = link.begin(sh(f"sleep {mark} & echo ready; wait"))
    end = link.stop(one)

    assert (end.cause, end.code) == (Cause.CANCELLED, -signal.SIGTERM)
    assert processes(mark) == []


def test_a_task_may_choose_its_stop_signal_and_exit_as_it_likes(link):
    text = "trap 'echo bye; exit 5' INT; echo ready; while :; do sleep 0.01; done"
    end = link.stop(link.begin(sh(text, stop_signal=int(signal.SIGINT))))

    assert (end.cause, end.code) == (Cause.CANCELLED, 5)
    assert b"bye" in b"".join(link.outputs[end.attempt, 1].values())


def test_a_stop_may_bring_a_signal_of_its_own_and_another_later(link):
    text = "trap 'echo term' TERM; trap 'echo usr1' USR1; trap 'exit 5' INT; echo ready; while :; do sleep 0.01; done"
    one = link.begin(sh(text))

    def written(word: bytes) -> bool:
        return word in b"".join(link.outputs.get((one, 1), {}).values())

    link.say(protocol.Stop((one,), Cause.CANCELLED, signal=signal.SIGUSR1))
    link.until(lambda: written(b"usr1"))
    link.say(protocol.Stop((one,), Cause.DRAIN, signal=12345))  # no signal: the first cause stands, nothing is sent
    link.say(protocol.Stop((one,), Cause.DRAIN, signal=signal.SIGINT))
    link.until(lambda: one in link.ends)

    assert (link.ends[one].cause, link.ends[one].code) == (Cause.CANCELLED, 5)
    assert not written(b"term")


def test_kill_as_the_signal_kills_all_of_it_at_once(link, mark):
    text = STUBBORN + "print('ready', flush=True); time.sleep(1000)"
    one = link.begin(python(text, mark, kill_after_ms=3_600_000))
    link.say(protocol.Stop((one,), Cause.CANCELLED))
    link.say(protocol.Stop((one,), Cause.CANCELLED, signal=signal.SIGKILL))
    link.until(lambda: one in link.ends)

    assert (link.ends[one].cause, link.ends[one].code) == (Cause.CANCELLED, -signal.SIGKILL)
    assert processes(mark) == []


def test_what_ignores_the_signal_is_killed_after_the_grace(link, mark):
    text = STUBBORN + "print('ready', flush=True); time.sleep(1000)"
    end = link.stop(link.begin(python(text, mark, kill_after_ms=50)))

    assert (end.cause, end.code) == (Cause.CANCELLED, -signal.SIGKILL)


def test_a_second_stop_shortens_the_grace_and_keeps_the_first_cause(link, mark):
    one = link.begin(python(STUBBORN + "print('ready', flush=True); time.sleep(1000)", mark))
    link.say(protocol.Stop((one,), Cause.DRAIN))
    end = link.stop(one, Cause.CANCELLED, kill_after_ms=0)

    assert (end.cause, end.code) == (Cause.DRAIN, -signal.SIGKILL)


def test_a_stopped_process_is_woken_to_end(link):
    one = link.begin(sh("trap 'exit 4' TERM; echo ready; kill -STOP $$; sleep 0.01; exit 0"))
    [pid] = link.children()
    while state_of(pid) != "T":
        os.sched_yield()
    end = link.stop(one)

    assert (end.cause, end.code) == (Cause.CANCELLED, 4)


def test_a_stopped_process_that_ignores_the_signal_is_killed(link, mark):
    text = STUBBORN + "print('ready', flush=True); os.kill(os.getpid(), signal.SIGSTOP); os.kill(os.getpid(), 19)"
    end = link.stop(link.begin(python(text, mark, kill_after_ms=50)))

    assert end.cause == Cause.CANCELLED


def test_the_time_limit_stops_with_its_own_cause(link):
    gentle = link.run(sh("exec sleep 1000", time_limit_ms=50), 1)
    stubborn = link.run(sh("trap '' TERM; exec sleep 1000", time_limit_ms=500, kill_after_ms=50), 2)

    assert (gentle.cause, gentle.code) == (Cause.TIME_LIMIT, -signal.SIGTERM)
    assert (stubborn.cause, stubborn.code) == (Cause.TIME_LIMIT, -signal.SIGKILL)


def test_a_task_within_its_time_limit_is_left_alone(link):
    assert link.run(sh("exit 3", time_limit_ms=60_000)).cause == Cause.EXIT


def test_stopping_what_waits_ends_it_unrun(link):
    running = link.begin(sh("echo ready; exec sleep 1000"), width=1)
    link.spawn(body("true"), [ref(2)], width=1)
    end = link.stop(ref(2))

    assert (end.cause, end.code, end.run_us) == (Cause.CANCELLED, 0, 0)
    assert link.stop(running).cause == Cause.CANCELLED


def test_stopping_what_is_unknown_is_ignored(link):
    link.say(protocol.Stop((ref(77),), Cause.CANCELLED))
    assert link.run(body("true")).code == 0
    link.say(protocol.Stop((ref(1),), Cause.CANCELLED))
    assert link.ping().live == 0


# ---------------------------------------------------------------- leftovers


def test_background_processes_go_with_the_main_process(link, mark):
    end = link.run(sh(f"sleep {mark} >/dev/null 2>&1 & exit 0"))

    assert (end.cause, end.code) == (Cause.EXIT, 0)
    assert processes(mark) == []


def test_a_daemon_in_its_own_session_goes_with_its_attempt(link, mark):
    link.run(sh(f"setsid sleep {mark} >/dev/null 2>&1 & sleep 0.05"))

    assert processes(mark) == []


def test_a_daemon_with_another_attempt_alive_goes_by_its_cookie(link, mark):
    other = link.begin(sh("echo ready; exec sleep 1000"), 1)
    link.run(sh(f"(setsid setsid sleep {mark} >/dev/null 2>&1 &); sleep 0.05"), 2)

    assert processes(mark) == []
    assert other not in link.ends


def test_a_daemon_without_cookie_goes_when_its_possible_makers_have_ended(link, mark):
    other = link.begin(sh("echo ready; exec sleep 1000"), 1)
    link.run(sh(f"setsid env -i sleep {mark} >/dev/null 2>&1 & {SLEEPS}"), 2)
    link.run(body("true"), 3)  # could not have made it, so it does not hold it up
    later = link.begin(sh("echo ready; exec sleep 1000"), 4)
    link.stop(other)

    wait_gone(mark)
    assert later not in link.ends


def test_a_daemon_of_a_running_attempt_is_left_alone(link, mark):
    one = link.begin(sh(f"(setsid sleep {mark} >/dev/null 2>&1 &); echo ready; exec sleep 1000"), 1)
    wait_count(mark, 1)
    for job in range(2, 6):
        link.run(body("true"), job)

    assert len(processes(mark)) == 1
    link.stop(one)
    assert processes(mark) == []


def test_fifty_stubborn_grandchildren_in_their_own_sessions_are_dead_at_the_report(link, mark):
    text = (
        STUBBORN + "for _ in range(50):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        os.close(1); os.close(2)\n"
        "        time.sleep(1000)\n"
    )
    end = link.run(python(text, mark))

    assert (end.cause, end.code) == (Cause.EXIT, 0)
    assert processes(mark) == []


def test_chains_of_orphans_are_followed_to_their_last(link, mark):
    text = (
        STUBBORN + "os.close(1); os.close(2)\n"
        "for depth in range(30):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        continue\n"
        "    time.sleep(1000 if depth else 0.2)\n"
        "    break\n"
        "else:\n"
        "    time.sleep(1000)\n"
    )
    link.run(python(text, mark))

    assert processes(mark) == []


RABBITS = """
import os, sys, time
end = time.time() + 60
os.close(1), os.close(2)
for _ in range(20):
    if os.fork() == 0:
        while time.time() < end:
            os.setsid()
            if os.fork():
                os._exit(0)
        os._exit(0)
time.sleep(0.1)
"""


def test_what_forks_and_exits_without_pause_is_caught_while_the_launcher_answers(link, mark):
    link.spawn(python(RABBITS, mark), [ref(1)])
    while not link.ends:
        link.ping()

    assert processes(mark) == []


def test_what_forks_and_exits_is_told_from_other_attempts(link, mark):
    other = link.begin(sh("echo ready; exec sleep 1000"), 1)
    link.spawn(python(RABBITS.replace("os.setsid()", "os.setsid(), time.sleep(0.02)"), mark), [ref(2)])
    link.until(lambda: ref(2) in link.ends)

    assert processes(mark) == []
    assert other not in link.ends


def test_what_erased_its_environment_is_found_by_its_session(link, mark):
    other = link.begin(sh("echo ready; exec sleep 1000"), 1)
    link.run(sh(f"env -i sleep {mark} >/dev/null 2>&1 & {SLEEPS}"), 2)

    assert processes(mark) == []
    assert other not in link.ends


# ---------------------------------------------------------------- pipes that are held


def test_output_of_a_filter_that_outlives_the_main_process_is_kept(link):
    link.run(body("bash", "-c", "exec > >(sleep 0.3; cat); echo late"))

    assert link.text(ref(1)) == b"late\n"


def test_a_grandchild_that_holds_the_pipe_is_cut_off_and_killed(link, mark):
    end = link.run(sh(f"echo out; sleep {mark} & exit 7"))

    assert (end.cause, end.code) == (Cause.EXIT, 7)
    assert usage(end).output_held
    assert link.text(ref(1)) == b"out\n"
    assert processes(mark) == []


# ---------------------------------------------------------------- the launcher's own end


def test_end_of_file_kills_everything(mark):
    with Link() as link:
        link.begin(python(STUBBORN + "print('ready', flush=True); time.sleep(1000)", mark), 1)
        link.begin(sh(f"(setsid env -i sleep {mark} &); echo ready; exec sleep {mark}"), 2)
        link.spawn(sh(f"sleep {mark}"), [ref(3)])
        link.until(lambda: len(processes(mark)) >= 3)

    assert link.process.returncode == 0
    assert processes(mark) == []


def test_nothing_starts_once_the_worker_is_known_to_be_gone(tmp_path):
    with Link(slots=1) as link:
        link.begin(sh("echo ready; exec sleep 1000"), 1)
        [running] = link.children()
        link.spawn(body("true", cwd=str(tmp_path), stdout=b"begun"), [ref(2)])
        assert link.ping().queued == 1
        link.process.send_signal(signal.SIGSTOP)  # so that it hears of both at once
        while state_of(link.process.pid) != "T":
            os.sched_yield()
        os.kill(running, signal.SIGKILL)
        while state_of(running) != "Z":
            os.sched_yield()
        link.socket.close()
        link.process.send_signal(signal.SIGCONT)

    assert not (tmp_path / "begun").exists()


def test_a_task_cannot_keep_the_socket_open(mark):
    with Link() as link:
        link.begin(sh(f"echo ready; exec sleep {mark}"))
        link.process.kill()
        link.process.wait()
        while link.hear():
            pass

        assert link.is_closed
        containment.kill_bearers(link.worker)


def test_what_a_killed_launcher_leaves_is_found_by_its_cookie(mark):
    with Link() as link, Link() as other:
        other.begin(sh("echo ready; exec sleep 1000"))
        link.begin(python(STUBBORN + "print('ready', flush=True); time.sleep(1000)", mark), 1)
        link.spawn(sh(f"setsid sleep {mark} & kill -9 $PPID; exec sleep {mark}"), [ref(2)])
        link.process.wait(30)
        wait_count(mark, 3)

        assert containment.kill_bearers(link.worker) >= 3
        assert processes(mark) == []
        assert containment.kill_bearers(link.worker) == 0
        assert other.ping().live == 1


INHERIT = """
import os
from tests.support.launcher import Link, body, processes, ref
from tq.launcher import containment

mark = os.environ["MARK"]
containment.become_subreaper()
link = Link()
text = f"(setsid env -i sleep {mark} &); setsid sleep {mark} & kill -9 $PPID; exec sleep {mark}"
link.spawn(body("sh", "-c", text), [ref(1)])
link.process.wait()
while len(processes(mark)) < 3:
    pass
print(containment.kill_all_children(10.0), processes(mark))
"""


def test_a_worker_that_is_a_subreaper_kills_all_that_a_killed_launcher_leaves(mark):
    done = subprocess.run(
        [sys.executable, "-c", INHERIT], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "MARK": mark},
    )  # fmt: skip

    assert done.stdout == "True []\n", done.stderr


# ---------------------------------------------------------------- the parts


def test_a_process_without_the_whole_cookie_has_none():
    with subprocess.Popen(["sleep", "1000"], env={"TQ_TASK": "1"}) as process:
        try:
            assert containment.cookie(process.pid) is None
            assert containment.cookie(2**22) is None
        finally:
            process.kill()


def test_leftovers_are_found_among_more_children_than_one_read_lists():
    with Link(slots=902) as link:
        link.spawn(body("sleep", "1000"), [ref(1, m) for m in range(900)], is_array=True, width=900)
        link.until(lambda: len(link.started) == 900)
        link.run(body("true"), 2, lane=2)
        link.run(sh("sleep 1000 >/dev/null 2>&1 & exit 0"), 3, lane=2)

        assert len(link.children()) == link.ping().live == 900


def test_without_cgroups_what_dead_workers_have_left_alive_is_told_as_well(mark):
    with Link() as dead, Link() as living:
        both = body("sh", "-c", f"setsid sleep {mark} & exec sleep {mark}")
        dead.spawn(both, [ref(1)])
        wait_count(mark, 2)
        left = set(processes(mark))
        assert left.isdisjoint(containment.abandoned())
        living.spawn(both, [ref(2)])
        wait_count(mark, 4)
        dead.process.kill()
        dead.process.wait()
        assert left <= set(containment.abandoned())
        assert (set(processes(mark)) - left).isdisjoint(containment.abandoned())
        for pid in left:
            os.kill(pid, signal.SIGKILL)
