"""`tq submit`: what is sent, what is printed, and what is refused before anything is sent."""

import os
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq import limits
from tq.core import vocabulary as v
from tq.errors import KeyConflict
from tq.wire.body import Body
from tq.wire.codec import loads


@pytest.fixture(autouse=True)
def accepts(server: FakeServer) -> None:
    server.says[v.Submit] = lambda _: v.Submitted("42")
    server.says[v.Upload] = lambda piece: v.Uploaded(piece.offset + len(piece.data))


def body_of(server: FakeServer) -> Body:
    return loads(server.asked[-1].body, Body)


def test_the_id_stands_alone_on_stdout(run: Run) -> None:
    assert run("submit", "--", "echo", "hello") == (0, "42\n", "")


def test_json_has_a_version(run: Run) -> None:
    ran = run("submit", "-o", "json", "--", "true")
    assert msgspec.json.decode(ran.out) == {"v": 1, "id": "42", "existed": False, "warning": None}
    assert ran.out.startswith('{"v":1,')


def test_every_option_reaches_the_server(run: Run, server: FakeServer) -> None:
    ran = run(
        "submit", "--name", "n", "--tag", "a", "--tag", "b,c", "--queue", "q", "--priority", "7", "--cwd", "/somewhere",
        "--env", "X=1", "--time-limit", "1h", "--kill-after", "10ms", "--key", "k1", "--array", "1-10:3%2",
        "--cpus", "0.5", "--if-cut", "stop", "--tmpdir", "--stop-signal", "int", "--", "cmd", "-o", "--wait",
    )  # fmt: skip
    assert ran.status == 0
    sent = server.asked[-1]
    assert (sent.name, sent.tags, sent.queue, sent.priority, sent.key) == ("n", ("a", "b", "c"), "q", 7, "k1")
    assert (sent.is_array, sent.array_first, sent.array_step, sent.size, sent.throttle) == (True, 1, 3, 4, 2)
    assert sent.demand.cpus_milli == 500
    body = body_of(server)
    assert body.argv == (b"cmd", b"-o", b"--wait")
    assert (body.cwd, body.environment) == (b"/somewhere", {"X": b"1"})
    assert body.stop_signal == 2
    assert (body.time_limit_ms, body.kill_after_ms, body.stops_when_cut, body.has_tmpdir) == (3_600_000, 10, True, True)


def test_a_task_runs_on_when_it_is_cut_off_unless_said_otherwise(run: Run, server: FakeServer) -> None:
    assert run("submit", "true").status == 0
    assert not body_of(server).stops_when_cut
    ran = run("submit", "--if-cut", "pause", "--", "true")
    assert (ran.status, len(server.asked)) == (2, 1)
    assert "--if-cut 'pause': it may run on, or stop" in ran.err


@pytest.mark.parametrize("text, number", [("TERM", 15), ("sigusr1", 10), ("9", 9), ("64", 64)])
def test_a_stop_signal_is_a_name_or_a_number(run: Run, server: FakeServer, text: str, number: int) -> None:
    assert run("submit", "--stop-signal", text, "true").status == 0
    assert body_of(server).stop_signal == number


def test_output_may_go_into_files(run: Run, server: FakeServer) -> None:
    assert run("submit", "--stdout", "out-%t", "--stderr", "/logs/%j", "true").status == 0
    assert (body_of(server).stdout, body_of(server).stderr) == (b"out-%t", b"/logs/%j")


def test_run_takes_what_a_single_task_may_be_told(run: Run, server: FakeServer) -> None:
    server.says[v.Logs] = lambda _: v.LogsEnd(1, (0, 0), "succeeded")
    server.says[v.Wait] = lambda _: v.Waited(True, (v.Outcome("42", "succeeded", "ended", 0, "exit", 1, 1, 1),))
    ran = run("run", "--no-stdin", "--stdout", "out", "--stderr", "err-%t", "--if-cut", "stop", "--", "true")
    assert ran == (0, "", "")
    (submitted,) = [asked for asked in server.asked if isinstance(asked, v.Submit)]
    body = loads(submitted.body, Body)
    assert (body.stdout, body.stderr, body.stops_when_cut) == (b"out", b"err-%t", True)


@pytest.mark.parametrize("verb", ["run", "submit"])
@pytest.mark.parametrize("words", [("--stdout", "%x"), ("--stdout", "%a"), ("--if-cut", "pause")])
def test_what_cannot_be_meant_is_refused(run: Run, server: FakeServer, verb: str, words: tuple[str, ...]) -> None:
    ran = run(verb, *words, "true")
    assert (ran.status, server.asked) == (2, [])
    assert words[0] in ran.err


def test_an_array_needs_a_file_for_each_task(run: Run, server: FakeServer) -> None:
    ran = run("submit", "--stderr", "x", "--array", "1-3", "true")
    assert (ran.status, server.asked) == (2, [])
    assert "--stderr" in ran.err


@pytest.mark.parametrize(
    "words, hint",
    [
        (("--array", "1-3"), "`tq submit` has it, and with --follow shows the output and waits, too"),
        (("--key", "k"), "`tq submit` has it"),
        (("--follow",), "leave it out: `tq run` waits and shows the output by itself"),
        (("--retires", "3"), "did you mean --retries?"),
    ],
)
def test_run_says_which_of_its_options_submit_has(
    run: Run, server: FakeServer, words: tuple[str, ...], hint: str
) -> None:
    ran = run("run", *words, "--", "true")
    assert (ran.status, server.asked) == (2, [])
    assert hint in ran.err


@pytest.mark.parametrize("text", ["0", "65", "-1", "TERMINATE", "SIG", "1.5", "999999999999"])
def test_what_is_no_signal_is_refused(run: Run, server: FakeServer, text: str) -> None:
    for words in (("submit", f"--stop-signal={text}", "true"), ("cancel", f"--signal={text}", "42")):
        ran = run(*words)
        assert (ran.status, server.asked) == (2, [])
        assert "is not a signal" in ran.err


@pytest.mark.parametrize("number", [2**63, -(2**63), 10**400])
@pytest.mark.parametrize(
    "words",
    [
        ("submit", "--max-fails={}", "--array", "1-2", "true"),
        ("logs", "42", "--attempt={}"),
        ("queue", "set", "q", "--max={}"),
        ("queue", "set", "q", "--retries={}"),
        ("ls", "-n", "{}"),
    ],
)
def test_a_number_that_no_message_carries_is_refused_by_its_option(
    run: Run, server: FakeServer, words: tuple[str, ...], number: int
) -> None:
    ran = run(*(word.format(number) for word in words))
    assert (ran.status, server.asked) == (2, [])
    assert "is out of range" in ran.err


def test_options_end_at_the_command(run: Run, server: FakeServer) -> None:
    run("submit", "ls", "-l", "--name", "x")
    assert body_of(server).argv == (b"ls", b"-l", b"--name", b"x")
    assert server.asked[-1].name == ""


def test_it_runs_in_the_directory_of_the_submitter(run: Run, server: FakeServer) -> None:
    run("submit", "pwd")
    assert body_of(server).cwd == os.fsencode(Path.cwd())


def test_only_chosen_variables_are_passed_on(run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHOSEN", "yes")
    monkeypatch.setenv("OTHER", "no")
    run("submit", "--env", "CHOSEN", "--", "true")
    assert body_of(server).environment == {"CHOSEN": b"yes"}


def test_env_all_keeps_the_credentials_back(run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHOSEN", "yes")
    monkeypatch.setenv("TQ_TOKEN", "tqa_test")
    run("submit", "--env-all", "--", "true")
    environment = body_of(server).environment
    assert environment["CHOSEN"] == b"yes"
    assert "TQ_TOKEN" not in environment


def test_shell_reads_the_command_as_one_line(run: Run, server: FakeServer) -> None:
    run("submit", "--shell", "--", "echo $HOME |", "wc")
    assert body_of(server).argv == (b"/bin/sh", b"-c", b"echo $HOME | wc")


def test_one_word_with_spaces_gets_a_hint_and_is_submitted(run: Run) -> None:
    ran = run("submit", "--", "echo hello")
    assert ran.status == 0
    assert "one word with spaces" in ran.err


def test_each_submit_has_a_key_of_its_own(run: Run, server: FakeServer) -> None:
    run("submit", "true")
    run("submit", "true")
    keys = [sent.key for sent in server.asked]
    assert len(set(keys)) == 2
    assert all(len(key) == 32 for key in keys)


def test_a_cut_connection_is_made_again_with_the_same_key(run: Run, server: FakeServer) -> None:
    server.cuts = 2
    assert run("submit", "true") == (0, "42\n", "")
    assert len(server.asked) == 3
    assert len({sent.key for sent in server.asked}) == 1


def test_an_unknown_outcome_is_said_with_its_key(run: Run, server: FakeServer) -> None:
    server.cuts = 1_000
    ran = run("submit", "--connect-timeout", "100ms", "--key", "mine", "--", "true")
    assert (ran.status, ran.out) == (74, "")
    assert "--key mine" in ran.err


def test_another_store_behind_the_address_is_an_unknown_outcome(run: Run, server: FakeServer) -> None:
    def restored(_: v.Submit) -> list[object]:
        server.lineage = 8
        return [...]

    server.says[v.Submit] = restored
    ran = run("submit", "true")
    assert ran.status == 74
    assert len(server.asked) == 1


def test_a_refusal_has_its_status_and_hint(run: Run, server: FakeServer) -> None:
    def refuse(_: v.Submit) -> v.Submitted:
        raise KeyConflict("key 'k' was used for another request (job 3)", hint="use another --key")

    server.says[v.Submit] = refuse
    ran = run("submit", "--key", "k", "--", "true")
    assert ran == (1, "", "tq: key 'k' was used for another request (job 3)\nhint: use another --key\n")


def test_a_warning_goes_to_stderr(run: Run, server: FakeServer) -> None:
    server.says[v.Submit] = lambda _: v.Submitted("42", warning="no worker has 64 CPUs")
    assert run("submit", "true") == (0, "42\n", "tq: no worker has 64 CPUs\n")


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_what_is_hinted_for_an_empty_command_is_the_same_verb(run: Run, server: FakeServer, verb: str) -> None:
    ran = run(verb, "--", "")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.endswith(f"as in `tq {verb} -- echo hello`\n")


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "the command is empty"),
        (["--"], "the command is empty"),
        (["--", ""], "the command is empty"),
        (["--name", "a b", "--", "true"], "'a b' is not a name"),
        (["--name", "x" * 129, "--", "true"], "name_chars_max"),
        (["--tag", "", "--", "true"], "the value of --tag is empty"),
        (["--queue", "a/b", "--", "true"], "is not a queue"),
        (["--key", "é", "--", "true"], "is not a key"),
        (["--priority", "101", "--", "true"], "the priority 101"),
        (["--priority", "x", "--", "true"], "--priority"),
        (["--array", "10-1", "--", "true"], "runs backwards"),
        (["--array", "1-100000001", "--", "true"], "array_size_max"),
        (["--array", "1-99999999999999999999", "--", "true"], "must lie between"),
        (["--array", "1-10:0", "--", "true"], "step"),
        (["--array", "ten", "--", "true"], "not an array range"),
        (["--time-limit", "soon", "--", "true"], "not a duration"),
        (["--time-limit", "0", "--", "true"], "longer than nothing"),
        (["--env", "=x", "--", "true"], "not the name of an environment variable"),
        (["--env", "NOT_SET_ANYWHERE", "--", "true"], "no NOT_SET_ANYWHERE to pass on"),
        (["--cpus", "many", "--", "true"], "not a number of CPUs"),
        (["--", *["x"] * 4_097], "argv_items_max"),
        (["--", "x" * (128 * 1024)], "argument_bytes_max"),
        (["--", "a\0b"], "NUL"),
    ],
)
def test_what_makes_no_sense_is_refused_and_never_sent(
    run: Run, server: FakeServer, words: list[str], said: str
) -> None:
    ran = run("submit", *words)
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.startswith("tq: ")
    assert server.asked == []


def test_an_environment_of_1_mib_is_refused(run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(16):
        monkeypatch.setenv(f"LARGE{number}", "x" * 65_536)
    ran = run("submit", "--env-all", "--", "true")
    assert ran.status == 2
    assert "the environment has 10" in ran.err
    assert "body_bytes_max" in ran.err
    assert server.asked == []


def test_a_dry_run_is_readable_and_says_nothing_of_what_is_not_set(run: Run) -> None:
    out = run(
        "submit", "--dry-run", "--env", "A=b c", "--tag", "x", "--tag", "y", "--time-limit", "90", "--", "echo", "a b"
    ).out
    words = dict(line.split(maxsplit=1) for line in out.replace("time limit", "limit").splitlines())
    assert (words["command"], words["environment"], words["tags"], words["limit"]) == (
        "echo 'a b'",
        "A=b c",
        "x, y",
        "1m 30s",
    )
    assert not {"cpus", "priority", "stdin", "name"} & set(words)


def test_dry_run_needs_no_server(run: Run, server: FakeServer) -> None:
    server.close()
    ran = run("submit", "--dry-run", "-o", "json", "--array", "1-5", "--", "echo", "a b")
    plan = msgspec.json.decode(ran.out)
    assert (ran.status, plan["v"], plan["command"], plan["tasks"]) == (0, 1, ["echo", "a b"], 5)
    assert server.asked == []


@pytest.mark.parametrize("size", [0, 1, limits.stdin_inline_bytes_max])
def test_a_small_input_is_part_of_the_request(run: Run, server: FakeServer, give_input, size: int) -> None:
    give_input(b"x" * size)
    assert run("submit", "--stdin", "--", "wc").status == 0
    assert body_of(server).stdin == b"x" * size
    assert server.asked[-1].stdin_key == ""


@pytest.mark.parametrize(
    "size", [limits.stdin_inline_bytes_max + 1, limits.piece_bytes_max * 2 + 5, limits.stdin_bytes_max]
)
def test_a_large_input_goes_first_in_pieces(run: Run, server: FakeServer, give_input, size: int) -> None:
    data = os.urandom(size)
    give_input(data)
    assert run("submit", "--stdin", "--", "wc").status == 0
    *pieces, submit = server.asked
    assert b"".join(piece.data for piece in pieces) == data
    assert [piece.offset for piece in pieces] == list(range(0, size, limits.piece_bytes_max))
    assert {piece.key for piece in pieces} == {submit.stdin_key}
    assert body_of(server).stdin == b""


def test_the_same_input_and_key_are_the_same_request(run: Run, server: FakeServer, give_input) -> None:
    for _ in range(2):
        give_input(b"x" * 200_000)
        run("submit", "--stdin", "--key", "k", "--", "wc")
    first, second = (sent for sent in server.asked if isinstance(sent, v.Submit))
    assert first == second


def test_an_input_past_its_bound_is_refused(run: Run, server: FakeServer, give_input) -> None:
    give_input(b"x" * (limits.stdin_bytes_max + 1))
    ran = run("submit", "--stdin", "--", "wc")
    assert ran.status == 2
    assert "stdin_bytes_max" in ran.err
    assert server.asked == []


def test_a_key_that_was_used_before_is_said_and_one_of_the_clients_own_is_not(run: Run, server: FakeServer) -> None:
    server.says[v.Submit] = lambda _: v.Submitted("42", existed=True)
    said = "tq: 42 was submitted before, with this --key\n"
    assert run("submit", "--key", "nightly", "--", "true") == (0, "42\n", said)
    assert run("submit", "-q", "--key", "nightly", "--", "true") == (0, "42\n", "")
    assert run("submit", "--", "true") == (0, "42\n", "")
