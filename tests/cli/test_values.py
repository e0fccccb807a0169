"""Words to values: durations, array ranges, names, sizes."""

import re
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tq import limits
from tq.cli.frame import values
from tq.cli.showing import selectors
from tq.core import vocabulary as v
from tq.errors import BadRequest


@pytest.mark.parametrize(
    "text, ms",
    [
        ("0", 0),
        ("90", 90_000),
        ("1.5", 1_500),
        ("10ms", 10),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("7d", 604_800_000),
        ("2w", 1_209_600_000),
        ("1h30m", 5_400_000),
        ("1.5h", 5_400_000),
        (" 10S ", 10_000),
    ],
)
def test_a_duration_is_seconds_or_has_a_unit(text: str, ms: int) -> None:
    assert values.duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "x", "-1", "10 minutes", "1h30", "h", "1e9", "inf", "5y", "999999999999d", "٣s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        values.duration_ms(text)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 1_000))
def test_an_array_has_the_members_of_its_range(first: int, length: int, step: int) -> None:
    span = values.array_range(f"{first}-{first + length}:{step}")
    assert span.size == len(range(first, first + length + 1, step))
    assert (span.first, span.step, span.throttle) == (first, step, 0)


def test_an_array_may_have_a_throttle_but_no_more_than_members() -> None:
    assert values.array_range("1-10%4").throttle == 4
    assert values.array_range("1-10%40").throttle == 10
    assert values.array_range("0-0").size == 1


def test_numbers_that_are_no_range_may_be_a_list() -> None:
    with pytest.raises(BadRequest) as refused:
        values.array_range("1,3,7-9")
    assert "::: 1 3 7" in (refused.value.hint or "")


def test_the_largest_array_is_as_large_as_the_bound() -> None:
    assert values.array_range(f"1-{limits.array_size_max}").size == limits.array_size_max
    with pytest.raises(BadRequest, match="array_size_max"):
        values.array_range(f"0-{limits.array_size_max}")


@given(st.text("alst013.-@x", max_size=12))
def test_a_word_that_may_be_a_name_selects_by_name_wherever_ids_may_stand(word: str) -> None:
    """And what may be none is never looked for as one."""
    asked: list[v.List] = []

    class Names:
        def ask(self, command: v.List) -> v.Page:
            asked.append(command)
            return v.Page(({"id": "99"},))

    with suppress(BadRequest):
        selectors.single(Names(), word)  # type: ignore[arg-type]
    try:
        values.findable(word)
    except BadRequest:
        assert not any(command.name for command in asked)
    else:
        assert asked
        assert all(command.name == word for command in asked)


@pytest.mark.parametrize("word", ["last.7", "last", "all", "42", "43.7", "43.1-5", "2026", "1.4"])
@pytest.mark.parametrize("check", [values.findable, lambda word: values.tags(["ok", word])])
def test_a_name_or_tag_that_means_ids_is_refused_with_a_way_out(check, word: str) -> None:
    with pytest.raises(BadRequest, match=f"^'{re.escape(word)}' is not a (name|tag): where an id may stand") as caught:
        check(word)
    assert "v1.4" in caught.value.hint


@pytest.mark.parametrize("word", ["2026-11-26", "v2026", "last7", "lastly", "all-of-it", "1.4-rc1"])
def test_dates_and_words_are_tags(word: str) -> None:
    assert values.tags([word]) == (word,)


@pytest.mark.parametrize(
    "text", ["", "5", "5-", "-5", "1-2-3", "2-1", "1-10:0", "1-10%0", "-5-5", "1,2", "1-٣", "0-9" * 30]
)
def test_what_is_no_array_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        values.array_range(text)


@given(st.text(max_size=200))
@example("2\x1f")  # white space for str.strip, not for float()
def test_whatever_is_typed_is_a_value_or_a_refusal(text: str) -> None:
    for parse in (
        values.duration_ms, values.array_range, values.name, values.cpus_milli, values.size_bytes, values.listen_address
    ):  # fmt: skip
        with suppress(BadRequest):
            parse(text)


@pytest.mark.parametrize(
    "text, size",
    [("0", 0), ("512", 512), ("1K", 1024), ("8G", 8 << 30), ("1.5M", 3 << 19), ("2GiB", 2 << 30), ("3kb", 3072)],
)
def test_a_size_counts_in_1024s(text: str, size: int) -> None:
    assert values.size_bytes(text) == size


@pytest.mark.parametrize("text", ["99999999999T", "1152921504606846977", "1048577T"])
def test_a_size_that_no_machine_has_is_refused(text: str) -> None:
    """A number beyond 64 bits in its offer ended each connection of a worker."""
    with pytest.raises(BadRequest, match=r"is not a size|exbibyte"):
        values.size_bytes(text)


def test_tags_are_split_and_counted() -> None:
    assert values.tags(["a,b", "b", "c"]) == ("a", "b", "c")
    with pytest.raises(BadRequest, match="tags_max"):
        values.tags([f"t{number}" for number in range(limits.tags_max + 1)])


@pytest.mark.parametrize(
    "text, address",
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:7878", ("::1", 7878)), ("queue:65535", ("queue", 65_535))],
)
def test_an_address_to_listen_at(text: str, address: tuple[str, int]) -> None:
    assert values.listen_address(text) == address


@pytest.mark.parametrize("text", ["", "7878", ":7878", "host:", "host:70000", "host:x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        values.listen_address(text)


@pytest.mark.parametrize(
    "text, waits_ms", [("1s..5m", (1_000, 300_000)), ("10ms", (10, 10)), ("0", (0, 0)), ("2..2", (2_000, 2_000))]
)
def test_a_backoff_is_a_first_and_a_longest_wait(text: str, waits_ms: tuple[int, int]) -> None:
    assert values.backoff_ms(text) == waits_ms


@pytest.mark.parametrize("text", ["", "5m..1s", "..", "1s..", "..1s", "1s...2s", "8d", "x"])
def test_what_is_no_backoff_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        values.backoff_ms(text)


def test_codes_are_exit_codes_and_signals() -> None:
    assert values.codes(["1,75", "TERM", "sigkill", "1"], "--retry-on") == (1, 75, -15, -9)
    for wrong in ("256", "-1", "", "1,,2", "NONSENSE", "1.5", "٣"):
        with pytest.raises(BadRequest, match="--retry-on"):
            values.codes([wrong], "--retry-on")
    with pytest.raises(BadRequest, match="retry_codes_max"):
        values.codes([",".join(map(str, range(100)))], "--retry-on")


def test_a_number_of_times_is_not_negative() -> None:
    assert values.count(0, "--retries") == 0
    for wrong in (-1, 10_000_000):
        with pytest.raises(BadRequest, match="--retries"):
            values.count(wrong, "--retries")
