"""`logs` against a server that says what a test tells it to."""

import json
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer, chunks
from tq.core import vocabulary as v


def test_each_stream_comes_out_of_its_own(run: Run, server: FakeServer) -> None:
    server.says[v.Logs] = lambda _: chunks((1, 0, b"out\n"), (2, 0, b"err\n"), (1, 4, b"more"))
    assert run("logs", "42") == (0, "out\nmore", "err\n")


def test_one_stream_alone(run: Run, server: FakeServer) -> None:
    server.says[v.Logs] = lambda _: chunks((1, 0, b"out\n"), (2, 0, b"err\n"))
    assert run("logs", "42", "--stderr") == (0, "", "err\n")
    assert run("logs", "42", "--stdout") == (0, "out\n", "")


def test_into_a_pipe_go_the_bytes_as_they_are(run: Run, server: FakeServer) -> None:
    server.says[v.Logs] = lambda _: chunks((1, 0, b"\x1b[31m\r\x00red"))
    assert run("logs", "42").out == "\x1b[31m\r\x00red"


def test_prefixes_stand_before_whole_lines(run: Run, server: FakeServer) -> None:
    server.says[v.Logs] = lambda _: chunks((1, 0, b"a\nb"), (2, 0, b"x"), (1, 3, b"c\n"))
    server.says[v.Get] = lambda _: v.Document({"id": "42", "is_array": False})
    assert run("logs", "42", "--prefix") == (0, "42 out| a\n42 out| bc\n", "42 err| x\n")


def test_prefixes_tell_the_tasks_of_an_array_apart_page_by_page(run: Run, server: FakeServer) -> None:
    """Tasks that never began have written nothing, and are not asked for."""
    pages = {
        "": v.Page(({"id": "43.1", "attempt": 1}, {"id": "43.2", "attempt": 0}), "2"),
        "2": v.Page((), "3"),
        "3": v.Page(({"id": "43.3", "attempt": 2},)),
    }
    server.says[v.Get] = lambda _: v.Document({"id": "43", "is_array": True, "size": 3})
    server.says[v.List] = lambda command: pages[command.page]
    server.says[v.Logs] = lambda command: chunks((1, 0, command.id.encode()))
    assert run("logs", "43", "--prefix") == (0, "43.1 out| 43.1\n43.3 out| 43.3\n", "")
    assert run("logs", "43").out == "43.1 out| 43.1\n43.3 out| 43.3\n"
    assert run("logs", "43", "--no-prefix") == (0, "43.143.3", "")  # bytes, as `cat` would write them


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_output_as_json_is_an_object_a_line_of_both_streams(run: Run, server: FakeServer, form: str) -> None:
    parts = (1, 0, b"a\nb"), (2, 0, b"x\xff\x1b\xe2\x80\xae\r\n"), (1, 3, "é\n\n".encode())
    server.says[v.Logs] = lambda _: chunks(*parts)
    ran = run("logs", "42", "-o", form)
    assert (ran.status, ran.err) == (0, "")
    same = {"v": 1, "id": "42", "attempt": 1}
    assert [json.loads(line) for line in ran.out.splitlines()] == [
        same | {"stream": "stdout", "text": "a"},
        same | {"stream": "stderr", "text": "x\udcff\x1b\u202e\r"},
        same | {"stream": "stdout", "text": "bé"},
        same | {"stream": "stdout", "text": ""},
    ]
    assert [json.loads(line)["text"] for line in run("logs", "42", "-n", "1", "-o", form).out.splitlines()] == [
        "",
        "x\udcff\x1b\u202e\r",
    ]
    assert run("logs", "42", "--stderr", "-o", form).out.count("\n") == 1


def test_a_line_as_json_ends_with_its_attempt(run: Run, server: FakeServer) -> None:
    calls = iter([chunks((1, 0, b"first"), state="retrying"), chunks((1, 0, b"second"), attempt=2)])
    server.says[v.Logs] = lambda _: next(calls)
    lines = [json.loads(line) for line in run("logs", "-f", "42", "-o", "jsonl").out.splitlines()]
    assert [(line["attempt"], line["text"]) for line in lines] == [(1, "first"), (2, "second")]
    server.says[v.Logs] = lambda _: [v.Chunk(1, 0, b"first", 1), *chunks((1, 0, b"second"), attempt=2)]
    assert run("logs", "-f", "42", "--prefix").out == "42 out| first\n42 out| second\n"


def test_output_as_json_has_no_other_form_and_no_ids(run: Run, server: FakeServer) -> None:
    for words in (["--prefix"], ["--no-prefix"], ["--raw"]):
        ran = run("logs", "42", "-o", "json", *words)
        assert (ran.status, ran.out, "it says its task and stream itself" in ran.err) == (2, "", True)
    for words in (["logs", "-o", "id", "42"], ["run", "-o", "id", "--", "true"]):
        ran = run(*words)
        assert (ran.status, ran.out, "-o jsonl has it line by line" in ran.err) == (2, "", True)
    assert server.asked == []


def test_a_line_without_an_end_takes_bounded_memory(run: Run, server: FakeServer) -> None:
    piece = b"x" * 50_000
    server.says[v.Get] = lambda _: v.Document({"id": "42", "is_array": False})
    server.says[v.Logs] = lambda _: chunks(*((1, 50_000 * number, piece) for number in range(4)))
    out = run("logs", "42", "--prefix").out
    assert [len(line) for line in out.splitlines()] == [100_008, 100_008]


@pytest.mark.parametrize("count, shown", [("0", ""), ("1", "c"), ("2", "b\nc"), ("9", "a\nb\nc")])
def test_the_tail_is_the_last_lines(run: Run, server: FakeServer, count: str, shown: str) -> None:
    server.says[v.Logs] = lambda _: chunks((1, 0, b"a\nb\n"), (1, 4, b"c"))
    assert run("logs", "42", "--tail", count).out == shown


@pytest.mark.parametrize("options", [[], ["--quiet"]])
def test_a_dropped_middle_is_said_however_quiet_it_is_to_be(run: Run, server: FakeServer, options: list[str]) -> None:
    server.says[v.Logs] = lambda _: chunks((1, 0, b"head"), (1, 100, b"tail"))
    said = "tq: 96 bytes in the middle of stdout of 42 were not kept; submitted with --stdout FILE all are\n"
    assert run("logs", "42", *options) == (0, "headtail", said)


def test_following_goes_on_where_it_was_after_a_cut(run: Run, server: FakeServer) -> None:
    calls: Iterator[list[object]] = iter(
        [
            [v.Chunk(1, 0, b"one\n", 1), v.Chunk(2, 0, b"e", 1), v.Chunk(1, 4, b"tw", 1), ...],
            [v.Chunk(1, 0, b"one\ntwo\n", 1), v.LogsEnd(1, (8, 1), "succeeded")],
            [v.Chunk(1, 0, b"one\ntwo\n", 1), v.LogsEnd(1, (8, 1), "succeeded")],
        ]
    )
    server.says[v.Logs] = lambda _: next(calls)
    assert run("logs", "-f", "42") == (0, "one\ntwo\n", "e")
    assert server.asked[2] == v.Logs("42", 1, follow=True, position=(6, 1))


def test_after_a_cut_an_attempt_that_began_meanwhile_is_not_left_out(run: Run, server: FakeServer) -> None:
    """Asked for the rest of attempt 1, the server says no word of attempt 2, though the task has ended with it."""
    calls: Iterator[list[object]] = iter(
        [
            [v.Chunk(1, 0, b"on", 1), ...],
            [v.Chunk(1, 0, b"one\n", 1), v.LogsEnd(1, (4, 0), "succeeded")],
            chunks((1, 0, b"two\n"), attempt=2),
        ]
    )
    server.says[v.Logs] = lambda _: next(calls)
    assert run("logs", "-f", "42") == (0, "one\ntwo\n", "tq: 42: attempt 2 begins\n")


def test_following_shows_the_next_attempt_and_nothing_twice(run: Run, server: FakeServer) -> None:
    calls = iter(
        [
            chunks((1, 0, b"first\n"), state="retrying"),
            chunks((1, 0, b"first\n"), state="queued"),
            chunks((1, 0, b"second\n"), attempt=2),
        ]
    )
    server.says[v.Logs] = lambda _: next(calls)
    assert run("logs", "-f", "42") == (0, "first\nsecond\n", "tq: 42: attempt 2 begins\n")


def test_tail_and_follow_begin_near_the_end(run: Run, server: FakeServer) -> None:
    def say(command: v.Logs) -> list[v.Answer]:
        if not command.follow:
            return [v.Chunk(1, 0, b"a\nb\n", 1), v.LogsEnd(1, (4, 0), "running")]
        return [v.Chunk(1, command.position[0], b"c\n", 1), v.LogsEnd(1, (6, 0), "succeeded")]

    server.says[v.Logs] = say
    assert run("logs", "-f", "--tail", "1", "42") == (0, "b\nc\n", "")


@pytest.mark.parametrize("how", [[], ["--tail", "9"], ["--stdout"]])
def test_of_a_task_that_runs_it_is_said_that_there_may_be_more(run: Run, server: FakeServer, how: list[str]) -> None:
    server.says[v.Logs] = lambda _: chunks((1, 0, b"so far\n"), state="running")
    ran = run("logs", "42", *how)
    assert (ran.status, ran.out) == (0, "so far\n")
    assert ran.err == "tq: 42 runs, and its worker may have more of its output: tq logs -f 42\n"
    assert run("logs", "42", *how, "--quiet").err == ""
    assert run("logs", "42", *how, "--attempt", "1").err == ""
