"""Values of documents as people see them."""

import pytest

from tq.cli.showing import present


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
