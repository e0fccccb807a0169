"""Documents as scripts see them: ISO times, seconds, exit codes and signals apart."""

import pytest

from tq.cli import present


def test_instants_are_iso_in_utc() -> None:
    assert present.instant(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert present.instant(0) is None
    assert present.instant(2**62) is None


def test_units_become_those_of_the_contract() -> None:
    shown = present.document(
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
    shown = present.document(attempt)
    assert (shown["exit_code"], shown["signal"]) == (exit_code, signal)
    assert "code" not in shown


def test_what_is_unknown_passes_through() -> None:
    assert present.document({"new": [{"deep_ms": 5}], "raw": b"\xff"}) == {"new": [{"deep_s": 0.005}], "raw": "\\xff"}


def test_opaque_parts_are_never_shown_raw() -> None:
    assert present.document({"body": b"\x83", "usage": b"\x80", "result": b"\x80"}) == {}


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
