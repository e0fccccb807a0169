"""What is said where a task has written nothing: why there is nothing, as far as that is not success or its code."""

from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tests.cli.test_look import TASK
from tq.core import vocabulary as v
from tq.wire.body import Usage
from tq.wire.codec import dumps

NOT_FOUND = dumps(Usage(error="nosuch: not found in PATH (/bin)"))
DEAD = v.Outcome("42", "dead", "ended", 127, "spawn_failed", ended=1, usage=NOT_FOUND)
WHY = "tq: 42 could not be started: nosuch: not found in PATH (/bin)\n"


def silent(server: FakeServer, outcome: v.Outcome, written: bytes = b"") -> None:
    server.says[v.Get] = lambda asked: v.Document({"id": asked.id, "state": outcome.state, "is_array": False})
    server.says[v.Logs] = lambda _: [
        *([v.Chunk(1, 0, written, 1)] if written else []),
        v.LogsEnd(1, (len(written), 0), outcome.state),
    ]
    server.says[v.Wait] = lambda _: v.Waited(outcome.phase == "ended", (outcome,))


@pytest.mark.parametrize(
    "outcome, said",
    [
        (DEAD, WHY),
        (v.Outcome("42", "cancelled", "ended", ended=1), "tq: 42 was cancelled\n"),
        (v.Outcome("42", "held", reason="its job is held; tq release 42"), "tq: its job is held; tq release 42\n"),
        (v.Outcome("42", "dead", "ended", 7, "exit", ended=1), ""),
        (v.Outcome("42", "succeeded", "ended", 0, "exit", succeeded=1, ended=1), ""),
    ],
)
def test_logs_of_nothing_says_why_on_stderr(run: Run, server: FakeServer, outcome: v.Outcome, said: str) -> None:
    silent(server, outcome)
    assert run("logs", "42") == (0, "", said)
    assert run("logs", "-q", "42") == (0, "", "")


def test_logs_of_something_or_of_one_attempt_says_nothing_more(run: Run, server: FakeServer) -> None:
    silent(server, DEAD, b"x\n")
    assert run("logs", "42") == (0, "x\n", "")
    silent(server, DEAD)
    assert run("logs", "42", "--attempt", "1") == (0, "", "")
    assert not any(isinstance(asked, v.Wait) for asked in server.asked)


def test_logs_of_what_goes_to_a_file_says_where_it_is(run: Run, server: FakeServer) -> None:
    silent(server, v.Outcome("42", "succeeded", "ended", 0, "exit", succeeded=1, ended=1))
    named = {"id": "42", "state": "succeeded", "is_array": False, "stdout": "out-%j\x1b", "stderr": "err"}
    server.says[v.Get] = lambda _: v.Document(named)
    said = "tq: its stdout goes to out-%j\\x1b and its stderr goes to err on the worker's host\n"
    assert run("logs", "42") == (0, "", said)


def test_logs_of_an_array_that_has_written_nothing_says_how_it_stands(run: Run, server: FakeServer) -> None:
    silent(server, v.Outcome("43", "dead", size=2, ended=2))
    server.says[v.Get] = lambda asked: v.Document({"id": asked.id, "is_array": True})
    server.says[v.List] = lambda _: v.Page(({"id": "43.1", "attempt": 1}, {"id": "43.2", "attempt": 1}))
    assert run("logs", "43") == (0, "", "tq: 2 of 2 tasks of 43 did not succeed; tq show 43\n")
    server.says[v.List] = lambda _: v.Page(())
    waiting = v.Outcome("43", "queued", size=2, reason="no worker is connected")
    server.says[v.Wait] = lambda _: v.Waited(False, (waiting,))
    assert run("logs", "43") == (0, "", "tq: no worker is connected\n")
    server.says[v.List] = lambda _: v.Page(({"id": "43.1", "attempt": 1}, {"id": "43.2", "attempt": 1}))
    server.says[v.Logs] = lambda asked: [
        *([v.Chunk(1, 0, b"x\n", 1)] if asked.id == "43.2" else []),
        v.LogsEnd(1, (0, 0), "dead"),
    ]
    assert run("logs", "43") == (0, "43.2 out| x\n", "")


def test_show_of_an_array_has_the_reasons_of_what_could_not_be_started(run: Run, server: FakeServer) -> None:
    array = {"id": "43", "is_array": True, "size": 2, "counts": {"dead": 1}}
    failed = {"id": "43.1", "state": "dead", "attempt": 1, "cause": "spawn_failed", "code": 127}
    more = {"usage": {"error": "nosuch: not found\nand more"}}
    server.says[v.Get] = lambda asked: v.Document(failed | more if asked.id == "43.1" else array)
    server.says[v.List] = lambda _: v.Page((failed,))
    server.says[v.Logs] = lambda asked: v.LogsEnd(asked.attempt, (0, 0))
    assert run("show", "43").out.endswith("failed  43.1  spawn_failed: nosuch: not found\n")


def test_wait_says_why_a_task_could_not_be_started(run: Run, server: FakeServer) -> None:
    silent(server, DEAD)
    assert run("wait", "42") == (127, "", WHY)


def test_show_has_the_reason_by_itself(run: Run, server: FakeServer) -> None:
    used: dict[str, Any] = {"user_s": 0.5, "error": "nosuch: not found"}
    server.says[v.Get] = lambda _: v.Document({**TASK, "cause": "spawn_failed", "code": 127, "usage": used})
    server.says[v.Logs] = lambda asked: v.LogsEnd(asked.attempt, (0, 0))
    words = [line.split(maxsplit=1) for line in run("show", "42").out.splitlines()]
    assert ["error", "nosuch: not found"] in words
    assert ["usage", "user 0.5s"] in words


def test_the_tail_has_a_short_word(run: Run, server: FakeServer) -> None:
    silent(server, v.Outcome("42", "succeeded", "ended"), b"1\n2\n3\n")
    assert run("logs", "-n", "1", "42") == run("logs", "--tail", "1", "42") == (0, "3\n", "")
