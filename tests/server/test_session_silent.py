"""A worker whose connection has ended, or of which nothing is heard on it: it gets nothing before it is heard again."""

from typing import Any

import trio

from tests.server.hall import BEAT_S, assigned, open_hall
from tests.server.rig import submit
from tq.server.operation import loops
from tq.wire import messages as m


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
