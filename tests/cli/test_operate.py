"""`queue`, `result`, and `ls` where it meets a terminal: snapshots of what people and scripts see."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tests.cli.test_look import ARRAY, JOB, TASK
from tq.cli.frame import context
from tq.cli.showing import output, waiting
from tq.cli.showing.output import Ticker
from tq.cli.verbs import ls
from tq.core import vocabulary as v
from tq.errors import TaskNotFound
from tq.wire import plain
from tq.wire.body import Usage
from tq.wire.codec import dumps

QUEUES: list[dict[str, Any]] = [
    {
        "id": "builds",
        "paused": True,
        "max": 3,
        "counts": {"running": 1, "queued": 8, "held": 2, "retrying": 4, "dead": 9},
    },
    {"id": "default", "paused": False, "max": 0, "counts": {}},
]
TABLE = """\
QUEUE    STATE   MAX  RETRIES  RUNNING  QUEUED  HELD  OTHER
builds   paused  3    -        1        8       2     4
default  open    -    -        0        0       0     0
"""


class TestQueue:
    """Queues: seen by all, set by an admin."""

    def test_a_table_and_json(self, run: Run, server: FakeServer) -> None:
        server.says[v.Queues] = lambda _: v.Page(tuple(QUEUES))
        assert run("queue", "ls") == (0, TABLE, "")
        assert json.loads(run("queue", "ls", "-o", "json").out) == {"v": 1, "items": QUEUES, "next": None}
        assert run("queue", "ls", "-q").out == "builds\ndefault\n"

    def test_queues_on_every_page_are_shown(self, run: Run, server: FakeServer) -> None:
        server.says[v.Queues] = lambda asked: v.Page((QUEUES[1],)) if asked.page else v.Page((QUEUES[0],), "builds")
        assert [row.split()[0] for row in run("queue", "ls").out.splitlines()] == ["QUEUE", "builds", "default"]
        assert json.loads(run("queue", "ls", "-o", "json").out)["items"] == QUEUES
        assert run("queue", "ls", "-q").out == "builds\ndefault\n"

    @pytest.mark.parametrize(
        "words, command, said, shown",
        [
            (["set", "b", "--max", "3"], v.SetQueue("b", None, 3, known=True), "runs at most 3 at once", {"max": 3}),
            (["set", "--new", "b", "--max", "0"], v.SetQueue("b", None, 0), "has no bound", {"max": 0}),
            (["pause", "b"], v.SetQueue("b", True, known=True), "is paused; what runs goes on", {"paused": True}),
            (["pause", "--new", "b"], v.SetQueue("b", True), "is paused; what runs goes on", {"paused": True}),
            (["resume", "b"], v.SetQueue("b", False, known=True), "goes on", {"paused": False}),
        ],
    )
    def test_setting_one(
        self, run: Run, server: FakeServer, words: list[str], command: Any, said: str, shown: dict[str, Any]
    ) -> None:
        server.says[v.SetQueue] = lambda _: v.Done("b")
        assert run("queue", *words) == (0, "", f"tq: queue b {said}\n")
        assert json.loads(run("queue", *words, "-o", "json").out) == {"v": 1, "id": "b", **shown}
        assert server.asked == [command, command]

    def test_what_was_not_paused_does_not_go_on(self, run: Run, server: FakeServer) -> None:
        server.says[v.SetQueue] = lambda _: v.Done("b", unchanged=True)
        assert run("queue", "resume", "b") == (0, "", "tq: queue b is not paused\n")
        assert run("queue", "pause", "b") == (0, "", "tq: queue b is paused; what runs goes on\n")
        assert run("queue", "pause", "b", "c", "-q") == (0, "b\nc\n", "")

    def test_of_several_the_known_are_paused_and_the_others_named(self, run: Run, server: FakeServer) -> None:
        def answer(asked: v.SetQueue) -> v.Done:
            if asked.name != "b":
                raise TaskNotFound(f"there is no queue {asked.name}", hint="tq queue ls")
            return v.Done("b")

        server.says[v.SetQueue] = answer
        said = "tq: queue b is paused; what runs goes on\n"
        hint = "hint: tq queue ls; --new makes it\n"
        assert run("queue", "pause", "a", "b", "c") == (1, "", f"{said}tq: not found: a, c\n{hint}")
        assert run("queue", "set", "a", "--max", "3") == (1, "", f"tq: there is no queue a\n{hint}")
        assert run("queue", "resume", "a") == (1, "", "tq: there is no queue a\nhint: tq queue ls\n")

    def test_a_queue_that_was_not_there_is_said_to_be_new(self, run: Run, server: FakeServer) -> None:
        server.says[v.SetQueue] = lambda _: v.Done("b", made=True)
        assert run("queue", "set", "b", "--max", "3").err == "tq: queue b is new, and runs at most 3 at once\n"

    @pytest.mark.parametrize(
        "words",
        [["set", "b"], ["set", "b", "--max", "-1"], ["set", "b", "--max", "x"], ["pause", "a b"], ["pause"], []],
    )
    def test_wrong_use_has_a_hint(self, run: Run, server: FakeServer, words: list[str]) -> None:
        ran = run("queue", *words)
        assert ran.status == 2 or not words
        assert "Traceback" not in ran.err
        assert "hint: " in ran.err or not words
        assert server.asked == []


class TestResult:
    """How one task ended, for programs."""

    def test_json_is_what_it_prints(self, run: Run, server: FakeServer) -> None:
        server.says[v.Get] = lambda _: v.Document(TASK)
        ran = run("result", "42")
        assert json.loads(ran.out) == {
            "v": 1, "id": "42", "state": "dead", "exit_code": None, "signal": 9, "cause": "signal", "attempt": 2,
            "host": "rack-7", "submitted_at": "2023-11-14T22:13:20.000Z", "started_at": "2023-11-14T22:13:20.200Z",
            "ended_at": "2023-11-14T22:13:21.200Z", "run_s": 1.0,
            "usage": {"user_s": 0.5, "peak_bytes": 1048576, "stdout_bytes": 10}, "value": None, "error": None,
        }  # fmt: skip
        assert (ran.status, ran.err) == (0, "")
        assert run("result", "42", "-q").out == "42\n"
        table = run("result", "42", "-o", "table").out.splitlines()
        assert table[:3] == ["id         42", "state      dead", "signal     9"]

    def test_what_has_not_come_is_null(self, run: Run, server: FakeServer) -> None:
        server.says[v.Get] = lambda _: v.Document({"id": "42", "state": "queued", "attempt": 0, "is_array": False})
        shown = json.loads(run("result", "42").out)
        assert (shown["state"], shown["exit_code"], shown["ended_at"], shown["usage"]) == ("queued", None, None, None)

    def test_a_value_is_json(self, run: Run, server: FakeServer) -> None:
        value = {"n": [1, None, 2.5, float("nan")], "b": b"\xff"}
        server.says[v.Get] = lambda _: v.Document(TASK | {"state": "succeeded", "cause": "exit", "value_bytes": 20})
        server.says[v.GetResults] = lambda _: v.Results(
            (v.Result("42", "succeeded", 1, 0, "exit", plain.dumps(value, 1_000, "")),)
        )
        shown = json.loads(run("result", "42").out)
        assert shown["value"] == {"n": [1, None, 2.5, None], "b": "/w=="}
        assert shown["error"] is None
        assert 'value      {"n":[1,null,2.5,null]' in run("result", "42", "-o", "table").out

    def test_an_exception_is_an_error_and_no_value(self, run: Run, server: FakeServer) -> None:
        raised = {"type": "KeyError", "message": "'x'", "traceback": "Traceback…\n"}
        server.says[v.Get] = lambda _: v.Document(TASK | {"cause": "exception", "value_bytes": 20})
        server.says[v.GetResults] = lambda _: v.Results(
            (v.Result("42", "dead", 1, 1, "exception", plain.dumps(raised, 1_000, "")),)
        )
        shown = json.loads(run("result", "42").out)
        assert (shown["value"], shown["error"]) == (None, raised)

    def test_what_a_lying_worker_says_was_returned_spoils_no_other_result(self, run: Run, server: FakeServer) -> None:
        odd = plain.dumps({"message": ["\x1b"], "more": 1}, 100, "")
        items = (
            v.Result("43.1", "succeeded", 1, 0, "exit", b"\xff"),
            v.Result("43.2", "dead", 1, 1, "exception", b"\x05"),
            v.Result("43.3", "dead", 1, 1, "exception", odd),
            v.Result("43.4", "succeeded", 1, 0, "exit", b"\x05"),
        )
        server.says[v.Get] = lambda _: v.Document(ARRAY)
        server.says[v.GetResults] = lambda _: v.Results(items)
        lines = [json.loads(line) for line in run("result", "43").out.splitlines()]
        assert [one["value"] for one in lines] == [None, None, None, 5]
        assert ["cannot be read" in (one["error"] or {}).get("message", "") for one in lines[:2]] == [True, True]
        assert lines[2]["error"] == {"type": None, "message": "['\\x1b']", "traceback": None}
        assert run("result", "43", "-o", "table").status == 0

    def test_an_array_has_a_line_for_each_task(self, run: Run, server: FakeServer) -> None:
        usage = dumps(Usage(error="no function f"))
        pages = {
            "": v.Results((v.Result("43.1", "succeeded", 1, 0, "exit", b"\x05"), v.Result("43.2", "queued")), "2"),
            "2": v.Results((v.Result("43.3", "dead", 1, 127, "unknown_function", b"", usage),
                            v.Result("43.4", "cancelled", 1, 0, "cancelled", phase="lost"))),
        }  # fmt: skip
        server.says[v.Get] = lambda _: v.Document(ARRAY)
        server.says[v.GetResults] = lambda command: pages[command.page]
        lines = [json.loads(line) for line in run("result", "43").out.splitlines()]
        assert [(one["id"], one["state"], one["value"], one["exit_code"]) for one in lines] == [
            ("43.1", "succeeded", 5, 0), ("43.2", "queued", None, None), ("43.3", "dead", None, 127),
            ("43.4", "cancelled", None, None),
        ]  # fmt: skip
        assert lines[2]["error"] == {"type": None, "message": "no function f", "traceback": None}
        assert run("result", "43", "-q").out == "43.1\n43.2\n43.3\n43.4\n"
        whole = json.loads(run("result", "43", "-o", "json").out)
        assert [item["id"] for item in whole["items"]] == ["43.1", "43.2", "43.3", "43.4"]
        table = run("result", "43", "-o", "table").out
        assert [line.split(maxsplit=4) for line in table.splitlines()] == [
            ["ID", "STATE", "CAUSE", "CODE", "VALUE"],
            ["43.1", "succeeded", "exit", "0", "5"],
            ["43.2", "queued", "-", "-", "-"],
            ["43.3", "dead", "unknown_function", "127", "no function f"],
            ["43.4", "cancelled", "cancelled", "-", "-"],
        ]


class TestLs:
    """Lists page by page, with what a terminal adds."""

    @pytest.fixture
    def terminal(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def has(columns: int) -> None:
            monkeypatch.setattr(ls, "is_terminal", lambda _: True)
            monkeypatch.setattr(output, "terminal_width", lambda: columns)

        return has

    def test_what_comes_slowly_is_printed_page_by_page_under_one_head(
        self, run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tq.cli.showing.pages._TOGETHER_S", 0.0)
        wide = {**JOB, "id": "1000", "state": "queued"}
        pages = {"": v.Page((JOB,), "2"), "2": v.Page((wide,), "1"), "1": v.Page((JOB,))}
        server.says[v.List] = lambda command: pages[command.page]
        lines = run("ls", "-n", "0").out.splitlines()
        heads = ["ID  STATE      TAS", "42  succeeded  1  ", "1000  queued     1", "42    succeeded  1"]
        assert [line[:18] for line in lines] == heads
        assert run("ls", "-n", "0", "-q").out == "42\n1000\n42\n"
        assert len(run("ls", "-n", "0", "-o", "jsonl").out.splitlines()) == 3

    def test_no_job_is_said_and_no_head_is_printed(self, run: Run, server: FakeServer) -> None:
        server.says[v.List] = lambda _: v.Page(())
        assert run("ls") == (0, "", "tq: no jobs\n")
        assert run("ls", "--tag", "x") == run("ls", "--since", "1h") == (0, "", "tq: no jobs like that\n")
        assert run("ls", "42") == (0, "", "tq: no tasks\n")
        assert run("ls", "-o", "jsonl") == (0, "", "")
        assert run("ls", "-o", "json").out == '{"v":1,"items":[],"next":null}\n'

    def test_a_terminal_has_the_counts_by_state_below(self, run: Run, server: FakeServer, terminal: Any) -> None:
        terminal(80)
        server.says[v.List] = lambda _: v.Page((JOB,))
        server.says[v.Status] = lambda _: v.Document({"tasks": {"queued": 7, "running": 0, "dead": 2}})
        assert run("ls").err == "tq: tasks: 7 queued, 2 dead\n"
        server.says[v.Get] = lambda _: v.Document(ARRAY)
        assert run("ls", "43").err == "tq: of its tasks: 3 succeeded, 1 dead, 6 queued\n"

    def test_a_terminal_has_the_reasons_of_what_stands_still_below(
        self, run: Run, server: FakeServer, terminal: Any
    ) -> None:
        terminal(80)
        reasons = ["r 1", "r 1", "r 1", "r 1", "r \x1b[31m", "r 3", "r 4", ""]
        items = tuple({**JOB, "id": str(n), "reason": why} for n, why in enumerate(reasons, 1))
        server.says[v.List] = lambda _: v.Page(items)
        server.says[v.Status] = lambda _: v.Document({"tasks": {}})
        assert run("ls").err == "tq: 1, 2, 3 and 1 more: r 1\ntq: 5: r \\x1b[31m\ntq: 6: r 3\n"

    def test_twenty_columns_are_never_left(self, run: Run, server: FakeServer, terminal: Any) -> None:
        terminal(20)
        server.says[v.List] = lambda _: v.Page((ARRAY, JOB))
        server.says[v.Status] = lambda _: v.Document({"tasks": {}})
        lines = run("ls").out.splitlines()
        assert max(map(len, lines)) == 20
        first, second = lines[: lines.index("")], lines[lines.index("") + 1 :]
        assert first[:2] == ["ID       43", "STATE    running"]
        assert second[0] == "ID       42"
        assert {line.split()[0] for line in first} >= {"ID", "STATE", "TASKS", "QUEUE", "NAME", "AGE", "COMMAND"}

    def test_rows_of_several_pages_stay_apart_where_there_is_no_room_for_a_table(
        self, run: Run, server: FakeServer, terminal: Any
    ) -> None:
        terminal(20)
        pages = {"": v.Page((JOB,), "2"), "2": v.Page((JOB,))}
        server.says[v.List] = lambda command: pages[command.page]
        server.says[v.Status] = lambda _: v.Document({"tasks": {}})
        lines = run("ls", "-n", "0").out.splitlines()
        assert [number for number, line in enumerate(lines) if not line] == [lines.index("ID       42", 1) - 1]

    def test_a_table_that_loses_a_part_of_its_last_columns_stays_one(
        self, run: Run, server: FakeServer, terminal: Any
    ) -> None:
        terminal(40)
        server.says[v.List] = lambda _: v.Page((JOB,))
        server.says[v.Status] = lambda _: v.Document({"tasks": {}})
        assert run("ls").out.startswith("ID  STATE")

    def test_cancelled_is_not_failed(self, run: Run, server: FakeServer) -> None:
        counts = {"succeeded": 1, "cancelled": 6, "dead": 2, "expired": 1}
        server.says[v.List] = lambda _: v.Page(({**ARRAY, "counts": counts},))
        assert "10/10 ended, 3 failed" in run("ls").out


class TestBar:
    """The bar of `wait` keeps to its line."""

    @pytest.mark.parametrize("columns", [1, 5, 10, 20, 40, 80, 200])
    def test_it_is_shorter_than_the_line(self, columns: int) -> None:
        assert len(waiting.bar(3, 10_000_000, "3/10000000, 2 failed", columns)) < max(columns, 1)

    def test_it_fills(self) -> None:
        assert waiting.bar(1, 2, "1/2", 80) == "[############............] 1/2"

    @pytest.mark.parametrize(
        "term, quiet, is_shown", [("xterm", False, True), ("dumb", False, False), ("xterm", True, False)]
    )
    def test_it_is_drawn_only_where_it_can_be_wiped_away(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        term: str,
        quiet: bool,
        is_shown: bool,
    ) -> None:
        monkeypatch.setenv("TERM", term)
        monkeypatch.setattr(context, "is_terminal", lambda _: True)
        bar = waiting._Bar(Ticker(is_quiet=quiet))
        bar.show([v.Outcome("43", "running", size=4, ended=2, succeeded=1)])
        bar.clear()
        shown = capsys.readouterr().err
        assert shown == ("\r\x1b[K[############............] 2/4, 1 failed\r\x1b[K" if is_shown else "")

    def test_a_stream_that_is_no_terminal_has_eighty_columns(self, tmp_path: Path) -> None:
        with (tmp_path / "file").open("w") as file:
            assert context.columns(file) == 80
