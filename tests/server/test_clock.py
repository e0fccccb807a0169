"""The steady clock never goes back, and a wrong wall clock ages nothing away."""

import pytest

from tq.core.model.job import Meta
from tq.core.vocabulary import Times
from tq.server.commit.clock import DOWN_MS_MAX, Clock

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
