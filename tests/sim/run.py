"""One seed, from an empty store to the end: faults while clients act, then calm, in which everything must end."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from tests.sim.checked import Moves, count_moves
from tests.sim.client import Client
from tests.sim.disk import Disk
from tests.sim.faults import NAMES, Cell, Faults
from tests.sim.kinds import Cast
from tests.sim.ledger import Ledger
from tests.sim.network import Network
from tests.sim.script import IMPOSSIBLE
from tests.sim.server import Server
from tests.sim.story import shortened, subject_of
from tests.sim.worker import Worker
from tests.sim.world import MS, SECOND, Subject, Violation, World
from tq import limits
from tq.core import vocabulary as v
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.view import pages
from tq.server.commit import intake
from tq.store.memory import MemoryStore
from tq.worker import interpreter

CALM_US: Final = 3_000 * SECOND
CHECK_EVERY: Final = 300  # turns
TINY: Final = Bounds(slice=3, leases=3, lanes=2)


class Result(NamedTuple):
    """What a run showed."""

    seed: int
    commands: int
    faults: int
    fired: dict[Cell, int]
    moves: Moves
    counts: dict[str, int]
    digest: int
    virtual_s: float
    violation: str
    history: tuple[str, ...]
    story: tuple[str, ...]  # of what the violation names


@contextmanager
def bounds_of(seed: int) -> Iterator[Bounds]:
    """Set every bound of a turn tiny in every second seed, so that slices, pages and cuts are walked through; and let
    no worker come back later than its beats say.
    """
    if seed % 2:
        yield Bounds()
        return
    tiny: list[tuple[Any, str, int]] = [
        (limits, "turn_changes_max", 40),
        (limits, "reattach_s_min", 1.0),
        (intake, "slice_requests", 2),
    ]
    before = [getattr(module, name) for module, name, _ in tiny]
    for module, name, value in tiny:
        setattr(module, name, value)
    try:
        yield TINY
    finally:
        for (module, name, _), value in zip(tiny, before, strict=True):
            setattr(module, name, value)


class Run:
    """One run of one seed."""

    def __init__(
        self,
        seed: int,
        bounds: Bounds,
        disk: MemoryStore | Disk,
        *,
        commands: int,
        faults: int,
        check_every: int,
        left_out: frozenset[int],
        kinds: Sequence[str],
    ) -> None:
        self.world = world = World(seed)
        self.commands = commands
        self.ledger = Ledger(world)
        network = Network(world, is_encoded=seed % 8 == 3)
        self.server = Server(world, network, self.ledger, disk, bounds, check_every)
        self.ledger.frozen = self._is_frozen
        self.server.is_quiet, self.server.drains.unstopped = self._is_quiet, self._unstopped
        self.workers = [
            Worker(world, self.ledger, self.server, f"worker{number}", self._capacity(number))
            for number in range(world.dice.randint(2, 4))
        ]
        self.clients = [
            Client(world, self.ledger, self.server, f"client{number}", world.dice.choice((100, 250, 400)) * MS)
            for number in range(world.dice.randint(2, 4))
        ]
        self.faults = Faults(Cast(world, self.server, self.workers, self.clients), faults, commands, left_out, kinds)
        self.wanted_faults = faults

    def _is_frozen(self, ref: v.AttemptRef) -> bool:
        """Whether the launcher that has this attempt stands still."""
        launchers = [worker.launcher for worker in self.workers if worker.launcher is not None]
        return any(launcher.is_frozen and ref in launcher.held for launcher in launchers)

    def _unstopped(self, worker_id: int) -> list[v.AttemptRef]:
        """Return what runs at a worker, and was not asked to stop."""
        worker = next((one for one in self.workers if one.id == worker_id), None)
        launcher = worker.launcher if worker is not None else None
        return launcher.unstopped if launcher is not None else []

    def _is_quiet(self, life: int, worker_id: int, session: int, since_us: int) -> bool:
        """Whether a worker and the server have been able to speak since then, in this life and session."""
        server, worker = self.server, next((one for one in self.workers if one.id == worker_id), None)
        if worker is None or not worker.is_up or worker.launcher is None or server.lives != life or not server.is_up:
            return False
        known, end = server.registry.worker(worker_id), worker.line.end
        if known is None or known.peer.session != session or end is None or end.is_cut or end.peer.is_cut:
            return False
        partition_us = server.network.partitions.get(worker.name, 0)
        frozen_us = max(one.frozen_until_us for one in (server, worker, worker.launcher))
        return max(partition_us, frozen_us, server.last_slow_us) <= since_us

    def _capacity(self, number: int) -> v.Capacity:
        dice = self.world.dice
        if number == 0:  # one that can run everything that is possible
            return v.Capacity(slots=dice.randint(2, 4), cpus_milli=4_000, mem_bytes=4 << 30, host="host0")
        queues = dice.choice(((), (), ("fast",), ("default", "night")))
        return v.Capacity(
            slots=dice.randint(1, 4), cpus_milli=dice.choice((0, 1_000, 3_000)), mem_bytes=dice.choice((0, 2 << 30)),
            host=f"host{number}", queues=queues,
        )  # fmt: skip

    def go(self) -> None:
        """Run; raises Violation."""
        world = self.world
        self.server.start()
        for actor in (*self.workers, *self.clients):
            actor.start()
        if not world.run(self._is_acted, world.now_us + 3_000 * SECOND):
            raise world.violated(f"only {self.server.total_commands} commands and {self.faults.total} faults happened")
        self._calm_down()
        if not world.run(self._is_drained, world.now_us + CALM_US):
            raise world.violated(f"liveness: not everything has ended: {self._left()}")
        self._check_end()

    def _is_acted(self) -> bool:
        return self.faults.total >= self.wanted_faults and self.server.total_commands >= self.commands

    def _calm_down(self) -> None:
        self.world.is_calm = True
        self.world.note("world", "calm: no more faults")
        self.server.poison.end()
        for client in self.clients:
            client.is_stopped = True
        self._tidy_up()

    def _tidy_up(self) -> None:
        """End what never ends by itself: held jobs, impossible ones, drained workers, queues that are shut."""
        client = self.clients[0]
        self._find_again()
        if self.server.is_up and client.is_idle:
            staying = {worker.id for worker in self.workers if worker.is_up and not worker.slots.is_leaving}
            for worker in self.server.engine.live.workers.values():
                if worker.draining and worker.worker in staying:
                    client.tell(v.Drain(f"w{worker.worker:016x}", on=False))
            for name in self.server.engine.live.queues:
                client.tell(v.SetQueue(name, paused=False, max=0))
            alive = [
                (str(key[0]), progress.hold)
                for page in pages(self.server.disk, tables.PROGRESS)
                for key, progress in page
                if not progress.is_ended and (progress.hold or self.ledger.jobs[key].demand == IMPOSSIBLE)
            ]
            for job, is_held in alive:
                client.tell(v.Release((job,)) if is_held and self.world.chance(0.7) else v.Cancel((job,)))
        self.world.after(5 * SECOND, self._tidy_up)

    def _find_again(self) -> None:
        """Let the workers come back of which a word was passed over: what it was about is given back then, and not
        before. What was passed over of the loss of one that never comes back, only a start finds (ADR 23).
        """
        server, alive = self.server, {worker.id: worker for worker in self.workers if worker.is_up}
        live = server.engine.live
        for number in live.workers if server.is_up else ():
            passed_over = {key for key in live.workers[number].held if live.has_failed_word(key)}
            worker = alive.get(number)
            if worker is None and passed_over:
                self.world.count("starts that find what a loss has passed over")
                server.crash("crashes")
                return
            if worker is not None and worker.line.end and passed_over - {ref.task for ref in worker.slots.held}:
                self.world.count("workers that come back for what was passed over")
                server.network.cut(worker.line.end)

    def _is_drained(self) -> bool:
        if self.world.events % 16:
            return False
        return (
            self.server.is_listening
            and all(client.is_idle for client in self.clients)
            and all(worker.is_up and not worker.slots.held for worker in self.workers)
            and not any(worker.held for worker in self.server.engine.live.workers.values())
            and not any(lane.ready for lane in self.server.engine.live.lanes.values())
            and self.server.disk.sequence == self.server.disk.flushed
            and not any(sum(lane.counts[:6]) for lane in self.server.engine.live.lanes.values())
        )

    def _left(self) -> str:
        alive = [(key, task) for key, task in self.ledger.tasks.items() if not task.state.is_terminal]
        busy = [(client.name, client.command, client.todo) for client in self.clients if not client.is_idle]
        return (
            f"tasks {alive[:3]}, clients {busy}, "
            f"workers {[(worker.name, worker.is_up, list(worker.slots.held.items())[:3]) for worker in self.workers]}, "
            f"lanes {list(self.server.engine.live.lanes.items())[:5]}, "
            f"live {[(f'w{n:x}', w.session, list(w.held)[:3]) for n, w in self.server.engine.live.workers.items()]}"
        )

    def _check_end(self) -> None:
        self.server.checks.everything(self.server.disk, self.server.engine.live)
        self.ledger.check_all(self.server.disk)
        self.server.promises.check_end()
        if self.ledger.running:
            raise self.world.violated(f"I10: processes live: {list(self.ledger.running.values())[:5]}")
        for table in (tables.RUNNING, tables.READY, tables.AGAIN, tables.SWEEP):
            if rows := self.server.disk.scan(table, (0,), (1 << 63,), 3):
                raise self.world.violated(f"idle, and {table.name} has {rows}")
        for worker in self.server.engine.live.workers.values():
            if worker.slots_used or worker.loads or worker.started or worker.recalled:
                raise self.world.violated(f"I8: idle, and w{worker.worker:x} has {worker.slots_used} slots reserved")


def run_seed(
    seed: int,
    *,
    commands: int = 2_000,
    faults: int = 20,
    data: Path | None = None,
    echo: Any = None,
    subject: Subject | None = None,
    check_every: int = CHECK_EVERY,
    left_out: frozenset[int] = frozenset(),
    kinds: Sequence[str] = NAMES,
) -> Result:
    """Run one seed; what goes wrong is in the result. With `data` the store is on disk there, else in memory.

    `left_out` are faults, by their number from 0, that do not happen (shrink.py), `kinds` those that may. A failed run
    in memory runs once more, to tell the story of what the violation names.
    """
    moves: Moves = {}
    violation = ""
    with bounds_of(seed) as bounds, count_moves(moves), patch.object(interpreter, "log", _ignore):
        disk = MemoryStore() if data is None else Disk(data)
        run = Run(
            seed,
            bounds,
            disk,
            commands=commands,
            faults=faults,
            check_every=check_every,
            left_out=left_out,
            kinds=kinds,
        )
        run.world.echo = echo
        run.world.subject = subject
        try:
            with run.server.poison.spread():
                run.go()
        except Violation as found:
            violation = str(found)
        except Exception as error:  # noqa: BLE001 - whatever a broken part raises is a finding of this seed
            violation = f"seed {seed}: {error!r}\n{traceback.format_exc()}"
        finally:
            run.server.disk.close()
    world = run.world
    result = Result(
        seed, run.server.total_commands, run.faults.total, run.faults.fired, moves, world.counts, world.digest,
        world.now_us / SECOND, violation, tuple(world.history), tuple(shortened(world.story)),
    )  # fmt: skip
    if not violation or subject is not None or data is not None:
        return result
    again = partial(run_seed, seed, commands=commands, faults=faults, left_out=left_out, kinds=kinds)
    if run.server.checks.has_found and check_every > 1:
        return again(check_every=1)  # found late: in which turn did it begin?
    named = subject_of(violation)
    return result._replace(story=again(check_every=check_every, subject=named).story) if named else result


def _ignore(*_: object, **__: object) -> None:
    """Stand in for the log."""
