"""One seed of level 2: the town of played.py, from an empty store to the end.

    python -m tests.sim.played_run 7

trio itself is made deterministic by two private names; if a version of trio has them no more, that is said at once.
"""

import sys
import traceback
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import trio
from trio.testing import MockClock

from tests.sim.checked import Moves, count_moves
from tests.sim.faults import Faults
from tests.sim.kinds import KINDS, Cast
from tests.sim.ledger import Ledger
from tests.sim.played import PlayedClient, PlayedNetwork, PlayedServer, PlayedWorker
from tests.sim.run import CALM_US, Run, bounds_of
from tests.sim.wire import Clockwork, TrioWorld
from tests.sim.world import MS, SECOND, Violation
from tq.core.engine.engine import Bounds
from tq.net import log as log_module
from tq.server.sessions import client_session
from tq.store.memory import MemoryStore
from tq.worker import session as session_module

LEFT_TO_LEVEL_1: Final = {
    "server freeze": "trio cannot let one task stand still",
    "everything freezes": "as above",
    "worker freeze": "as above",
    "worker freeze, launcher too": "as above",
    "worker freeze at a pause": "as above",
    "client freeze": "as above",
    "worker on a second connection": "a session ends before the next one begins",
}
PLAYED: Final = tuple(name for name in KINDS if name not in LEFT_TO_LEVEL_1)


class Played(NamedTuple):
    """What a run showed."""

    seed: int
    commands: int
    faults: int
    moves: Moves
    counts: dict[str, int]
    digest: int
    virtual_s: float
    violation: str
    history: tuple[str, ...]


class PlayedRun(Run):
    """A run of level 1 with the real sessions."""

    def __init__(self, seed: int, bounds: Bounds, nursery: trio.Nursery, *, commands: int, faults: int) -> None:
        self.world = world = TrioWorld(seed)
        self.commands, self.wanted_faults = commands, faults
        self.ledger = Ledger(world)
        network = PlayedNetwork(nursery, world=world, is_encoded=True)
        self.server = PlayedServer(world, network, self.ledger, MemoryStore(), bounds, 300)
        self.ledger.frozen, self.server.is_quiet = self._is_frozen, self._is_quiet
        self.server.drains.unstopped = self._unstopped
        self.workers = [
            PlayedWorker(world, self.ledger, self.server, f"worker{number}", self._capacity(number))
            for number in range(world.dice.randint(2, 3))
        ]
        self.clients = [
            PlayedClient(world, self.ledger, self.server, f"client{number}", world.dice.choice((100, 250)) * MS)
            for number in range(world.dice.randint(2, 3))
        ]
        self.faults = Faults(Cast(world, self.server, self.workers, self.clients), faults, commands, kinds=PLAYED)

    async def play(self) -> None:
        """Run; raises Violation."""
        world, works = self.world, Clockwork(self.world)
        self.server.start()
        for actor in (*self.workers, *self.clients):
            actor.start()
        if not await works.run(self._is_acted, world.now_us + 3_000 * SECOND):
            raise world.violated(f"only {self.server.total_commands} commands and {self.faults.total} faults happened")
        self._calm_down()
        if not await works.run(self._is_drained, world.now_us + CALM_US):
            raise world.violated(f"liveness: not everything has ended: {self._left()}")
        self._check_end()


def play_seed(seed: int, *, commands: int = 400, faults: int = 14, echo: Any = None) -> Played:
    """Play one seed; what goes wrong is in the result."""
    moves: Moves = {}
    made: list[PlayedRun] = []
    violation = ""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            run = PlayedRun(seed, bounds, nursery, commands=commands, faults=faults)
            run.world.echo = echo
            made.append(run)
            with run.server.poison.spread():
                await run.play()
            nursery.cancel_scope.cancel()

    _make_deterministic(seed)
    with (
        bounds_of(seed) as bounds,
        count_moves(moves),
        patch.object(log_module, "_least", len(log_module.LEVELS)),
        patch.object(session_module, "boot_s", trio.current_time),
        patch.object(session_module, "log", _complained),
        patch.object(client_session, "present", lambda answer, **_: answer),
        patch.object(client_session, "present_page", lambda answer: answer),
    ):
        try:
            trio.run(main, clock=MockClock(autojump_threshold=0))
        except* Violation as found:
            violation = str(_leaf(found))
        except* Exception as found:  # noqa: BLE001 - whatever a broken part raises is a finding of this seed
            violation = f"seed {seed}: {_leaf(found)!r}\n{''.join(traceback.format_exception(_leaf(found)))}"
    run = made[0]
    world = run.world
    return Played(
        seed, run.server.total_commands, run.faults.total, moves, world.counts, world.digest,
        world.last_us / SECOND, violation, tuple(world.history),
    )  # fmt: skip


def _complained(event: str, **fields: Any) -> None:
    """Take what a worker's session writes down: that its server said what no tq says."""
    raise Violation(f"{event}: {fields}")


def _make_deterministic(seed: int) -> None:
    core = trio._core._run
    assert hasattr(core, "_ALLOW_DETERMINISTIC_SCHEDULING")
    core._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[attr-defined]
    core._r.seed(seed)


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def main(seeds: list[int]) -> int:
    """Play these seeds, say what each showed, and return the exit status."""
    failed = 0
    for seed in seeds:
        played = play_seed(seed)
        failed += bool(played.violation)
        if played.violation or len(seeds) == 1:
            print("\n".join(played.history[-60:]))
        trace = f"{played.digest & 0xFFFFFFFFFFFFFFFF:016x}"
        print(
            f"seed {seed}: {played.commands} commands, {played.faults} faults, {played.virtual_s:.1f} virtual s, "
            f"trace {trace}: {played.violation or 'every promise was kept'}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main([int(number) for number in sys.argv[1:]]))
