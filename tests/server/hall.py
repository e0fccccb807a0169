"""A server's sessions without sockets: memory streams, a store in memory, the real commit loop and its trio driver.

    async with open_hall() as hall:
        client = await hall.client("submit")
        answer = await client.ask(Submit(...))

`hall.holds_flushes` keeps every flush back until `hall.let_flush()`.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair

from tests.server.rig import submit
from tests.support.fake_server import Peer
from tq import __version__, limits
from tq.core.engine.engine import Engine
from tq.core.vocabulary import (
    AttemptRef,
    BackupPart,
    Capacity,
    ClientCommand,
    CreateToken,
    Held,
    Recover,
    Recovered,
    Times,
    Upload,
)
from tq.errors import StoreError, TqError, from_code
from tq.net.idle_polling import IdlePolling
from tq.net.link import Link, open_link
from tq.net.token import Token, make_token
from tq.server.commit.commit_loop import Pipeline
from tq.server.commit.committer import run_pipeline
from tq.server.commit.intake import Intake, Request
from tq.server.commit.lease_clock import LeaseClock
from tq.server.sessions.registry import Registry
from tq.server.sessions.session import attend
from tq.server.sessions.session_context import Gate, Send, SessionContext
from tq.store.memory import MemoryStore
from tq.wire import messages as m
from tq.wire.connection import Connection

BEAT_S = 5.0
WALL_MS = 1_800_000_000_000
M = TypeVar("M", bound=msgspec.Struct)


class Client(Peer):
    """A peer that asks."""

    def __init__(self, link: Link, welcome: m.Message, rest: list[m.Message]) -> None:
        super().__init__(link, m.Hello((1, 1), "", "", ""), rest)
        self.acknowledges = False
        self.welcome = welcome
        self.reads = trio.Event()  # cleared by a test whose peer does not read for a while
        self.reads.set()
        self._numbers = count(1)

    def send(self, message: m.Message, *, output: bool = False) -> None:
        self.link.send_nowait(message, output=output)

    async def run(self) -> None:
        async for messages in self.link:
            self._take(messages)
            await self.reads.wait()
        self.has_ended.set()
        self._wake()

    async def ask(self, command: ClientCommand) -> Any:
        """Return the answer; raise the error that was sent instead."""
        return await self.reply(self.put(command))

    def put(self, command: ClientCommand) -> int:
        number = next(self._numbers)
        self.send(m.Ask(number, command))
        return number

    async def reply(self, number: int, *, wants_more: bool = False) -> Any:
        """Return the next answer with this number."""
        with trio.fail_after(20):
            while True:
                for message in self._unread:
                    if isinstance(message, m.Reply | m.Failed) and message.request == number:
                        self._unread.remove(message)
                        if isinstance(message, m.Failed):
                            raise from_code(message.code, message.message, message.hint)
                        assert message.more is wants_more
                        return message.answer
                if self.has_ended.is_set():
                    raise AssertionError(f"the session ended: {self.link.ended_because}")
                await self._news.wait()

    def has_reply(self, number: int) -> bool:
        return any(getattr(message, "request", None) == number for message in self._unread)


class Hall:
    """The desk of a server and whoever is connected to it."""

    def __init__(self, nursery: trio.Nursery, store: MemoryStore) -> None:
        self.nursery = nursery
        self.store = store
        self.engine = Engine(store)
        self.intake = Intake()
        self.registry = Registry()
        self.gate = Gate()
        self.lease_clock = LeaseClock(BEAT_S)
        self.holds_flushes = False
        self.share_max = 1_000  # connections of one token
        self.bugs: list[Exception] = []
        self.complaints: list[BaseException] = []
        self.struck: list[trio.abc.Stream] = []  # whose token was wrong
        self.failure: StoreError | None = None
        self._held_back: list[int] = []
        self._dice = count(1)
        self._workers_token: Token | None = None
        self.pipeline = Pipeline(
            self.engine,
            store,
            self.intake,
            times=self.times,
            lap_ms=lambda: 0.0,
            flush=self._flush,
            release=self.registry.release,
            rereads=self.registry.rereads,
            on_bug=lambda _command, _times, error: self.bugs.append(error),
        )
        self.context: SessionContext

    def times(self) -> Times:
        now_ms = round(trio.current_time() * 1_000)
        return Times(now_ms, WALL_MS + now_ms)

    async def run(self, *, task_status: trio.TaskStatus[Recovered]) -> None:
        try:
            await run_pipeline(self.pipeline, Recover(7), task_status.started)
        except StoreError as error:
            self.failure = error

    def open_desk(self, recovered: Recovered) -> None:
        self.context = SessionContext(
            engine=self.engine, store=self.store, pipeline=self.pipeline, intake=self.intake, registry=self.registry,
            lease_clock=self.lease_clock, idle_polling=IdlePolling(0.1), gate=self.gate, times=self.times,
            story=lambda: {"version": __version__},
            back_up=self.back_up, ca_pem=b"the CA", lineage=recovered.lineage, epoch=recovered.epoch,
            beat_ms=round(BEAT_S * 1_000),
        )  # fmt: skip

    async def back_up(self, send: Send) -> None:
        """Send a backup of two parts."""
        await send(BackupPart(0, b"one", 6, 7), more=True)
        await send(BackupPart(3, b"two", 6, 7), more=False)

    def let_flush(self) -> None:
        """Finish the flushes that were held back."""
        for sequence in self._held_back:
            self.store.flush(sequence)
            self.pipeline.flushed(sequence)
        self._held_back.clear()

    async def token(self, role: str, **fields: Any) -> Token:
        """Make a token and store it."""
        token = make_token(role, bytes([next(self._dice)] * 39))
        command = CreateToken(token.id, token.digest, fields.pop("stored_role", role), **fields)
        done = trio.Event()
        self.intake.inlet().put([Request(command, "test", lambda _: done.set())])
        await done.wait()
        return token

    async def workers_token(self) -> Token:
        """Return the one token of this hall's workers: an id belongs to the token that brought it."""
        self._workers_token = self._workers_token or await self.token("worker")
        return self._workers_token

    async def connect(self, *first: m.Message, is_slow: bool = False) -> Client:
        """Connect, send these, and return the peer with the first answer (a Welcome, a refusal) as `welcome`.

        With `is_slow` nothing that is sent fits in between: the peer has read it, or it waits.
        """
        ours, theirs = lockstep_stream_pair() if is_slow else memory_stream_pair()
        self.nursery.start_soon(self._attend, theirs)
        client: Client = await self.nursery.start(self._peer, ours, first)
        return client

    async def client(self, role: str = "admin", token: Token | None = None) -> Client:
        """Return a client that was welcomed."""
        token = token or await self.token(role)
        client = await self.connect(hello(token.text))
        assert isinstance(client.welcome, m.Welcome), client.welcome
        return client

    async def worker(self, number: int = 77, *held: Held, slots: int = 2, **fields: Any) -> Client:
        """Return a worker that was welcomed and reconciled."""
        peer = await self.bare_worker(number)
        peer.send(m.Reconcile(Capacity(slots=slots, host="host"), tuple(held), **fields))
        peer.reconciled = await peer.receive(m.Reconciled)  # type: ignore[attr-defined]
        return peer

    async def bare_worker(self, number: int = 77, *, is_slow: bool = False) -> Client:
        """Return a worker that was welcomed, and has not said what it holds."""
        token = await self.workers_token()
        peer = await self.connect(hello(token.text, "worker", worker=number), is_slow=is_slow)
        assert isinstance(peer.welcome, m.Welcome), peer.welcome
        return peer

    def _flush(self, sequence: int) -> bool:
        self._held_back.append(sequence)
        if not self.holds_flushes:
            self.let_flush()
        return False

    async def _attend(self, stream: trio.abc.Stream) -> None:
        arrival: Any = SimpleNamespace(
            stream=stream, host="127.0.0.1", peer="127.0.0.1:1", admit=lambda: None, share_max=self.share_max,
            hold_back=trio.lowlevel.checkpoint, strike=lambda: self.struck.append(stream),
        )  # fmt: skip
        try:
            await attend(arrival, self.context)
        except* TqError as group:
            self.complaints.extend(group.exceptions)

    async def _peer(
        self, stream: trio.abc.Stream, first: Sequence[m.Message], *, task_status: trio.TaskStatus[Client]
    ) -> None:
        async with open_link(stream, Connection(limits.frame_bytes_max)) as link:
            for message in first:
                link.send_nowait(message)
            welcome: m.Message | None = None
            rest: list[m.Message] = []
            async for messages in link:
                welcome, *rest = messages
                break
            client = Client(link, welcome, rest)  # type: ignore[arg-type]
            task_status.started(client)
            await client.run()


async def given_input(hall: Hall, pieces: Sequence[bytes] = (b"input",)) -> tuple[Client, Client, m.Assign]:
    """Submit a task with an uploaded input; return its client, a worker, and the assignment that this one got."""
    client = await hall.client("submit")
    for number, piece in enumerate(pieces):
        await client.ask(Upload("u", number * limits.piece_bytes_max, piece))
    worker = await hall.worker()
    await client.ask(submit(stdin_key="u"))
    return client, worker, await worker.receive(m.Assign)


def hello(token: str, role: str = "client", **fields: Any) -> m.Hello:
    return m.Hello(fields.pop("versions", m.VERSIONS), "test", token, role, **fields)


@asynccontextmanager
async def open_hall(store: MemoryStore | None = None) -> AsyncIterator[Hall]:
    """Run the sessions of a server while the block lasts."""
    async with trio.open_nursery() as nursery:
        hall = Hall(nursery, store or MemoryStore())
        hall.open_desk(await nursery.start(hall.run))
        yield hall
        nursery.cancel_scope.cancel()


def assigned(message: m.Assign) -> list[AttemptRef]:
    return [assignment.attempt for assignment in message.attempts]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something that nobody announces is so."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - nobody announces it
            await trio.sleep(0.01)
