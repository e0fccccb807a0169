"""Workers are kept for what demands more than a slot and found no room: as many as it needs, not the whole fleet."""

import pytest

from tests.support.house import House
from tq.core.model.job import Demand
from tq.core.vocabulary import AttemptRef, Cancel, SetQueue, WorkerLost
from tq.limits import prefetch_ms

WORKERS = 8
ONE, ALL = Demand(cpus_milli=1_000), Demand(cpus_milli=4_000)


@pytest.fixture
def house() -> House:
    """Return a fleet of workers with 4 slots and 4 CPUs, each of which runs something that takes one of them."""
    house = House()
    for worker in range(1, WORKERS + 1):
        house.join(worker, slots=4)
        house.submit(demand=ONE)
        house.started(*house.starts(), worker=worker)
    return house


def kept(house: House) -> list[int]:
    """Return the workers that take nothing of what is plenty behind the rest."""
    house.array(1_000)
    assert house.starts()
    return [worker.worker for worker in house.engine.live.workers.values() if worker.has_slot]


def end_first(house: House, worker: int) -> None:
    """End what a worker ran from the beginning."""
    task = next(iter(house.engine.live.workers[worker].held))
    record = house.task(task[0])
    house.report(AttemptRef(*task, record.attempt, record.lease), worker=worker)


def test_one_that_finds_no_room_keeps_one_worker_and_gets_it(house: House) -> None:
    big = house.submit(demand=ALL)
    [one] = kept(house)
    end_first(house, one)
    assert house.starts()[0].job == big


def test_it_is_one_whose_work_has_not_turned_out_long(house: House) -> None:
    house.now_ms += prefetch_ms
    end_first(house, WORKERS)
    house.submit(demand=ONE)
    house.started(*house.starts(), worker=WORKERS)
    house.submit(demand=ALL)
    assert kept(house) == [WORKERS]


@pytest.mark.parametrize(
    "size, fields, keeps",
    [
        (3, {}, 3),
        (100, {}, WORKERS),
        (100, {"throttle": 2}, 2),
        (100, {"hold": True}, 0),
        (100, {"queue": "bounded"}, 1),
    ],
)
def test_as_many_workers_are_kept_as_may_start(house: House, size: int, fields: dict[str, int], keeps: int) -> None:
    house.do(SetQueue("bounded", max=1))
    house.array(size, demand=ALL, **fields)
    if keeps == WORKERS:
        house.array(1_000)
        assert house.starts() == []
    else:
        assert len(kept(house)) == keeps


def test_with_each_minute_that_it_waits_one_more_is_kept(house: House) -> None:
    """What runs where it waits may go on for days."""
    house.submit(demand=ALL)
    house.now_ms += 2 * 60_000
    assert len(kept(house)) == 3


def test_when_the_worker_that_is_kept_is_lost_another_one_is(house: House) -> None:
    big = house.submit(demand=ALL)
    [one] = kept(house)
    house.do(WorkerLost(one, 1))
    house.do(Cancel((str(one),)))  # what it ran is older, and would be first
    assert big not in [ref.job for ref in house.starts()]
    end_first(house, min(house.engine.live.workers))
    assert house.starts()[0].job == big
