"""Documents as scripts see them: ISO times, seconds, exit codes and signals apart."""

import pytest

from tq.client.sansio import documents


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
