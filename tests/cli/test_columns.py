"""Columns of lines: what becomes of `{1}` and `{2}`, and of a line that has too few."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tests.cli.stored import entries
from tests.support.house import House
from tq import limits
from tq.cli.submitting import columns
from tq.cli.submitting import entries as made

Give = Callable[[bytes], None]


@pytest.mark.parametrize(
    "option, data, expected",
    [
        (["--colsep", "\\t"], b"a\t1\nb c\t2\n", [b"a\0001", b"b c\0002"]),
        (["--colsep", "\t"], b"a\t1\n\t\n", [b"a\0001", b"\0"]),
        (["--colsep", " *([,;]) *"], b"a , 1\nb;2;\xff\n", [b"a\0001", b"b\0002\0\xff"]),
        (["--csv"], b'a,1\r\n"b ""x"", y",\r\n', [b"a\0001", b'b "x", y\0']),
        (["--csv"], b'"two\nlines\n",1\n\xff,2', [b"two\nlines\n\0001", b"\xff\0002"]),
    ],
)
def test_a_line_is_taken_apart(
    run: Run, house: House, server: FakeServer, give_input: Give, option: list[str], data: bytes, expected: list[bytes]
) -> None:
    give_input(data)
    assert run("submit", "--each-line", "-", *option, "--", "echo", "{1}", "{2}")[:2] == (0, "1\n")
    assert entries(house) == expected


def test_a_record_of_csv_may_go_over_blocks_and_lines(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "_BLOCK_BYTES", 3)
    (place / "t").write_bytes(b'"a\n""b""\n",1\nc,2\n')
    split = columns.chosen("t", "", csv=True)
    assert list(made.from_lines("t", limits.entry_bytes_max, split, 2)) == [(b'a\n"b"\n\0001', b"c\0002")]


@pytest.mark.parametrize(
    "words, said",
    [
        (["--colsep", ",", "--each-line", "-", "--", "echo", "{3}"], "line 2 has 2 columns, and the command has {3}"),
        (["--csv", "--each-line", "-", "--", "echo", "{3}"], "line 2 has 2 columns, and the command has {3}"),
        (["--csv", "--each-line", "-", "--", "echo", "{10}"], "nothing stands for {10}: there are 9 columns"),
        (["--colsep", "(", "--each-line", "-", "--", "echo"], "--colsep '(' is not a regular expression: "),
        (["--colsep", ",", "--csv", "--each-line", "-", "--", "echo"], "--colsep and --csv both say where columns end"),
        (["--colsep", ",", "--", "echo", "{2}", ":::", "a,b"], "--colsep is for the lines of --each-line"),
        (["--csv", "--", "echo", "{2}"], "--csv is for the lines of --each-line"),
        (["--each-line", "-", "--", "echo", "{2}"], "nothing stands for {2}: an entry has one column"),
    ],
)
def test_what_makes_no_columns_makes_no_job(
    run: Run, server: FakeServer, give_input: Give, words: list[str], said: str
) -> None:
    give_input(b"a,b,c\na,b\n")
    ran = run("submit", "--dry-run", *words)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"tq: {said}")
    assert "\nhint: " in ran.err
    assert server.asked == []


@pytest.mark.parametrize(
    "data, said",
    [
        (b'a\nb,"c\nd\n', "a quote that line 2 opens is never closed"),
        (b'a\n"b\n"\nx,"b" c\n', "line 4 is not CSV: "),
        (b"x\0\n", "line 1 contains a NUL byte"),
    ],
)
def test_what_is_not_csv_is_said_with_its_line(run: Run, give_input: Give, data: bytes, said: str) -> None:
    give_input(data)
    ran = run("submit", "--dry-run", "--each-line", "-", "--csv", "--", "echo", "{1}")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"tq: {said}")


@pytest.mark.parametrize(
    "words, shown, more",
    [
        (["--array", "3-9:2", "--", "./x", "$TQ_MEMBER"], "task 3=TQ_MEMBER=3 ./x '$TQ_MEMBER'", "and 1 more"),
        (["--", "echo", "{#}:{2}", "{1}", ":::", "a b", "c", ":::", "1", "2"], "task 2=echo 2:2 'a b'", "and 1 more"),
        (["--", "./read", ":::", "a b"], "task 1=TQ_ENTRY='a b' ./read", ""),
        (["--shell", "--", "cat {}", ":::", "a b"], "task 1=/bin/sh -c 'cat '\"'\"'a b'\"'\"''", ""),
        (["--function", "m:f", "--array", "1-9"], "task 3=m:f 3", "and 6 more"),
    ],
)
def test_a_dry_run_shows_the_first_tasks_as_they_would_run(
    run: Run, server: FakeServer, words: list[str], shown: str, more: str
) -> None:
    out = run("submit", "--dry-run", *words).out
    task, _, command = shown.partition("=")
    assert command in [line.removeprefix(task).strip() for line in out.splitlines() if line.startswith(task)]
    assert out.count("\ntask ") <= 3
    assert out.endswith(f" {more}\n") if more else " more" not in out


def test_a_dry_run_says_the_first_tasks_in_json(run: Run, server: FakeServer) -> None:
    plan = msgspec.json.decode(run("submit", "--dry-run", "-o", "json", "--", "echo", "{}", ":::", "a", "b").out)
    assert plan["first_tasks"] == [
        {"number": 1, "entry": ["a"], "command": ["echo", "a"]},
        {"number": 2, "entry": ["b"], "command": ["echo", "b"]},
    ]
    assert msgspec.json.decode(run("submit", "--dry-run", "-o", "json", "--", "true").out)["first_tasks"] is None


def test_j_bounds_how_many_run_at_once(run: Run, house: House, server: FakeServer) -> None:
    for words in (["--array", "1-9", "--", "true"], ["--", "echo", "{}", ":::", "a", "b", "c"]):
        for option in ("-j", "--at-once"):
            assert run("submit", option, "2", *words).status == 0
            assert server.asked[-1].throttle == 2
    for words, said in (
        (["-j", "2", "--", "true"], "-j is of a job with several tasks"),
        (["-j", "2", "--array", "1-9%3", "--", "true"], "--array 1-9%3 says how many run at once, and so does -j"),
        (["-j", "0", "--array", "1-9", "--", "true"], "-j 0 must be at least 1"),
    ):
        ran = run("submit", *words)
        assert (ran.status, ran.err.splitlines()[0]) == (2, f"tq: {said}")


@pytest.mark.parametrize("word", ["{}", "{1}", "x{}y"])
def test_a_place_without_inputs_gets_a_hint(run: Run, server: FakeServer, word: str) -> None:
    found = word.strip("xy")
    said = f"hint: nothing stands for {found} without inputs: the task's number is TQ_MEMBER, which a shell reads "
    assert run("submit", "--dry-run", "--array", "1-10", "--", "./x.sh", word).err.startswith(said)
    assert "hint" not in run("submit", "--dry-run", "--", "./x.sh", word).err  # as find -exec has it
