"""`tq submit` with inputs: what becomes an entry, what is refused, and how an upload goes on after a cut."""

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tests.cli.stored import body, entries
from tests.support.house import House
from tq import limits
from tq.cli.submitting import request, submit_options
from tq.client.sansio.runs import begun
from tq.core import vocabulary as v
from tq.core.model import tables
from tq.errors import NotDone, TqError

Give = Callable[[bytes], None]


def runs(server: FakeServer) -> list[v.AddEntries]:
    return [asked for asked in server.asked if isinstance(asked, v.AddEntries) and asked.items]


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"\n\nx\n\n", [b"", b"", b"x", b""]),
        (b"\n", [b""]),
        (b"a\r\nb\r\n", [b"a\r", b"b\r"]),
        (b"\xff\xfe \x01\n--\n", [b"\xff\xfe \x01", b"--"]),
        (b"x" * limits.entry_bytes_max, [b"x" * limits.entry_bytes_max]),
    ],
)
def test_each_line_is_an_entry_empty_ones_too(
    run: Run, house: House, server: FakeServer, give_input: Give, data: bytes, expected: list[bytes]
) -> None:
    give_input(data)
    ran = run("submit", "--each-line", "-", "--", "cat")
    assert (ran.status, ran.out) == (0, "1\n")
    assert ran.err.splitlines()[0] == "hint: the command has no {}: its tasks find their entries in TQ_ENTRY only"
    assert entries(house) == expected
    assert (server.asked[-1].size, server.asked[-1].is_array, body(server).columns) == (len(expected), True, 1)


@pytest.mark.parametrize(
    "data, is_told",
    [(b"a\r\nb\r\n", True), (b"a\r\nb", True), (b"a\r\n", True), (b"a\r\nb\nc\n", False), (b"a\n", False)],
)
def test_of_lines_that_end_with_cr_it_is_said_and_nothing_is_changed(
    run: Run, house: House, server: FakeServer, give_input: Give, data: bytes, is_told: bool
) -> None:
    give_input(data)
    ran = run("submit", "--each-line", "-", "--", "echo", "{}")
    assert ("tr -d '\\r'" in ran.err) is is_told
    assert runs(server)[0].items[0] == data.split(b"\n")[0]
    assert "\r" not in run("submit", "-q", "--", "echo", "{}", ":::", "a\r").err


def test_a_file_is_read_as_standard_input_is(run: Run, house: House, place: Path) -> None:
    (place / "lines").write_bytes(b"1\n2\n3\n")
    assert run("submit", "--each-line", "lines", "--", "echo", "{}") == (0, "1\n", "")
    assert entries(house) == [b"1", b"2", b"3"]


def test_many_lines_go_in_few_runs_and_keep_their_order(
    run: Run, house: House, server: FakeServer, place: Path
) -> None:
    lines = [b"%d" % number for number in range(25_321)]
    (place / "lines").write_bytes(b"\n".join(lines))
    run("submit", "--each-line", "lines", "--", "echo", "{}")
    assert entries(house) == lines
    assert [len(sent.items) for sent in runs(server)] == [1_000] * 25 + [321]


def test_large_lines_go_in_runs_of_bounded_bytes(run: Run, house: House, server: FakeServer, place: Path) -> None:
    lines = [b"%d" % number * size for number, size in enumerate([100_000, 90_000, 50_000, 1, 100_000, 100_000, 5])]
    (place / "lines").write_bytes(b"\n".join(lines))
    run("submit", "--each-line", "lines", "--", "wc")
    assert entries(house) == lines
    assert max(sum(map(len, sent.items)) for sent in runs(server)) <= limits.entries_bytes_max


@pytest.mark.parametrize(
    "text, expected",
    [
        (b'["a b", "", "{}"]', [b"a b", b"", b"{}"]),
        (b" [ 1, -2.50, 123456789012345678901234567890, true, null ] ",
         [b"1", b"-2.50", b"123456789012345678901234567890", b"true", b"null"]),
        (b'[{"a": [1, 2], "b": {"c": "x y"}}, ["q", []]]', [b'{"a":[1,2],"b":{"c":"x y"}}', b'["q",[]]']),
        ('["é", "\\u00e9", "a\\nb"]'.encode(), ["é".encode(), "é".encode(), b"a\nb"]),
    ],
)  # fmt: skip
def test_each_item_of_a_json_array_is_an_entry(
    run: Run, house: House, give_input: Give, text: bytes, expected: list[bytes]
) -> None:
    give_input(text)
    assert run("submit", "--from-json", "-", "--", "echo", "{}") == (0, "1\n", "")
    assert entries(house) == expected


def test_lists_make_all_combinations_the_last_changing_fastest(run: Run, house: House, server: FakeServer) -> None:
    ran = run("submit", "--", "echo", "{1}", "{2}", "{}", "{#}", ":::", "a", "b c", ":::", "1", "2", "")
    assert ran == (0, "1\n", "")
    assert entries(house) == [b"a\0001", b"a\0002", b"a\0", b"b c\0001", b"b c\0002", b"b c\0"]
    assert (body(server).argv, body(server).columns) == ((b"echo", b"{1}", b"{2}", b"{}", b"{#}"), 2)


def test_without_the_two_dashes_three_colons_are_a_word(run: Run, house: House, server: FakeServer) -> None:
    ran = run("submit", "echo", "--", ":::", "a")
    assert (ran.status, body(server).argv) == (0, (b"echo", b"--", b":::", b"a"))
    assert "write -- before the command" in ran.err
    assert server.asked[-1].is_array is False


def test_without_inputs_places_are_plain_text(run: Run, house: House, server: FakeServer) -> None:
    assert run("submit", "--", "find", ".", "-exec", "cat", "{}", "{7}", "+") == (0, "1\n", "")
    assert (body(server).argv[4:6], body(server).columns) == ((b"{}", b"{7}"), 0)


def test_a_shell_line_has_its_entries_quoted(run: Run, house: House, server: FakeServer) -> None:
    run("submit", "--shell", "--", "echo {} | wc", ":::", "a")
    assert (body(server).argv, body(server).is_shell) == ((b"/bin/sh", b"-c", b"echo {} | wc"), True)


def test_a_throttle_and_a_bound_of_failures_are_of_any_array(run: Run, house: House, server: FakeServer) -> None:
    run("submit", "--array", "%3", "--max-fails", "0", "--hold", "--", "echo", "{}", ":::", "a", "b", "c", "d")
    sent = server.asked[-1]
    assert (sent.throttle, sent.max_fails, sent.hold, sent.size) == (3, 0, True, 4)
    run("submit", "--array", "0-98:7%2", "--max-fails", "5", "--", "true")
    sent = server.asked[-1]
    assert (sent.array_first, sent.array_step, sent.size, sent.throttle, sent.max_fails) == (0, 7, 15, 2, 5)


@pytest.mark.parametrize(
    "data, words, said",
    [
        (b"", ["--each-line", "-", "--", "echo", "{}"], "there are no entries in standard input"),
        (b"[]", ["--from-json", "-", "--", "echo", "{}"], "there are no entries in standard input"),
        (b"a\nb\0\n", ["--each-line", "-", "--", "echo", "{}"], "line 2 contains a NUL byte"),
        (b"a\n" * 99_999 + b"\0", ["--each-line", "-", "--", "echo", "{}"], "line 100000 contains a NUL byte"),
        (b"a\n" + b"x" * limits.MIB, ["--each-line", "-", "--", "echo"], "line 2 has more than 122880 bytes (entry_b"),
        (b"a\n" + b"x" * 122_881 + b"\n", ["--each-line", "-", "--", "echo"], "line 2 has more than 122880 bytes"),
        (b"x" * 50_000, ["--each-line", "-", "--", "echo", "{}{}{}"], "line 1 has more than 43688 bytes (what fits"),
        (b"[1", ["--from-json", "-", "--", "echo"], "standard input is not JSON array"),
        (rb'["\ud800"]', ["--from-json", "-", "--", "echo"], "no Unicode"),
        (b'{"a": 1}', ["--from-json", "-", "--", "echo"], "standard input is not JSON array"),
        (b'["a", "b\\u0000"]', ["--from-json", "-", "--", "echo"], "item 2 contains a NUL byte"),
        (b"", ["--each-line", "no-such-file", "--", "echo"], "cannot read no-such-file: No such file"),
        (b"", ["--each-line", "/", "--", "echo"], "cannot read /: Is a directory"),
        (b"", ["--", "echo", ":::"], "there is nothing in list 1 of :::"),
        (b"", ["--", "echo", ":::", "a", ":::", ":::", "b"], "there is nothing in list 2 of :::"),
        (b"", ["--", "echo", *[":::", *"abcdefghij"] * 9], "array_size_max"),
        (b"", ["--", "echo", "{3}", ":::", "a", ":::", "b"], "nothing stands for {3}: there are 2 columns"),
        (b"a", ["--each-line", "-", "--", "echo", "x{2}"], "nothing stands for {2}: an entry has one column"),
        (b"a", ["--each-line", "-", "--", "echo", "{10}"], "nothing stands for {10}"),
        (b"a", ["--each-line", "-", "--from-json", "x", "--", "echo"], "choose --each-line"),
        (b"a", ["--each-line", "-", "--", "echo", "{}", ":::", "b"], "choose --each-line"),
        (b"a", ["--each-line", "-", "--array", "1-3", "--", "echo"], "the inputs say how many tasks there are"),
        (b"a", ["--each-line", "-", "--array", "%0", "--", "echo"], "the inputs say how many tasks there are"),
        (b"a", ["--each-line", "-", "--stdin", "--", "cat"], "standard input is either"),
        (b"a", ["--each-line", "-", "--max-fails", "-2", "--", "cat"], "not negative"),
        (b"", ["--max-fails", "2", "--", "cat"], "a job with several tasks"),
        (b"", ["--", ":::", "a"], "the command is empty"),
    ],
)
def test_what_makes_no_sense_makes_no_job(
    run: Run, house: House, give_input: Give, data: bytes, words: list[str], said: str
) -> None:
    give_input(data)
    ran = run("submit", *words)
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err.replace("hint: ", "")
    assert house.store.get(tables.JOB, (1, 0)) is None


def test_a_plan_counts_the_entries_and_asks_nobody(run: Run, server: FakeServer, give_input: Give) -> None:
    give_input(b"x\n" * 2_500)
    ran = run("submit", "--dry-run", "-o", "json", "--each-line", "-", "--", "echo", "{}")
    assert (ran.status, msgspec.json.decode(ran.out)["tasks"], server.asked) == (0, 2_500, [])
    give_input(b"x\n\0")
    assert run("submit", "--dry-run", "--each-line", "-", "--", "echo", "{}").status == 2


# ---------------------------------------------------------------- uploads that are cut


def _cutting(house: House, server: FakeServer, *, at: set[int], before: bool) -> None:
    """Cut the connection at these AddEntries, counted from 0: before they are done, or after, without an answer."""
    count = itertools.count()

    def add(command: v.AddEntries) -> Any:
        if next(count) not in at:
            return house.do(command)
        if not before:
            house.do(command)
        return [...]

    server.says[v.AddEntries] = add


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", [{0}, {1}, {2, 3, 5}, {7, 20, 33}, set(range(0, 60, 4))])
def test_an_upload_goes_on_where_it_was_cut(
    run: Run, house: House, server: FakeServer, place: Path, at: set[int], before: bool
) -> None:
    lines = [b"%d" % number for number in range(30_001)]
    (place / "lines").write_bytes(b"\n".join(lines))
    _cutting(house, server, at=at, before=before)
    assert run("submit", "--each-line", "lines", "--", "echo", "{}") == (0, "1\n", "")
    assert entries(house) == lines


def _refused_after(house: House, server: FakeServer, runs_done: int, error: TqError) -> None:
    count = itertools.count()

    def add(command: v.AddEntries) -> Any:
        if command.items and next(count) >= runs_done:
            raise error
        return house.do(command)

    server.says[v.AddEntries] = add


def test_the_same_command_with_the_same_key_goes_on_where_another_stopped(
    run: Run, house: House, server: FakeServer, place: Path
) -> None:
    lines = [b"%d" % number for number in range(9_500)]
    (place / "lines").write_bytes(b"\n".join(lines))
    _refused_after(house, server, 4, NotDone("the disk is nearly full"))
    words = ("submit", "--key", "k", "--each-line", "lines", "--", "echo", "{}")
    ran = run(*words)
    assert (ran.status, ran.out) == (75, "")
    assert "with --key k" in ran.err
    assert house.store.get(tables.JOB, (1, 0)) is None
    server.asked.clear()
    server.says[v.AddEntries] = house.do  # type: ignore[assignment]
    assert run(*words) == (0, "1\n", "")
    assert min(sent.first for sent in runs(server)) == 4_000
    assert entries(house) == lines


def test_other_lines_under_the_key_of_an_unfinished_upload_are_refused(run: Run, house: House, place: Path) -> None:
    house.do(v.AddEntries("k", 0, (b"other",), b"", b"digest"), submitter="me")
    (place / "lines").write_bytes(b"a\nb\n")
    ran = run("submit", "--key", "k", "--each-line", "lines", "--", "echo", "{}")
    assert (ran.status, ran.out) == (1, "")
    assert "other entries have been uploaded under the key 'k'" in ran.err


def test_other_lines_of_the_same_number_are_noticed_before_the_submit(
    run: Run, house: House, server: FakeServer, place: Path
) -> None:
    server.says[v.Submit] = lambda _: [...]
    words = ("submit", "--connect-timeout", "1ms", "--key", "k", "--each-line", "lines", "--", "echo", "{}")
    (place / "lines").write_bytes(b"x\n" * 3_000)
    assert run(*words).status == 74
    (place / "lines").write_bytes(b"y\n" * 3_000)
    server.asked.clear()
    ran = run(*words)
    assert (ran.status, ran.out) == (1, "")
    assert "other entries" in ran.err
    assert not any(isinstance(asked, v.Submit) for asked in server.asked)


def test_another_command_under_the_key_of_an_unfinished_upload_is_refused_before_it_seals_anything(
    run: Run, house: House, server: FakeServer, place: Path
) -> None:
    _refused_after(house, server, 2, NotDone("stop here"))
    (place / "lines").write_bytes(b"x\n" * 2_500)
    options = ("submit", "--key", "k", "--each-line", "lines")
    assert run(*options, "--", "echo", "{}").status == 75
    server.says[v.AddEntries] = house.do  # type: ignore[assignment]
    for other in (("--", "true", "{}"), ("--queue", "slow", "--", "echo", "{}"), ("--env", "A=1", "--", "echo", "{}")):
        ran = run(*options, *other)
        assert (ran.status, ran.out) == (1, "")
        assert "or the same for another command" in ran.err
        assert house.store.get(tables.JOB, (1, 0)) is None
    assert run(*options, "--", "echo", "{}") == (0, "1\n", "")
    assert entries(house) == [b"x"] * 2_500


@pytest.mark.parametrize("count", [1, 999, 1_000, 1_001, 2_500])
def test_an_unfinished_upload_of_more_lines_is_no_beginning_of_fewer(
    run: Run, house: House, server: FakeServer, place: Path, count: int
) -> None:
    _refused_after(house, server, 3, NotDone("stop here"))
    words = ("submit", "--key", "k", "--each-line", "lines", "--", "echo", "{}")
    (place / "lines").write_bytes(b"x\n" * 4_000)
    assert run(*words).status == 75
    server.says[v.AddEntries] = house.do  # type: ignore[assignment]
    (place / "lines").write_bytes(b"x\n" * count)
    ran = run(*words)
    assert (ran.status, ran.out) == (1, "")
    assert "other entries" in ran.err


def test_a_key_that_has_made_its_job_makes_it_once(run: Run, house: House, server: FakeServer, place: Path) -> None:
    (place / "lines").write_bytes(b"a\nb\n" * 1_500)
    words = ("submit", "--key", "k", "--each-line", "lines", "--", "echo", "{}")
    assert run(*words) == (0, "1\n", "")
    server.asked.clear()
    assert run(*words) == (0, "1\n", "tq: 1 was submitted before, with this --key\n")
    assert len(runs(server)) <= 1
    (place / "lines").write_bytes(b"a\nb\n" * 1_499 + b"a\nc\n")
    ran = run(*words)
    assert (ran.status, ran.out) == (1, "")
    assert "was used for another request" in ran.err


@pytest.mark.parametrize("size", [1, 3_000])
def test_an_upload_that_somebody_else_seals_meanwhile_makes_the_same_job(
    run: Run, house: House, server: FakeServer, place: Path, size: int
) -> None:
    """Somebody else is as far, and first: our runs come when the job exists already."""
    lines = [b"%d" % number for number in range(size)]
    (place / "lines").write_bytes(b"\n".join(lines))
    words = ("submit", "--key", "k", "--each-line", "lines", "--", "echo", "{}")
    assert run(*words).status == 0
    seal = server.asked[-1]
    sent = runs(server)
    other = House()

    def add(command: v.AddEntries) -> Any:
        answer = other.do(command)
        if not command.items:
            for one in sent:
                other.do(one)
            other.do(seal)
        return answer

    server.says[v.AddEntries], server.says[v.Submit] = add, other.do  # type: ignore[assignment]
    assert run(*words) == (0, "1\n", "tq: 1 was submitted before, with this --key\n")
    assert entries(other) == lines
    assert other.store.get(tables.UPLOAD, ("k",)) is None


def _digests(lines: list[bytes]) -> list[bytes]:
    """Return the digest of the first n lines, for each n, as tq makes it."""
    made: list[bytes] = [b""]
    wanted = submit_options.SubmitOptions(["echo", "{}"], key="k", columns=1, is_dashed=True)
    hasher = begun(request.build(wanted, os.environ)[0])
    for line in lines:
        hasher.update(msgspec.msgpack.encode(line))
        made.append(hasher.digest())
    return made


def test_somebody_else_may_upload_the_same_in_other_runs(
    run: Run, house: House, server: FakeServer, place: Path
) -> None:
    lines = [b"%d" % number for number in range(6_500)]
    digests = _digests(lines)
    (place / "lines").write_bytes(b"\n".join(lines))
    count = itertools.count()

    def add(command: v.AddEntries) -> Any:
        if command.items and next(count) % 3 == 1:
            there = house.do(v.AddEntries("k", 0, ()))
            assert isinstance(there, v.Uploaded)
            end = min(there.received + 700, len(lines))
            items = tuple(lines[there.received : end])
            house.do(v.AddEntries("k", there.received, items, digests[there.received], digests[end]))
        return house.do(command)

    server.says[v.AddEntries] = add
    assert run("submit", "--key", "k", "--each-line", "lines", "--", "echo", "{}") == (0, "1\n", "")
    assert entries(house) == lines


@pytest.mark.parametrize("at, count", [(0, 1), (0, 400), (0, 1_000), (2, 1), (2, 400), (2, 1_000), (4, 500)])
def test_somebody_elses_other_lines_in_the_middle_are_noticed(
    run: Run, house: House, server: FakeServer, place: Path, at: int, count: int
) -> None:
    lines = [b"%d" % number for number in range(4_500)]
    digests = _digests(lines)
    (place / "lines").write_bytes(b"\n".join(lines))
    runs_seen = itertools.count()

    def add(command: v.AddEntries) -> Any:
        if command.items and next(runs_seen) == at:
            first = command.first
            house.do(v.AddEntries("k", first, (b"other",) * count, digests[first], b"other"))
        return house.do(command)

    server.says[v.AddEntries] = add
    ran = run("submit", "--key", "k", "--each-line", "lines", "--", "echo", "{}")
    assert (ran.status, ran.out) == (1, "")
    assert "other entries have been uploaded" in ran.err
    assert house.store.get(tables.JOB, (1, 0)) is None


def test_an_upload_that_has_ended_meanwhile_makes_no_job(
    run: Run, house: House, server: FakeServer, place: Path
) -> None:
    (place / "lines").write_bytes(b"x\n" * 5_000)
    count = itertools.count()

    def add(command: v.AddEntries) -> Any:
        if command.items and next(count) == 2:
            house.now_ms += limits.upload_ttl_ms + 1
            house.do(v.Tick())
        return house.do(command)

    server.says[v.AddEntries] = add
    ran = run("submit", "--each-line", "lines", "--", "echo", "{}")
    assert (ran.status, ran.out) == (1, "")
    assert "submit again" in ran.err
    assert house.store.get(tables.JOB, (1, 0)) is None


def test_a_server_that_stays_away_leaves_no_job_and_says_how_to_go_on(
    run: Run, house: House, server: FakeServer, place: Path
) -> None:
    (place / "lines").write_bytes(b"x\n" * 5_000)
    _cutting(house, server, at=set(range(2, 10_000)), before=True)
    ran = run("submit", "--connect-timeout", "100ms", "--key", "mine", "--each-line", "lines", "--", "echo", "{}")
    assert (ran.status, ran.out) == (69, "")
    assert "--key mine" in ran.err


def test_an_upload_of_a_stream_that_is_silent_for_long_is_kept_alive(
    run: Run, house: House, server: FakeServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tq.cli.submitting.entries._SILENT_S", 0.001)
    reading, writing = os.pipe()
    has_asked = threading.Event()

    def add(command: v.AddEntries) -> Any:
        house.now_ms += limits.upload_ttl_ms * 2 // 3
        house.do(v.Tick())
        if command.first == 1_000 and not command.items:
            has_asked.set()
        return house.do(command)

    def produce() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            pipe.write(b"x\n" * 1_500)
            assert has_asked.wait(20)
            pipe.write(b"y\n")

    server.says[v.AddEntries] = add
    producer = threading.Thread(target=produce)
    producer.start()
    ran = run("submit", "--each-line", f"/proc/self/fd/{reading}", "--", "echo", "{}")
    producer.join()
    os.close(reading)
    assert ran == (0, "1\n", "")
    assert entries(house) == [b"x"] * 1_500 + [b"y"]
