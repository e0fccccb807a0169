"""A client's session: answers after their flush, roles, subscriptions, logs."""

from typing import Any

import pytest
import trio

from tests.server.hall import BEAT_S, assigned, open_hall, until
from tests.server.rig import submit
from tq import errors
from tq.core import vocabulary as v
from tq.core.vocabulary import (
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
