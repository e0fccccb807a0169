"""What a program asks for becomes a submit, or is refused with a sentence before anything is sent."""

import os
from pathlib import Path

import pytest

from tq import limits
from tq.client import flows, requests
from tq.errors import BadRequest, TooLarge
from tq.server.admission import check_submit
from tq.wire import plain
from tq.wire.body import Body
from tq.wire.codec import loads


def test_a_call_is_a_name_and_plain_data_and_passes_the_servers_door():
    asked = requests.function("a.b:C.f", (1, ("x",)), {"k": None}, {"time_limit_s": 1.5, "cpus": 0.5, "tags": ["t"]})

    body = loads(asked.body, Body)
    assert (body.function, plain.loads(body.arguments)) == ("a.b:C.f", [[1, ["x"]], {"k": None}])
    assert (body.time_limit_ms, asked.demand.module, asked.demand.cpus_milli, asked.tags) == (1_500, "a.b", 500, ("t",))
    assert (asked.retries, asked.is_array, len(asked.key)) == (-1, False, 32)  # -1: as the queue or the server says
    check_submit(asked)


def test_every_option_has_its_place_in_the_request():
    options: requests.Options = {
        "name": "n", "tags": ("a", "b"), "queue": "q", "priority": 5, "retries": 7, "crash_limit": 0,
        "backoff_s": (0.5, 60), "time_limit_s": 2, "kill_after_s": 0, "cpus": 2, "max_fails": 3, "at_once": 4,
        "hold": True, "key": "k",
    }  # fmt: skip
    asked = requests.function_for_each("m:f", (), {}, options)

    assert set(options) == set(requests.Options.__annotations__)
    assert (asked.name, asked.queue, asked.priority, asked.retries, asked.crash_limit) == ("n", "q", 5, 7, 0)
    assert (asked.backoff_ms, asked.max_fails, asked.throttle, asked.hold, asked.key) == (
        (500, 60_000),
        3,
        4,
        True,
        "k",
    )
    body = loads(asked.body, Body)
    assert (body.columns, body.has_plain_entries, body.kill_after_ms) == (1, True, 0)


def test_a_command_runs_here_unless_it_is_said_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    here = requests.command(["a", b"b", tmp_path], cwd=None, env={"X": "1"}, stdin=b"in", options={})
    there = requests.command(["a"], cwd="/", env=None, stdin=b"", options={})

    body = loads(here.body, Body)
    assert (body.argv, body.cwd) == ((b"a", b"b", os.fsencode(tmp_path)), os.fsencode(tmp_path))
    assert (body.environment, body.stdin, here.demand.module) == ({"X": b"1"}, b"in", "")
    assert loads(there.body, Body).cwd == b"/"
    check_submit(here)


@pytest.mark.parametrize(
    "ask, error, why",
    [
        (lambda: requests.function("m", (), {}, {}), BadRequest, "no name of a function"),
        (lambda: requests.function(len, (), {}, {}), BadRequest, "is named, and not given itself"),  # type: ignore[arg-type]
        (lambda: requests.function("m:f", (), 5, {}), BadRequest, "kwargs is a map"),  # type: ignore[arg-type]
        (lambda: requests.function("m:f", (), "a", {}), BadRequest, "kwargs is a map"),  # type: ignore[arg-type]
        (lambda: requests.function("m:f", (object(),), {}, {}), BadRequest, "object is no plain data"),
        (lambda: requests.function("m:f", ("x" * 200_000,), {}, {}), BadRequest, "body_bytes_max"),
        (lambda: requests.function("m:f", ("x" * (limits.body_bytes_max - 20),), {}, {}), TooLarge, "body_bytes_max"),
        (lambda: requests.function("m:f", (), {}, {"retry": 3}), TypeError, "no option 'retry'"),
        (lambda: requests.function("m:f", (), {}, {"at_once": 3}), BadRequest, "several tasks"),
        (lambda: requests.function("m:f", (), {}, {"time_limit_s": -1}), BadRequest, "time_limit_s"),
        (lambda: requests.function("m:f", (), {}, {"time_limit_s": float("inf")}), BadRequest, "time_limit_s"),
        (lambda: requests.function("m:f", (), {}, {"time_limit_s": 0}), BadRequest, "longer than nothing"),
        (lambda: requests.function("m:f", (), {}, {"time_limit_s": 0.0001}), BadRequest, "longer than nothing"),
        (lambda: requests.function("m:f", (), {}, {"backoff_s": (float("nan"), 1)}), BadRequest, "backoff_s"),
        (lambda: requests.command("ls", cwd=None, env=None, stdin=b"", options={}), BadRequest, "list of words"),
        (lambda: requests.command(5, cwd=None, env=None, stdin=b"", options={}), BadRequest, "list of words"),  # type: ignore[arg-type]
        (lambda: requests.command([1], cwd=None, env=None, stdin=b"", options={}), BadRequest, "is text, and not 1"),  # type: ignore[list-item]
        (
            lambda: requests.command(["\ud800"], cwd=None, env=None, stdin=b"", options={}),
            BadRequest,
            "word of a command",
        ),
        (lambda: requests.command(["x"], cwd=5, env=None, stdin=b"", options={}), BadRequest, "cwd is text"),  # type: ignore[arg-type]
        (
            lambda: requests.command(["x"], cwd=None, env={"A": 1}, stdin=b"", options={}),
            BadRequest,
            "variable A is text",
        ),  # type: ignore[dict-item]
        (lambda: requests.command(["x"], cwd=None, env={1: "A"}, stdin=b"", options={}), BadRequest, "env is a map"),  # type: ignore[dict-item]
        (lambda: requests.command(["x"], cwd=None, env=["A=1"], stdin=b"", options={}), BadRequest, "env is a map"),  # type: ignore[arg-type]
        (lambda: next(flows.submitting(requests.function("m:f", (), {}, {}), 5)), BadRequest, "the items are a list"),  # type: ignore[arg-type]
        (lambda: requests.command(["x"], cwd=None, env=None, stdin="in", options={}), BadRequest, "the input is bytes"),  # type: ignore[arg-type]
        (
            lambda: requests.command(["x"], cwd=None, env=None, stdin=b"x" * 70_000, options={}),
            TooLarge,
            "stdin_inline_bytes_max",
        ),
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
    ],
)
def test_an_option_of_the_wrong_type_is_refused_before_it_is_sent(option, value):
    with pytest.raises(BadRequest, match=f"{option} cannot be") as refused:
        requests.function("m:f", (), {}, {option: value})  # type: ignore[misc]

    assert refused.value.hint.startswith("it is ")


@pytest.mark.parametrize("option, value", [("max_fails", "1"), ("at_once", None)])
def test_so_is_one_of_an_array(option, value):
    with pytest.raises(BadRequest, match=f"{option} cannot be"):
        requests.function_for_each("m:f", (), {}, {option: value})  # type: ignore[misc]


@pytest.mark.parametrize("id", [5, None, 43.7, b"42", "\udcff"])
def test_an_id_is_text(id):  # noqa: A002
    with pytest.raises(BadRequest, match="an id is text"):
        requests.check_id(id)

    assert requests.check_id("43.7") == "43.7"
