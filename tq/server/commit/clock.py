"""The server's two clocks. The only place of the server that reads the time for commands.

The steady clock never goes back, over restarts neither: it starts at the last recorded value and the wall time that
passed while the server was down, cut to 0..24 h (a start with the clock in 2099 must not age everything away), and
then follows CLOCK_BOOTTIME, which counts while a laptop sleeps.
"""

import time
from collections.abc import Callable

from tq.core.model.job import Meta
from tq.core.vocabulary import Times

DOWN_MS_MAX = 24 * 3_600_000


def boot_ms() -> int:
    """Return the ms since the machine started, sleep included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def wall_ms() -> int:
    """Return the system's time in ms since 1970."""
    return time.time_ns() // 1_000_000


class Clock:
    """Both times of this life of the server."""

    def __init__(self, meta: Meta | None, wall: Callable[[], int] = wall_ms, boot: Callable[[], int] = boot_ms) -> None:
        self._wall = wall
        self._boot = boot
        down_ms = min(max(wall() - meta.wall_ms, 0), DOWN_MS_MAX) if meta is not None else 0
        self._offset_ms = (meta.steady_ms if meta is not None else 0) + down_ms - boot()

    def times(self) -> Times:
        """Return both clocks now."""
        return Times(self._boot() + self._offset_ms, self._wall())
