"""What whoever waits is told meanwhile: what keeps tasks from starting, and what is tried again."""

import json

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq import limits
from tq.cli.showing import waiting
from tq.core import vocabulary as v
from tq.wire.body import Usage
from tq.wire.codec import dumps

RUNNING = v.Outcome("42", "running", "started")
DONE = v.Outcome("42", "succeeded", "ended", 0, "exit", succeeded=1, ended=1)


def test_wait_says_what_keeps_a_task_from_starting_once(run: Run, server: FakeServer) -> None:
    waits = v.Outcome("42", "queued", reason="no worker is connected")
    server.says[v.Wait] = lambda _: [v.Waited(False, (waits,)), v.Waited(False, (waits,)), v.Waited(True, (DONE,))]
    assert run("wait", "42") == (0, "", "tq: no worker is connected\n")
    assert run("wait", "-q", "42") == (0, "", "")


@pytest.mark.parametrize(
    "code, cause, said",
    [
        (3, "exit", "exited with 3"),
        (-9, "signal", "was killed by signal 9, not by tq: for want of memory, perhaps"),
        (-15, "time_limit", "reached its time limit"),
        (-9, "oom", "ran out of memory"),
        (-9, "something_new", "failed (something_new)"),
        (1, "exception", "raised an exception"),
    ],
)
def test_wait_says_that_an_attempt_failed_and_is_followed_by_another(
    run: Run, server: FakeServer, code: int, cause: str, said: str
) -> None:
    failed = v.Outcome("42", "retrying", "ended", code, cause, attempt=2, pause_ms=3_210)
    server.says[v.Wait] = lambda _: [v.Waited(False, (failed,)), v.Waited(False, (failed,)), v.Waited(True, (DONE,))]
    assert run("wait", "42") == (0, "", f"tq: attempt 2 {said}; tried again within 3.21s\n")
    assert run("wait", "-q", "42") == (0, "", "")


def test_wait_says_what_a_function_raised_and_that_a_worker_was_lost(run: Run, server: FakeServer) -> None:
    raised = v.Outcome(
        "42", "retrying", "ended", 1, "exception", attempt=1, usage=dumps(Usage(error="OSError: \x1b[2J"))
    )
    lost = v.Outcome("42", "queued", "lost", attempt=2, reason="no worker is connected")
    runs = v.Outcome("42", "running", "started", attempt=3, earlier_attempt=2, earlier_cause="lost")
    next_ = v.Outcome("42", "running", "started", attempt=4, earlier_attempt=3, earlier_cause="signal", earlier_code=-9)
    said = [v.Waited(False, (one,)) for one in (raised, lost, runs, next_)]
    server.says[v.Wait] = lambda _: [*said, v.Waited(True, (DONE,))]
    assert run("wait", "42").err.splitlines() == [
        "tq: attempt 1 raised an exception: OSError: \\x1b[2J; tried again",
        "tq: attempt 2 was lost with its worker; tried again",
        "tq: no worker is connected",
        "tq: attempt 3 was killed by signal 9, not by tq: for want of memory, perhaps; tried again",
    ]


def test_of_thousands_that_fail_a_wait_names_some_and_says_where_the_others_are(run: Run, server: FakeServer) -> None:
    names = [f"43.{member}" for member in range(1, 2_001)]
    failed = tuple(v.Outcome(one, "retrying", "ended", 3, "exit", attempt=1, pause_ms=1_000) for one in names)
    ends = tuple(v.Outcome(one, "succeeded", ended=1, succeeded=1) for one in names)
    server.says[v.Wait] = lambda _: [v.Waited(False, failed), v.Waited(False, failed), v.Waited(True, ends)]
    said = run("wait", "43.1-2000").err.splitlines()
    assert said[:2] == [f"tq: 43.{one}: attempt 1 exited with 3; tried again within 1s" for one in (1, 2)]
    assert (len(said), said[-1]) == (21, "tq: more have failed, and are tried again; tq ls --state retrying")


def test_of_an_array_it_is_said_once_that_some_are_tried_again_and_where_they_are(run: Run, server: FakeServer) -> None:
    failing = [v.Outcome("42", "retrying", size=3, retrying=number) for number in (1, 2)]
    server.says[v.Wait] = lambda _: [*(v.Waited(False, (one,)) for one in failing), v.Waited(True, (DONE,))]
    assert run("wait", "42") == (
        0, "", "tq: some have failed, and are tried again; tq ls 42 --state retrying\n"
    )  # fmt: skip


def test_a_submit_that_waits_says_what_is_tried_again_and_nothing_twice(run: Run, server: FakeServer) -> None:
    none = "no worker is connected"
    server.says[v.Submit] = lambda _: [v.Submitted("42", warning=none)]
    waits, failed = v.Outcome("42", "queued", reason=none), v.Outcome("42", "retrying", "ended", 3, "exit", attempt=1)
    server.says[v.Wait] = lambda _: [v.Waited(False, (waits,)), v.Waited(False, (failed,)), v.Waited(True, (DONE,))]
    said = f"tq: {none}\ntq: attempt 1 exited with 3; tried again\n"
    assert run("submit", "--wait", "--", "true") == (0, "42\n", said)


def test_of_several_it_says_which_one_waits_for_what(run: Run, server: FakeServer) -> None:
    held = v.Outcome("43", "held", reason="it is held")
    other = v.Outcome("44", "held", reason="it is held")
    ends = tuple(v.Outcome(one, "succeeded", ended=1, succeeded=1) for one in ("42", "43", "44"))
    server.says[v.Wait] = lambda _: [v.Waited(False, (RUNNING, held, other)), v.Waited(True, ends)]
    assert run("wait", "42", "43", "44") == (0, "", "tq: 43: it is held\n")


def test_who_waits_behind_a_submit_is_told_once(run: Run, server: FakeServer) -> None:
    waits = v.Outcome("42", "queued", reason="queue slow is paused")
    server.says[v.Submit] = lambda _: v.Submitted("42", warning="queue slow is paused")
    server.says[v.Wait] = lambda _: [v.Waited(False, (waits,)), v.Waited(True, (DONE,))]
    assert run("submit", "--wait", "--", "true") == (0, "42\n", "tq: queue slow is paused\n")


def in_pages(outcomes: dict[str, v.Outcome]):
    """Answer each wait of at most so many ids as a server does: all it knows, and no more until something changes."""

    def answer(asked: v.Wait) -> list[object]:
        assert len(asked.ids) <= limits.wait_ids_max
        known = tuple(outcomes[one] for one in asked.ids)
        is_done = all(one.ended for one in known)
        return [v.Waited(is_done, known), *([] if is_done else [None])]

    return answer


def of_an_array(count: int, **others: v.Outcome) -> dict[str, v.Outcome]:
    ended = {f"7.{n}": v.Outcome(f"7.{n}", "succeeded", "ended", 0, "exit", succeeded=1, ended=1) for n in range(count)}
    return ended | {f"7.{name[1:]}": outcome for name, outcome in others.items()}


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "wait_ids_max", 4)
    monkeypatch.setattr(waiting, "_LOOK_S", 0.05)


def test_more_ids_than_one_wait_may_name_are_waited_for_in_pages(
    run: Run, server: FakeServer, small_pages: None
) -> None:
    server.says[v.Wait] = in_pages(of_an_array(11))
    ran = run("wait", "7.0-10", "-o", "json")
    assert (ran.status, ran.err) == (0, "")
    assert [item["id"] for item in json.loads(ran.out)["items"]] == [f"7.{n}" for n in range(11)]
    assert [len(asked.ids) for asked in server.asked if isinstance(asked, v.Wait)] == [4, 4, 3]


def test_a_failure_on_the_last_page_is_enough_for_ok_and_an_end_there_for_any(
    run: Run, server: FakeServer, small_pages: None
) -> None:
    running = {f"_{n}": v.Outcome(f"7.{n}", "running", "started") for n in range(10)}
    server.says[v.Wait] = in_pages(
        of_an_array(0, **running, _10=v.Outcome("7.10", "dead", "ended", 7, "exit", ended=1))
    )
    for words in (("--for", "ok"), ("--any",)):
        ran = run("wait", "7.0-10", *words, "-o", "jsonl")
        assert ran.status != 0
        assert json.loads(ran.out.splitlines()[-1])["id"] == "7.10"


def test_a_page_that_is_done_as_a_whole_is_enough_all_the_same(run: Run, server: FakeServer, small_pages: None) -> None:
    running = {f"_{n}": v.Outcome(f"7.{n}", "running", "started") for n in range(4, 11)}
    dead = v.Outcome("7.2", "dead", "ended", 7, "exit", ended=1)
    server.says[v.Wait] = in_pages(of_an_array(4, **running, _2=dead))
    assert run("wait", "7.0-10", "--for", "ok").status == 1
    ran = run("wait", "7.0-10", "--any", "-o", "jsonl")
    assert [json.loads(line)["id"] for line in ran.out.splitlines()] == ["7.0", "7.1", "7.2", "7.3"]


def test_when_time_is_over_every_page_has_been_looked_at(run: Run, server: FakeServer, small_pages: None) -> None:
    server.says[v.Wait] = in_pages(of_an_array(11, _1=v.Outcome("7.1", "running", "started")))
    ran = run("wait", "7.0-10", "--timeout", "200ms", "-o", "json")
    assert (ran.status, "7.1 did not end within" in ran.err) == (124, True)
    assert len(json.loads(ran.out)["items"]) == 11


def test_a_wait_has_a_bound_that_it_names(run: Run, server: FakeServer) -> None:
    ran = run("wait", "7.1-1000001")
    assert (ran.status, "names more than waited_ids_max, 1000000, tasks" in ran.err) == (2, True)
