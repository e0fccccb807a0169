"""How a task ended, for a program: a value, or the exception that says what became of it."""

import pickle
import traceback

import pytest

from tq.client.sansio import documents
from tq.client.sansio.results import TaskCancelled, TaskFailed, TaskResult
from tq.core import vocabulary as v
from tq.errors import TqError
from tq.wire import plain
from tq.wire.body import Usage
from tq.wire.codec import dumps

RAISED = {"type": "m.Odd", "message": "why\nnot", "traceback": "Traceback…"}


def result(state: str, cause: str = "", code: int = 0, value: object = None, error: str = "") -> TaskResult:
    packed = b"" if value is None else plain.dumps(value, 10_000, "")
    return TaskResult(v.Result("43.7", state, 2, code, cause, packed, dumps(Usage(error=error))))


def test_a_success_has_its_value():
    assert result("succeeded", "exit", value=[1, {"a": b"x"}]).get() == [1, {"a": b"x"}]
    assert result("succeeded", "exit").get() is None


def test_a_task_of_an_array_has_its_number():
    assert result("succeeded", "exit").number == 7
    assert TaskResult(v.Result("43", "queued")).number == 0


def test_in_a_notebook_it_shows_what_it_has_in_brief():
    assert repr(result("succeeded", "exit", value={"loss": 0.5})) == "<TaskResult 43.7 succeeded: {'loss': 0.5}>"
    assert repr(result("dead", "exit", 3)) == "<TaskResult 43.7 dead: task 43.7 exited with 3>"
    assert repr(result("queued")) == "<TaskResult 43.7 queued>"
    assert len(repr(result("succeeded", "exit", value="x" * 5_000))) < 200


def test_what_has_not_ended_has_neither_value_nor_error():
    waiting = result("queued")

    assert (waiting.value, waiting.error, waiting.state, waiting.attempt) == (None, None, "queued", 2)


def test_an_exception_has_type_text_and_traceback():
    with pytest.raises(TaskFailed, match=r"task 43\.7 raised m\.Odd: why") as caught:
        result("dead", "exception", 1, RAISED).get()

    failed = caught.value
    assert (failed.type, failed.text, failed.traceback) == ("m.Odd", "why\nnot", "Traceback…")
    assert (failed.id, failed.cause, failed.exit_code, failed.signal) == ("43.7", "exception", 1, None)
    assert failed.hint == "tq show 43.7; tq logs 43.7"


def test_an_error_that_nobody_catches_shows_the_workers_traceback_and_what_to_do():
    with pytest.raises(TaskFailed) as caught:
        result("dead", "exception", 1, RAISED).get()

    shown = "".join(traceback.format_exception(pickle.loads(pickle.dumps(caught.value))))
    assert shown.endswith("\non the worker:\nTraceback…\nhint: tq show 43.7; tq logs 43.7\n")
    assert "hint" not in "".join(traceback.format_exception(TqError("no")))


def test_an_exception_without_a_message_has_no_text():
    failed = result("dead", "exception", 1, {**RAISED, "message": ""}, error="m.Odd").error

    assert isinstance(failed, TaskFailed)
    assert (str(failed), failed.text) == ("task 43.7 raised m.Odd", "")


@pytest.mark.parametrize(
    "cause, code, error, text, exit_code, signal",
    [
        ("exit", 3, "", "task 43.7 exited with 3", 3, None),
        ("signal", -11, "", "task 43.7 was ended by signal 11", None, 11),
        ("time_limit", -15, "", "task 43.7 failed: time_limit", None, 15),
        (
            "bad_result",
            1,
            "object is not plain data",
            "task 43.7 failed: bad_result: object is not plain data",
            1,
            None,
        ),
        ("unknown_function", 127, "no module m", "task 43.7 failed: unknown_function: no module m", 127, None),
        ("lost", 0, "", "task 43.7 failed: lost", None, None),
        ("something_new", 0, "", "task 43.7 failed: something_new", 0, None),
    ],
)
def test_every_failure_is_a_sentence(cause, code, error, text, exit_code, signal):
    failed = result("dead", cause, code, error=error).error

    assert isinstance(failed, TaskFailed)
    assert (str(failed), failed.exit_code, failed.signal, failed.type) == (text, exit_code, signal, "")


@pytest.mark.parametrize("state", ["cancelled", "skipped", "expired"])
def test_what_had_no_end_of_its_own_is_cancelled(state):
    with pytest.raises(TaskCancelled, match=f"was {state}") as caught:
        result(state).get()
    assert caught.value.state == state


@pytest.mark.parametrize("value", [b"\xff\xff", plain.dumps([1], 10, ""), b""])
def test_an_exception_that_cannot_be_read_is_still_a_failure(value):
    failed = TaskResult(v.Result("1", "dead", 1, 1, "exception", value)).error

    assert isinstance(failed, TaskFailed)
    assert failed.cause == "exception"


def test_a_value_that_cannot_be_read_is_a_failure_of_its_task_alone():
    odd = TaskResult(v.Result("1", "succeeded", 1, 0, "exit", b"\xff\xff"))

    assert (odd.state, odd.value) == ("succeeded", None)
    with pytest.raises(TaskFailed, match="bad_result"):
        odd.get()


@pytest.mark.parametrize(
    "state, cause, value", [("dead", "exception", RAISED), ("dead", "exit", None), ("cancelled", "", None)]
)
def test_an_error_comes_whole_out_of_a_pool_of_processes(state, cause, value):
    error = result(state, cause, 1, value, error="why").error
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert (str(again), again.hint, vars(again)) == (str(error), error.hint, vars(error))  # type: ignore[union-attr]


def test_instants_are_iso_in_utc() -> None:
    assert documents.instant(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert documents.instant(0) is None
    assert documents.instant(2**62) is None


def test_units_become_those_of_the_contract() -> None:
    shown = documents.document(
        {
            "id": 42,
            "submitted_ms": 1_000,
            "started_ms": 0,
            "job_ended_ms": 2_000,
            "run_us": 1_500_000,
            "time_limit_ms": 250,
        }
    )
    assert shown == {
        "id": "42",
        "submitted_at": "1970-01-01T00:00:01.000Z",
        "started_at": None,
        "job_ended_at": "1970-01-01T00:00:02.000Z",
        "run_s": 1.5,
        "time_limit_s": 0.25,
    }


@pytest.mark.parametrize(
    "attempt, exit_code, signal",
    [
        ({"code": 7, "cause": "exit", "ended_ms": 5}, 7, None),
        ({"code": 0, "cause": "exit", "ended_ms": 5}, 0, None),
        ({"code": -9, "cause": "signal", "ended_ms": 5}, None, 9),
        ({"code": 0, "cause": "none", "ended_ms": 0}, None, None),
        ({"code": 0, "cause": "lost", "ended_ms": 5}, None, None),
        ({"code": 0, "cause": "drain", "ended_ms": 5}, None, None),
        ({"code": 0, "cause": "cancelled", "ended_ms": 5, "phase": "lost"}, None, None),
        ({"code": 0, "cause": "cancelled", "ended_ms": 5, "phase": "none"}, None, None),
        ({"code": 0, "cause": "cancelled", "ended_ms": 5, "phase": "ended"}, 0, None),
    ],
)
def test_exit_code_and_signal_are_apart(attempt: dict[str, object], exit_code: int | None, signal: int | None) -> None:
    shown = documents.document(attempt)
    assert (shown["exit_code"], shown["signal"]) == (exit_code, signal)
    assert "code" not in shown


def test_what_is_unknown_passes_through() -> None:
    assert documents.document({"new": [{"deep_ms": 5}], "raw": b"\xff"}) == {"new": [{"deep_s": 0.005}], "raw": "\\xff"}


def test_opaque_parts_are_never_shown_raw() -> None:
    assert documents.document({"body": b"\x83", "usage": b"\x80", "result": b"\x80"}) == {}
