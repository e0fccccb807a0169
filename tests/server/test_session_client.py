"""A client's session: answers after their flush, roles, subscriptions, logs."""

from typing import Any

import pytest
import trio
from msgspec.structs import replace

from tests.server.hall import BEAT_S, assigned, hello, open_hall, until
from tests.server.rig import submit
from tq import __version__, errors, limits
from tq.core import vocabulary as v
from tq.core.vocabulary import AddEntries, Cancel, Drain, End, Get, List, Status, StoreStatistics, Upload, Wait, Workers
from tq.limits import waits_max
from tq.store.directory import Room
from tq.wire import messages as m
from tq.wire.body import Body
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


async def test_who_asks_for_more_at_once_than_may_be_queued_and_reads_gets_every_answer() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit(body=dumps(Body((b"x" * 95_000,), b"/"))))
        numbers = [client.put(Get("1")) for _ in range(60)]
        shown = [(await client.reply(number)).value["command"] for number in numbers]

        assert sum(len(command[0]) for command in shown) > limits.send_queue_bytes_max
        assert [message.request for message in client.seen if isinstance(message, m.Reply)] == [1, *numbers]


async def test_few_reads_of_one_client_are_being_answered_at_a_time_and_acts_are_not_held_up() -> None:
    async with open_hall() as hall:
        client, other = await hall.client("submit"), await hall.client("submit")
        hall.holds_flushes = True
        first, before = other.put(submit("k")), hall.pipeline.counters.commands
        await trio.testing.wait_all_tasks_blocked()
        acts = [client.put(submit(f"k{number}")) for number in range(50)]
        reads = [client.put(Get("1")) for _ in range(60)]
        await trio.testing.wait_all_tasks_blocked()
        assert hall.pipeline.counters.commands - before == 1 + len(acts) + limits.reads_max

        hall.holds_flushes = False
        hall.let_flush()
        for number in (*acts, *reads):
            await client.reply(number)
        assert (await other.reply(first)).id == "1"


async def test_who_waits_and_unsubscribes_again_and_again_has_few_reads_under_way() -> None:
    async with open_hall() as hall:
        client, other = await hall.client("submit"), await hall.client("submit")
        hall.holds_flushes = True
        first, before = other.put(submit("k")), hall.pipeline.counters.commands
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(60):
            client.send(m.Unsubscribe(client.put(Wait(("1",) * 9_000))))
        last = client.put(Wait(("1",) * 9_000))
        await trio.testing.wait_all_tasks_blocked()
        assert hall.pipeline.counters.commands - before == 1 + limits.reads_max

        hall.holds_flushes = False
        hall.let_flush()
        assert (await other.reply(first)).id == "1"
        answer = await client.reply(last, wants_more=True)
        assert [outcome.id for outcome in answer.outcomes] == ["1"]
        await client.ask(Status())


async def test_who_asks_and_does_not_read_is_cut_and_costs_little_until_then(autojump_clock: Any) -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        await client.ask(submit(body=dumps(Body((b"x" * 95_000,), b"/"))))
        mute = await hall.connect(hello((await hall.token("submit")).text), is_slow=True)
        before = hall.pipeline.counters.commands
        mute.reads = trio.Event()
        for _ in range(200):
            mute.put(Get("1"))
        await trio.testing.wait_all_tasks_blocked()
        assert hall.pipeline.counters.commands - before <= 30
        assert hall.registry.connections["submit"] == 2
        await until(lambda: hall.registry.connections["submit"] == 1)

        assert (await client.ask(Get("1"))).value["state"] == "queued"


async def test_who_does_not_read_what_the_edge_answers_is_asked_nothing_more() -> None:
    async with open_hall() as hall:
        mute = await hall.connect(hello((await hall.token("submit")).text), is_slow=True)
        mute.reads = trio.Event()
        looks: list[int] = []

        def statistics() -> dict[str, Any]:
            looks.append(1)
            return {"text": "x" * 200_000}

        hall.store.statistics = statistics  # type: ignore[method-assign]
        for _ in range(200):
            mute.put(StoreStatistics())
        await trio.testing.wait_all_tasks_blocked()
        assert 0 < len(looks) <= 12


async def test_who_asks_for_the_figures_of_the_store_again_and_again_leaves_room_for_others() -> None:
    async with open_hall() as hall:
        other, reader = await hall.client("read"), await hall.client("read")
        looks = 0

        def statistics() -> dict[str, Any]:
            nonlocal looks
            looks += 1
            return {}

        hall.store.statistics = statistics  # type: ignore[method-assign]
        numbers = [reader.put(StoreStatistics()) for _ in range(3_000)]
        await trio.lowlevel.checkpoint()
        await other.ask(Status())

        assert not reader.has_reply(numbers[-1])
        assert looks < 3_000
        await reader.reply(numbers[-1])


async def test_what_is_left_of_a_frame_is_not_taken_once_its_token_is_revoked() -> None:
    async with open_hall() as hall:
        token = await hall.token("submit")
        thief, admin = await hall.client(token=token), await hall.client("admin")
        revoked = admin.put(v.RevokeToken(token.id))
        for number in range(3_000):
            thief.put(submit(f"k{number}"))
        await admin.reply(revoked)
        await thief.ended()
        await trio.testing.wait_all_tasks_blocked()

        assert hall.pipeline.counters.commands < 2_000


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

        assert (await client.ask(Status())).value["server"]["version"] == __version__
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
        asked = session._waits[number].waiting.wait
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
        await client.ask(submit(size=10_001, is_array=True))
        for member in range(1, waits_max + 1):
            await client.reply(client.put(Wait((f"1.{member}",))), wants_more=True)
        with pytest.raises(errors.NotDone, match="waits on one connection"):
            await client.ask(Wait(("1",)))

        other = await hall.client("read")
        await other.reply(other.put(Wait(tuple(f"1.{1 + member}" for member in range(6_000)))), wants_more=True)
        with pytest.raises(errors.NotDone, match="wait_ids_max"):
            await other.ask(Wait(tuple(f"1.{6_001 + member}" for member in range(4_001))))


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


async def test_a_waiter_gets_all_outcomes_however_much_they_say() -> None:
    async with open_hall() as hall:
        client, worker = await hall.client("submit"), await hall.worker(slots=limits.slots_max)
        await client.ask(submit(size=4_500, is_array=True))
        result, left = b"x" * limits.result_inline_bytes_max, 4_500
        while left:
            assign = await worker.receive(m.Assign)
            worker.send(m.Assigned(assign.delivery))
            refs = assigned(assign)
            for number, some in enumerate(refs[at : at + 100] for at in range(0, len(refs), 100)):
                ends = tuple(End(ref, 1, 0, 100, result) for ref in some)
                await worker.link.send(m.Ended(100 * assign.delivery + number, ends))
                await worker.receive(m.Acknowledged)
            left -= len(refs)
        number, seen = client.put(Wait(tuple(f"1.{number}" for number in range(1, 4_501)))), 0
        while True:
            reply = await client.receive(m.Reply)
            assert reply.request == number
            seen += sum(len(outcome.usage) for outcome in reply.answer.outcomes)
            if not reply.more:
                break

        assert seen == 4_500 * len(result) > limits.send_queue_bytes_max


async def test_a_backup_comes_in_parts_and_for_admins_alone() -> None:
    async with open_hall() as hall:
        client = await hall.client("admin")
        number = client.put(v.Backup())

        assert (await client.reply(number, wants_more=True)).data == b"one"
        assert (await client.reply(number)).data == b"two"
        for role in ("read", "submit"):
            with pytest.raises(errors.NotAllowed):
                await (await hall.client(role)).ask(v.Backup())


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
