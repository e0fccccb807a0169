"""What is promised of a drain with a deadline, written down once more: what still runs then is stopped, and not before.

The worker keeps to it by itself, so cuts, losses and restarts change nothing (semantics.md). What is told of it again,
when a worker is back, is what is left of it. When it is over is counted by the server's machine, asleep or not.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from tests.sim.ledger import Ledger
from tests.sim.world import MS, SECOND
from tq.core.placement.live import LiveWorker
from tq.core.vocabulary import AttemptRef, Drain

STOPPED_US: Final = SECOND  # until a word is heard, and what runs is asked to stop


class Drains:
    """The deadlines of all workers, by the clock of the server's machine, over all lives of the server."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._first_ms: dict[int, int] = {}  # worker -> the first time at which it was ever to stop what it has
        self._last_ms: dict[int, int] = {}  # ... and the one that counts, if any
        self.unstopped: Callable[[int], list[AttemptRef]] = lambda _: []  # what a worker runs and nobody has stopped

    def asked(self, drain: Drain, now_ms: int) -> None:
        """Somebody drains a worker, with a deadline or without, or takes that back."""
        worker, due_ms = int(drain.worker[1:], 16), now_ms + drain.deadline_ms
        self._last_ms.pop(worker, None)
        if drain.on and drain.deadline_ms >= 0:
            self._last_ms[worker] = due_ms
            self._first_ms[worker] = min(due_ms, self._first_ms.get(worker, due_ms))

    def forgotten(self) -> None:
        """All are to come back to another life of the server: what they have not heard is forgotten."""
        self._last_ms.clear()

    def stops(self, worker: int, now_ms: int) -> None:
        """A worker stops what it has for a drain's deadline: nobody has given it less time."""
        self._ledger.world.count("drains with a deadline")
        due_ms = self._first_ms.get(worker, 1 << 62)
        if now_ms < due_ms:
            raise self._ledger.world.violated(f"w{worker:x} stops at {now_ms} what may run until {due_ms}")

    def watch(self, worker: LiveWorker, now_ms: int, is_quiet: Callable[[int, int, int], bool]) -> None:
        """A worker is told of its deadline, if it has one: look again when that is over."""
        due_ms, world = self._last_ms.get(worker.worker), self._ledger.world
        if due_ms is not None and worker.session is not None:
            still = partial(is_quiet, worker.worker, worker.session.number, world.now_us)
            world.after(max(due_ms - now_ms, 0) * MS + STOPPED_US, self._over, worker.worker, due_ms, still)

    def _over(self, worker: int, due_ms: int, is_quiet: Callable[[], bool]) -> None:
        if self._last_ms.get(worker) == due_ms and is_quiet() and (still := self.unstopped(worker)):
            raise self._ledger.world.violated(f"{still} still run on w{worker:x}, which was to stop them at {due_ms}")
