"""What a program asks for becomes a submit, or is refused with a sentence before anything is sent."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tq import limits
from tq.client.sansio import requests
from tq.errors import BadRequest, TooLarge
from tq.server.sessions.admission import check_submit
from tq.wire import plain
from tq.wire.body import Body
from tq.wire.codec import loads

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def entries(asked: requests.Asked) -> list[bytes]:
    """Make the entries, which is when they are looked at."""
    return list(asked.entries or ())


def test_a_call_is_a_name_and_plain_data_and_passes_the_servers_door():
    asked = requests.function(
        "a.b:C.f", (1, ("x",)), {"k": None}, {"time_limit_s": 1.5, "cpus": 0.5, "tags": ["t"]}
    ).submit

    body = loads(asked.body, Body)
    assert (body.function, plain.loads(body.arguments)) == ("a.b:C.f", [[1, ["x"]], {"k": None}])
    assert (body.time_limit_ms, asked.demand.module, asked.demand.cpus_milli, asked.tags) == (1_500, "a.b", 500, ("t",))
    assert (asked.retries, asked.is_array, len(asked.key)) == (-1, False, 32)  # -1: as the queue or the server says
    check_submit(asked)


def test_every_option_has_its_place_in_the_request():
    options: requests.Options = {
        "name": "n", "tags": ("a", "b"), "queue": "q", "priority": 5, "retries": 7, "crash_limit": 0,
        "backoff_s": (0.5, 60), "retry_on": [75, signal.SIGKILL], "no_retry_on": {2, 1}, "time_limit_s": 2,
        "stop_signal": signal.SIGINT, "kill_after_s": 0, "if_cut": "stop", "cpus": 2, "max_fails": 3, "at_once": 4,
        "hold": True, "key": "k", "trace": TRACE,
    }  # type: ignore[typeddict-item]  # fmt: skip
    asked = requests.function_for_each("m:f", (), {}, options, [1]).submit

    assert set(options) == set(requests.Options.__annotations__)
    assert (asked.name, asked.queue, asked.priority, asked.retries, asked.crash_limit) == ("n", "q", 5, 7, 0)
    assert (asked.backoff_ms, asked.max_fails, asked.throttle, asked.hold, asked.key) == (
        (500, 60_000),
        3,
        4,
        True,
        "k",
    )
    assert (asked.retry_on, asked.no_retry_on, asked.trace) == ((75, -9), (1, 2), TRACE)
    body = loads(asked.body, Body)
    assert (body.columns, body.has_plain_entries, body.kill_after_ms) == (1, True, 0)
    assert (body.stop_signal, body.stops_when_cut) == (2, True)
    check_submit(asked)


def test_every_option_of_a_command_has_its_place_too(tmp_path: Path):
    options: requests.CommandOptions = {
        "cwd": tmp_path, "env": {"X": "1"}, "stdin": b"in", "tmpdir": True, "stdout": "out-%t",
        "stderr": tmp_path / "%a",
    }  # fmt: skip
    asked, pieces, _ = requests.command_for_each(["a", "{}"], options, ["x"])

    assert set(options) == set(requests.CommandOptions.__annotations__) - set(requests.Options.__annotations__)
    body = loads(asked.body, Body)
    assert (body.argv, body.cwd, body.environment, body.stdin) == (
        (b"a", b"{}"), os.fsencode(tmp_path), {"X": b"1"}, b"in",
    )  # fmt: skip
    assert (body.has_tmpdir, body.stdout, body.stderr) == (True, b"out-%t", os.fsencode(tmp_path / "%a"))
    assert (asked.is_array, body.columns, body.has_plain_entries, pieces) == (True, 1, False, [])
    check_submit(asked)


def test_the_trace_that_this_process_is_in_goes_with_what_it_submits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACEPARENT", TRACE)
    assert requests.function("m:f", (), {}, {}).submit.trace == TRACE
    assert requests.command(["x"], {"trace": ""}).submit.trace == ""
    monkeypatch.setenv("TRACEPARENT", "none of it")
    assert requests.command(["x"], {}).submit.trace == ""


def test_a_set_is_the_same_request_in_every_process():
    asked = "requests.command(['x'], {'tags': set('abcdef'), 'key': 'k'})"
    program = f"from tq.client.sansio import requests; print({asked}.submit.tags)"
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "123"
    }
    assert len(said) == 1


def test_no_other_thread_sees_another_umask(monkeypatch: pytest.MonkeyPatch):
    mask = os.umask(0o027)
    try:
        monkeypatch.delattr(os, "umask")  # which would set it, for all of them
        assert loads(requests.command(["x"], {}).submit.body, Body).umask == 0o027
    finally:
        monkeypatch.undo()
        os.umask(mask)


def test_a_command_runs_here_unless_it_is_said_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    here = requests.command(["a", b"b", tmp_path], {"env": {"X": "1"}, "stdin": b"in"}).submit
    there = requests.command(["a"], {"cwd": "/"}).submit

    body = loads(here.body, Body)
    assert (body.argv, body.cwd) == ((b"a", b"b", os.fsencode(tmp_path)), os.fsencode(tmp_path))
    assert (body.environment, body.stdin, here.demand.module) == ({"X": b"1"}, b"in", "")
    assert loads(there.body, Body).cwd == b"/"
    check_submit(here)


@pytest.mark.parametrize(
    "ask, error, why",
    [
        (lambda: requests.function("m", (), {}, {}), BadRequest, "not the name of a function"),
        (lambda: requests.function(len, (), {}, {}), BadRequest, "is named, and not given itself"),  # type: ignore[arg-type]
        (lambda: requests.function("m:f", (), 5, {}), BadRequest, "kwargs is a map"),  # type: ignore[arg-type]
        (lambda: requests.function("m:f", (), "a", {}), BadRequest, "kwargs is a map"),  # type: ignore[arg-type]
        (lambda: requests.function("m:f", (object(),), {}, {}), BadRequest, "object is not plain data"),
        (lambda: requests.function("m:f", ("x" * 200_000,), {}, {}), BadRequest, "body_bytes_max"),
        (lambda: requests.function("m:f", ("x" * (limits.body_bytes_max - 20),), {}, {}), TooLarge, "body_bytes_max"),
        (lambda: requests.function("m:f", (), {}, {"retry": 3}), TypeError, "no option 'retry'"),
        (lambda: requests.function("m:f", (), {}, {"at_once": 3}), BadRequest, "several tasks"),
        (lambda: requests.function("m:f", (), {}, {"time_limit_s": -1}), BadRequest, "time_limit_s"),
        (lambda: requests.function("m:f", (), {}, {"time_limit_s": float("inf")}), BadRequest, "time_limit_s"),
        (lambda: requests.function("m:f", (), {}, {"time_limit_s": 0}), BadRequest, "longer than nothing"),
        (lambda: requests.function("m:f", (), {}, {"time_limit_s": 0.0001}), BadRequest, "longer than nothing"),
        (lambda: requests.function("m:f", (), {}, {"backoff_s": (float("nan"), 1)}), BadRequest, "backoff_s"),
        (lambda: requests.command("ls", {}), BadRequest, "list of words"),
        (lambda: requests.command(5, {}), BadRequest, "list of words"),  # type: ignore[arg-type]
        (lambda: requests.command([1], {}), BadRequest, "is text, and not 1"),  # type: ignore[list-item]
        (lambda: requests.command(["\ud800"], {}), BadRequest, "word of a command"),
        (lambda: requests.command(["x"], {"cwd": 5}), BadRequest, "cwd cannot be 5"),  # type: ignore[typeddict-item]
        (lambda: requests.command(["x"], {"env": {"A": 1}}), BadRequest, "variable A is text"),  # type: ignore[dict-item]
        (lambda: requests.command(["x"], {"env": {1: "A"}}), BadRequest, "env cannot be"),  # type: ignore[dict-item]
        (lambda: requests.command(["x"], {"env": ["A=1"]}), BadRequest, "env cannot be"),  # type: ignore[typeddict-item]
        (lambda: requests.command(["x"], {"stdin": "in"}), BadRequest, "stdin cannot be"),  # type: ignore[typeddict-item]
        (lambda: requests.command(["x"], {"stdin": b"x" * (4 << 20 | 1)}), TooLarge, "stdin_bytes_max"),
        (lambda: requests.command(["x"], {"stdout": "%x"}), BadRequest, "%x stands for nothing"),
        (lambda: requests.command_for_each(["x"], {"stdout": "out"}, "ab"), BadRequest, "write to one file"),
        (lambda: requests.command_for_each(["{2}"], {}, ["a"]), BadRequest, r"nothing stands for \{2\}"),
        (lambda: entries(requests.command_for_each(["x"], {}, [5])), BadRequest, "an item for a command"),
        (lambda: entries(requests.command_for_each(["x"], {}, ["a\0"])), BadRequest, "NUL"),
        (lambda: entries(requests.command_for_each(["{}"], {}, ["a" * 131_073])), TooLarge, "is room for"),
        (lambda: requests.function_for_each("m:f", (), {}, {}, 5), BadRequest, "the items are a list"),  # type: ignore[arg-type]
        (lambda: requests.function_for_each("m:f", (), {}, {}, "ab"), BadRequest, "the items are a list"),
        (
            lambda: entries(requests.function_for_each("m:f", ("y" * 180_000,), {}, {}, ["x" * 110_000])),
            BadRequest,
            "the room beside the other arguments",
        ),
        (lambda: requests.function("m:f", (), {}, {"stop_signal": 99}), BadRequest, "99 is not a signal"),
    ],
)
def test_what_makes_no_sense_is_refused(ask, error, why):
    with pytest.raises(error, match=why):
        ask()


@pytest.mark.parametrize(
    "option, value",
    [
        *[(name, value) for name in ("name", "queue", "key") for value in (5, None, b"x", "\udcff")],
        *[(name, value) for name in ("priority", "retries", "crash_limit") for value in ("3", 1.5, None, True, 2**63)],
        *[
            (name, value)
            for name in ("time_limit_s", "kill_after_s", "cpus")
            for value in ("2", None, float("nan"), 1e300)
        ],
        *[("tags", value) for value in ("abc", [1], None, ["\udcff"], 5)],
        *[("backoff_s", value) for value in (5, (1,), (1, 2, 3), ("1", "2"), None)],
        *[("hold", value) for value in ("yes", 1, None)],
        *[(name, value) for name in ("retry_on", "no_retry_on") for value in (5, ["x"], [-9], [256], [True], None)],
        *[("if_cut", value) for value in ("go", True, None)],
        *[("stop_signal", value) for value in ("TERM", None)],
        ("trace", 5),
    ],
)
def test_an_option_of_the_wrong_type_is_refused_before_it_is_sent(option, value):
    with pytest.raises(BadRequest, match=f"{option} cannot be") as refused:
        requests.function("m:f", (), {}, {option: value})  # type: ignore[misc]

    assert refused.value.hint.startswith("it is a signal, as signal.SIGINT" if option == "stop_signal" else "it is ")


@pytest.mark.parametrize("option, value", [("max_fails", "1"), ("at_once", None)])
def test_so_is_one_of_an_array(option, value):
    with pytest.raises(BadRequest, match=f"{option} cannot be"):
        requests.function_for_each("m:f", (), {}, {option: value}, [1])  # type: ignore[misc]


@pytest.mark.parametrize(
    "given, hint",
    [
        (lambda: 1, "has no such name"),
        (TemporaryDirectory, '"tempfile:TemporaryDirectory"'),
        (TemporaryDirectory.cleanup, '"tempfile:TemporaryDirectory.cleanup"'),
        (type("Local", (), {"__module__": "__main__"}), "put it into a module"),
        (5, "write MODULE:FUNCTION"),
    ],
)
def test_who_gives_a_function_itself_is_told_a_name_that_it_has(given, hint):
    with pytest.raises(BadRequest, match="not given itself") as refused:
        requests.function(given, (), {}, {})

    assert hint in refused.value.hint


@pytest.mark.parametrize("id", [5, None, 43.7, b"42", "\udcff"])
def test_an_id_is_text(id):  # noqa: A002
    with pytest.raises(BadRequest, match="an id is text"):
        requests.check_id(id)

    assert requests.check_id("43.7") == "43.7"
