"""A lane whose row is lost is derived anew at the next start: what is in it goes on, and nothing else waits for it."""

import pytest

from tests.support.damage import without
from tests.support.house import House
from tests.support.worker_context import WORKERS, WorkerContext
from tq.core.change.lanes import _of_name, lane_name
from tq.core.model import tables
from tq.core.model.job import Demand
from tq.core.model.view import pages
from tq.core.vocabulary import List


@pytest.mark.parametrize("seed", range(4))
def test_every_rule_holds_and_all_goes_on(seed: int) -> None:
    life = WorkerContext(seed).live(80)
    lanes = [key for page in pages(life.store, tables.LANE) for key, _ in page]
    assert len(lanes) > 2
    for key in lanes:
        without(life.store, tables.LANE, key)
    life.restart()
    assert life.counted("lanes_derived") == len(lanes)
    assert [key for page in pages(life.store, tables.LANE) for key, _ in page] == lanes
    for worker in range(1, WORKERS + 1):
        life.join(worker, slots=2)
    life.settle()
    life.restart()
    assert life.counted("lanes_derived") == 0


def test_what_a_worker_runs_in_it_keeps_it_from_nothing_else() -> None:
    house = House()
    house.join(slots=2)
    house.submit()
    without(house.store, tables.LANE, (1,))
    house.restart()
    house.join(6, slots=1)
    other = house.submit(queue="other")
    assert [ref.job for ref in house.starts()] == [other]
    assert len(house.do(List()).items) == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("demand", [Demand(), Demand(1_500, 1 << 40), Demand(0, 7, "a.b")])
def test_a_name_says_all_of_a_lane(demand: Demand, alone: bool) -> None:
    lane = _of_name(lane_name("q-1", demand, alone=alone))
    assert (lane.queue, lane.demand, lane.alone) == ("q-1", demand, alone)
