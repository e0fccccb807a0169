"""Decides which workers are lost, by counting ticks: the pure half of the lease clock (semantics.md, Delivery 3).

It counts, it does not subtract times. Each tick (one beat apart) adds one to what a worker has missed since it was
last heard; at `missed_beats_max` it is lost. Two rules keep a frozen server, or a laptop that slept, from declaring
anybody lost: whoever drives it first reads what lies in the sockets and says `heard` for it, and a tick that comes
more than one beat late counts as none. After a start of the server each worker that holds attempts is owed the
re-attach window, counted in ticks as well.

It never reads a clock and never talks to anybody: `tick()` returns the WorkerLost commands to send, `fallen_silent()`
who is suspect since it was asked last.
"""

import math

from tq import limits
from tq.core.vocabulary import WorkerLost


class _Watched:
    """One worker: its current session (0 while it is owed the re-attach window), and how many ticks it may miss.

    `is_silent`: it was said to be.
    """

    __slots__ = ("is_silent", "missed", "missed_max", "session")

    def __init__(self, session: int, missed_max: int) -> None:
        self.session = session
        self.missed = 0
        self.missed_max = missed_max
        self.is_silent = False


class LeaseClock:
    """Beats that each worker has missed. One tick is one beat of `beat_s` seconds."""

    def __init__(self, beat_s: float, *, missed_beats_max: int = limits.missed_beats_max) -> None:
        self.beat_s = beat_s
        self._missed_beats_max = missed_beats_max
        self._watched: dict[int, _Watched] = {}

    def owe(self, workers: tuple[int, ...], held_s: float = 0.0) -> None:
        """Give these workers the re-attach window: the server has just begun to listen, and they hold attempts.

        For `held_s` they may run on as an earlier life has let them, with longer beats (`--if-cut stop`).
        """
        window_s = max(limits.reattach_beats * self.beat_s, limits.reattach_s_min, held_s)
        ticks = math.ceil(window_s / self.beat_s)
        for worker in workers:
            if worker not in self._watched:
                self._watched[worker] = _Watched(0, ticks)

    def joined(self, worker: int, session: int) -> None:
        """Watch a worker's new session; a session that it supersedes is forgotten."""
        self._watched[worker] = _Watched(session, self._missed_beats_max)

    def heard(self, worker: int, session: int) -> bool:
        """Count a sign of life: any byte that came in on the worker's current session. Return whether it was said to be
        silent.
        """
        watched = self._watched.get(worker)
        if watched is None or watched.session != session:
            return False
        watched.missed = 0
        was_silent, watched.is_silent = watched.is_silent, False
        return was_silent

    def left(self, worker: int, session: int) -> None:
        """Stop watching a worker that said goodbye in this session."""
        watched = self._watched.get(worker)
        if watched is not None and watched.session == session:
            del self._watched[worker]

    def missed(self, worker: int) -> int:
        """Return how many beats a worker has missed; one or more makes it `suspect`."""
        watched = self._watched.get(worker)
        return max(0, watched.missed - 1) if watched is not None else 0

    def fallen_silent(self) -> list[int]:
        """Return the workers whose sessions are suspect and were not said to be silent yet."""
        silent = []
        for worker, watched in self._watched.items():
            if watched.missed > 1 and watched.session and not watched.is_silent:  # as in `missed`
                watched.is_silent = True
                silent.append(worker)
        return silent

    def tick(self, late_s: float = 0.0) -> list[WorkerLost]:
        """Count one beat, which comes `late_s` seconds after its time; return who is lost by it.

        Whoever calls has first let the readers take what lay in the sockets.
        """
        if late_s > self.beat_s:
            return []
        lost = []
        for worker, watched in list(self._watched.items()):
            watched.missed += 1
            # The first tick after a sign of life may come at once, so `n` beats have passed only at tick n + 1.
            if watched.missed > watched.missed_max:
                del self._watched[worker]
                lost.append(WorkerLost(worker, watched.session))
        return lost
