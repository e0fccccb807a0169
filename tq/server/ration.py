"""What bulk may have of the commit loop: so many bytes a turn, and a rest after each of its turns while others ask.

A turn with bulk takes some milliseconds, and whoever asks one thing after the other asks again within one. If bulk
filled each such gap, most questions would stand behind it, though they would leave most of the time to it. So if
anybody has asked for something in the last turn that had bulk, or since, the next has none until `bulk_rest_ms` after
that turn was over. The rest counts from there and not from the questions: no number of them can starve an upload.

Pure: whoever uses it brings the time.
"""

from math import inf

from tq import limits
from tq.server.intake import Request


class Ration:
    """Told of each turn in its order: `begin`, `took` for each request, `close`, and `over` when its answers leave.

    A turn is begun while the one before it may not be over.
    """

    __slots__ = ("_bytes", "_has_others", "_is_asked", "_rest_ms", "_rests_until_ms", "is_full")

    def __init__(self) -> None:
        self._bytes = 0  # of bulk, in the open turn
        self.is_full = False  # whether the open turn has its fill of them
        self._has_others = False  # in the open turn
        self._is_asked = False  # by others, in the last closed turn that had bulk, or since
        self._rest_ms = limits.bulk_rest_ms
        self._rests_until_ms = 0.0  # infinity while that turn is not over

    def begin(self) -> None:
        """Begin a turn."""
        self._bytes = 0
        self.is_full = self._has_others = False

    def took(self, request: Request) -> None:
        """Count a request that the open turn has taken."""
        if request.bulk_bytes:
            self._bytes += request.bulk_bytes
            self.is_full = self._bytes >= limits.turn_bulk_bytes_max
        else:
            self._has_others = self._is_asked = True

    def close(self) -> bool:
        """End the taking of the open turn; return whether it had bulk."""
        if not self._bytes:
            return False
        self._is_asked = self._has_others
        self._rests_until_ms = inf
        return True

    def over(self, steady_ms: int) -> None:
        """Begin the rest after a turn that had bulk."""
        self._rests_until_ms = steady_ms + self._rest_ms

    def lift(self) -> None:
        """Let bulk have no rest from now on: what waits is to be done with."""
        self._rest_ms = 0

    def rest_ms(self, steady_ms: int) -> int:
        """Return for how long, at the least, a turn may have no bulk."""
        left_ms = self._rests_until_ms - steady_ms
        return int(min(left_ms, self._rest_ms)) if left_ms > 0 and self._is_asked else 0
