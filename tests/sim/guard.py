"""The simulated launcher's lease: what was submitted with `--if-cut stop` ends when its worker is cut off (ADR 15).

It stands for launcher/guard.py, in the world's time; that such a task has no second copy is looked at when its launcher
wakes up again, too.
"""

from typing import TYPE_CHECKING

from tests.sim.profiles import BOUND
from tests.sim.world import SECOND
from tq.core.model.task import Cause
from tq.launcher import protocol
from tq.launcher.attempt import Stage

if TYPE_CHECKING:
    from tests.sim.launcher import Attempt, Launcher


class Guard:
    """What of one launcher's attempts is bound to its worker's lease, and until when that lasts."""

    def __init__(self, launcher: "Launcher") -> None:
        self._launcher = launcher
        self._until_us = 0
        self._is_at_work = False

    def renew(self, until_s: float) -> None:
        """Let the lease last until then, and no longer."""
        self._until_us = int(until_s * SECOND)
        self.watch()

    def watch(self) -> None:
        """Look again when the lease is over."""
        launcher = self._launcher
        launcher.after(max(self._until_us - launcher.world.now_us, 0), self.cut_off)

    @property
    def bound(self) -> list["Attempt"]:
        """What must end with the lease."""
        return [attempt for attempt in self._launcher.held.values() if attempt.order.body == BOUND]

    def cut_off(self) -> None:
        """End what is bound to the lease, if that is over, and hand back what has not started."""
        launcher = self._launcher
        if launcher.world.now_us < self._until_us or self._is_at_work:
            return
        self._is_at_work = True
        bound = self.bound
        launcher.recall(protocol.Recall(tuple(attempt.ref for attempt in bound if attempt.stage is Stage.QUEUED)))
        for attempt in bound:
            if attempt.stage is Stage.RUNNING:
                launcher.world.count("cut off")
                attempt.cause = attempt.cause or Cause.CUT_OFF
                launcher.exits(attempt, -9)
        self._is_at_work = False

    def is_alive(self) -> bool:
        """Whether something runs that is bound to the lease."""
        return any(attempt.stage is Stage.RUNNING for attempt in self.bound)

    def thawed(self, life: int) -> None:
        """Look at what runs when its launcher goes on: what should have ended meanwhile has."""
        if life == self._launcher.life and not self._launcher.is_frozen:
            for attempt in self.bound:
                if attempt.stage is Stage.RUNNING:
                    self._launcher.ledger.check_alone(attempt.ref)
