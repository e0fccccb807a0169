"""A client's session: answers after their flush, roles, subscriptions, logs."""

from typing import Any

import pytest
import trio
from msgspec.structs import replace

from tests.server.hall import BEAT_S, assigned, open_hall, until
from tests.server.rig import submit
from tq import errors, limits
from tq.core import vocabulary as v
from tq.core.vocabulary import (
    AddEntries,
    Cancel,
    Chunk,
    Drain,
    End,
    Get,
    List,
    Logs,
    LogsEnd,
    Status,
    StoreStatistics,
    Upload,
    Wait,
    Workers,
)
from tq.limits import streams_max, waits_max
from tq.server.follow import pending_slots_max
from tq.server.log_reader import LogReader
from tq.store.directory import Room
from tq.wire import messages as m
from tq.wire.body import Body, Usage
from tq.wire.codec import dumps


async def test_a_submit_is_answered_only_when_it_is_on_disk() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        hall.holds_flushes = True
        number = client.put(submit("k"))
        read = client.put(Get("1"))
        await trio.testing.wait_all_tasks_blocked()
        assert not client.has_reply(number)
        assert not client.has_reply(read)
        hall.holds_flushes = False
        hall.let_flush()

        assert (await client.reply(number)).id == "1"
        assert (await client.reply(read)).value["state"] == "queued"


async def test_requests_of_one_frame_are_answered_each() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        numbers = [client.put(submit(f"k{number}")) for number in range(200)]

        ids = [(await client.reply(number)).id for number in numbers]
        assert ids == [str(number) for number in range(1, 201)]


@pytest.mark.parametrize(
    "role,command",
    [
        ("read", submit()),
        ("read", Cancel(("1",))),
        ("submit", v.Tokens()),
        ("submit", Drain("w")),
        ("submit", v.CreateToken("x", bytes(32), "admin")),
    ],
)
async def test_what_a_role_may_not_do_is_refused_and_changes_nothing(role: str, command: Any) -> None:
    async with open_hall() as hall:
        client = await hall.client(role)
        before = hall.store.sequence
        with pytest.raises(errors.NotAllowed):
            await client.ask(command)

        assert hall.store.sequence == before


async def test_a_reader_sees_the_command_and_not_the_environment() -> None:
    async with open_hall() as hall:
        submitter = await hall.client("submit")
        await submitter.ask(submit(body=dumps(Body((b"echo", b"x"), b"/", {"PASSWORD": b"hunter2"}))))
        reader = await hall.client("read")
        seen = (await reader.ask(Get("1"))).value
        listed = (await reader.ask(List())).items

        assert seen["command"] == listed[0]["command"] == ["echo", "x"]
        assert "hunter2" not in repr((seen, listed))
        assert (await submitter.ask(Get("1"))).value["environment"] == {"PASSWORD": "hunter2"}


async def test_a_reader_of_dead_letters_sees_the_command_and_not_the_environment() -> None:
    async with open_hall() as hall:
        submitter = await hall.client("submit")
        body = Body((b"echo", b"x"), b"/", {"PASSWORD": b"hunter2"}, stdin=b"hunter2")
        await submitter.ask(submit(body=dumps(body)))
        worker = await hall.worker()
        (ref,) = assigned(await worker.receive(m.Assign))
        worker.send(m.Assigned(1))
        worker.send(m.Ended(1, (End(ref, 1, 3, 100),)))
        await worker.receive(m.Acknowledged)
        (letter,) = (await (await hall.client("read")).ask(v.DeadLetters())).items

        assert letter["command"] == ["echo", "x"]
        assert "hunter2" not in repr(letter)


async def test_a_malformed_body_is_refused_at_the_door() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        with pytest.raises(errors.BadRequest, match="malformed"):
            await client.ask(submit(body=b"\xff"))
        assert (await client.ask(Status())).value["jobs"] == 0


async def test_status_and_figures_of_the_store_are_answered() -> None:
    async with open_hall() as hall:
        client = await hall.client("read")

        assert (await client.ask(Status())).value["server"]["version"] == "0.1.0"
        assert (await client.ask(StoreStatistics())).value["kind"] == "memory"


@pytest.mark.parametrize("room", [Room.LOW, Room.CRITICAL])
async def test_a_nearly_full_disk_takes_no_new_work_but_everything_else(room: Room) -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit("a"))
        hall.gate.room = room
        for command in (submit("b"), Upload("u", 0, b"x"), AddEntries("u", 0, (b"x",))):
            with pytest.raises(errors.NotDone, match="disk"):
                await client.ask(command)

        assert (await client.ask(Cancel(("1",)))).done == 1
        assert (await client.ask(Get("1"))).value["state"] == "cancelled"


async def test_a_stopping_server_answers_not_done() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        hall.gate.is_stopping = True
        with pytest.raises(errors.NotDone, match="stopping"):
            await client.ask(submit())


async def test_after_a_failed_disk_everything_is_unknown() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        hall.holds_flushes = True
        number = client.put(submit("a"))
        await trio.testing.wait_all_tasks_blocked()
        hall.pipeline.fail(errors.StoreError("gone"))
        with pytest.raises(errors.Unknown):
            await client.reply(number)
        with pytest.raises(errors.Unknown):
            await client.ask(submit("b"))
        assert hall.failure is not None


async def test_a_client_may_not_speak_for_a_worker() -> None:
    async with open_hall() as hall:
        client = await hall.client("admin")
        client.send(m.Ended(1, ()))
        assert (await client.receive(m.Refused)).code == "protocol_error"
        await client.ended()


async def test_what_is_no_message_is_refused_before_the_connection_ends() -> None:
    async with open_hall() as hall:
        client = await hall.client("admin")
        client.send(m.Ask(1, v.Get(5)))  # type: ignore[arg-type]
        assert (await client.receive(m.Refused)).code == "protocol_error"
        await client.ended()


# ---------------------------------------------------------------- wait


async def test_waiting_ends_when_the_task_does() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit())
        number = client.put(Wait(("1",)))
        first = await client.reply(number, wants_more=True)
        assert (first.done, first.outcomes[0].state) == (False, "queued")
        worker = await hall.worker()
        (ref,) = assigned(await worker.receive(m.Assign))
        worker.send(m.Assigned(1))
        worker.send(m.Ended(1, (End(ref, 1, 3, 100),)))
        await worker.receive(m.Acknowledged)

        while True:
            reply = await client.receive(m.Reply)
            if not reply.more:
                break
        assert reply.answer.done
        assert (reply.answer.outcomes[0].state, reply.answer.outcomes[0].code) == ("dead", 3)
        assert len(hall.registry.watch) == 0


async def test_of_changes_in_quick_succession_none_is_left_untold() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        for _ in range(4):
            await client.ask(submit())
        number = client.put(Wait(("1", "2", "3", "4")))
        await client.reply(number, wants_more=True)
        await client.ask(Cancel(("1",)))
        await client.ask(Cancel(("2",)))
        await client.ask(Cancel(("3",)))

        told: dict[str, str] = {}
        while set(told) != {"1", "2", "3"}:
            told |= {item.id: item.state for item in (await client.reply(number, wants_more=True)).outcomes}
        assert set(told.values()) == {"cancelled"}


async def test_a_wait_that_is_done_before_its_news_were_due_costs_nobody_the_session() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit())
        wait = Wait(("1",))
        number = client.put(wait)
        (outcome,) = (await client.reply(number, wants_more=True)).outcomes
        (session,) = (one for peers in hall.registry._by_token.values() for one in peers)

        # Two turns in a row, with no other task between them: too soon after the first answer, and the end of it all.
        asked = session._waits[number].wait
        session._waited(number, asked, wait, v.Waited(False, (replace(outcome, state="running"),)))
        session._waited(number, asked, wait, v.Waited(True, (replace(outcome, state="succeeded"),)))

        assert (await client.reply(number)).outcomes[0].state == "succeeded"
        assert (await client.ask(Get("1"))).value["state"] == "queued"


async def test_waiting_for_what_does_not_exist_is_refused() -> None:
    async with open_hall() as hall:
        client = await hall.client("read")
        with pytest.raises(errors.TaskNotFound):
            await client.ask(Wait(("9",)))
        with pytest.raises(errors.BadRequest):
            await client.ask(Wait(("x.y.z",)))
        assert len(hall.registry.watch) == 0


async def test_who_leaves_or_unsubscribes_is_told_no_more() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit())
        number = client.put(Wait(("1",)))
        await client.reply(number, wants_more=True)
        client.send(m.Unsubscribe(number))
        await client.ask(Cancel(("1",)))
        assert not client.has_reply(number)
        await client.ask(submit())
        await client.reply(client.put(Wait(("2",))), wants_more=True)
        client.cut()
        await until(lambda: len(hall.registry.watch) == 0)


async def test_what_one_connection_may_wait_for_is_bounded() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit(size=2 * waits_max, is_array=True))
        for member in range(1, waits_max + 1):
            await client.reply(client.put(Wait((f"1.{member}",))), wants_more=True)
        with pytest.raises(errors.NotDone, match="waits on one connection"):
            await client.ask(Wait(("1",)))

        other = await hall.client("read")
        await other.reply(other.put(Wait(tuple(f"1.{1 + n % 500}" for n in range(6_000)))), wants_more=True)
        with pytest.raises(errors.NotDone, match="wait_ids_max"):
            await other.ask(Wait(("1",) * 4_001))


async def test_a_waiter_for_many_ids_gets_all_outcomes_in_pieces_that_fit() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit(size=5_000, is_array=True))
        await client.ask(Cancel(("1",)))
        ids = tuple(f"1.{number}" for number in range(1, 5_001))
        number, seen = client.put(Wait(ids)), []
        while True:
            reply = await client.receive(m.Reply)
            assert reply.request == number
            seen += [outcome.id for outcome in reply.answer.outcomes]
            if not reply.more:
                break

        assert tuple(seen) == ids


# ---------------------------------------------------------------- logs


async def test_streams_of_one_connection_are_bounded() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit())
        numbers = [client.put(Logs("1", follow=True)) for _ in range(streams_max)]
        with pytest.raises(errors.NotDone, match="streams on one connection"):
            await client.ask(Logs("1"))
        client.send(m.Unsubscribe(numbers[0]))

        assert (await client.ask(Logs("1"))).state == "queued"


async def test_a_backup_comes_in_parts_and_for_admins_alone() -> None:
    async with open_hall() as hall:
        client = await hall.client("admin")
        number = client.put(v.Backup())

        assert (await client.reply(number, wants_more=True)).data == b"one"
        assert (await client.reply(number)).data == b"two"
        for role in ("read", "submit"):
            with pytest.raises(errors.NotAllowed):
                await (await hall.client(role)).ask(v.Backup())


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
        await LogReader(hall.desk, Logs("1", follow=True), send).run()

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
            await LogReader(hall.desk, Logs("1", follow=True), send).run()

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


async def test_a_tail_is_of_the_attempt_that_was_there_and_later_ones_are_shown_whole() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit(retries=1))
        worker = await hall.worker()
        (ref,) = assigned(await worker.receive(m.Assign))
        worker.send(m.Output(ref, 1, 0, b"first"))
        sent: list[v.Answer] = []
        may_go_on = trio.Event()

        async def send(answer: v.Answer, *, more: bool) -> None:
            sent.append(answer)
            await may_go_on.wait()

        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(LogReader(hall.desk, Logs("1", follow=True, tail_bytes=3), send).run)
            await until(lambda: bool(sent))
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


async def test_workers_are_listed_with_the_beats_that_they_missed() -> None:
    async with open_hall() as hall:
        await hall.worker()
        client = await hall.client("read")
        assert (await client.ask(Workers())).items[0]["state"] == "up"
        for _ in range(2):
            hall.lease_clock.tick()

        (worker,) = (await client.ask(Workers())).items
        assert (worker["state"], worker["missed_beats"]) == ("suspect", 1)
        assert BEAT_S > 0


async def test_a_submit_with_the_same_key_is_the_same_job() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        first = await client.ask(submit("k"))
        again = await client.ask(submit("k"))

        assert (again.id, again.existed) == (first.id, True)
        with pytest.raises(errors.KeyConflict):
            await client.ask(submit("k", name="other"))
