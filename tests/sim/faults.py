"""The faults of a run: which, when, and at which point of the commit loop.

A fault is armed with a kind and a point, and fires when the loop stands there: so the table of kinds and points has no
blank by design, and shows it (coverage.py). The cells are dealt like cards: a run goes on where the seed before it
ended, so some seeds in a row leave none out. The dice here are apart from those of the world, and a fault may be left
out (shrink.py): the others stay as they are.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

from tests.sim.kinds import KINDS, Cast
from tq.server.commit.commit_loop import Point

NAMES: Final = tuple(KINDS)
POINTS: Final = tuple(Point)
Cell = tuple[str, Point]
DECK: Final[list[Cell]] = [(name, point) for name in NAMES for point in POINTS]
Random(1).shuffle(DECK)
TRIES_MAX: Final = 12


class Faults:
    """Arms one fault after the other, so that `wanted` of them are spread over the commands of a run."""

    def __init__(
        self,
        cast: Cast,
        wanted: int,
        commands: int,
        left_out: frozenset[int] = frozenset(),
        kinds: Sequence[str] = NAMES,
    ) -> None:
        seed = cast.world.seed
        self._dice = Random(seed)
        self._deck = [cell for cell in DECK if cell[0] in kinds]
        self._deal = seed * wanted
        self._left_out = left_out  # ordinals of faults, from 0, that do not happen
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
        if self.total in self._left_out:
            self.total += 1
            self._armed = None
        elif KINDS[kind](self._cast._replace(point=point)):
            self.fired[self._armed] = self.fired.get(self._armed, 0) + 1
            self.total += 1
            self._cast.world.tell_all("FAULT", f"{kind}, at {point.value}")
            self._armed = None
        elif self._tries > TRIES_MAX:
            self._armed = None

    def _arm(self) -> None:
        self._armed = self._deck[self._deal % len(self._deck)]
        self._deal += 1
        self._skips = self._dice.randint(1, 4)
        self._tries = 0
