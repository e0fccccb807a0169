"""The simulated committer's thread: a flush takes its time, and the loop hears of its end a little later.

A crash may fall between the two: then everything is on disk, and nobody has been told.
"""

from typing import TYPE_CHECKING, Final

from tests.sim.world import MS
from tq.errors import StoreError

if TYPE_CHECKING:
    from tests.sim.server import Server

_FLUSHES_US: Final = (100, 400, 1_000, 5_000)
_SLOW_US: Final = 200 * MS
_SLOWEST_US: Final = 5_000 * MS
_NEWS_US: Final = 50


class Committer:
    """Flushes for one life of a server."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self.slow_until_us = 0
        self.fails_next = False

    def flush(self, sequence: int) -> bool:
        """Begin to flush everything up to this sequence: none is on disk at once."""
        server, world = self._server, self._server.world
        took_us = _SLOW_US if world.chance(0.01) else world.dice.choice(_FLUSHES_US)
        if world.now_us < self.slow_until_us:
            took_us = world.dice.randint(_SLOW_US, _SLOWEST_US)
            server.last_slow_us = world.now_us + took_us
        server.after(took_us, self._ends, sequence)
        return False

    def _ends(self, sequence: int) -> None:
        server = self._server
        try:
            self._flush(sequence)
        except StoreError as error:
            server.after(_NEWS_US, server.pipeline.fail, error)
            return
        server.ledger.flushed(sequence)
        server.after(_NEWS_US, server.pipeline.flushed, sequence)

    def _flush(self, sequence: int) -> None:
        if self.fails_next:
            self.fails_next, self._server.has_failed = False, True
            raise StoreError("input/output error at a flush")
        self._server.disk.flush(sequence)
