"""Turn keys and watermark notice every hole, name it, and take no torn tail for one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tq.errors import StoreDamaged
from tq.store import turns
from tq.store.turns import Run, Watermark, check_runs, pack_trimmed, read_run


def test_a_run_without_a_gap_ends_at_its_last_turn() -> None:
    assert read_run(None, []) == Run(0, 0)
    assert read_run(None, [1, 2, 3]) == Run(0, 3)
    assert read_run(pack_trimmed(10), [11, 12]) == Run(10, 12)
    assert read_run(pack_trimmed(10), []) == Run(10, 10)


@given(trimmed=st.integers(0, 50), length=st.integers(2, 30), holes=st.sets(st.integers(0, 28), min_size=1))
def test_any_hole_before_the_end_is_a_gap_and_named(trimmed: int, length: int, holes: set[int]) -> None:
    kept = [trimmed + 1 + place for place in range(length) if place not in holes or place == length - 1]
    run = read_run(pack_trimmed(trimmed), kept)
    missing = sorted(set(range(trimmed + 1, trimmed + length + 1)) - set(kept))
    if not missing:
        assert run == Run(trimmed, trimmed + length)
    else:
        assert run.gap is not None
        first, last = run.gap
        assert first == missing[0]
        assert all(turn in missing for turn in range(first, last + 1))
        assert last + 1 in kept


def test_all_families_at_or_above_the_watermark_are_whole() -> None:
    runs = {"a": Run(3, 9), "b": Run(3, 9)}
    assert check_runs(runs, 9) == check_runs(runs, 4) == 9


@pytest.mark.parametrize(
    "runs, watermark, text",
    [
        ({"a": Run(0, 9), "b": Run(0, 3, (4, 7))}, 9, "4 turns, 4 to 7, are not in family b"),
        ({"a": Run(0, 9), "b": Run(0, 3, (4, 4))}, 9, "turn 4 is not in family b"),
        ({"a": Run(0, 9), "b": Run(0, 7)}, 5, "2 turns, 8 to 9, are not in family b"),
        ({"a": Run(0, 9), "b": Run(0, 9)}, 12, "3 turns, 10 to 12, are not in all families"),
        ({"a": Run(2, 9), "b": Run(0, 9)}, 9, "different places"),
    ],
)
def test_what_is_missing_is_named(runs: dict[str, Run], watermark: int, text: str) -> None:
    with pytest.raises(StoreDamaged, match=text):
        check_runs(runs, watermark)


def test_the_watermark_is_exact_for_the_next_process_and_synced_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced, now = tmp_path / "watermark", list[int](), [100.0]
    Watermark.create(path)
    monkeypatch.setattr(turns.os, "fdatasync", synced.append)
    monkeypatch.setattr(turns.time, "monotonic", lambda: now[0])
    mark = Watermark(path)
    for turn in range(1, 5):
        mark.move(turn)
        assert Watermark(path).read() == turn
        now[0] += 0.4
    assert len(synced) == 1
    mark.sync()
    assert len(synced) == 1
    mark.move(5)
    mark.sync()
    mark.sync()
    assert len(synced) == 2
    mark.close()


@pytest.mark.parametrize("raw", [b"", b"\0" * 7, b"\0" * 9])
def test_a_watermark_of_another_size_is_damage(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "watermark").write_bytes(raw)
    with pytest.raises(StoreDamaged, match="8"):
        Watermark(tmp_path / "watermark").read()
