"""A call that ends early, and what it leaves: nothing outlives its attempt, and the next call finds a process."""

import os
import signal
from pathlib import Path

import pytest

from tests.launcher.conftest import offer
from tests.support.launcher import Link, body, call, marker, processes, ref, usage, value_of, wait_count, wait_gone
from tq import limits
from tq.core.model.task import Cause
from tq.launcher import protocol
from tq.wire import plain


def test_a_stopped_call_ends_with_all_that_it_started(link):
    mark = marker()
    one = link.begin(call("work:sleep", mark))
    wait_count(mark, 1)

    end = link.stop(one)

    assert (end.cause, end.code) == (Cause.CANCELLED, -signal.SIGTERM)
    assert processes(mark) == []
    assert value_of(link, call("work:echo")) == [[], {}]


def test_a_call_that_ignores_its_stop_is_killed(link):
    mark = marker()
    one = link.begin(call("work:stubborn", mark))

    end = link.stop(one, kill_after_ms=100)

    assert (end.cause, end.code) == (Cause.CANCELLED, -signal.SIGKILL)
    assert processes(mark) == []


def test_a_call_that_answers_its_stop_keeps_its_code_and_the_reason(link):
    one = link.begin(call("work:graceful"))

    end = link.stop(one)

    assert (end.cause, end.code) == (Cause.CANCELLED, 1)
    assert value_of(link, call("work:echo")) == [[], {}]


def test_a_time_limit_ends_a_call_and_spares_the_start_of_its_process(link):
    quick = link.run(call("work:echo", time_limit_ms=1_000), 1)
    slow = link.run(call("work:sleep", marker(), time_limit_ms=50), 2)

    assert quick.cause == Cause.EXIT
    assert slow.cause == Cause.TIME_LIMIT


def test_a_time_limit_spares_the_import_of_a_module(link):
    end = link.run(call("heavy:f", time_limit_ms=300), 1)

    assert (end.cause, plain.loads(end.value)) == (Cause.EXIT, "heavy")


@pytest.mark.parametrize("name", ["work:close_all", "work:become"])
def test_a_call_that_leaves_its_channel_is_told_so(link, name):
    end = link.run(call(name, marker()), 1)

    assert (end.cause, end.code) == (Cause.BAD_RESULT, -signal.SIGKILL)
    assert "closed the channel" in usage(end).error
    assert value_of(link, call("work:echo")) == [[], {}]


@pytest.mark.parametrize(
    "field, number",
    [
        ("run_us", 2**63),
        ("run_us", -1),
        ("user_us", 2**64 - 1),
        ("peak_kib", 2**54),
        ("code", 2**32),
        ("cause", 2**63),
        ("value", limits.result_bytes_max + 1),
    ],
)
def test_an_answer_that_a_call_makes_up_and_no_server_would_take_is_none(link, field, number):
    end = link.run(call("work:forge", marker(), field, str(number)), 1)

    assert (end.cause, end.code) == (Cause.BAD_RESULT, -signal.SIGKILL)
    assert value_of(link, call("work:echo")) == [[], {}]


def test_a_call_that_is_killed_from_outside_is_not_told_so(link):
    one = link.begin(call("work:sleep", mark := marker()))
    wait_count(mark, 1)
    for pid in link.children():
        os.kill(pid, signal.SIGKILL)
    link.until(lambda: one in link.ends)

    assert (link.ends[one].cause, link.ends[one].code, usage(link.ends[one]).error) == (
        Cause.SIGNAL,
        -signal.SIGKILL,
        "",
    )


@pytest.mark.parametrize("name", ["work:abandon", "work:daemon"])
def test_what_a_call_leaves_behind_is_dead_when_its_end_is_told(link, name):
    mark = marker()

    end = link.run(call(name, mark), 1)

    assert end.cause == Cause.EXIT
    assert processes(mark) == []
    assert value_of(link, call("work:echo")) == [[], {}]


def test_a_fork_that_returns_ends_where_the_call_ends(link):
    end = link.run(call("work:twice"), 1)

    assert plain.loads(end.value) in link.children() or end.cause == Cause.EXIT
    assert value_of(link, call("work:echo")) == [[], {}]
    assert len(link.children()) == 1


def test_a_call_that_closes_the_streams_costs_its_process_alone(link):
    assert link.run(call("work:close_streams"), 1).cause == Cause.EXIT
    one = ref(2)
    link.spawn(call("work:write", "o", "e"), [one])
    link.until(lambda: one in link.ends)

    assert link.text(one) == b"o\nfrom below\n"


def test_an_idle_process_that_dies_is_replaced(link):
    pid, _ = value_of(link, call("work:count"))  # type: ignore[misc]
    os.kill(pid, signal.SIGKILL)
    wait_gone_pid(pid)

    other, count = value_of(link, call("work:count"))  # type: ignore[misc]

    assert other != pid
    assert count == 1


def wait_gone_pid(pid: int) -> None:
    while Path(f"/proc/{pid}").exists():
        os.sched_yield()


def test_there_are_never_more_processes_than_slots(link):
    refs = [ref(3, member) for member in range(200)]
    link.spawn(call("work:count"), refs, is_array=False)
    link.until(lambda: all(one in link.ends for one in refs))

    pids = {plain.loads(link.ends[one].value)[0] for one in refs}
    assert len(pids) <= 2
    assert len(link.children()) <= 2


def test_commands_and_calls_share_the_slots(link):
    link.say(protocol.Slots(1))
    mark = marker()
    one = link.begin(body("sh", "-c", f"echo ready; sleep {mark}"), 1)
    link.spawn(call("work:count"), [ref(2)])

    pong = link.ping()
    assert (pong.live, pong.queued) == (1, 1)

    link.stop(one)
    link.until(lambda: ref(2) in link.ends)


def test_a_launcher_that_loses_its_worker_kills_calls_and_idle_processes(place):
    mark = marker()
    link = Link()
    offer(link, place)
    link.run(call("work:count"), 1)
    link.begin(call("work:sleep", mark), 2)
    children = link.children()

    link.close()

    wait_gone(mark)
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def test_a_call_that_its_process_never_took_goes_back(link):
    """The kernel may kill a process for its memory just when it is given a call: that has not run."""
    (pid, _) = value_of(link, call("work:count"))
    os.kill(pid, signal.SIGSTOP)
    link.spawn(call("work:count"), [ref(7)])
    link.until(lambda: ref(7) in link.started)
    os.kill(pid, signal.SIGKILL)
    link.until(lambda: link.recalled or ref(7) in link.ends)

    assert link.recalled[ref(7)].cause == Cause.WORKER_TROUBLE
    assert value_of(link, call("work:count"))[0] != pid
