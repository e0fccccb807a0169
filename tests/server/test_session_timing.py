"""Sessions where things meet: numbers used again, an end between two turns, a reader that is slow."""

import datetime as dt
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from tests.server.hall import Hall, assigned, open_hall
from tests.server.rig import submit
from tq import errors
from tq.core import vocabulary as v
from tq.core.vocabulary import Cancel, Capacity, Chunk, End, Get, Logs, LogsEnd, Wait
from tq.server import serve
from tq.server.commit import clock
from tq.server.operation.identity import open_identity
from tq.server.sessions.client_session import ClientSession
from tq.server.sessions.log_reader import LogReader
from tq.server.sessions.session_context import Send
from tq.server.settings import Settings
from tq.store.directory import hold_directory
from tq.store.disk import open_store
from tq.wire import messages as m
from tq.wire.connection import Connection


def session_of_client(hall: Hall) -> ClientSession:
    found = [one for peers in hall.registry._by_token.values() for one in peers if isinstance(one, ClientSession)]
    return found[0]


async def test_a_stream_under_a_number_that_is_used_again_counts_and_can_be_ended() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit())
        for _ in range(40):
            client.send(m.Ask(7, Logs("1", follow=True)))
            client.send(m.Unsubscribe(7))
        client.send(m.Ask(7, Logs("1", follow=True)))
        await trio.testing.wait_all_tasks_blocked()
        session = session_of_client(hall)
        assert list(session._streams) == [7]
        assert len(hall.registry.follow._by_job[1]) == 1

        client.send(m.Unsubscribe(7))
        await trio.testing.wait_all_tasks_blocked()
        assert not session._streams
        assert not hall.registry.follow._by_job


async def test_a_stream_that_is_refused_as_it_is_unsubscribed_says_nothing() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        session, goes = session_of_client(hall), trio.Event()

        async def run(_send: Send) -> None:
            await goes.wait()
            raise errors.TaskNotFound("it is gone")

        session._stream(7, run)
        await trio.testing.wait_all_tasks_blocked()
        goes.set()
        session._unsubscribe(7)
        await trio.testing.wait_all_tasks_blocked()

        assert not client.has_reply(7)


async def test_a_wait_is_not_answered_with_what_another_one_under_its_number_asked() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit("a"))
        await client.ask(submit("b"))
        client.send(m.Ask(7, Wait(("1",))))
        client.send(m.Unsubscribe(7))
        client.send(m.Ask(7, Wait(("2",))))
        await client.ask(Cancel(("2",)))
        await client.ask(Cancel(("1",)))

        replies = [message for message in client.seen if isinstance(message, m.Reply) and message.request == 7]
        told = {outcome.id for reply in replies for outcome in reply.answer.outcomes}  # type: ignore[union-attr]
        assert told == {"2"}
        assert not replies[-1].more


async def test_a_wait_that_would_read_again_of_a_stopping_server_is_refused_and_no_bug() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit(size=2, is_array=True))
        number = client.put(Wait(("1.1", "1.2")))
        await client.reply(number, wants_more=True)
        waiting = session_of_client(hall)._waits[number].waiting
        hall.holds_flushes = True
        client.put(Cancel(("1.1",)))
        await trio.testing.wait_all_tasks_blocked()
        waiting.changed(1)  # two turns in a row: the first asks, the second comes before the answer
        waiting.changed(1)
        hall.pipeline.stop()
        hall.holds_flushes = False
        hall.let_flush()

        with pytest.raises(errors.NotDone):
            await client.reply(number)
        assert hall.bugs == []


@pytest.mark.parametrize("round_", range(8))  # trio rolls dice for who runs first
async def test_news_that_come_while_a_client_leaves_are_no_bug(round_: int) -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit())
        wait = Wait(("1",))
        number = client.put(wait)
        (outcome,) = (await client.reply(number, wants_more=True)).outcomes
        session = session_of_client(hall)
        client.send(m.Goodbye())
        count = 0
        while number in session._waits:
            count += 1
            session._waits[number].news = {}
            news = v.Waited(False, (replace(outcome, state=f"{round_}.{count}"),))
            session._waited(
                number, session._waits[number].waiting.wait, wait, news
            )  # as the commit loop does, at any time
            await trio.lowlevel.checkpoint()

        assert count > 0


async def test_a_slow_reader_sees_the_attempt_that_came_and_went_meanwhile() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit())
        worker = await hall.worker(slots=1)
        (ref,) = assigned(await worker.receive(m.Assign))
        worker.send(m.Output(ref, 1, 0, b"first"))
        sent: list[v.Answer] = []

        async def send(answer: v.Answer, *, more: bool) -> None:
            sent.append(answer)
            if len(sent) == 1:
                worker.send(m.HandedBack(1, (ref,)))
                (again,) = assigned(await worker.receive(m.Assign))
                worker.send(m.Output(again, 1, 0, b"second"))
                worker.send(m.Ended(2, (End(again, 1, 0, 100),)))
                for _ in range(2):
                    await worker.receive(m.Acknowledged)

        with trio.fail_after(20):
            await LogReader(hall.context, Logs("1", follow=True), send).run()

        assert sent == [Chunk(1, 0, b"first", 1), Chunk(1, 0, b"second", 2), LogsEnd(2, (6, 0), "succeeded")]


@pytest.mark.parametrize("command", [Logs("1"), v.StoreStatistics()])
async def test_a_store_that_cannot_be_read_stops_the_server_and_not_just_the_connection(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit())
        worker = await hall.worker()
        worker.send(m.Assigned((await worker.receive(m.Assign)).delivery))
        await client.ask(Get("1"))

        def broken(*_: object) -> Any:
            raise errors.StoreError("reading failed: input/output error")

        monkeypatch.setattr(hall.store, "output", broken)
        monkeypatch.setattr(hall.store, "statistics", broken)
        client.put(command)
        await trio.testing.wait_all_tasks_blocked()

        assert isinstance(hall.failure, errors.StoreError)


async def test_a_list_that_comes_late_on_the_older_connection_does_not_take_the_session_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_hall() as hall:
        await hall.worker()
        (older,) = hall.registry.workers
        stream, close = older._link.stream.receive_stream, older.close  # type: ignore[attr-defined]
        older.peer._is_asked_again = True  # type: ignore[attr-defined]
        late = Connection().send([m.Reconcile(Capacity(slots=2), ())])

        def close_late(reason: str) -> None:
            close(reason)
            stream.put_data(late)

        monkeypatch.setattr(older, "close", close_late)
        newer = await hall.worker()
        (session,) = hall.registry.workers

        assert session is not older
        assert hall.engine.live.workers[77].session_number == session.peer.session  # type: ignore[attr-defined]
        assert not newer.has_ended.is_set()


async def test_a_list_behind_something_else_in_its_frame_does_not_take_the_session_over_either() -> None:
    async with open_hall() as hall:
        await hall.worker()
        older: Any = hall.registry.workers[0]
        older.peer._is_asked_again = True
        await hall.worker()
        (session,) = hall.registry.workers
        await older._receive((m.Reconcile(Capacity(slots=2), ()),))

        assert session is not older
        assert hall.engine.live.workers[77].session_number == session.peer.session  # type: ignore[attr-defined]


HOUR_NS = 3_600 * 10**9


async def test_the_time_that_it_is_up_is_no_difference_of_wall_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall_ns, boot_ns = time.time_ns(), 77 * HOUR_NS
    monkeypatch.setattr(
        clock,
        "time",
        SimpleNamespace(
            time_ns=lambda: wall_ns, clock_gettime_ns=lambda _: boot_ns, CLOCK_BOOTTIME=time.CLOCK_BOOTTIME
        ),
    )
    settings = Settings(tmp_path / "data", tmp_path / "state", port=0)
    with hold_directory(settings.data) as lock:
        identity = open_identity(settings.data / "identity", dt.datetime.now(dt.UTC))
        store = open_store(lock)
        try:
            async with serve.open_server(settings, store, identity) as server:
                started_ms = wall_ns // 10**6
                assert server.story()["uptime_s"] == 0
                for jump_ns in (-HOUR_NS, 3 * HOUR_NS):
                    wall_ns += jump_ns
                    boot_ns += 90 * 10**9
                story = server.story()
                assert (story["uptime_s"], story["started_ms"]) == (180, started_ms)
                assert story["now_ms"] == wall_ns // 10**6
        finally:
            store.close()
