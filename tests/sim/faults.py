"""The faults of a run: which, when, and at which point of the commit loop.

A fault is armed with a kind and a point, and fires when the loop stands there: so the table of kinds and points has no
blank by design, and shows it (coverage.py).
"""

from typing import Final

from tests.sim.kinds import KINDS, Cast
from tq.server.commit_loop import Point

NAMES: Final = tuple(KINDS)
POINTS: Final = tuple(Point)
Cell = tuple[str, Point]


class Faults:
    """Arms one fault after the other, so that `wanted` of them are spread over the commands of a run."""

    def __init__(self, cast: Cast, wanted: int, commands: int) -> None:
        self.fired: dict[Cell, int] = {}
        self.total = 0
        self._cast = cast
        self._every = max(commands // (wanted + 2), 1)
        self._armed: Cell | None = None
        self._skips = 0
        self._tries = 0
        cast.server.at_point = self._at_point

    def _at_point(self, point: Point) -> None:
        if self._cast.world.is_calm:
            return
        if self._armed is None:
            if self._cast.server.total_commands < self._every * (self.total + 1):
                return
            self._arm()
        assert self._armed is not None
        kind, where = self._armed
        if where is not point:
            return
        self._skips -= 1
        if self._skips > 0:
            return
        self._tries += 1
        if KINDS[kind](self._cast._replace(point=point)):
            self.fired[self._armed] = self.fired.get(self._armed, 0) + 1
            self.total += 1
            self._cast.world.note("FAULT", f"{kind}, at {point.value}")
            self._armed = None
        elif self._tries > 20:
            self._armed = None

    def _arm(self) -> None:
        dice = self._cast.world.dice
        self._armed = (dice.choice(NAMES), dice.choice(POINTS))
        self._skips = dice.randint(1, 4)
        self._tries = 0
