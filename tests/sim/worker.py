"""The simulated worker: the real Slots and the real Hands, on a simulated connection, launcher and state directory.

What is here stands for the loops of the worker's program: dial, hold a session, beat, replace the launcher, leave. It
is killed, frozen (with or without its launcher), told to leave, and cut off; a successor comes on the same directory.
"""

from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

from tests.sim.launcher import Launcher, Pipe
from tests.sim.ledger import Ledger
from tests.sim.network import End
from tests.sim.server import Server
from tests.sim.world import MS, SECOND, Process, World
from tq import limits
from tq.core import vocabulary as v
from tq.core.task import Cause
from tq.wire import messages as m
from tq.worker import instructions as i
from tq.worker.hands import Hands
from tq.worker.slots import Slots

DRAIN_US: Final = 3 * SECOND
HELLO_US: Final = 5 * SECOND
GOODBYE_US: Final = 2 * SECOND


def carry_through(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run what waits for nothing here to its end."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits for something that the simulator does not have")


class Wire:
    """A worker's end of a connection, with the interface of `net.link.Link`: control messages before output."""

    def __init__(self, worker: "Worker", end: End) -> None:
        self.end = end
        self._worker = worker
        self._control: list[m.Message] = []
        self._output: list[m.Message] = []

    def send_nowait(self, message: m.Message, *, output: bool = False) -> None:
        """Send soon, together with whatever else is ready."""
        if not self._control and not self._output:
            self._worker.after(0, self._flush)
        (self._output if output else self._control).append(message)

    async def send(self, message: m.Message) -> bool:
        """Send, in the class of output; it always has room here."""
        self.send_nowait(message, output=True)
        return self.end.is_open

    def close(self, last: m.Message | None = None) -> None:
        """Send what is ready and close."""
        if last is not None:
            self._output.append(last)
        self._flush()
        self.end.close()

    def _flush(self) -> None:
        batch, self._control, self._output = self._control + self._output, [], []
        self.end.send(batch)


class Directory:
    """A worker's state directory: what survives it."""

    def __init__(self) -> None:
        self.last_worker = 0
        self.spool: dict[int, tuple[v.End, ...]] = {}


class Worker(Process):
    """One worker on its directory, life after life. Each life has a new id."""

    def __init__(self, world: World, ledger: Ledger, server: Server, name: str, capacity: v.Capacity) -> None:
        super().__init__(world, name)
        self.ledger = ledger
        self.server = server
        self.capacity = capacity
        self.directory = Directory()
        self.is_up = False
        self.end: End | None = None

    def start(self, *, names_predecessor: bool = True) -> None:
        """Begin a life."""
        world = self.world
        self.id = world.dice.getrandbits(63) | 1
        self.is_up = True
        self.predecessor = self.directory.last_worker if names_predecessor else 0
        if not names_predecessor:
            self.directory = Directory()
        self.hands = Hands(Slots(self.capacity, dict(self.directory.spool)), f"{self.id:016x}")
        self.note(f"starts as w{self.id:x}, after w{self.predecessor:x}, {len(self.directory.spool)} reports kept")
        self.launcher: Launcher | None = None
        self._waiting: deque[m.Message] = deque()
        self._tries = 0
        self._is_writing = False
        self._is_hurrying = False
        self._start_launcher()
        self._pause()

    def kill(self, *, names_predecessor: bool) -> None:
        """Be killed, with everything that runs here; a successor starts soon."""
        if self.is_up:
            self.note("is killed")
            self._die()
            self._succeed(names_predecessor)

    def _die(self) -> None:
        self.is_up = False
        if self.launcher is not None:
            self.launcher.die()
            self.launcher = None
        if self.end is not None:
            self.server.network.die(self.end)
            self.end = None
        self.end_life()

    def _succeed(self, names_predecessor: bool) -> None:
        def start() -> None:
            self.start(names_predecessor=names_predecessor)

        self.world.after(self.world.wait_us(500 * MS), start)

    @property
    def slots(self) -> Slots:
        """What is held."""
        return self.hands.slots

    # ------------------------------------------------------------ the launcher

    def _start_launcher(self) -> None:
        up = Pipe(self, self._from_launcher)
        self.launcher = Launcher(self.world, self.ledger, f"{self.name}/l", self.capacity.slots, up)
        self.hands.launcher = self.launcher  # type: ignore[assignment]
        self._take_messages()

    def kill_launcher(self) -> None:
        """The launcher dies, and what it runs; the worker hears of it when it has read what it said before."""
        if self.launcher is not None and not self.launcher.is_dead:
            self.note("its launcher dies")
            self.launcher.die()
            self.launcher.up.send(None)

    def _from_launcher(self, frame: Any) -> None:
        if frame is not None:
            carry_through(self.hands.take_frames([frame]))
            self._settle()
            return
        self.hands.launcher = self.launcher = None
        self.hands.carry_out(self.slots.launcher_died(Cause.DRAIN if self._is_hurrying else Cause.LOST))
        self._settle()
        if not self._is_hurrying:
            self.after(self.world.wait_us(50 * MS), self._start_launcher)

    # ------------------------------------------------------------ the connection

    def _pause(self) -> None:
        """Full jitter; who holds attempts comes back sooner."""
        longest_s = limits.reconnect_holding_s_max if self.slots.held else limits.reconnect_s_max
        self._tries += 1
        pause_s = min(longest_s, 0.2 * 2 ** min(self._tries, 16))
        self.after(int(self.world.dice.random() * pause_s * SECOND), self._dial)

    def _dial(self) -> None:
        if self.end is not None or not self.is_up:
            return
        end = self.server.network.dial(self, self.server, self.server.accept) if self.server.is_listening else None
        if end is None:
            self._pause()
            return
        self.end = end
        self._session = 0
        end.on_messages = lambda messages: self._welcome(end, messages)
        end.on_end = lambda: self._disconnected(end)
        end.send([m.Hello((1, 1), "sim", "", "worker", self.id, self.predecessor)])
        self.after(HELLO_US, self._hello_late, end)

    def _hello_late(self, end: End) -> None:
        if self.end is end and not self._session:
            self.drop("no welcome")

    def _welcome(self, end: End, messages: list[m.Message]) -> None:
        welcome, *rest = messages
        if not isinstance(welcome, m.Welcome):
            self.drop(f"refused: {welcome}")
            return
        self._session = welcome.session
        self._beat_us = welcome.beat_ms * MS
        self._is_heard = True
        self._silent = 0
        self._waiting_for = (0, 0)
        self._beat_due_us = self.world.now_us + self._beat_us
        end.on_messages = self._receive
        self.hands.link = Wire(self, end)  # type: ignore[assignment]
        self.hands.output.new_connection()
        self.hands.carry_out(self.slots.connected())
        self.after(self._beat_us, self._beat, end)
        self._receive(rest)

    def _receive(self, messages: list[m.Message]) -> None:
        self._is_heard = True
        self._waiting.extend(messages)
        self._take_messages()

    def _take_messages(self) -> None:
        """Take what came, but not while there is no launcher: what came would be lost with the old one."""
        hands = self.hands
        while self._waiting and self.launcher is not None and self.end is not None:
            message = self._waiting.popleft()
            match message:
                case m.Blob():
                    hands.take_blob(message)
                case m.Reconciled():
                    carry_through(hands.send_output())
                    hands.carry_out(hands.slots.receive(message))
                    self._tries = 0
                    self.directory.last_worker = self.id
                    self.world.count("reconciled")
                case m.ReconcileAgain():
                    hands.carry_out(hands.slots.receive(message))
                case _:
                    hands.carry_out(hands.slots.receive(message))
        self._settle()

    def _beat(self, end: End) -> None:
        if self.end is not end or self.hands.link is None:
            return
        is_late = self.world.now_us - self._beat_due_us > self._beat_us
        self.hands.link.send_nowait(self.slots.beat())
        self._silent = 0 if self._is_heard or is_late else self._silent + 1
        self._is_heard = False
        if self._silent >= limits.missed_beats_max or self._is_unacknowledged(is_late=is_late):
            self.drop("the server is silent")
            return
        self._beat_due_us = self.world.now_us + self._beat_us
        self.after(self._beat_us, self._beat, end)

    def _is_unacknowledged(self, *, is_late: bool) -> bool:
        oldest = next((delivery.delivery for delivery in self.slots.outbox), 0)
        number, beats = self._waiting_for
        beats = beats + 1 if oldest == number and oldest and not is_late else 0
        self._waiting_for = (oldest, beats)
        return beats * self._beat_us > limits.delivery_s_max * SECOND

    def drop(self, reason: str) -> None:
        """Close the connection from here, and dial again."""
        end = self.end
        if end is not None:
            self.note(f"drops its connection: {reason}")
            end.close()
            self._disconnected(end)

    def dial_again(self) -> bool:
        """Give the connection up without a word, and dial at once; what it sent last arrives late, or never."""
        end = self.end
        if end is None:
            return False
        end.is_open = False
        end.coming.clear()
        end.peer.held_until_us = self.world.now_us + self.world.wait_us(200 * MS)
        self._disconnected(end)
        self._dial()
        return True

    def _disconnected(self, end: End) -> None:
        if self.end is not end:
            return
        self._waiting.clear()
        self.end = None
        self.note("is disconnected")
        if self.hands.link is not None:
            self.hands.link = None
            self.hands.carry_out(self.slots.disconnected())
        self._settle()
        self._pause()

    # ------------------------------------------------------------ the disk

    def _settle(self) -> None:
        """See to what the last instructions want besides: the disk, and the steps of leaving."""
        if self.hands.to_disk and not self._is_writing:
            self._is_writing = True
            self.after(self.world.wait_us(3 * MS), self._write)

    def _write(self) -> None:
        work, self.hands.to_disk = self.hands.to_disk, []
        self._is_writing = False
        for _, instruction in work:
            match instruction:
                case i.Keep():
                    self.directory.spool[instruction.delivery] = instruction.ends
                    self.world.count("reports kept on disk")
                case i.Forget():
                    self.directory.spool.pop(instruction.delivery, None)
                case i.Aside():
                    self.world.count("results aside", len(instruction.ends))

    # ------------------------------------------------------------ leaving

    def leave(self) -> None:
        """Leave as on SIGTERM: drain, then stop what is left, say goodbye; a successor starts."""
        if self.is_up and not self.slots.is_leaving:
            self.note("is told to leave")
            self.hands.carry_out(self.slots.leave())
            self._settle()
            self._leave_when_idle(self.world.now_us + DRAIN_US)

    def _leave_when_idle(self, until_us: int) -> None:
        if not self.slots.is_idle and self.world.now_us < until_us:
            self.after(20 * MS, self._leave_when_idle, until_us)
            return
        if not self.slots.is_idle:
            self.hands.carry_out(self.slots.stop_all(Cause.DRAIN))
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
        if self.hands.link is not None:
            self.hands.link.close(m.Goodbye("the worker leaves"))
            self.end = None
        if self.hands.to_disk:
            self._write()
        self._die()
        self._succeed(names_predecessor=True)
