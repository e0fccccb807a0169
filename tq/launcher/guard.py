"""Attempts that must not outlive their worker's lease: those submitted with `--if-cut stop`.

The server gives a worker's attempts away once it has heard nothing of it for three beats. So whoever asked that no
second copy may run has this one KILLed earlier: three beats after the *sending* of the last beat that the server
answered. The worker says until when that is (`frames.Lease`), the launcher kills by itself when the time has come, so
that a worker that is frozen, stuck or dead cannot keep a copy alive.

Times are those of CLOCK_BOOTTIME, which goes on while the machine sleeps, and absolute, so that what lay in a socket
meanwhile is worth nothing. Before the first lease nothing of this kind starts. Pure but for `boot_s`.
"""

import time
from collections.abc import Iterable
from typing import Final

from tq.launcher.attempt import Attempt

look_s: Final = 0.25  # after a sleep of the machine, epoll waits on for what was left: never longer than this
_NEVER: Final = float("inf")


def boot_s() -> float:
    """Return the seconds since the machine was started, asleep or not: the same in all of its processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Guard:
    """The attempts of one launcher that are bound to the lease, and until when it lasts."""

    def __init__(self) -> None:
        self._until_s = -_NEVER
        self.attempts: Final[dict[Attempt, None]] = {}  # in order

    def renew(self, until_s: float) -> None:
        """Let the lease last until then, though it may have been said to last longer: the worker knows best."""
        self._until_s = until_s

    def add(self, attempts: Iterable[Attempt]) -> None:
        """Watch attempts whose submitter asked for that."""
        self.attempts.update(dict.fromkeys(attempts))

    def discard(self, attempt: Attempt) -> None:
        """Watch it no more."""
        self.attempts.pop(attempt, None)

    def wait_s(self) -> float:
        """Return for how long nobody need look."""
        return min(max(self._until_s - boot_s(), 0.0), look_s) if self.attempts else _NEVER

    def take_over(self) -> list[Attempt]:
        """Return what must end now because the lease is over, each once."""
        if not self.attempts or boot_s() < self._until_s:
            return []
        taken = list(self.attempts)
        self.attempts.clear()
        return taken
