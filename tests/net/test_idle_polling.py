"""Idle workers are read together: the room where their connections wait, and who goes there."""

import os
import resource
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.net.test_listen import identity as identity  # noqa: PLC0414 - a fixture
from tests.net.test_listen import serving
from tests.server.hall import assigned, open_hall
from tests.server.rig import submit
from tq.core.vocabulary import End
from tq.net.idle_polling import IdlePolling
from tq.net.link import open_link
from tq.net.listen import Arrival
from tq.server.operation.identity import Identity
from tq.wire import messages as m
from tq.wire.connection import Connection


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair() for _ in range(40)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


async def test_who_was_sent_something_goes_on_and_all_of_them_together(pairs: Any, autojump_clock: Any) -> None:
    idle_polling, gone_on = IdlePolling(0.1), []

    async def wait(place: int) -> None:
        await idle_polling.wait(pairs[place][0].fileno())
        gone_on.append((place, trio.current_time()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle_polling.run)
        for place in range(40):
            nursery.start_soon(wait, place)
        await wait_all_tasks_blocked()
        for place in range(39):
            pairs[place][1].send(b"x")
        await trio.sleep(1)

        assert sorted(place for place, _ in gone_on) == list(range(39))
        assert {at_s for _, at_s in gone_on} == {0.1}
        nursery.cancel_scope.cancel()


async def test_all_are_gathered_however_many(pairs: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3_000:
        pytest.skip("this process may not open enough files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle_polling, count = IdlePolling(0.1), 1_100  # more than a poll returns that is not told how many
    pairs[0][1].send(b"x")
    places = [os.dup(pairs[0][0].fileno()) for _ in range(count)]
    try:
        async with trio.open_nursery() as nursery:
            for place in places:
                nursery.start_soon(idle_polling.wait, place)
            await wait_all_tasks_blocked()
            assert idle_polling.gather()
            assert not idle_polling._waiting
            nursery.cancel_scope.cancel()
    finally:
        for place in places:
            os.close(place)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_what_lies_there_already_is_found_again(pairs: Any, autojump_clock: Any) -> None:
    idle_polling = IdlePolling(0.1)
    pairs[0][1].send(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle_polling.run)
        for _ in range(3):
            await idle_polling.wait(pairs[0][0].fileno())
        nursery.cancel_scope.cancel()


async def test_who_is_woken_or_cancelled_leaves_nothing_behind(pairs: Any) -> None:
    idle_polling, place = IdlePolling(0.1), pairs[0][0].fileno()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle_polling.wait, place)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await idle_polling.wait(place)
        idle_polling.wake(place)
    with trio.move_on_after(0):
        await idle_polling.wait(place)
    idle_polling.wake(place)
    pairs[0][1].send(b"x")

    assert not idle_polling.gather()
    assert not idle_polling._waiting


async def resting(arrival: Arrival, idle_polling: IdlePolling, began: list[Any]) -> None:
    async with open_link(arrival.stream, Connection()) as link:
        arrival.admit()
        link.rest(idle_polling)
        began.append(link)
        async for messages in link:
            for message in messages:
                link.send_nowait(message)


async def test_a_link_that_rests_is_read_with_the_others_and_at_once_when_it_hurries(identity: Identity) -> None:
    idle_polling, began = IdlePolling(0.0), []  # type: ignore[var-annotated]
    async with (
        serving(identity, partial(resting, idle_polling=idle_polling, began=began)) as served,
        served.client() as client,
    ):
        client.send_nowait(m.Beat(1))
        await trio.testing.wait_all_tasks_blocked(0.05)  # nobody gathers
        assert idle_polling.gather()
        assert await anext(client) == [m.Beat(1)]
        client.send_nowait(m.Beat(2))
        began[0].rest(None)

        assert await anext(client) == [m.Beat(2)]
        client.send_nowait(m.Beat(3))
        assert await anext(client) == [m.Beat(3)]
        assert not idle_polling._waiting


@pytest.mark.parametrize("who", ["this end", "the other end", "nobody"])
async def test_a_link_that_rests_ends_like_any_other(identity: Identity, who: str, capfd: Any) -> None:
    idle_polling, began = IdlePolling(0.0), []  # type: ignore[var-annotated]
    with trio.fail_after(20):
        async with serving(identity, partial(resting, idle_polling=idle_polling, began=began)) as served:
            for _ in range(8):  # its reader wakes before its writer, or behind it: the order is random
                async with served.client() as client:
                    while not idle_polling._waiting:
                        await trio.testing.wait_all_tasks_blocked()
                    if who == "this end":
                        began[-1].close(m.Goodbye("go"))
                        assert await anext(client) == [m.Goodbye("go")]
                    elif who == "the other end":
                        client.close()
                        await trio.testing.wait_all_tasks_blocked(0.05)
                        idle_polling.gather()
                    else:
                        break
    assert not idle_polling._waiting
    assert "session_failed" not in capfd.readouterr().err


class Wishes:
    """Notes how a session wants its link to be read."""

    def __init__(self, session: Any) -> None:
        self.said = ""
        session._link.rest = lambda idle_polling: setattr(self, "said", "rest" if idle_polling else "hurry")


async def test_a_worker_rests_that_had_nothing_to_do_for_a_beat_and_no_longer_than_that() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        wishes = Wishes(hall.registry.worker(77))
        worker.send(m.Beat(number=1))
        await wait_all_tasks_blocked()
        assert not wishes.said
        worker.send(m.Beat(number=2))
        await wait_all_tasks_blocked()
        assert wishes.said == "rest"

        client = await hall.client("submit")
        await client.ask(submit())
        assign = await worker.receive(m.Assign)
        assert wishes.said == "hurry"
        for _ in range(3):  # on its way, held, and ended: it is not at rest before that is acknowledged
            worker.send(m.Beat())
        await wait_all_tasks_blocked()
        assert wishes.said == "hurry"
        worker.send(m.Assigned(assign.delivery))
        worker.send(m.Ended(1, (End(assigned(assign)[0], 1, 0, 5),)))
        await worker.receive(m.Acknowledged)
        worker.send(m.Beat())
        worker.send(m.Beat())
        await wait_all_tasks_blocked()
        assert wishes.said == "rest"


async def test_what_a_resting_worker_says_wakes_it() -> None:
    async with open_hall() as hall:
        worker = await hall.worker()
        wishes = Wishes(hall.registry.worker(77))
        worker.send(m.Beat())
        worker.send(m.Beat())
        worker.send(m.Draining())
        await wait_all_tasks_blocked()

        assert wishes.said == "hurry"
