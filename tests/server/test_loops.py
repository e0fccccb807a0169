"""The background loops, on a clock that jumps."""

from typing import Any

import pytest
import trio

from tests.server.hall import BEAT_S, hello, open_hall
from tests.server.rig import submit
from tq import limits
from tq.core import vocabulary as v
from tq.errors import StoreError
from tq.server.commit.commit_loop import STOPPING
from tq.server.commit.intake import Request, inlet_requests_max
from tq.server.operation import loops
from tq.store.directory import Room, low_water_bytes
from tq.wire import messages as m


async def test_a_silent_worker_is_lost_and_its_connection_closed(autojump_clock: Any) -> None:
    async with open_hall() as hall:
        hall.nursery.start_soon(loops.lease_clock_loop, hall.context)
        worker = await hall.worker()
        await trio.sleep(3.5 * BEAT_S)
        assert 77 in hall.engine.live.workers
        await trio.sleep(BEAT_S)

        assert 77 not in hall.engine.live.workers
        assert "nothing was heard" in (await worker.receive(m.Goodbye)).reason


@pytest.mark.parametrize("role", ["worker", "read"])
async def test_the_connections_of_a_token_that_expires_are_closed(role: str, autojump_clock: Any) -> None:
    async with open_hall() as hall:
        hall.nursery.start_soon(loops.tokens_loop, hall.context)
        token = await hall.token(role, expires_ms=hall.times().wall_ms + 10_000)
        number = 77 if role == "worker" else 0
        peer = await hall.connect(hello(token.text, "worker" if number else "client", worker=number))
        other = await hall.client("read")
        await trio.sleep(9)
        assert not peer.has_ended.is_set()
        await trio.sleep(3)

        assert (await peer.receive(m.Goodbye)).reason == "its token has expired"
        await other.ask(v.Status())


async def test_a_worker_that_beats_is_kept(autojump_clock: Any) -> None:
    async with open_hall() as hall:
        hall.nursery.start_soon(loops.lease_clock_loop, hall.context)
        worker = await hall.worker()
        for _ in range(20):
            await trio.sleep(BEAT_S)
            worker.send(m.Beat())

        assert not worker.has_ended.is_set()


@pytest.mark.parametrize("by", ["the list", "a full inlet"])
async def test_a_worker_that_is_not_read_while_the_disk_is_slow_is_not_silent(
    by: str, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_hall() as hall:
        hall.nursery.start_soon(loops.lease_clock_loop, hall.context)
        worker = await hall.bare_worker() if by == "the list" else await hall.worker()
        hall.holds_flushes = True
        hall.intake.inlet().put([Request(submit())])
        await trio.sleep(0.1)
        monkeypatch.setattr(limits, "turn_changes_max", 0)  # the next turn is full
        if by == "the list":
            worker.send(m.Reconcile(v.Capacity(slots=2, host="host"), ()))
        else:
            for _ in range(2 * inlet_requests_max):
                worker.send(m.Draining())
        for _ in range(8):
            await trio.sleep(BEAT_S)
            worker.send(m.Beat())
        assert not worker.has_ended.is_set()
        monkeypatch.undo()
        hall.holds_flushes = False
        hall.let_flush()
        await trio.sleep(BEAT_S)

        assert not worker.has_ended.is_set()
        assert 77 in hall.engine.live.workers
        with trio.fail_after(10 * BEAT_S):
            await worker.ended()  # it beats no more, and is read again


async def test_a_frozen_server_first_reads_and_counts_the_late_tick_as_none() -> None:
    clock = trio.testing.MockClock()
    # Time stands still while the server is frozen, then jumps: all beats of the pause lie in the socket at once.
    assert clock.current_time() == 0
    hall_seen: list[int] = []

    async def scenario() -> None:
        async with open_hall() as hall:
            hall.nursery.start_soon(loops.lease_clock_loop, hall.context)
            worker = await hall.worker()
            for _ in range(3):
                clock.jump(BEAT_S)
                await trio.testing.wait_all_tasks_blocked()
            assert hall.lease_clock.missed(77) == 2
            worker.send(m.Beat())  # lies in the socket when the tick comes
            clock.jump(30 * BEAT_S)
            await trio.testing.wait_all_tasks_blocked()
            hall_seen.append(hall.lease_clock.missed(77))
            assert not worker.has_ended.is_set()

    await _under(clock, scenario)
    assert hall_seen == [0]


async def test_what_is_heard_while_a_tick_is_late_is_worth_three_whole_beats() -> None:
    clock = trio.testing.MockClock()
    kept: list[bool] = []

    async def scenario() -> None:
        async with open_hall() as hall:
            hall.nursery.start_soon(loops.lease_clock_loop, hall.context)
            worker = await hall.worker()
            worker.send(m.Beat())  # lies in the socket when the tick comes, nearly a beat after its time
            for beats in (1.9, 1.0, 1.0, 0.9, 0.2):
                kept.append(77 in hall.engine.live.workers)
                clock.jump(beats * BEAT_S)
                await trio.testing.wait_all_tasks_blocked()
            kept.append(77 in hall.engine.live.workers)

    await _under(clock, scenario)
    assert kept == [True] * 5 + [False]  # for 2.9 beats after it was heard, but not for more than three


async def _under(clock: trio.testing.MockClock, scenario: Any) -> None:
    await trio.to_thread.run_sync(lambda: trio.run(scenario, clock=clock))


async def test_everybody_gets_a_beat(autojump_clock: Any) -> None:
    async with open_hall() as hall:
        hall.nursery.start_soon(loops.beats_loop, hall.context)
        client, worker = await hall.client("read"), await hall.worker()
        await trio.sleep(3.5 * BEAT_S)

        assert (len(client.beats), len(worker.beats)) == (3, 3)


class Disk:
    free = 10 * low_water_bytes

    def free_bytes(self) -> int:
        return self.free


async def test_a_full_disk_stops_submits_then_leases_and_room_starts_them_again(autojump_clock: Any) -> None:
    async with open_hall() as hall:
        disk = Disk()
        hall.nursery.start_soon(loops.disk_loop, hall.context, disk)
        worker, client = await hall.worker(slots=1), await hall.client("submit")
        await client.ask(submit("a"))
        await worker.receive(m.Assign)
        await client.ask(submit("b"))
        disk.free = low_water_bytes - 1
        await trio.sleep(2)
        assert hall.gate.room is Room.LOW
        assert hall.pipeline.may_lease
        disk.free = low_water_bytes // 2 - 1
        await trio.sleep(2)
        assert hall.gate.room is Room.CRITICAL
        other = await hall.worker(78, slots=1)
        await trio.sleep(2)
        assert not any(isinstance(message, m.Assign) for message in other.seen)
        disk.free = 10 * low_water_bytes
        await trio.sleep(2)

        assert len((await other.receive(m.Assign)).attempts) == 1


async def test_a_disk_that_is_gone_stops_the_server_as_a_failed_one() -> None:
    class Gone:
        def free_bytes(self) -> int:
            raise OSError(5, "Input/output error")

    async with open_hall() as hall:
        await loops.disk_loop(hall.context, Gone())
        await trio.testing.wait_all_tasks_blocked()

        assert isinstance(hall.failure, StoreError)


async def test_an_assignment_that_is_never_acknowledged_cuts_the_worker(autojump_clock: Any) -> None:
    async with open_hall() as hall:
        hall.nursery.start_soon(loops.deliveries_loop, hall.context)
        worker, client = await hall.worker(), await hall.client("submit")
        await client.ask(submit())
        await worker.receive(m.Assign)

        assert "not acknowledged" in (await worker.receive(m.Goodbye)).reason


async def test_a_tick_reads_what_lies_in_the_sockets_before_it_counts() -> None:
    clock = trio.testing.MockClock()
    ended: list[bool] = []

    async def scenario() -> None:
        async with open_hall() as hall:
            hall.nursery.start_soon(loops.lease_clock_loop, hall.context)
            worker = await hall.worker()
            for _ in range(3):
                clock.jump(BEAT_S)
                await trio.testing.wait_all_tasks_blocked()
            worker.send(m.Beat())  # on its way at the very moment of the tick that would make the worker lost
            clock.jump(BEAT_S)
            await trio.testing.wait_all_tasks_blocked()
            ended.append(worker.has_ended.is_set())

    await _under(clock, scenario)
    assert ended == [False]


@pytest.mark.parametrize("late_beats,missed", [(0.5, 1), (1.5, 0)])
async def test_a_tick_a_little_late_counts_and_a_very_late_one_does_not(late_beats: float, missed: int) -> None:
    clock = trio.testing.MockClock()
    seen: list[int] = []

    async def scenario() -> None:
        async with open_hall() as hall:
            hall.nursery.start_soon(loops.lease_clock_loop, hall.context)
            await hall.worker()
            clock.jump(BEAT_S)
            await trio.testing.wait_all_tasks_blocked()
            clock.jump((1 + late_beats) * BEAT_S)
            await trio.testing.wait_all_tasks_blocked()
            seen.append(hall.lease_clock.missed(77))

    await _under(clock, scenario)
    assert seen == [missed]


async def test_the_janitor_of_a_server_that_stops_ends_nothing(autojump_clock: Any) -> None:
    asked = 0

    async def ask(_request: Request) -> v.Answer:
        nonlocal asked
        asked += 1
        raise STOPPING

    with trio.move_on_after(3_600):
        await loops.janitor_loop(ask, 5_000)

    assert asked > 1


async def test_the_janitor_asks_once_a_minute_and_again_at_once_while_there_is_more(autojump_clock: Any) -> None:
    asked: list[float] = []
    answers = [v.Acted(1_000, sweeping=True), v.Acted(1_000, sweeping=True), v.Acted(3), v.Acted(0), v.Acted(0)]
    enough = trio.Event()

    async def ask(request: Request) -> v.Answer:
        assert request.command == v.Retain(5_000)
        asked.append(trio.current_time())
        if len(asked) == len(answers):
            enough.set()
        return answers[len(asked) - 1]

    start_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loops.janitor_loop, ask, 5_000)
        await enough.wait()
        nursery.cancel_scope.cancel()

    assert [round(when_s - start_s) for when_s in asked] == [0, 0, 0, 60, 120]


async def test_the_janitor_forgets_what_ended_long_ago_and_nothing_else(autojump_clock: Any) -> None:
    async with open_hall() as hall:

        async def ask(request: Request) -> v.Answer:
            answers: list[Any] = []
            got = trio.Event()

            def reply(answer: Any) -> None:
                answers.append(answer)
                got.set()

            hall.context.intake.inlet().put([request._replace(reply=reply)])
            await got.wait()
            return answers[0]

        hall.nursery.start_soon(loops.janitor_loop, ask, 90_000)
        client = await hall.client("submit")
        for name in ("a", "b"):
            await client.ask(submit(name))
        await client.ask(v.Cancel(("1",)))
        await trio.sleep(65)
        assert [item["id"] for item in (await client.ask(v.List())).items] == ["2", "1"]
        await trio.sleep(60)

        assert [item["id"] for item in (await client.ask(v.List())).items] == ["2"]
