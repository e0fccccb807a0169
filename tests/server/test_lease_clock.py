"""Who is lost, and who never is: the clock counts beats, it does not subtract times."""

import pytest

from tq.core.model.job import Meta
from tq.core.vocabulary import Times, WorkerLost
from tq.server.commit.clock import DOWN_MS_MAX, Clock
from tq.server.commit.lease_clock import LeaseClock

BEAT_S = 5.0


def ticks(clock: LeaseClock, count: int, late_s: float = 0.0) -> list[WorkerLost]:
    return [lost for _ in range(count) for lost in clock.tick(late_s)]


def test_a_silent_worker_is_lost_after_three_beats_and_one_tick() -> None:
    clock = LeaseClock(BEAT_S)
    clock.joined(7, 3)

    assert ticks(clock, 3) == []
    assert ticks(clock, 1) == [WorkerLost(7, 3)]
    assert ticks(clock, 10) == []  # said once


def test_any_sign_of_life_begins_the_count_anew() -> None:
    clock = LeaseClock(BEAT_S)
    clock.joined(7, 3)
    for _ in range(10):
        assert ticks(clock, 3) == []
        clock.heard(7, 3)

    assert ticks(clock, 4) == [WorkerLost(7, 3)]


def test_a_frozen_server_declares_nobody_lost() -> None:
    clock = LeaseClock(BEAT_S)
    clock.joined(7, 3)
    ticks(clock, 2)

    assert ticks(clock, 50, late_s=BEAT_S * 1.01) == []
    assert ticks(clock, 1) == []  # the third miss: it had no chance to be heard before
    assert ticks(clock, 1) == [WorkerLost(7, 3)]


def test_a_tick_that_is_a_little_late_counts() -> None:
    clock = LeaseClock(BEAT_S)
    clock.joined(7, 3)

    assert ticks(clock, 4, late_s=BEAT_S) == [WorkerLost(7, 3)]


def test_an_old_session_keeps_no_worker_alive() -> None:
    clock = LeaseClock(BEAT_S)
    clock.joined(7, 3)
    clock.joined(7, 4)
    ticks(clock, 3)
    clock.heard(7, 3)

    assert ticks(clock, 1) == [WorkerLost(7, 4)]


def test_a_newer_session_saves_a_worker_whose_old_one_was_silent() -> None:
    clock = LeaseClock(BEAT_S)
    clock.joined(7, 3)
    ticks(clock, 3)
    clock.joined(7, 4)

    assert ticks(clock, 3) == []


def test_a_worker_that_said_goodbye_is_not_waited_for() -> None:
    clock = LeaseClock(BEAT_S)
    clock.joined(7, 3)
    clock.joined(8, 4)
    clock.left(7, 3)
    clock.left(8, 3)  # an older session of it

    assert ticks(clock, 20) == [WorkerLost(8, 4)]


def test_after_a_start_with_shorter_beats_nobody_is_lost_before_the_longer_ones_are_over() -> None:
    """What must stop at a cut runs on for three beats as they were: nobody else may get it before that."""
    clock = LeaseClock(1.0)
    clock.owe((7,), held_s=30.0)
    assert ticks(clock, 30) == []
    assert ticks(clock, 1) == [WorkerLost(7, 0)]


@pytest.mark.parametrize("beat_s,beats", [(5.0, 12), (0.1, 50), (60.0, 12)])
def test_after_a_start_workers_are_owed_twelve_beats_and_at_least_five_seconds(beat_s: float, beats: int) -> None:
    clock = LeaseClock(beat_s)
    clock.owe((7,))

    assert ticks(clock, beats) == []
    assert ticks(clock, 1) == [WorkerLost(7, 0)]


def test_a_worker_that_came_back_in_its_window_is_an_ordinary_one() -> None:
    clock = LeaseClock(BEAT_S)
    clock.owe((7,))
    ticks(clock, 5)
    clock.joined(7, 1)

    assert ticks(clock, 4) == [WorkerLost(7, 1)]


def test_a_worker_that_was_faster_than_the_window_keeps_its_session() -> None:
    clock = LeaseClock(BEAT_S)
    clock.joined(7, 1)
    clock.owe((7,))

    assert ticks(clock, 4) == [WorkerLost(7, 1)]


def test_a_worker_is_suspect_from_its_first_missed_beat() -> None:
    clock = LeaseClock(BEAT_S)
    clock.joined(7, 1)
    seen = []
    for _ in range(3):
        clock.tick()
        seen.append(clock.missed(7))

    assert seen == [0, 1, 2]
    assert clock.missed(8) == 0


def test_who_is_suspect_is_said_to_be_silent_once_and_whoever_hears_of_it_then_is_told() -> None:
    clock = LeaseClock(BEAT_S)
    clock.joined(7, 3)
    clock.owe((8,))  # it is awaited, not silent
    clock.tick()
    assert clock.fallen_silent() == []
    clock.tick()
    assert clock.fallen_silent() == [7]
    clock.tick()
    assert clock.fallen_silent() == []

    assert not clock.heard(7, 2)
    assert clock.heard(7, 3)
    assert not clock.heard(7, 3)
    ticks(clock, 2)
    assert clock.fallen_silent() == [7]
    clock.joined(7, 4)
    assert clock.fallen_silent() == []
    assert not clock.heard(7, 4)


HOUR_MS = 3_600_000


class Machine:
    def __init__(self, wall_ms: int = 1_000_000_000, boot_ms: int = 77) -> None:
        self.wall_ms = wall_ms
        self.boot_ms = boot_ms

    def clock(self, meta: Meta | None = None) -> Clock:
        return Clock(meta, lambda: self.wall_ms, lambda: self.boot_ms)


def test_a_new_store_begins_at_zero() -> None:
    machine = Machine()

    assert machine.clock().times() == Times(0, 1_000_000_000)


def test_it_follows_the_boot_clock_whatever_the_wall_does() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.boot_ms += 500
    machine.wall_ms -= HOUR_MS

    assert clock.times().steady_ms == 500


@pytest.mark.parametrize(
    "down_ms,counted_ms", [(HOUR_MS, HOUR_MS), (-HOUR_MS, 0), (0, 0), (73 * 365 * 24 * HOUR_MS, DOWN_MS_MAX)]
)
def test_the_time_that_passed_while_down_counts_cut_to_a_day(down_ms: int, counted_ms: int) -> None:
    machine = Machine()
    meta = Meta(lineage=1, steady_ms=5_000, wall_ms=machine.wall_ms - down_ms)

    assert machine.clock(meta).times().steady_ms == 5_000 + counted_ms
