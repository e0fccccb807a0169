"""A claim beside a bound on what runs at once: the places of what was lost are others' by then.

What runs there has run all along, and is not thrown away for it (semantics.md, Delivery 4 and I13); but what has not
started does not start beyond the bound, and nothing else does until the bound is kept again.
"""

from collections.abc import Callable

import pytest

from tests.support.house import House, held
from tq.core.change.stop import ref_of
from tq.core.model.task import Phase, State
from tq.core.vocabulary import AttemptRef, Handback, SetQueue, Tick, WorkerLost

Case = tuple[House, AttemptRef, list[AttemptRef]]


def of_a_job() -> Case:
    """At most two run of an array. One waits for its next attempt when the others are lost, and so starts first."""
    house = House()
    house.join(slots=2)
    number = house.array(6, throttle=2, retries=1, backoff_ms=(0, 0))
    failed, _ = house.starts()
    house.report(failed, code=1)
    [last] = house.starts()
    house.do(Tick())
    assert house.task(number, 0).state is State.QUEUED
    house.do(WorkerLost(5, 1))
    house.join(worker=6, slots=2)
    others = house.starts()
    assert [ref.member for ref in others] == [0, 1]
    assert last.member == 2
    return house, last, others


def of_a_queue() -> Case:
    """One runs of a queue. What came later and is worth more takes the place of what is lost."""
    house = House()
    house.do(SetQueue("q", max=1))
    house.join(slots=2)
    house.submit(queue="q")
    [lost] = house.starts()
    house.submit(queue="q", priority=1)
    house.do(WorkerLost(5, 1))
    house.submit(queue="q")
    house.join(worker=6, slots=2)
    return house, lost, house.starts()


cases = pytest.mark.parametrize("case", [of_a_job, of_a_queue])


@cases
def test_what_runs_at_a_worker_that_is_back_runs_on_and_nothing_more_starts_before_the_bound_is_kept(
    case: Callable[[], Case],
) -> None:
    house, claimed, others = case()
    for ref in others:
        house.started(ref, worker=6)
    answer = house.join(session=2, slots=2, held=held(claimed))
    assert (answer.stop, house.recalls()) == ((), [])
    assert house.task(claimed.job, claimed.member).state is State.RUNNING
    for ref in others:
        assert house.starts() == [], "more runs than may"
        house.report(ref, worker=6)
    house.report(claimed, session=2)
    assert house.task(claimed.job, claimed.member).state is State.SUCCEEDED
    assert len(house.starts()) == 1


@cases
@pytest.mark.parametrize("is_full", [True, False], ids=["others have its place", "its place is free"])
def test_what_has_not_started_there_comes_back_where_others_have_its_place(
    case: Callable[[], Case], is_full: bool
) -> None:
    house, claimed, others = case()
    if not is_full:
        house.do(WorkerLost(6, 1))
    answer = house.join(session=2, slots=2, held=held(claimed, phase=Phase.ASSIGNED))
    assert answer.stop == ()
    assert house.recalls() == ([claimed] if is_full else [])
    if is_full:
        house.do(Handback(5, 2, 1, (claimed,)))
        assert house.starts() == []
        assert house.task(claimed.job, claimed.member).state is State.QUEUED
        assert house.task(claimed.job, claimed.member).losses == 0
        assert others


def test_what_comes_back_with_its_predecessor_is_counted_once() -> None:
    house = House()
    house.do(SetQueue("q", max=3))
    house.join(slots=2)
    house.submit(queue="q")
    house.submit(queue="q")
    refs = [ref_of(key, house.task(key[0], key[2])) for key in house.engine.live.workers[5].held]
    house.started(*refs)
    house.join(worker=6, slots=2)
    house.submit(queue="q")
    mine = house.starts()
    theirs = held(*refs, phase=Phase.ENDED) + held(*mine, phase=Phase.ASSIGNED)
    house.join(worker=6, session=2, slots=2, held=theirs, predecessors=(5,))
    assert len(mine) == 1
    assert house.recalls() == []
