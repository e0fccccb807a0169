"""Level 2: the real sessions of server and worker over streams in memory, under trio's virtual clock.

What level 1 rewrites for speed is the real thing here: `attend` with its two sessions, the links, the wire's bytes, the
loops of beats, of the lease clock and of deliveries, the trio driver of the commit loop, and a worker's session. Made
up are the network (wire.py), the disk's flush, the processes (launcher.py) and what clients want (client.py). The
ledger, the promises and the faults are those of level 1.
"""

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import trio
import trio.lowlevel

from tests.sim.client import Client
from tests.sim.line import Line
from tests.sim.network import Network
from tests.sim.server import Server, recover, take_bug
from tests.sim.wire import Wire, WireEnd
from tests.sim.worker import Worker
from tests.sim.world import MS, SECOND, Process
from tq import errors, limits
from tq.core.model import tables
from tq.core.vocabulary import CreateToken, Recover, Recovered
from tq.net.idle_polling import IdlePolling
from tq.net.link import Link, open_link
from tq.net.token import make_token
from tq.server.commit.commit_loop import Pipeline, Point
from tq.server.commit.committer import run_pipeline
from tq.server.commit.intake import Request
from tq.server.commit.lease_clock import LeaseClock
from tq.server.operation import loops
from tq.server.sessions.session import attend
from tq.server.sessions.session_context import Gate, SessionContext
from tq.store.directory import Room
from tq.wire import messages as m
from tq.wire.connection import Connection
from tq.worker.session import OtherLineage, Session

ADMIN: Final = make_token("admin", bytes([1] * 39))
WORKER: Final = make_token("worker", bytes([2] * 39))


class PlayedNetwork(Network):
    """Makes wires, and does to them what the faults of level 1 ask for."""

    def __init__(self, nursery: trio.Nursery, **fields: Any) -> None:
        super().__init__(**fields)
        self.nursery = nursery
        self.wires: dict[WireEnd, Wire] = {}

    def connect(self, process: Process, server: "PlayedServer") -> Wire | None:
        """Return a wire to the server, which attends to it; None when that fails now."""
        if self.partitions.get(process.name, 0) > self.world.now_us or not server.is_listening:
            return None
        wire = Wire(self.world, self.nursery, process.name)
        self.wires = {end: one for end, one in self.wires.items() if not (one.near.is_cut and one.far.is_cut)}
        self.wires[wire.near] = self.wires[wire.far] = wire
        server.attend(wire.far)
        return wire

    def cut(self, end: Any, *, near_notices: bool = True, far_notices: bool = True) -> None:
        """Break a connection in both directions. `end` is the near one, or what a client has of it."""
        end = getattr(end, "wire", end)
        if end in self.wires:
            self.wires[end].cut(near_notices=near_notices, far_notices=far_notices)

    def part(self, name: str, end: Any, for_us: int) -> None:
        """Let nothing pass for a while; what was sent arrives afterwards."""
        self.partitions[name] = self.world.now_us + for_us
        if end in self.wires:
            self.wires[end].held_until_us = self.partitions[name]

    def die(self, end: Any) -> None:
        """A process is gone."""
        if end in self.wires:
            self.wires[end].die(end)


class PlayedPipeline(Pipeline):
    """The real pipeline, with faults at each point, and a look at what leaves."""

    server: "PlayedServer"

    def steps(self, recover: Recover, on_recovered: Callable[[Recovered], None]) -> Iterator[Point]:
        """Yield as the real one; a server that a fault has killed here does no step more."""
        server = self.server
        for point in super().steps(recover, on_recovered):
            if server.pipeline is self and server.is_up:
                server.at_point(point)
                server.look(point)
            if server.pipeline is not self or not server.is_up:
                return
            yield point

    def _apply(self, turn: Any, request: Request) -> None:
        if request.reply is not None:
            request = request._replace(reply=partial(self._leaves, type(request.command).__name__, request.reply))
        super()._apply(turn, request)

    def _leaves(self, what: str, reply: Callable[[Any], None], answer: Any) -> None:
        if not isinstance(answer, errors.TqError):
            self.server.check_durable(f"the answer to {what}")
        reply(answer)


class PlayedServer(Server):
    """The simulated server's disk and deaths, with the real loops and sessions in between."""

    network: PlayedNetwork
    pipeline: PlayedPipeline

    def start(self) -> None:
        """Start on the disk as it is."""
        self._begin_life()
        self.gate = Gate()
        self.lease_clock = LeaseClock(self.beat_us / SECOND)  # `beats` is only for who asks it: the real loops tick
        self.scope = trio.CancelScope()
        self.pipeline = PlayedPipeline(
            self.engine, self.disk, self.intake, times=self.clock.times, lap_ms=lambda: 0.0,
            flush=self.committer.flush, release=self._release, rereads=self.registry.rereads,
            on_bug=partial(take_bug, self),
        )  # fmt: skip
        self.pipeline.server = self
        self.network.nursery.start_soon(self._live)

    async def _live(self) -> None:
        pipeline = self.pipeline
        with self.scope:
            async with trio.open_nursery() as nursery:
                self.nursery = nursery
                try:
                    recovered = await nursery.start(self._commit_loop)
                    self._open(recovered)
                    await self._make_tokens()
                    self.lease_clock.owe(recovered.workers, recovered.held_ms / 1_000)
                    self.is_listening = True
                    self.world.tell_all(self.name, f"listens, epoch {recovered.epoch}")
                    for loop in (loops.beats_loop, loops.lease_clock_loop, loops.deliveries_loop):
                        nursery.start_soon(loop, self.context)
                    await trio.sleep_forever()
                except* errors.StoreError:
                    pass  # the disk failed before anybody was told
        if self.pipeline is pipeline and self.is_up:
            self._go_down("has stopped", self.disk.unflushed)

    async def _commit_loop(self, *, task_status: "trio.TaskStatus[Recovered]") -> None:
        pipeline, life, scope = self.pipeline, self.life, self.scope
        try:
            await run_pipeline(pipeline, recover(self), task_status.started)
        except errors.StoreError as error:
            if life == self.life:
                self._go_down(f"exits: {error}", self.world.dice.randint(0, self.disk.unflushed))
        scope.cancel()

    def _open(self, recovered: Recovered) -> None:
        self.lineage, self.epoch = recovered.lineage, recovered.epoch
        self.context = SessionContext(
            engine=self.engine, store=self.disk, pipeline=self.pipeline, intake=self.intake, registry=self.registry,
            lease_clock=self.lease_clock, idle_polling=IdlePolling(0.1), gate=self.gate, times=self.clock.times,
            story=dict,
            back_up=None, ca_pem=b"", lineage=recovered.lineage, epoch=recovered.epoch, beat_ms=self.beat_us // MS,
        )  # type: ignore[arg-type]  # fmt: skip

    async def _make_tokens(self) -> None:
        for token in (ADMIN, WORKER):
            if self.disk.get(tables.TOKEN, (token.id,)) is None:
                made = trio.Event()
                command = CreateToken(token.id, token.digest, token.role)
                self.intake.inlet().put([Request(command, "server", lambda _, made=made: made.set())])
                await made.wait()

    def look(self, point: Point) -> None:
        """Check what must hold where the loop stands."""
        if point is Point.WRITTEN:
            self.checks.turn(self.disk, self.engine.live)
        elif point is Point.IDLE and self.pipeline.may_lease and not self.pipeline.has_work:
            self._check_idle()

    def _go_down(self, reason: str, surviving: int) -> None:
        super()._go_down(reason, surviving)
        self.scope.cancel()

    def attend(self, end: WireEnd) -> None:
        """Serve a connection."""
        self.ends = [one for one in self.ends if not one.is_cut]
        self.ends.append(end)  # type: ignore[arg-type]
        self.nursery.start_soon(self._attend, end)

    async def _attend(self, end: WireEnd) -> None:
        arrival: Any = SimpleNamespace(
            stream=end.stream,
            peer=end.name,
            admit=lambda: None,
            share_max=1_000,
            strike=lambda: None,
            hold_back=trio.lowlevel.checkpoint,
        )
        try:
            await attend(arrival, self.context)
        except* errors.ProtocolError as group:
            raise self.world.violated(f"{end.peer.name} said what no tq says: {group.exceptions}") from None
        except* errors.TqError as group:
            self.world.count("sessions that ended with a complaint", len(group.exceptions))
            self.note(f"complains of a session: {group.exceptions}")

    def fill_disk(self, for_us: int) -> None:
        """Let the disk be nearly full for a while."""
        self.gate.room, self.is_disk_low = Room.CRITICAL, True
        super().fill_disk(for_us)

    def _empty_disk(self) -> None:
        self.gate.room = Room.NORMAL
        super()._empty_disk()


class PlayedEnd:
    """A client's end: a real link, with the interface of level 1."""

    def __init__(self, wire: WireEnd) -> None:
        self.wire = wire
        self.is_open = True
        self.on_messages: Callable[[list[m.Message]], None] = lambda _: None
        self.on_end: Callable[[], None] = lambda: None
        self._waiting: list[m.Message] = []
        self._link: Link | None = None

    @property
    def is_cut(self) -> bool:
        """Whether nothing more comes."""
        return self.wire.is_cut

    @property
    def peer(self) -> WireEnd:
        """The server's end."""
        return self.wire.peer

    def send(self, messages: list[m.Message]) -> None:
        """Send, once the server has welcomed us."""
        self._waiting += [message for message in messages if not isinstance(message, m.Hello)]
        self._flush()

    def close(self) -> None:
        """Close."""
        self.is_open = False
        if self._link is not None:
            self._link.close()

    def _flush(self) -> None:
        if self._link is not None:
            for message in self._waiting:
                self._link.send_nowait(message)
            self._waiting.clear()

    async def run(self) -> None:
        """Hold the connection until it ends."""
        connection = Connection(limits.frame_bytes_max)
        async with open_link(self.wire.stream, connection) as link:
            link.send_nowait(m.Hello(m.VERSIONS, "sim", ADMIN.text, "client"))
            async for messages in link:
                if self._link is None and isinstance(messages[0], m.Welcome):
                    self._link = link
                    self._flush()
                if self.is_open:
                    self.on_messages(messages)
        if self.is_open:
            self.is_open = False
            self.on_end()


class PlayedClient(Client):
    """A client of level 1 on a real link."""

    def _dial(self) -> Any:
        network: Any = self.server.network
        wire = network.connect(self, self.server)
        if wire is None:
            return None
        end = PlayedEnd(wire.near)
        network.nursery.start_soon(end.run)
        return end


class PlayedLine(Line):
    """A worker's connections, one after the other, each a real session."""

    def _dial(self) -> None:
        worker: Any = self.worker
        if self.end is not None or not worker.is_up:
            return
        wire = worker.server.network.connect(worker, worker.server)
        if wire is None:
            self.pause()
            return
        self.end = wire.near
        worker.server.network.nursery.start_soon(self._hold, wire.near, worker.life)

    async def _hold(self, end: WireEnd, life: int) -> None:
        worker: Any = self.worker
        try:
            with trio.CancelScope() as scope:
                worker.scopes.append(scope)
                async with open_link(end.stream, Connection()) as link:
                    session = Session(worker.interpreter, link, self._reconciled)
                    hello = m.Hello(
                        m.VERSIONS,
                        "sim",
                        WORKER.text,
                        "worker",
                        worker.id,
                        worker.predecessors,
                        worker.interpreter.lineage,
                    )
                    rest = await session.begin(hello)
                    session.check(worker.interpreter.lineage, 0)
                    worker.note(f"is disconnected: {await session.run(rest)}")
        except (errors.TqError, OtherLineage) as error:
            worker.note(f"cannot connect: {error}")
        if worker.life == life and self.end is end:
            self.end = None
            worker.settle()
            self.pause()

    def _reconciled(self, welcome: m.Welcome) -> None:
        self._tries = 0
        self.worker.interpreter.lineage = welcome.lineage
        self.worker.directory.last_worker = self.worker.id
        self.worker.world.count("reconciled")

    def take_messages(self) -> None:
        """Nothing waits here: the session waits for its launcher itself."""

    def drop(self, reason: str) -> None:
        """Only the session drops its connection."""
        raise NotImplementedError(reason)

    def dial_again(self) -> bool:
        """Leave the old connection without a word, and dial at once."""
        return False


class PlayedWorker(Worker):
    """A worker of level 1 with the real session; what its launcher says is taken by a task, as in its program."""

    line_of = PlayedLine

    def start(self, *, names_predecessor: bool = True) -> None:
        """Begin a life."""
        self.scopes: list[trio.CancelScope] = []  # of its connections
        self._said, self._says = trio.open_memory_channel[Any](1 << 30)[::-1]
        super().start(names_predecessor=names_predecessor)
        network: Any = self.server.network
        network.nursery.start_soon(self._take_frames, self.life)
        network.nursery.start_soon(self._take_deadlines)

    @property
    def predecessors(self) -> tuple[int, ...]:
        """Who lived on this directory before."""
        return (self.predecessor,) if self.predecessor else ()

    def _die(self) -> None:
        super()._die()
        for scope in self.scopes:
            scope.cancel()
        self._says.close()

    def _start_launcher(self) -> None:
        super()._start_launcher()
        self.interpreter.launcher_is_ready.set()

    def _from_launcher(self, frame: Any) -> None:
        self._says.send_nowait(frame)

    async def _take_deadlines(self) -> None:
        """A session is told of a drain's deadline by itself, with no frame of the launcher."""
        with trio.CancelScope() as scope:
            self.scopes.append(scope)
            while True:
                await self.interpreter.deadline_told.wait()
                self.settle()

    async def _take_frames(self, life: int) -> None:
        async for frame in self._said:
            if life != self.life:
                return
            if frame is None:
                self.interpreter.launcher_is_ready = trio.Event()
                super()._from_launcher(None)
            else:
                await self.interpreter.take_frames([frame])
                self.settle()
