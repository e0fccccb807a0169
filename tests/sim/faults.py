"""The faults: what may go wrong, and making it go wrong at a chosen point of the commit loop.

A fault is armed with a kind and a point, and fires when the loop stands there: so the table of kinds and points has no
blank by design, and shows it (coverage.py).
"""

from collections.abc import Callable
from typing import Final

from tests.sim.client import Client
from tests.sim.server import POINTS, Server
from tests.sim.worker import Worker
from tests.sim.world import MS, SECOND, World
from tq.server.commit_loop import Point

KINDS: Final = (
    "server crash",
    "server stop",
    "server freeze",
    "store failure",
    "worker kill, successor names it",
    "worker kill, successor does not",
    "worker freeze",
    "worker freeze, launcher too",
    "launcher death",
    "worker told to leave",
    "worker cut",
    "worker half-open at the server",
    "worker half-open at the worker",
    "worker on a second connection",
    "worker partition",
    "client cut",
    "client half-open",
    "submit sent twice",
)
Cell = tuple[str, Point]


class Faults:
    """Arms one fault after the other, so that `wanted` of them are spread over the commands of a run."""

    def __init__(
        self, world: World, server: Server, workers: list[Worker], clients: list[Client], wanted: int, commands: int
    ) -> None:
        self.world = world
        self.server = server
        self.workers = workers
        self.clients = clients
        self.fired: dict[Cell, int] = {}
        self.total = 0
        self._every = max(commands // (wanted + 2), 1)
        self._armed: Cell | None = None
        self._skips = 0
        self._tries = 0
        server.at_point = self._at_point

    def _at_point(self, point: Point) -> None:
        if self.world.is_calm:
            return
        if self._armed is None:
            if self.server.total_commands < self._every * (self.total + 1):
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
        if _FIRE[kind](self):
            self.fired[self._armed] = self.fired.get(self._armed, 0) + 1
            self.total += 1
            self.world.note("FAULT", f"{kind}, at {point.value}")
            self._armed = None
        elif self._tries > 20:
            self._armed = None

    def _arm(self) -> None:
        dice = self.world.dice
        self._armed = (dice.choice(KINDS), dice.choice(POINTS))
        self._skips = dice.randint(1, 4)
        self._tries = 0

    # ------------------------------------------------------------ the kinds

    def _time_us(self) -> int:
        return self.world.dice.choice((50 * MS, 500 * MS, 2 * SECOND, 6 * SECOND, 9 * SECOND))

    def _worker(self) -> Worker | None:
        up = [worker for worker in self.workers if worker.is_up]
        return self.world.dice.choice(up) if up else None

    def server_crash(self) -> bool:
        """Kill the server."""
        if self._armed is not None and self._armed[1] is Point.FLUSHING:  # anywhere in it, also when it is done
            self.server.after(self.world.dice.randint(0, 2 * MS), self.server.crash, "crashes")
        else:
            self.server.crash("crashes")
        return True

    def server_stop(self) -> bool:
        """Ask the server to stop."""
        if not self.server.is_listening:
            return False
        self.server.stop()
        return True

    def server_freeze(self) -> bool:
        """Let the server stand still."""
        self.server.freeze(self._time_us())
        return True

    def store_failure(self) -> bool:
        """Let every later write and flush fail."""
        self.server.disk.fail("input/output error")
        return True

    def worker_kill(self, *, names: bool) -> bool:
        """Kill a worker and all that it runs."""
        worker = self._worker()
        if worker is None:
            return False
        worker.kill(names_predecessor=names)
        return True

    def worker_freeze(self, *, with_launcher: bool) -> bool:
        """Let a worker stand still; what it runs goes on, or not."""
        worker = self._worker()
        if worker is None or worker.is_frozen:
            return False
        for_us = self._time_us()
        worker.freeze(for_us)
        if with_launcher and worker.launcher is not None:
            worker.launcher.freeze(for_us)
        return True

    def launcher_death(self) -> bool:
        """Kill a launcher and what it runs."""
        worker = self._worker()
        if worker is None or worker.launcher is None or worker.launcher.is_dead:
            return False
        worker.kill_launcher()
        return True

    def worker_leave(self) -> bool:
        """Tell a worker to leave."""
        worker = self._worker()
        if worker is None or worker.slots.is_leaving:
            return False
        worker.leave()
        return True

    def worker_cut(self, *, near: bool = True, far: bool = True) -> bool:
        """Cut a worker's connection; who does not notice goes on with half of it."""
        worker = self._worker()
        if worker is None or worker.line.end is None:
            return False
        self.server.network.cut(worker.line.end, near_notices=near, far_notices=far)
        return True

    def second_connection(self) -> bool:
        """Let a worker dial again while the server still has the old connection, and bytes of it are on their way."""
        worker = self._worker()
        if worker is None or worker.line.end is None:
            return False
        return worker.line.dial_again()

    def partition(self) -> bool:
        """Let nothing pass between a worker and the server for a while; then everything that was sent."""
        worker = self._worker()
        if worker is None:
            return False
        self.server.network.part(worker.name, worker.line.end, self._time_us())
        return True

    def client_cut(self, *, is_half: bool) -> bool:
        """Cut a client's connection."""
        client = self.world.dice.choice(self.clients)
        return client.cut(near_notices=not is_half, far_notices=self.world.chance(0.5))

    def submit_twice(self) -> bool:
        """Send a submit once more."""
        return self.world.dice.choice(self.clients).duplicate()


_FIRE: Final[dict[str, Callable[[Faults], bool]]] = {
    "server crash": Faults.server_crash,
    "server stop": Faults.server_stop,
    "server freeze": Faults.server_freeze,
    "store failure": Faults.store_failure,
    "worker kill, successor names it": lambda faults: faults.worker_kill(names=True),
    "worker kill, successor does not": lambda faults: faults.worker_kill(names=False),
    "worker freeze": lambda faults: faults.worker_freeze(with_launcher=False),
    "worker freeze, launcher too": lambda faults: faults.worker_freeze(with_launcher=True),
    "launcher death": Faults.launcher_death,
    "worker told to leave": Faults.worker_leave,
    "worker cut": Faults.worker_cut,
    "worker half-open at the server": lambda faults: faults.worker_cut(far=False),
    "worker half-open at the worker": lambda faults: faults.worker_cut(near=False),
    "worker on a second connection": Faults.second_connection,
    "worker partition": Faults.partition,
    "client cut": lambda faults: faults.client_cut(is_half=False),
    "client half-open": lambda faults: faults.client_cut(is_half=True),
    "submit sent twice": Faults.submit_twice,
}
