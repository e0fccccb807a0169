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
