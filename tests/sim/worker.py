"""The simulated worker: the real Slots and the real Hands, on a simulated connection, launcher and state directory.

What is here stands for the loops of the worker's program: dial, hold a session, beat, replace the launcher, leave. It
is killed, frozen (with or without its launcher), told to leave, and cut off; a successor comes on the same directory.
"""

from typing import Any, Final

import trio

from tests.sim.launcher import Launcher, Pipe
from tests.sim.ledger import Ledger
from tests.sim.line import Line, carry_through
from tests.sim.server import Server
from tests.sim.world import MS, SECOND, Process, World
from tq.core import vocabulary as v
from tq.core.model import ids
from tq.core.model.task import Cause
from tq.wire import messages as m
from tq.worker import instructions as i
from tq.worker.interpreter import Interpreter
from tq.worker.state import WorkerState

DRAIN_US: Final = 3 * SECOND
GOODBYE_US: Final = 2 * SECOND


class Directory:
    """A worker's state directory: what survives it."""

    def __init__(self) -> None:
        self.last_worker = 0
        self.spool: dict[int, i.Keep] = {}


class Worker(Process):
    """One worker on its directory, life after life. Each life has a new id."""

    line_of = Line

    def __init__(self, world: World, ledger: Ledger, server: Server, name: str, capacity: v.Capacity) -> None:
        super().__init__(world, name)
        self.ledger = ledger
        self.server = server
        self.capacity = capacity
        self.directory = Directory()
        self.is_up = False

    def start(self, *, names_predecessor: bool = True) -> None:
        """Begin a life."""
        world = self.world
        self.id = world.dice.getrandbits(63) | 1
        self.is_up = True
        self.predecessor = self.directory.last_worker if names_predecessor else 0
        if not names_predecessor:
            self.directory = Directory()
        kept = self.directory.spool.values()
        self.interpreter = Interpreter(WorkerState(self.capacity), ids.worker_id(self.id))
        self.interpreter.slots.restore([one.message for one in kept])
        for output in (output for one in kept for output in one.outputs):
            self.interpreter.output.put(output)
        self.note(f"starts as w{self.id:x}, after w{self.predecessor:x}, {len(self.directory.spool)} reports kept")
        self.launcher: Launcher | None = None
        self.line = self.line_of(self)
        self._is_writing = False
        self._is_hurrying = False
        self._drains = 0
        self._start_launcher()
        self.line.pause()

    def kill(self, *, names_predecessor: bool) -> None:
        """Be killed, with everything that runs here; a successor starts soon."""
        if self.is_up:
            self.note("is killed")
            self._die()
            self._succeed(names_predecessor)

    def _die(self) -> None:
        self.is_up = False
        kept = {output.attempt for one in self.directory.spool.values() for output in one.outputs}
        for ref in self.interpreter.output._keys.keys() - kept:  # output that is not on the disk goes with its worker
            self.ledger.written.pop(ref, None)
        if self.launcher is not None:
            self.launcher.die()
            self.launcher = None
        if self.line.end is not None:
            self.server.network.die(self.line.end)
            self.line.end = None
        self.end_life()

    def _succeed(self, names_predecessor: bool) -> None:
        def start() -> None:
            self.start(names_predecessor=names_predecessor)

        self.world.after(self.world.wait_us(500 * MS), start)

    @property
    def slots(self) -> WorkerState:
        """What is held."""
        return self.interpreter.slots

    # ------------------------------------------------------------ the launcher

    def _start_launcher(self) -> None:
        up = Pipe(self, self._from_launcher)
        self.launcher = Launcher(self.world, self.ledger, f"{self.name}/l", self.capacity, up)
        self.launcher.on_poison = self._poisoned
        self.interpreter.launcher = self.launcher  # type: ignore[assignment]
        self.line.take_messages()

    def kill_launcher(self) -> None:
        """The launcher dies, and what it runs; the worker hears of it when it has read what it said before."""
        if self.launcher is not None and not self.launcher.is_dead:
            self.note("its launcher dies")
            self.launcher.die()
            self.launcher.up.send(None)

    def _from_launcher(self, frame: Any) -> None:
        if frame is not None:
            carry_through(self.interpreter.take_frames([frame]))
            self.settle()
            return
        self.interpreter.launcher = self.launcher = None
        self.interpreter.carry_out(self.slots.launcher_died(Cause.DRAIN if self._is_hurrying else Cause.LOST))
        self.settle()
        if not self._is_hurrying:
            self.after(self.world.wait_us(50 * MS), self._start_launcher)

    def _poisoned(self) -> None:
        """A task has killed everything here, itself too."""
        self.kill(names_predecessor=True)

    # ------------------------------------------------------------ the disk

    def settle(self) -> None:
        """See to what the last instructions want besides: the disk, and the steps of leaving."""
        if self.interpreter.deadline_told.is_set():
            self._told_deadline()
        if self.interpreter.to_disk and not self._is_writing:
            self._is_writing = True
            self.after(self.world.wait_us(3 * MS), self._write)

    def _write(self) -> None:
        work, self.interpreter.to_disk = self.interpreter.to_disk, []
        self._is_writing = False
        for _, instruction in work:
            match instruction:
                case i.Keep():
                    self.directory.spool[instruction.message.delivery] = instruction
                    self.world.count("reports kept on disk")
                case i.Forget():
                    self.directory.spool.pop(instruction.delivery, None)
                case i.Aside():
                    self.directory.spool.pop(instruction.delivery, None)
                    self.world.count("results aside", len(instruction.ends))

    # ------------------------------------------------------------ leaving

    def _told_deadline(self) -> None:
        """Stop what still runs when the deadline of a drain has come, unless another word comes first (leave.py)."""
        self.interpreter.deadline_told = trio.Event()
        self._drains += 1
        if self.interpreter.stop_after_ms >= 0:
            self.after(self.interpreter.stop_after_ms * MS, self._drain_due, self._drains)

    def _drain_due(self, number: int) -> None:
        if number == self._drains and not self.slots.is_idle:
            self.server.drains.stops(self.id, self.server.now_boot_ms())
            self.interpreter.carry_out(self.slots.stop_all(Cause.DRAIN))
            self.settle()

    def leave(self) -> None:
        """Leave as on SIGTERM: drain, then stop what is left, say goodbye; a successor starts."""
        if self.is_up and not self.slots.is_leaving:
            self.note("is told to leave")
            self.interpreter.carry_out(self.slots.leave())
            self.settle()
            self._leave_when_idle(self.world.now_us + DRAIN_US)

    def _leave_when_idle(self, until_us: int) -> None:
        if not self.slots.is_idle and self.world.now_us < until_us:
            self.after(20 * MS, self._leave_when_idle, until_us)
            return
        if not self.slots.is_idle:
            self.interpreter.carry_out(self.slots.stop_all(Cause.DRAIN))
        self._goodbye(self.world.now_us + 10 * SECOND, 0)

    def _goodbye(self, until_us: int, deadline_us: int) -> None:
        """Wait until all has ended, then for the acknowledgements, and go."""
        if not self.slots.is_idle and self.world.now_us < until_us:
            self.after(20 * MS, self._goodbye, until_us, 0)
            return
        deadline_us = deadline_us or self.world.now_us + GOODBYE_US
        if self.slots.held and self.world.now_us < deadline_us:
            self.after(20 * MS, self._goodbye, until_us, deadline_us)
            return
        self.note(f"leaves, {len(self.slots.held)} not acknowledged")
        if self.interpreter.link is not None:
            self.interpreter.link.close(m.Goodbye("the worker leaves"))
            self.line.end = None
        if self.interpreter.to_disk:
            self._write()
        self._die()
        self._succeed(names_predecessor=True)
