"""A session that has ended is freed at once: its TLS is 40 KiB, and the cycle collector of a server comes seldom."""

import gc
from collections.abc import Callable, Iterator

import pytest

from tests.server.hall import Hall, open_hall, until
from tests.server.rig import submit
from tq.core.vocabulary import Status
from tq.server.sessions.client_session import ClientSession
from tq.server.sessions.worker_session import WorkerSession


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
