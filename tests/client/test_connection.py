"""What the line of the trio client does with its questions when connections end: each gets one answer, and no other
server gets what was given up.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tq.client.drivers import connection as lines
from tq.client.drivers.connection import Line
from tq.client.target import Target
from tq.core import vocabulary as v
from tq.errors import ConfigurationError, TooLarge, TqError, Unauthorised, Unknown, Unreachable
from tq.wire import messages as m
from tq.wire.connection import Connection

TARGET = Target("h", 1, "t", "a CA", "", Path("/nowhere"), {})
SUBMIT = v.Submit("k", b"body")
CANCEL = v.Cancel(("42",))


class Server:
    """A link to one: says Welcome and then nothing, until the test ends it."""

    def __init__(self, lineage: int = 7) -> None:
        self.connection = Connection()
        self.ended_because = ""
        self.on_bytes: Callable[[], None] | None = None
        self.asked: list[object] = []
        self.end = trio.Event()
        self._words = [[m.Welcome(1, "tq", lineage, 1, 1, 5_000, "admin")]]

    def send_nowait(self, message: m.Message) -> bool:
        self.connection.encode(message)  # raises for what no frame carries
        if isinstance(message, m.Ask):
            self.asked.append(message.command)
        return True

    def __aiter__(self) -> "Server":
        return self

    async def __anext__(self) -> list[m.Message]:
        if self._words:
            return self._words.pop()
        await self.end.wait()
        raise StopAsyncIteration


class World:
    """What comes of each attempt to connect, in order; the last one stays."""

    def __init__(self, *ways: Server | TqError) -> None:
        self.ways = list(ways)
        self.dials = 0
        self.errors: list[TqError] = []

    async def dial(self, *_: object) -> Server:
        self.dials += 1
        way = self.ways.pop(0) if len(self.ways) > 1 else self.ways[0]
        if isinstance(way, TqError):
            raise way
        return way

    async def ask(self, line: Line, command: v.ClientCommand) -> None:
        try:
            await line.ask(command)
        except TqError as error:
            self.errors.append(error)


@asynccontextmanager
async def running(
    monkeypatch: pytest.MonkeyPatch, world: World, find: Callable[[], Target] = lambda: TARGET, patience_s: float = 5.0
) -> AsyncIterator[tuple[Line, trio.Nursery]]:
    @asynccontextmanager
    async def open_link(link: Any, *_: object, **__: object) -> AsyncIterator[Any]:
        yield link

    monkeypatch.setattr(lines, "dial", world.dial)
    monkeypatch.setattr(lines.tls, "client_context", lambda _: None)
    monkeypatch.setattr(lines, "open_link", open_link)
    line = Line(find, patience_s=patience_s)
    async with trio.open_nursery() as nursery:
        await nursery.start(line.run)
        yield line, nursery
        nursery.cancel_scope.cancel()


async def test_what_was_asked_of_another_store_is_unknown_and_the_new_one_never_gets_it(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    one, other = Server(7), Server(8)
    world = World(one, other)
    async with running(monkeypatch, world) as (line, nursery):
        for command in (CANCEL, v.Status(), v.Wait(("4",)), v.Logs("4"), v.Get("4"), v.GetResults("4")):
            nursery.start_soon(world.ask, line, command)
        await trio.sleep(1)
        one.end.set()
        await trio.sleep(5)
        assert sorted(type(error).__name__ for error in world.errors) == ["TaskNotFound"] * 4 + ["Unknown"]
        assert other.asked == [v.Status()]


async def test_ids_of_the_earlier_store_are_not_asked_of_another_though_nothing_was_under_way(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    one, other = Server(7), Server(8)
    world = World(one, other)
    async with running(monkeypatch, world) as (line, nursery):
        one.end.set()
        await trio.sleep(1)
        for command in (CANCEL, v.GetResults("4"), SUBMIT):
            nursery.start_soon(world.ask, line, command)
        await trio.sleep(5)
        assert sorted(type(error).__name__ for error in world.errors) == ["TaskNotFound"] * 2
        assert other.asked == [SUBMIT]


@pytest.mark.parametrize(
    "refusal, dials", [(Unauthorised("the token is not valid"), 2), (Unreachable("nobody there"), None)]
)
async def test_what_was_never_sent_is_not_unknown_and_a_refusal_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, refusal: TqError, dials: int | None
) -> None:
    one = Server()
    world = World(one, refusal)
    async with running(monkeypatch, world) as (line, nursery):
        one.end.set()
        await trio.sleep(1)
        nursery.start_soon(world.ask, line, CANCEL)
        await trio.sleep(60)
        assert [(type(error), error.message) for error in world.errors] == [(type(refusal), refusal.message)]
        assert dials in {None, world.dials}


async def test_connections_that_say_welcome_and_break_end_with_the_patience(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    one, *broken = [Server() for _ in range(1_000)]
    for server in broken:
        server.end.set()
    world = World(one, *broken)
    async with running(monkeypatch, world) as (line, nursery):
        nursery.start_soon(world.ask, line, CANCEL)
        await trio.sleep(1)
        one.end.set()
        await trio.sleep(60)
        assert [type(error) for error in world.errors] == [Unknown]
        assert 3 < world.dials < 100


async def test_each_answer_renews_the_patience(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A wait for days outlives any number of losses, each of them shorter than the patience."""
    away = [Unreachable("nobody there")] * 4
    servers = [Server() for _ in range(50)]
    for server in servers:
        server._words.insert(0, [m.Reply(1, v.Waited(False, ()), more=True)])
        server.end.set()
    last = Server()
    world = World(*(way for server in servers for way in (server, *away)), last)
    async with running(monkeypatch, world, patience_s=0.5) as (line, nursery):
        nursery.start_soon(world.ask, line, v.Wait(("42",)))
        with trio.fail_after(60):
            while not (last.asked or world.errors):  # noqa: ASYNC110
                await trio.sleep(1)
        assert last.asked == [v.Wait(("42",))]
        assert world.errors == []


@pytest.mark.parametrize("patience_s", [0.0, 5.0])
@pytest.mark.parametrize("error", [ConfigurationError("the CA is no PEM"), Unreachable("its file is away")])
async def test_what_fails_at_once_leaves_the_program_its_turn(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, error: TqError, patience_s: float
) -> None:
    one = Server()
    world = World(one)
    found = [TARGET]

    def find() -> Target:
        if not found:
            world.dials += 1
            assert world.dials < 1_000, "it spins"
            raise error
        return found.pop()

    async with running(monkeypatch, world, find, patience_s) as (line, nursery):
        nursery.start_soon(world.ask, line, CANCEL)
        await trio.sleep(1)
        one.end.set()
        await trio.sleep(60)
        assert [type(one) for one in world.errors] == [Unknown]


async def test_what_no_frame_carries_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    one = Server()
    world = World(one)
    async with running(monkeypatch, world) as (line, _):
        await world.ask(line, v.Wait(("x" * 100_000,) * 60))
        assert [type(error) for error in world.errors] == [TooLarge]
        one.end.set()
        await trio.sleep(60)
        assert world.dials == 1
