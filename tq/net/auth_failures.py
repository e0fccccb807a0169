"""Back-off by address: whoever comes with a wrong token waits before the next one is looked at.

A token has 256 bits, so nobody guesses one; this keeps them from trying at the rate of the line, and the log from being
filled by it. The pause doubles with each wrong token of an address up to a few seconds, since others may share it, and
is forgotten after a quiet minute. Loopback never waits: it counts in all only (connection_quota.py). Pure: the time
comes in.
"""

from typing import Final

from tq.limits import strikes_addresses_max

_FIRST_S: Final = 0.1
_LONGEST_S: Final = 3.0
_FORGOTTEN_S: Final = 60.0
_DOUBLINGS_MAX: Final = 16


class AuthFailures:
    """Wrong tokens by address, those that struck last last."""

    def __init__(self) -> None:
        self._struck: dict[str, tuple[int, float]] = {}  # how often, and when last

    def add(self, origin: str, now_s: float) -> None:
        """Note a wrong token. An empty origin is loopback."""
        if origin:
            count = self._count(origin, now_s)
            self._struck.pop(origin, None)
            self._struck[origin] = (count + 1, now_s)
            if len(self._struck) > strikes_addresses_max:
                del self._struck[next(iter(self._struck))]

    def pause_s(self, origin: str, now_s: float) -> float:
        """Return how long to wait before a token of this address is looked at."""
        count = self._count(origin, now_s)
        return min(_LONGEST_S, _FIRST_S * 2 ** min(count - 1, _DOUBLINGS_MAX)) if count else 0.0

    def _count(self, origin: str, now_s: float) -> int:
        count, last_s = self._struck.get(origin, (0, now_s))
        return count if now_s - last_s < _FORGOTTEN_S else 0
