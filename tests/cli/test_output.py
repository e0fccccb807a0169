"""Tables on terminals of any width."""

import io
from typing import Any

import pytest

from tq.cli.frame.context import Context
from tq.cli.showing import output, present
from tq.cli.verbs import doctor

HEAD = ["ID", "QUEUE", "NAME", "COMMAND"]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Print rows for a terminal of so many columns, and return the lines and the widths."""

    def printed(columns: int, *rows: list[str], before: list[int] | None = None) -> tuple[list[str], list[int]]:
        monkeypatch.setattr(output, "terminal_width", lambda: columns)
        written = io.StringIO()
        monkeypatch.setattr("sys.stdout", written)
        widths = output.print_table(Context("", "table", False, "never", ""), [HEAD, *rows], before or ())
        monkeypatch.undo()
        return written.getvalue().splitlines(), widths

    return printed


def test_where_it_is_too_narrow_columns_that_say_nothing_give_way(table: Any) -> None:
    row = ["1", "default", "-", "make -j4 everything"]
    assert table(80, row)[0] == ["ID  QUEUE    NAME  COMMAND", "1   default  -     make -j4 everything"]
    assert table(30, row)[0] == ["ID  COMMAND", "1   make -j4 everything"]
    assert table(0, row)[0] == table(80, row)[0], "a file or a pipe has all of them"
    assert table(30, row, ["2", "gpu", "-", "x"])[0] == [
        "ID  QUEUE    COMMAND",
        "1   default  make -j4 everyth…",
        "2   gpu      x",
    ]


def test_a_later_page_keeps_the_columns_unless_they_say_something_there(table: Any) -> None:
    row, other = ["1", "default", "-", "make -j4 everything"], ["2", "gpu", "-", "x"]
    _, widths = table(30, row)
    assert table(30, ["2", "default", "-", "x"], before=widths)[0] == ["2   x"]
    assert table(30, other, before=widths)[0] == ["ID  QUEUE  NAME  COMMAND", "2   gpu    -     x"]


def test_a_long_name_is_cut_before_it_hides_the_last_column(table: Any) -> None:
    long, short = ["1", "gpu", "日" * 40, "make all"], ["2", "gpu", "n", "./train --seed 7 --epochs 100"]
    lines, widths = table(60, long, short)
    name = "日" * 11 + "…"
    assert lines == [
        f"ID  QUEUE  NAME{' ' * 21}COMMAND",
        f"1   gpu    {name}  make all",
        f"2   gpu    n{' ' * 24}./train --seed 7 --epoc…",
    ]
    assert table(60, short, before=widths)[0] == [lines[2]]
    assert table(120, long, short)[0][1].endswith("日  make all")
    lines = table(48, ["1", "gpu", "a" * 40, "make all"], ["2", "gpu", "b", "./train --seed 7"])[0]
    assert lines[1:] == [f"1   gpu    {'a' * 18}…  make all", f"2   gpu    b{' ' * 20}./train --seed 7"]


def test_a_table_without_rows_has_its_whole_head(table: Any) -> None:
    assert table(26)[0] == ["ID  QUEUE  NAME  COMMAND"]


def test_wide_characters_take_two_columns(table: Any) -> None:
    lines, _ = table(24, ["1", "日本", "q", "日本語テキスト"], ["2", "abcd", "é" + "e\u0301", "x"])
    assert lines[1] == "1   日本   q     日本語…"
    assert lines[2] == "2   abcd   ée\u0301    x"
    assert [output._columns(line) for line in lines] == [24, 24, 18]


@pytest.mark.parametrize(
    "text, room, pieces",
    [
        ("", 5, [""]),
        ("日本語x", 5, ["日本", "語x"]),
        ("日本", 1, ["日", "本"]),
        ("e\u0301e\u0301", 1, ["e\u0301", "e\u0301"]),
        ("abcdef", 4, ["abcd", "ef"]),
    ],
)
def test_a_text_is_broken_where_its_columns_end(text: str, room: int, pieces: list[str]) -> None:
    assert (output._broken(text, room) or [""]) == pieces


def test_where_there_is_next_to_no_room_a_finding_is_left_to_the_terminal() -> None:
    assert doctor._broken("a server here takes 100 connections", 3) == ["a server here takes 100 connections"]
    assert doctor._broken("a server here takes 100 connections", 20) == ["a server here takes", "100 connections"]


@pytest.mark.parametrize(
    "value, shown", [(0, "0s"), (0.1234, "0.123s"), (59.6, "1m"), (61, "1m 1s"), (3_600, "1h"), (90_061, "1d 1h")]
)
def test_durations_for_people(value: float, shown: str) -> None:
    assert present.seconds(value) == shown


def test_sizes_for_people() -> None:
    assert [present.size(value) for value in (0, 1023, 1024, 1 << 20, 3 << 40)] == [
        "0 B", "1023 B", "1.0 KiB", "1.0 MiB", "3.0 TiB",
    ]  # fmt: skip


def test_a_zero_is_shown_where_it_is_no_absence() -> None:
    assert present.value_text("max_fails", 0) == "0"
    assert present.value_text("kill_after_s", 0.0)
    assert present.value_text("exit_code", 0) == "0"
    assert present.value_text("losses", 0) == ""
