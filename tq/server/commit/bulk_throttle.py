"""What bulk may have of the commit loop: so many bytes a turn; and while others ask, less, and a rest after each.

A turn with its fill of bulk takes some milliseconds, the next part is there when it is over, and so whoever asks for
something finds the loop in such a turn nearly always. While anybody asks, or has within the last `bulk_beside_ms`, a
turn has a quarter of that, and the next `bulk_rest_ms` after it was over have none. The rest counts from there and not
from the questions: no number of them can starve an upload (docs/adr/0026-bulk-rests-while-others-ask.md).

Pure: whoever uses it brings the time.
"""

from math import inf

from tq import limits
from tq.server.commit.intake import Request


class BulkThrottle:
    """Told of each turn in its order: `begin`, `took` for each request, `close`, and `over` when its answers leave.

    A turn is begun while the one before it may not be over.
    """

    __slots__ = ("_begun_ms", "_beside_until_ms", "_bytes", "_rest_ms", "_rests_until_ms", "is_full")

    def __init__(self) -> None:
        self._begun_ms = 0  # when the open turn was begun
        self._bytes = 0  # of bulk, in it
        self.is_full = False  # whether it has its fill of them
        self._beside_until_ms = 0  # so long others are thought to ask
        self._rest_ms = limits.bulk_rest_ms
        self._rests_until_ms = 0.0  # infinity while the last turn that had bulk is not over

    def begin(self, steady_ms: int) -> None:
        """Begin a turn."""
        self._begun_ms = steady_ms
        self._bytes = 0
        self.is_full = False

    def took(self, request: Request) -> None:
        """Count a request that the open turn has taken."""
        if not request.bulk_bytes:
            self._beside_until_ms = self._begun_ms + limits.bulk_beside_ms
            return
        self._bytes += request.bulk_bytes
        is_beside = self._begun_ms < self._beside_until_ms
        self.is_full = self._bytes >= (limits.turn_bulk_bytes_beside_max if is_beside else limits.turn_bulk_bytes_max)

    def close(self) -> bool:
        """End the taking of the open turn; return whether it had bulk."""
        if self._bytes:
            self._rests_until_ms = inf
        return self._bytes > 0

    def over(self, steady_ms: int) -> None:
        """Begin the rest after a turn that had bulk."""
        self._rests_until_ms = steady_ms + self._rest_ms

    def lift(self) -> None:
        """Let bulk have no rest from now on: what waits is to be done with."""
        self._rest_ms = 0

    def rest_ms(self, steady_ms: int) -> int:
        """Return for how long, at the least, a turn may have no bulk."""
        left_ms = self._rests_until_ms - steady_ms
        return int(min(left_ms, self._rest_ms)) if left_ms > 0 and steady_ms < self._beside_until_ms else 0
