"""A session that has ended is freed at once: its TLS is 40 KiB, and the cycle collector of a server comes seldom."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from tests.server.hall import BEAT_S, Hall, assigned, open_hall, until
from tests.server.rig import submit
from tq.core.vocabulary import Status
from tq.server.operation import loops
from tq.server.sessions.client_session import ClientSession
from tq.server.sessions.worker_session import WorkerSession
from tq.wire import messages as m


@pytest.fixture
def living() -> Iterator[Callable[[type], int]]:
    """How many of a kind live that this test has made; without the cycle collector."""
    gc.collect()
    gc.disable()
    before = [one for one in gc.get_objects() if isinstance(one, ClientSession | WorkerSession)]
    known = set(map(id, before))
    yield lambda kind: sum(isinstance(one, kind) and id(one) not in known for one in gc.get_objects())
    gc.enable()


async def one_turn_more(hall: Hall) -> None:
    """Let another client ask: the commit loop holds the answers of its last turn, and so whom they were for."""
    client = await hall.client("submit")
    await client.ask(submit("another"))


async def test_a_client_that_left_leaves_nothing_to_the_cycle_collector(living: Callable[[type], int]) -> None:
    async with open_hall() as hall:
        for number in range(3):
            client = await hall.client("submit")
            await client.ask(submit(f"k{number}"))
            await client.ask(Status())
            client.link.close()
            await until(client.has_ended.is_set)
        await one_turn_more(hall)

        assert living(ClientSession) == 1


async def test_a_worker_that_left_leaves_nothing_to_the_cycle_collector(living: Callable[[type], int]) -> None:
    async with open_hall() as hall:
        worker = await hall.worker(5)
        assert living(WorkerSession) == 1
        worker.link.close()
        await until(worker.has_ended.is_set)
        await one_turn_more(hall)

        assert living(WorkerSession) == 0


async def test_a_worker_whose_connection_has_ended_is_given_nothing_more_while_another_one_is_there() -> None:
    async with open_hall() as hall:
        gone = await hall.worker(77)
        other = await hall.worker(78, slots=1)
        gone.cut()
        await gone.ended()
        client = await hall.client("submit")
        await client.ask(submit(size=2, is_array=True))

        assert len(assigned(await other.receive(m.Assign))) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert len(hall.engine.live.workers[78].held) == 1
        assert hall.engine.live.workers[77].held == {}
        again = await hall.worker(77)
        assert len(assigned(await again.receive(m.Assign))) == 1


async def test_a_worker_that_missed_a_beat_is_given_nothing_more_before_it_is_heard_again(autojump_clock: Any) -> None:
    async with open_hall() as hall:
        hall.nursery.start_soon(loops.lease_clock_loop, hall.context)
        worker = await hall.worker()
        await trio.sleep(2.5 * BEAT_S)
        client = await hall.client("submit")
        await client.ask(submit())
        await trio.testing.wait_all_tasks_blocked()
        assert not any(isinstance(message, m.Assign) for message in worker.seen)

        worker.send(m.Beat())
        await worker.receive(m.Assign)
