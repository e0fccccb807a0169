"""Entries are cut into runs that are within their bounds and, put together again, are the input."""

import os
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tq import limits
from tq.cli.submitting import entries
from tq.errors import BadRequest


@given(
    st.lists(
        st.one_of(
            st.lists(st.binary(max_size=3), max_size=5),
            st.integers(0, 3_000).map(lambda count: [b"x"] * count),
            st.integers(0, 120_000).map(lambda size: [b"y" * size]),
            st.integers(0, 9).map(lambda count: [b"z" * 70_000] * count),
        ),
        max_size=8,
    )
)
@settings(deadline=None, max_examples=60)
def test_runs_are_bounded_full_and_complete(batches: list[list[bytes]]) -> None:
    runs = list(entries.cut(iter(batches)))
    full = [run for run in runs if run]

    assert [entry for run in runs for entry in run] == [entry for batch in batches for entry in batch]
    assert len(runs) - len(full) == sum(not batch for batch in batches)
    assert all(len(run) <= limits.entries_items_max for run in full)
    assert all(sum(map(len, run)) <= limits.entries_bytes_max for run in full)
    for run, following in pairwise(full):
        has_room = sum(map(len, run)) + len(following[0]) <= limits.entries_bytes_max
        assert len(run) == limits.entries_items_max or not has_room


@given(st.lists(st.binary(max_size=4).map(lambda word: word.replace(b"\0", b"\n")), max_size=6))
@settings(deadline=None)
def test_where_a_read_ends_makes_no_difference(blocks: list[bytes]) -> None:
    data = b"".join(blocks)
    lines = data.split(b"\n")
    expected = lines[:-1] if lines[-1] == b"" else lines
    found = [line for batch in entries._lines((block for block in blocks if block), 100) for line in batch]

    assert found == expected


def test_a_silent_stream_is_told_and_its_end_alone_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(entries, "_SILENT_S", 0.001)
    monkeypatch.setattr(entries, "_open", lambda _: reading)

    def write_on() -> Iterator[bytes]:
        for piece in (b"a\nb", b"c\nd"):
            os.write(writing, piece)
            yield piece

    pieces = write_on()
    runs = []
    for run in entries.from_lines("-", 100):
        runs.append(run)
        if len(runs) % 3 == 0 and next(pieces, None) is None and len(runs) == 9:
            os.close(writing)

    assert [run for run in runs if run] == [(b"a", b"bc", b"d")]
    assert runs.count(()) >= 8


def test_a_file_that_cannot_be_read_to_its_end_is_no_shorter_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, size: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(entries.os, "read", fail)
    with pytest.raises(BadRequest, match="Input/output error"):
        list(entries.from_lines(__file__, 100))
