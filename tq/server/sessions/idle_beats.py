"""Whether a worker rests: it had nothing to do from one beat to the next, and is read together with others (ADR 25).

Decides only how the worker's link is read; sends nothing, and knows no attempts.
"""

from typing import Final

from tq.net.idle_polling import IdlePolling
from tq.net.link import Link

_IDLE_BEATS: Final = 2


class Rest:
    """The rest of one worker's session."""

    __slots__ = ("_idle_beats", "_link", "_lounge", "is_on")

    def __init__(self, link: Link, lounge: IdlePolling) -> None:
        self.is_on = False
        self._link = link
        self._lounge = lounge
        self._idle_beats = 0  # in a row

    def beat(self, *, is_idle: bool) -> None:
        """Count a beat of the worker, which has nothing to do or has."""
        self._idle_beats = self._idle_beats + 1 if is_idle else 0
        if self._idle_beats >= _IDLE_BEATS and not self.is_on:
            self.is_on = True
            self._link.rest(self._lounge)

    def end(self) -> None:
        """Read the worker by itself: it has something to do, or to say."""
        self._idle_beats = 0
        if self.is_on:
            self.is_on = False
            self._link.rest(None)
