"""`logs` of a client's session: stored output, what comes, tails and positions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.server.hall import Hall, assigned, hello, open_hall, until
from tests.server.rig import submit
from tq import errors, limits
from tq.core import vocabulary as v
from tq.core.vocabulary import Cancel, Chunk, End, Logs, LogsEnd
from tq.limits import streams_max
from tq.server.sessions.admission import Quota
from tq.server.sessions.follow import pending_slots_max
from tq.server.sessions.log_reader import LogReader
from tq.wire import messages as m
from tq.wire.body import Usage
from tq.wire.codec import dumps


async def test_streams_of_one_connection_are_bounded() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit())
        numbers = [client.put(Logs("1", follow=True)) for _ in range(streams_max)]
        with pytest.raises(errors.NotDone, match="streams on one connection"):
            await client.ask(Logs("1"))
        client.send(m.Unsubscribe(numbers[0]))

        assert (await client.ask(Logs("1"))).state == "queued"


async def test_streams_of_one_token_are_bounded_over_all_its_connections() -> None:
    async with open_hall() as hall:
        await (await hall.client("submit")).ask(submit())
        token = await hall.token("read")
        hall.registry.streams = Quota("streams", streams_max + 1, 100, "later")
        clients = [await hall.connect(hello(token.text)) for _ in range(2)]
        for _ in range(streams_max):
            clients[0].put(Logs("1", follow=True))
        last = clients[1].put(Logs("1", follow=True))
        await until(lambda: len(hall.registry.streams) == streams_max + 1)
        with pytest.raises(errors.NotDone, match="one token may have 17 streams"):
            await clients[1].ask(Logs("1"))
        clients[1].send(m.Unsubscribe(last))
        clients[0].cut()
        await until(lambda: len(hall.registry.streams) == 0)


async def test_of_a_client_that_does_not_read_little_output_is_kept_in_memory() -> None:
    async with open_hall() as hall:
        _, worker, ref = await running(hall)
        for slot in range(60):
            worker.send(m.Output(ref, 1, slot * limits.output_slot_bytes, b"x" * limits.output_slot_bytes))
        await until(lambda: len(hall.store.output(ref.task, 1)) == 60)
        token = await hall.token("read")
        mute = await hall.connect(hello(token.text), is_slow=True)
        mute.reads = trio.Event()
        stored, looks = hall.store.output, 0

        def output(*args: Any) -> Any:
            nonlocal looks
            looks += len(args) == 3
            return stored(*args)

        hall.store.output = output  # type: ignore[method-assign]
        numbers = [mute.put(Logs("1")) for _ in range(4)]
        await trio.testing.wait_all_tasks_blocked()
        assert 0 < looks < 60
        mute.reads.set()
        for number in numbers:
            for _ in range(60):
                await mute.reply(number, wants_more=True)
            assert (await mute.reply(number)).totals == (60 * limits.output_slot_bytes, 0)


async def running(hall: Any) -> tuple[Any, Any, v.AttemptRef]:
    """Return a client, a worker, and the attempt that the worker runs for it."""
    client = await hall.client("submit")
    await client.ask(submit())
    worker = await hall.worker()
    (ref,) = assigned(await worker.receive(m.Assign))
    worker.send(m.Assigned(1))
    worker.send(m.StartedAttempts((ref,)))
    return client, worker, ref


async def test_stored_output_is_shown() -> None:
    async with open_hall() as hall:
        client, worker, ref = await running(hall)
        worker.send(m.Output(ref, 1, 0, b"out\n"))
        worker.send(m.Output(ref, 2, 0, b"err\n"))
        usage = dumps(Usage(written=(4, 4)))
        worker.send(m.Ended(1, (End(ref, 1, 0, 100, usage),)))
        await worker.receive(m.Acknowledged)
        number = client.put(Logs("1"))

        assert await client.reply(number, wants_more=True) == Chunk(1, 0, b"out\n", 1)
        assert await client.reply(number, wants_more=True) == Chunk(2, 0, b"err\n", 1)
        assert await client.reply(number) == LogsEnd(1, (4, 4), "succeeded")


async def test_following_shows_output_as_it_comes_until_the_end() -> None:
    async with open_hall() as hall:
        client, worker, ref = await running(hall)
        worker.send(m.Output(ref, 1, 0, b"one "))
        number = client.put(Logs("1", follow=True))
        assert (await client.reply(number, wants_more=True)).data == b"one "
        assert await worker.receive(m.FollowOutput) == m.FollowOutput(ref, True)
        worker.send(m.Output(ref, 1, 0, b"one two "))
        assert await client.reply(number, wants_more=True) == Chunk(1, 4, b"two ", 1)
        worker.send(m.Output(ref, 1, 0, b"one two three"))
        worker.send(m.Ended(1, (End(ref, 1, 0, 100),)))

        assert await client.reply(number, wants_more=True) == Chunk(1, 8, b"three", 1)
        assert await client.reply(number) == LogsEnd(1, (13, 0), "succeeded")


async def test_what_comes_while_the_reader_is_slow_is_sent_before_the_end() -> None:
    async with open_hall() as hall:
        _, worker, ref = await running(hall)
        sent: list[v.Answer] = []

        async def send(answer: v.Answer, *, more: bool) -> None:
            sent.append(answer)
            if answer == Chunk(1, 0, b"one", 1):
                worker.send(m.Output(ref, 1, 0, b"one two"))
                worker.send(m.Ended(1, (End(ref, 1, 0, 100),)))
                await worker.receive(m.Acknowledged)

        worker.send(m.Output(ref, 1, 0, b"one"))
        await LogReader(hall.context, Logs("1", follow=True), send).run()

        assert sent == [Chunk(1, 0, b"one", 1), Chunk(1, 3, b" two", 1), LogsEnd(1, (7, 0), "succeeded")]


async def test_a_reader_that_falls_far_behind_reads_on_from_the_store() -> None:
    async with open_hall() as hall:
        _, worker, ref = await running(hall)
        slot, last = limits.output_slot_bytes, pending_slots_max + 1
        sent: list[v.Answer] = []

        async def send(answer: v.Answer, *, more: bool) -> None:
            sent.append(answer)
            if len(sent) == 1:
                for number in range(1, last + 1):
                    worker.send(m.Output(ref, 1, number * slot, b"x" * slot), output=True)
                await until(lambda: len(hall.store.output(ref.task, 1)) > last)
            if getattr(answer, "offset", 0) == last * slot:  # and not only at the end
                worker.send(m.Ended(1, (End(ref, 1, 0, 100),)))

        worker.send(m.Output(ref, 1, 0, b"x" * slot))
        with trio.fail_after(5):
            await LogReader(hall.context, Logs("1", follow=True), send).run()

        offsets = [chunk.offset for chunk in sent if isinstance(chunk, Chunk)]
        assert offsets == [number * slot for number in range(last + 1)]


async def test_following_begins_before_the_first_attempt_and_ends_with_a_cancel() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit())
        number = client.put(Logs("1", follow=True))
        await trio.testing.wait_all_tasks_blocked()
        assert not client.has_reply(number)
        await client.ask(Cancel(("1",)))

        assert await client.reply(number) == LogsEnd(0, (0, 0), "cancelled")


async def test_following_goes_on_with_the_next_attempt() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit(retries=1))
        worker = await hall.worker()
        (ref,) = assigned(await worker.receive(m.Assign))
        number = client.put(Logs("1", follow=True))
        await worker.receive(m.FollowOutput)
        worker.send(m.Output(ref, 1, 0, b"first"))
        assert await client.reply(number, wants_more=True) == Chunk(1, 0, b"first", 1)
        worker.send(m.HandedBack(1, (ref,)))
        (again,) = assigned(await worker.receive(m.Assign))
        assert again.attempt == 2
        worker.send(m.Output(again, 1, 0, b"second"))

        assert await client.reply(number, wants_more=True) == Chunk(1, 0, b"second", 2)


@pytest.mark.parametrize(
    "logs, shown",
    [
        (Logs("1", follow=True, every=True), [b"1", b"2", b"3"]),
        (Logs("1", 2, follow=True, every=True), [b"2", b"3"]),
        (Logs("1", 1, follow=True), [b"1"]),
        (Logs("1", follow=True), [b"3"]),
    ],
)
async def test_of_attempts_that_were_quick_every_one_is_shown_to_who_asks_for_it(
    logs: Logs, shown: list[bytes]
) -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit(retries=3))
        worker = await hall.worker()
        for attempt in (1, 2, 3):
            (ref,) = assigned(await worker.receive(m.Assign))
            worker.send(m.Output(ref, 1, 0, str(attempt).encode()))
            if attempt < 3:
                worker.send(m.HandedBack(attempt, (ref,)))
        await until(lambda: len(hall.store.output(ref.task, 3)) == 1)
        number = client.put(logs)
        chunks = [await client.reply(number, wants_more=True) for _ in shown]
        assert [chunk.data for chunk in chunks if isinstance(chunk, Chunk)] == shown


@asynccontextmanager
async def held_up(hall: Hall, logs: Logs) -> AsyncIterator[tuple[list[v.Answer], trio.Event]]:
    """Read logs for somebody who has taken the first answer, and takes the next ones once the event is set."""
    sent: list[v.Answer] = []
    may_go_on = trio.Event()

    async def send(answer: v.Answer, *, more: bool) -> None:
        sent.append(answer)
        await may_go_on.wait()

    await trio.testing.wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(LogReader(hall.context, logs, send).run)
        await until(lambda: bool(sent))
        yield sent, may_go_on


async def test_an_attempt_that_began_and_ended_between_two_looks_is_not_left_out() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit(retries=3))
        worker = await hall.worker()
        (ref,) = assigned(await worker.receive(m.Assign))
        worker.send(m.Output(ref, 1, 0, b"1"))
        async with held_up(hall, Logs("1", follow=True)) as (sent, may_go_on):
            for attempt in (2, 3):
                worker.send(m.HandedBack(attempt - 1, (ref,)))
                (ref,) = assigned(await worker.receive(m.Assign))
                worker.send(m.Output(ref, 1, 0, str(attempt).encode()))
                await trio.testing.wait_all_tasks_blocked()
            may_go_on.set()
            worker.send(m.Ended(3, (End(ref, 1, 0, 100),)))

        assert [one.data for one in sent if isinstance(one, Chunk)] == [b"1", b"2", b"3"]


async def test_a_tail_is_of_the_attempt_that_was_there_and_later_ones_are_shown_whole() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit(retries=1))
        worker = await hall.worker()
        (ref,) = assigned(await worker.receive(m.Assign))
        worker.send(m.Output(ref, 1, 0, b"first"))
        async with held_up(hall, Logs("1", follow=True, tail_bytes=3)) as (sent, may_go_on):
            worker.send(m.HandedBack(1, (ref,)))
            (again,) = assigned(await worker.receive(m.Assign))
            worker.send(m.Output(again, 1, 0, b"second"))
            await trio.testing.wait_all_tasks_blocked()
            may_go_on.set()
            worker.send(m.Ended(2, (End(again, 1, 0, 100),)))

        assert sent == [Chunk(1, 2, b"rst", 1), Chunk(1, 0, b"second", 2), LogsEnd(2, (6, 0), "succeeded")]


async def test_a_position_and_a_tail_leave_out_what_was_seen() -> None:
    async with open_hall() as hall:
        client, worker, ref = await running(hall)
        worker.send(m.Output(ref, 1, 0, b"0123456789"))
        worker.send(m.Ended(1, (End(ref, 1, 0, 100),)))
        await worker.receive(m.Acknowledged)

        assert (await client.reply(client.put(Logs("1", position=(7, 0))), wants_more=True)).data == b"789"
        assert (await client.reply(client.put(Logs("1", tail_bytes=2)), wants_more=True)).data == b"89"


@pytest.mark.parametrize(
    "logs,error",
    [
        (Logs("9"), errors.TaskNotFound),
        (Logs("1", attempt=5), errors.TaskNotFound),
        (Logs("2"), errors.BadRequest),
        (Logs("1", attempt=-1), errors.BadRequest),
    ],
)
async def test_logs_of_what_is_not_there_are_refused(logs: Logs, error: type[errors.TqError]) -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit("a"))
        await client.ask(submit("b", size=3, is_array=True))
        with pytest.raises(error):
            await client.ask(logs)


async def test_who_stops_reading_logs_stops_the_worker_sending_them() -> None:
    async with open_hall() as hall:
        client, worker, ref = await running(hall)
        number = client.put(Logs("1", follow=True))
        await worker.receive(m.FollowOutput)
        client.send(m.Unsubscribe(number))

        assert await worker.receive(m.FollowOutput) == m.FollowOutput(ref, False)
