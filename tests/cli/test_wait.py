"""`wait`, `logs` and `run` against a server that says what a test tells it to."""

import json
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer, chunks
from tq.core import vocabulary as v
from tq.errors import BadRequest, InternalError, NotAllowed, ProtocolError, TaskNotFound, TqError, Unknown
from tq.wire.body import Body, Usage
from tq.wire.codec import dumps, loads

RUNNING = v.Outcome("42", "running", "started")
DONE = v.Outcome("42", "succeeded", "ended", 0, "exit", succeeded=1, ended=1)
FAILED = v.Outcome("42", "dead", "ended", 7, "exit", ended=1)


def ends_as(outcome: v.Outcome):
    return lambda _: [v.Waited(False, (RUNNING,)), v.Waited(True, (outcome,))]


# ---------------------------------------------------------------- wait


def test_wait_exits_as_the_task_did(run: Run, server: FakeServer) -> None:
    server.says[v.Wait] = ends_as(FAILED)
    assert run("wait", "42") == (7, "", "")


@pytest.mark.parametrize("words, status", [(("wait", "42"), 125), (("logs", "-f", "42"), 1), (("result", "42"), 1)])
def test_a_server_that_comes_back_with_another_store_is_not_asked_for_the_ids_of_the_first(
    run: Run, server: FakeServer, words: tuple[str, ...], status: int
) -> None:
    def restored(_: object) -> list[object]:
        server.lineage = 8
        return [...]

    server.says = dict.fromkeys((v.Wait, v.Logs, v.GetResults, v.Get), restored)
    ran = run(*words)
    assert (ran.status, ran.out) == (status, "")
    assert "the server came back with another store: what was asked for is of the earlier one" in ran.err
    assert len(server.asked) == 1


def test_wait_prints_outcomes_for_scripts(run: Run, server: FakeServer) -> None:
    server.says[v.Wait] = ends_as(FAILED)
    ran = run("wait", "42", "-o", "json")
    assert json.loads(ran.out) == {
        "v": 1,
        "done": True,
        "items": [
            {"id": "42", "state": "dead", "size": 1, "ended": 1, "succeeded": 0, "cause": "exit", "exit_status": 7}
        ],
    }


@pytest.mark.parametrize("word", ["42", "43.7"])
@pytest.mark.parametrize("options, said", [(("-f",), "tq: no worker is connected\n"), (("-f", "-q"), ""), ((), "")])
def test_following_says_what_keeps_a_task_from_starting(
    run: Run, server: FakeServer, word: str, options: tuple[str, ...], said: str
) -> None:
    server.says[v.Get] = lambda asked: v.Document(
        {"id": asked.id, "state": "queued", "is_array": False, "reason": "no worker is connected", "is_stuck": True}
    )
    server.says[v.Logs] = lambda _: [v.Chunk(1, 0, b"out\n", 1), v.LogsEnd(1, (4, 0), "succeeded")]
    assert run("logs", *options, word) == (0, "out\n", said)


def test_following_does_not_say_that_a_task_waits_for_its_turn(run: Run, server: FakeServer) -> None:
    server.says[v.Get] = lambda _: v.Document({"id": "42", "state": "queued", "reason": "its turn has not come yet"})
    server.says[v.Logs] = lambda _: [v.LogsEnd(1, (0, 0), "succeeded")]
    assert run("logs", "-f", "42") == (0, "", "")


def test_news_of_some_is_added_to_what_is_known_of_the_others(run: Run, server: FakeServer) -> None:
    other = v.Outcome("43", "running", "started")
    ended = v.Outcome("43", "dead", "ended", 7, "exit", ended=1)
    server.says[v.Wait] = lambda _: [
        v.Waited(False, (RUNNING,)), v.Waited(False, (other,)), v.Waited(False, (ended,)),
        v.Waited(True, (DONE,)), v.Waited(True, (ended,)),
    ]  # fmt: skip
    ran = run("wait", "42", "43", "-o", "json")
    assert ran.status == 1
    assert [item["state"] for item in json.loads(ran.out)["items"]] == ["succeeded", "dead"]
    ran = run("wait", "--any", "42", "43", "-o", "json")
    assert [item["id"] for item in json.loads(ran.out)["items"]] == ["43"]


def test_wait_gives_up_with_124(run: Run, server: FakeServer) -> None:
    server.says[v.Wait] = lambda _: hang(server)
    ran = run("wait", "--timeout", "100ms", "42")
    assert ran.status == 124
    assert ran.err == "tq: 42 did not end within 0.1s\n"


def test_only_what_has_not_ended_is_said_not_to_have(run: Run, server: FakeServer) -> None:
    late = [v.Outcome(str(number), "running", "started") for number in range(50, 60)]
    server.says[v.Wait] = lambda _: hang(server, FAILED, *late)
    ran = run("wait", "--timeout", "300ms", "42", *(outcome.id for outcome in late))
    assert (ran.status, ran.err) == (124, "tq: 50, 51, 52 and 7 more did not end within 0.3s\n")


def test_a_timeout_of_nothing_is_one_look(run: Run, server: FakeServer) -> None:
    server.says[v.Wait] = lambda _: v.Waited(True, (FAILED,))
    assert run("wait", "--timeout", "0", "42") == (7, "", "")
    server.says[v.Wait] = lambda _: hang(server)
    assert run("wait", "--timeout", "0", "42").status == 124


def hang(server: FakeServer, *outcomes: v.Outcome) -> list[v.Answer]:
    server.is_mute = True
    return [v.Waited(False, outcomes or (RUNNING,))] * 2


def test_a_timeout_counts_while_the_server_is_away(run: Run, server: FakeServer) -> None:
    server.cuts = 1_000
    assert run("wait", "--timeout", "300ms", "42").status == 124


def test_any_ends_with_the_first(run: Run, server: FakeServer) -> None:
    other = v.Outcome("43", "running", "started")
    server.says[v.Wait] = lambda _: [
        v.Waited(False, (RUNNING, other)),
        v.Waited(False, (FAILED, other)),
        v.Waited(True, (FAILED, other)),
    ]
    assert run("wait", "--any", "42", "43").status == 7


def test_ok_gives_up_at_the_first_failure(run: Run, server: FakeServer) -> None:
    other = v.Outcome("43", "running", "started")
    server.says[v.Wait] = lambda _: [v.Waited(False, (FAILED, other)), v.Waited(True, (FAILED, DONE))]
    assert run("wait", "--for", "ok", "42", "43").status == 1


def test_for_running_is_0_once_it_runs(run: Run, server: FakeServer) -> None:
    server.says[v.Wait] = lambda command: v.Waited(command.until == "running", (RUNNING,))
    assert run("wait", "--for", "running", "42").status == 0


def test_wait_goes_on_after_a_cut(run: Run, server: FakeServer) -> None:
    calls = iter([[v.Waited(False, (RUNNING,)), ...], [v.Waited(False, (RUNNING,)), v.Waited(True, (DONE,))]])
    server.says[v.Wait] = lambda _: next(calls)
    assert run("wait", "42") == (0, "", "")
    assert len(server.hellos) == 2


def test_a_span_of_an_array_is_waited_for_as_tasks(run: Run, server: FakeServer) -> None:
    server.says[v.Wait] = lambda command: v.Waited(
        True, tuple(v.Outcome(i, "succeeded", ended=1, succeeded=1) for i in command.ids)
    )
    assert run("wait", "43.1-3", "43.2").status == 0
    assert server.asked == [v.Wait(("43.1", "43.2", "43.3"))]


@pytest.mark.parametrize(
    "words", [["--for", "lunch", "42"], ["--timeout", "x", "42"], ["--exit-code", "x", "42"], ["43.5-1"], []]
)
def test_what_makes_no_sense_is_refused(run: Run, server: FakeServer, words: list[str]) -> None:
    assert run("wait", *words).status == 2
    assert server.asked == []


# ---------------------------------------------------------------- run


@pytest.fixture
def task(server: FakeServer, give_input) -> FakeServer:
    give_input(b"")
    server.says[v.Submit] = lambda _: v.Submitted("42")
    server.says[v.Logs] = lambda _: chunks((1, 0, b"out\n"), (2, 0, b"err\n"))
    server.says[v.Wait] = lambda _: v.Waited(True, (FAILED,))
    return server


def test_run_shows_both_streams_and_exits_as_the_task(run: Run, task: FakeServer) -> None:
    assert run("run", "--", "sh", "-c", "exit 7") == (7, "out\n", "err\n")
    assert [type(asked) for asked in task.asked] == [v.Submit, v.Logs, v.Wait]
    assert task.asked[1].follow


def test_run_shows_every_attempt_and_goes_on_with_them_after_a_cut(run: Run, task: FakeServer) -> None:
    calls: Iterator[list[object]] = iter(
        [
            [v.Chunk(1, 0, b"one\n", 1), v.Chunk(1, 0, b"t", 2), ...],
            [v.Chunk(1, 1, b"wo\n", 2), *chunks((1, 0, b"three\n"), attempt=3)],
        ]
    )
    task.says[v.Logs] = lambda _: next(calls)
    ran = run("run", "--", "x")
    assert ran.out == "one\ntwo\nthree\n"
    assert ran.err.splitlines()[:2] == ["tq: 42: attempt 2 begins", "tq: 42: attempt 3 begins"]
    logs = [asked for asked in task.asked if isinstance(asked, v.Logs)]
    assert logs == [v.Logs("42", 0, True, every=True), v.Logs("42", 2, True, (1, 0), every=True)]


def test_run_as_json_is_an_object_a_line(run: Run, task: FakeServer) -> None:
    ran = run("run", "-o", "jsonl", "--", "sh", "-c", "exit 7")
    assert (ran.status, ran.err) == (7, "")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [(line["stream"], line["text"]) for line in lines] == [("stdout", "out"), ("stderr", "err")]
    lines = [json.loads(line) for line in run("submit", "--follow", "-o", "json", "--", "x").out.splitlines()]
    assert [line["id"] for line in lines] == ["42", "42", "42"]


def test_run_says_nothing_of_its_own_when_it_is_quiet(run: Run, task: FakeServer) -> None:
    task.says[v.Logs] = lambda _: [v.Chunk(1, 0, b"one\n", 1), *chunks((1, 0, b"two\n"), attempt=2)]
    assert run("run", "-q", "--", "x") == (7, "one\ntwo\n", "")


def test_run_passes_its_input_on(run: Run, task: FakeServer, give_input) -> None:
    give_input(b"some input")
    run("run", "cat")
    assert loads(task.asked[0].body, Body).stdin == b"some input"


def test_run_without_input_reads_none(run: Run, task: FakeServer, give_input) -> None:
    give_input(b"some input")
    run("run", "--no-stdin", "cat")
    assert loads(task.asked[0].body, Body).stdin == b""


@pytest.mark.parametrize(
    "outcome, status, said",
    [
        (v.Outcome("42", "dead", "ended", -11, "signal", ended=1), 139, "tq: 42 was killed by signal 11\n"),
        (v.Outcome("42", "dead", "ended", -15, "time_limit", ended=1), 124, "tq: 42 reached its time limit\n"),
        (v.Outcome("42", "cancelled", "ended", -15, "cancelled", ended=1), 130, "tq: 42 was cancelled\n"),
        (v.Outcome("42", "dead", "lost", 0, "lost", ended=1), 125, "tq: 42 was lost with its worker too often\n"),
        (
            v.Outcome(
                "42", "dead", "ended", 127, "spawn_failed", ended=1, usage=dumps(Usage(error="nosuch: not found\x1b"))
            ),
            127,
            "tq: 42 could not be started: nosuch: not found\\x1b\n",
        ),
    ],
)
def test_run_says_why_when_the_code_is_not_the_tasks(
    run: Run, task: FakeServer, outcome: v.Outcome, status: int, said: str
) -> None:
    task.says[v.Logs] = lambda _: chunks()
    task.says[v.Wait] = lambda _: v.Waited(True, (outcome,))
    assert run("run", "true") == (status, "", said)


def test_run_submits_once_though_everything_is_cut(run: Run, task: FakeServer) -> None:
    task.cuts = 3
    assert run("run", "true").status == 7
    assert len({asked.key for asked in task.asked if isinstance(asked, v.Submit)}) == 1


def test_a_wrong_run_reads_no_input_and_asks_nobody(run: Run, task: FakeServer) -> None:
    assert run("run", "--time-limit", "x", "cat").status == 2
    assert task.hellos == []


def test_a_task_forgotten_meanwhile_is_125(run: Run, task: FakeServer) -> None:
    def gone(_: v.Logs) -> list[v.Answer]:
        raise TaskNotFound("job 42 is gone")

    task.says[v.Logs] = gone
    assert run("run", "true").status == 125


def test_submit_wait_prints_the_id_first(run: Run, task: FakeServer) -> None:
    assert run("submit", "--wait", "true") == (7, "42\n", "")


def test_submit_follow_shows_its_output(run: Run, task: FakeServer) -> None:
    assert run("submit", "--follow", "true") == (7, "42\nout\n", "err\n")


@pytest.mark.parametrize("how, look", [("--wait", "tq show 42"), ("--follow", "tq logs -f 42")])
def test_who_detaches_is_told_a_command_that_works(
    run: Run, task: FakeServer, monkeypatch: pytest.MonkeyPatch, how: str, look: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tq.cli.showing.waiting.until", interrupted)
    ran = run("submit", how, "--", "true")
    assert ran.status == 130
    assert ran.err.endswith(f"\ntq: detached; 42 goes on. To cancel it: tq cancel 42. To see it: {look}\n")


def test_submit_wait_of_an_array_is_1_for_any_failure(run: Run, task: FakeServer) -> None:
    task.says[v.Wait] = lambda _: v.Waited(True, (v.Outcome("42", "dead", size=10, succeeded=8, ended=10),))
    ran = run("submit", "--wait", "--array", "1-10", "--", "true")
    assert ran == (1, "42\n", "tq: 2 of 10 tasks of 42 did not succeed; tq show 42\n")
    assert run("submit", "--wait", "--exit-code", "count", "--array", "1-10", "--", "true").status == 2


@pytest.mark.parametrize(
    "words", [["run", "true"], ["wait", "42"], ["submit", "--wait", "true"], ["submit", "--follow", "true"]]
)
def test_tqs_own_failure_is_125_where_a_tasks_code_is_spoken(run: Run, task: FakeServer, words: list[str]) -> None:
    def fail(_: object) -> v.Answer:
        raise InternalError("a bug in the server")

    task.says[v.Wait] = task.says[v.Logs] = fail
    assert run(*words).status == 125
    task.says[v.Wait] = lambda _: v.Waited(True, ())
    task.says[v.Logs] = lambda _: chunks()
    assert run(*words).status == 125


@pytest.mark.parametrize("words", [["wait", "42"], ["submit", "--wait", "true"], ["run", "true"]])
@pytest.mark.parametrize(
    "error, status",
    [
        (TaskNotFound("there is no job 42", hint="tq ls"), 125),
        (ProtocolError("what is that"), 125),
        (NotAllowed("the role read may not do this"), 4),
        (Unknown("it may have been done"), 74),
        (BadRequest("42 is no place"), 2),
    ],
)
def test_a_refusal_is_never_taken_for_the_code_of_a_task(
    run: Run, task: FakeServer, words: list[str], error: TqError, status: int
) -> None:
    def refuse(_: object) -> v.Answer:
        raise error

    task.says[v.Submit] = task.says[v.Wait] = refuse
    ran = run(*words)
    assert (ran.status, ran.err.splitlines()[0]) == (status, f"tq: {error}")


def test_a_name_that_nobody_has_is_waited_for_with_125(run: Run, server: FakeServer) -> None:
    server.says[v.List] = lambda _: v.Page(())
    assert run("wait", "nightly").status == 125
    assert run("show", "nightly").status == 1


def test_tqs_own_failure_is_70_elsewhere(run: Run, task: FakeServer) -> None:
    def fail(_: object) -> v.Answer:
        raise InternalError("a bug in the server")

    task.says[v.Submit] = fail
    assert run("submit", "true").status == 70
