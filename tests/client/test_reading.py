"""Output of a task, read over a connection that breaks, faster than it is taken, and through several attempts."""

from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest
import trio
import trio.testing

import tq.client
from tq import limits
from tq.client import Output
from tq.client.drivers import connection
from tq.client.sansio.reading import Reading
from tq.core import vocabulary as v
from tq.errors import BadRequest, NotDone, TaskNotFound, Unreachable


def chunk(data: bytes, offset: int = 0, attempt: int = 1, stream: int = 1) -> v.Chunk:
    return v.Chunk(stream, offset, data, attempt)


def end(*totals: int, attempt: int = 1, state: str = "succeeded") -> v.LogsEnd:
    return v.LogsEnd(attempt, (totals[0], totals[1]), state)


async def read(job: Any, **how: Any) -> list[Output]:
    return [piece async for piece in job.logs(**how)]


async def test_what_is_stored_comes_in_order_and_says_what_was_dropped(connect, server):
    server.says[v.Logs] = lambda _: [chunk(b"a"), chunk(b"e", stream=2), chunk(b"z", 11), end(12, 1, state="running")]
    async with connect() as client:
        assert await read(client.job("42"), attempt=1) == [
            Output("42", 1, "stdout", b"a"), Output("42", 1, "stderr", b"e"), Output("42", 1, "stdout", b"z", 10),
        ]  # fmt: skip
    assert server.asked == [v.Logs("42", 1)]


async def test_behind_a_cut_it_goes_on_where_it_was(connect, server):
    says = iter([[chunk(b"abc"), chunk(b"x", stream=2), ...], [chunk(b"cd", 2), end(4, 1)]])
    server.says[v.Logs] = lambda _: next(says)
    async with connect() as client:
        pieces = await read(client.job("42"), attempt=1)
    assert b"".join(piece.data for piece in pieces if piece.stream == "stdout") == b"abcd"
    assert [asked.position for asked in server.asked] == [(0, 0), (3, 1)]


async def test_followed_it_goes_through_all_attempts_each_once(connect, server):
    says = iter([
        [chunk(b"one"), end(3, 0, state="retrying")],
        [chunk(b"one"), chunk(b"two", attempt=3), end(3, 0, attempt=3)],
    ])  # fmt: skip
    server.says[v.Logs] = lambda _: next(says)
    async with connect() as client:
        pieces = await read(client.job("42"), follow=True)
    assert [(piece.attempt, piece.data, piece.is_next) for piece in pieces] == [(1, b"one", False), (3, b"two", True)]
    assert all(asked.follow for asked in server.asked)


async def test_what_cannot_be_read_says_why(connect, server):
    def refuse(_: object) -> v.Answer:
        raise TaskNotFound("there is no job 42")

    server.says[v.Logs] = refuse
    async with connect() as client:
        with pytest.raises(TaskNotFound):
            await read(client.job("42"))
        for attempt in ("1", None, 1.5, 2**63):
            with pytest.raises(BadRequest, match="attempt cannot be"):
                await read(client.job("42"), attempt=attempt)


async def test_when_the_patience_ends_who_reads_is_told(connect, server):
    def cut(_: object) -> list[Any]:
        server.refuses = NotDone("it stops")
        return [chunk(b"abc"), ...]

    server.says[v.Logs] = cut
    async with connect(patience_s=0) as client:
        with pytest.raises(Unreachable):
            await read(client.job("42"), follow=True)


async def test_who_takes_slowly_gets_all_and_little_of_it_is_kept(server, environ, monkeypatch):
    monkeypatch.setattr(connection, "_AHEAD_BYTES_MAX", 1_000)
    whole = bytes(range(256)) * 100

    def logs(asked: v.Logs) -> Iterator[v.Answer]:
        is_over = not asked.attempt and len(server.asked) > 1  # all of it has been read, and only its end is stored
        first = len(whole) - 500 if is_over else asked.position[0]
        yield from (chunk(whole[at : at + 500], at) for at in range(first, len(whole), 500))
        yield end(len(whole), 0)

    server.says[v.Logs] = logs
    got = b""
    async with tq.client.connect(environ=environ) as client:
        async for piece in client.job("42").logs(follow=True):
            got += piece.data
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert got == whole
    assert len(server.asked) > 2


async def test_others_ask_meanwhile_and_who_leaves_is_not_told_any_more(server, environ):
    server.says[v.Logs] = lambda _: [chunk(b"a"), chunk(b"b", 1), end(2, 0)]
    async with tq.client.connect(environ=environ) as client:
        async with aclosing(client.job("42").logs()) as pieces:
            async for _ in pieces:
                assert (await client.job("43").show())["id"] == "43"
                break
        assert (await client.job("44").show())["id"] == "44"
    with tq.client.connect_blocking(environ=environ) as client:
        for _ in client.job("42").logs():
            assert client.job("43").show()["id"] == "43"
            break
        assert client.job("44").show()["id"] == "44"


async def test_more_readings_than_a_connection_may_have_take_turns(server, environ, monkeypatch):
    monkeypatch.setattr(limits, "streams_max", 2)
    server.says[v.Logs] = lambda asked: [chunk(asked.id.encode()), end(2, 0)]
    got: list[bytes] = []

    async def one(client: tq.client.Client, name: str) -> None:
        got.extend([piece.data async for piece in client.job(name).logs()])

    async with tq.client.connect(environ=environ) as client, trio.open_nursery() as nursery:
        for name in ("10", "11", "12", "13"):
            nursery.start_soon(one, client, name)
    assert sorted(got) == [b"10", b"11", b"12", b"13"]


def test_a_reading_that_is_not_of_the_latest_attempt_ends_with_it():
    reading = Reading("42", attempt=1, is_following=True)
    assert reading.command() == v.Logs("42", 1, follow=True)
    assert reading.end(end(0, 0, state="running")) is None
    assert reading.is_empty
