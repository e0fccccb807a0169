"""`tq submit --function`: what is sent of a call, and what is refused before anything is sent."""

from collections.abc import Callable

import msgspec
import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tests.cli.stored import entries
from tests.support.house import House
from tq.wire import plain
from tq.wire.body import Body
from tq.wire.codec import loads

Give = Callable[[bytes], None]


def body_of(server: FakeServer) -> Body:
    return loads(server.asked[-1].body, Body)


def test_a_call_is_a_name_and_plain_data(run: Run, house: House, server: FakeServer) -> None:
    ran = run("submit", "--function", "a.b:C.run", "--args", '[1, "x", {"y": [null, 2.5]}]', "--time-limit", "5s")
    assert (ran.status, ran.out) == (0, "1\n")
    body = body_of(server)
    assert (body.argv, body.cwd, body.environment, body.function) == ((), b"", {}, "a.b:C.run")
    assert plain.loads(body.arguments) == [[1, "x", {"y": [None, 2.5]}], {}]
    assert (server.asked[-1].demand.module, body.time_limit_ms) == ("a.b", 5_000)


@pytest.mark.parametrize(
    "words, arguments", [((), [[], {}]), (("--args", "[]"), [[], {}]), (("--args", '{"n": 3}'), [[], {"n": 3}])]
)
def test_arguments_are_a_list_or_a_map_by_name(run, house, server, words, arguments):
    assert run("submit", "--function", "m:f", *words).status == 0
    assert plain.loads(body_of(server).arguments) == arguments


@pytest.mark.parametrize(
    "words, says",
    [
        (["--function", "m"], "'m' is not the name of a function"),
        (["--function", "m:"], "'m:' is not the name"),
        (["--function", "m:f.<locals>.g"], "is not the name"),
        (["--function", "m:<lambda>"], "a lambda"),
        (["--function", "a b:f"], "is not the name"),
        (["--function", "m:" + "f" * 300], "function_chars_max"),
        (["--function", "m:f", "--args", "{"], "--args is not JSON"),
        (["--function", "m:f", "--args", r'["\ud800"]'], "no Unicode (half of a surrogate pair"),
        (["--function", "m:f", "--args", r'["\ud8'], "--args is not JSON: Input data was truncated"),
        (["--function", "m:f", ":::", "a", "b"], "hint: write -- before the first :::"),
        (["--function", "m:f", "--args", "3"], "neither a list nor a map"),
        (["--function", "m:f", "--args", '{"a": 1, "b": 2, "a": 3}'], "--args has the key 'a' twice in one map"),
        (
            ["--function", "m:f", "--args", r'[{"b": [{"a": 1, "\u0061": 1}]}]'],
            "--args has the key 'a' twice in one map",
        ),
        (["--function", "m:f", "--args", "[" + "1" * 30 + "]"], "64 bits"),
        (["--function", "m:f", "--args", "[" * 40 + "]" * 40], "depth_max"),
        (["--function", "m:f", "--args", '["' + "x" * 200_000 + '"]'], "body_bytes_max"),
        (["--function", "m:f", "--cwd", "/"], "--cwd and --function exclude each other"),
        (["--function", "m:f", "--env", "A=1"], "--env and --function"),
        (["--function", "m:f", "--env-all"], "--env-all and --function"),
        (["--function", "m:f", "--shell"], "--shell and --function"),
        (["--function", "m:f", "--tmpdir"], "--tmpdir and --function"),
        (["--function", "m:f", "--stdin"], "no standard input"),
        (["--function", "m:f", "--", "echo"], "a command and --function"),
        (["--args", "[]", "--", "echo"], "--args are those of a function"),
    ],
)
def test_what_makes_no_sense_is_refused_before_it_is_sent(run, server, words, says):
    ran = run("submit", *words)
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err
    assert "hint: " in ran.err
    assert server.asked == []


def test_lines_lists_and_items_are_the_last_arguments(
    run: Run, house: House, server: FakeServer, give_input: Give
) -> None:
    give_input(b"one\n\ntwo\n")
    assert run("submit", "--function", "m:f", "--each-line", "-").status == 0
    assert (body_of(server).columns, body_of(server).has_plain_entries) == (1, False)
    give_input(b'["s", {"a": [1]}, null]')
    assert run("submit", "--function", "m:f", "--from-json", "-").status == 0
    assert (body_of(server).columns, body_of(server).has_plain_entries) == (1, True)
    assert run("submit", "--function", "m:f", "--", ":::", "a", "b", ":::", "1").status == 0
    assert (body_of(server).columns, body_of(server).has_plain_entries) == (2, False)
    assert entries(house, 1) == [b"one", b"", b"two"]
    assert [plain.loads(entry) for entry in entries(house, 2)] == ["s", {"a": [1]}, None]
    assert entries(house, 3) == [b"a\0001", b"b\0001"]


def test_items_that_are_no_plain_data_are_refused(run: Run, house: House, give_input: Give) -> None:
    give_input(b"[1, 123456789012345678901234567890]")
    ran = run("submit", "--function", "m:f", "--from-json", "-")
    assert (ran.status, ran.out) == (2, "")
    assert "64 bits" in ran.err


def test_no_item_has_a_key_twice_where_one_of_them_would_be_lost(run: Run, house: House, give_input: Give) -> None:
    text = b'[{"a": 1}, {"a": {"c": 1, "c": 2}}]'
    give_input(text)
    ran = run("submit", "--function", "m:f", "--from-json", "-")
    assert (ran.status, ran.out) == (2, "")
    assert "item 2 has the key 'c' twice in one map" in ran.err
    give_input(text)  # a command gets it as text, with both
    assert run("submit", "--from-json", "-", "--", "echo", "{}").status == 0
    assert entries(house, 1)[1] == b'{"a":{"c":1,"c":2}}'


def test_like_and_rerun_call_the_same_function_again(
    run: Run, house: House, server: FakeServer, give_input: Give
) -> None:
    give_input(b'[1, {"a": 2}]')
    run("submit", "--function", "m:f", "--args", '["x"]', "--cpus", "2", "--from-json", "-", "--time-limit", "9s")

    assert run("rerun", "1") == (0, "2\n", "tq: no connected worker allows the module m\n")
    assert run("submit", "--like", "1", "--args", '["y"]', "--time-limit", "1s").out == "3\n"
    again = body_of(server)
    assert (again.function, plain.loads(again.arguments), again.time_limit_ms) == ("m:f", [["y"], {}], 1_000)
    assert (again.columns, again.has_plain_entries, entries(house, 3)) == (1, True, entries(house, 1))
    assert server.asked[-1].demand == msgspec.structs.replace(server.asked[-1].demand, cpus_milli=2_000, module="m")

    assert run("submit", "--like", "1", "--function", "other:g").out == "4\n"
    assert server.asked[-1].demand.module == "other"
    assert plain.loads(body_of(server).arguments) == [[], {}]

    assert run("submit", "--like", "1", "--", "echo", "{}").out == "5\n"
    command = body_of(server)
    assert (command.function, command.argv, command.cwd[:1]) == ("", (b"echo", b"{}"), b"/")
    assert server.asked[-1].demand.module == ""


def test_a_dry_run_shows_the_call(run: Run, server: FakeServer) -> None:
    ran = run("submit", "--function", "m:f", "--args", "[1]", "--dry-run", "-o", "json")
    shown = msgspec.json.decode(ran.out)
    assert (shown["function"], shown["arguments"], shown["command"]) == ("m:f", [1], [])
    assert server.asked == []
    assert "arguments   [1]\n" in run("submit", "--function", "m:f", "--args", "[1]", "--dry-run").out
