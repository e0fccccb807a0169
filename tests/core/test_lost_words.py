"""What a lost connection or a restart of the server must not make the core forget."""

import pytest

from tests.server.rig import Loop, submit
from tests.support.damage import without
from tests.support.house import House, held
from tests.support.worker_context import WORKERS, WorkerContext
from tq import limits
from tq.core.change.lanes import _of_name, lane_name
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.job import Demand
from tq.core.model.task import Cause, Phase, State
from tq.core.model.view import pages
from tq.core.vocabulary import (
    Acknowledge,
    AttemptRef,
    Capacity,
    End,
    Hold,
    Join,
    List,
    Recall,
    Release,
    Report,
    SetQueue,
    Started,
    Tick,
    Times,
    Where,
    WorkerLost,
)


@pytest.fixture
def house():
    return House()


def _held(house):
    """Return what worker 5 holds, oldest first."""
    tasks = [(key, house.store.get(tables.TASK, key)) for key in house.engine.live.workers[5].held]
    return [AttemptRef(*key, task.attempt, task.lease) for key, task in tasks]


def _stream(house):
    """Let one slot work through short members until others stand behind the one that runs; return all of them."""
    number = house.array(100)
    house.join()
    for _ in range(8):
        house.report(_held(house)[0])
    return number, _held(house)


def _waiting(refs):
    return held(*refs, phase=Phase.ASSIGNED)


def test_what_was_recalled_is_recalled_again_after_a_reconnect(house):
    _, refs = _stream(house)
    house.started(refs[0])
    house.now_ms += limits.prefetch_ms
    house.do(Tick())
    assert set(house.recalls()) == set(refs[1:])

    house.join(session=2, held=held(refs[0]) + _waiting(refs[1:]))

    assert set(house.recalls()) == set(refs[1:])


STOPS = [lambda job: Hold((str(job),)), lambda _job: SetQueue("default", paused=True)]


@pytest.mark.parametrize("stop", STOPS)
def test_what_a_hold_or_a_pause_asked_back_is_asked_back_after_a_restart_too(house, stop):
    number, refs = _stream(house)
    house.do(stop(number))
    asked = house.recalls()
    house.restart()

    house.join(held=_waiting(refs))

    assert set(house.recalls()) == set(asked) == set(refs)


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("between", [None, WorkerLost(5, 1), Release((), Where())])
def test_however_many_have_not_started_a_turn_asks_few_of_them_back(house, stop, between):
    number, refs = _stream(house)
    house.started(refs[0])
    house.engine.bounds = Bounds(slice=10)
    house.do(stop(number))
    asked = house.recalls()
    assert len(asked) == 9  # one of them runs
    if between is not None:
        house.do(between)
        asked += house.recalls()
    while house.engine.next_due_ms(Times(house.now_ms, 1)) == 0:
        house.do(Tick())
        assert len(house.recalls()) <= 10
        asked += house.recalls()

    assert len(set(asked)) == len(asked)
    if not isinstance(between, WorkerLost):
        assert set(asked) == set(refs[1:])


def test_what_runs_is_known_to_run_after_a_restart(house):
    _, refs = _stream(house)
    house.started(refs[0])
    house.restart()

    house.join(held=held(refs[0]) + _waiting(refs[1:]))

    assert list(house.engine.live.workers[5].started) == [refs[0].task]


def test_after_a_restart_a_loss_is_charged_to_what_ran_and_not_to_whoever_is_first(house):
    house.join(slots=2)
    number = house.array(2)
    first, second = _held(house)
    house.started(second)
    house.restart()

    house.do(WorkerLost(5, 0))

    assert [house.task(number, ref.member).losses for ref in (first, second)] == [0, 1]


def test_after_a_restart_a_loss_is_charged_to_what_may_have_started_in_each_lane(house):
    """How many slots the worker has nobody knows any more: one for each lane of which it has something, at least."""
    house.join(slots=3)
    jobs = [house.submit(queue=queue) for queue in "abc"]
    house.restart()

    house.do(WorkerLost(5, 0))

    assert [house.task(job).losses for job in jobs] == [1, 1, 1]


def test_the_loss_of_a_session_that_the_core_never_saw_is_the_workers_loss(house):
    house.join()
    number = house.submit()

    house.do(WorkerLost(5, 2))

    assert house.task(number).state is State.QUEUED


def test_a_cause_that_nobody_knows_is_a_failure_and_acknowledged(house):
    house.join()
    number = house.submit()
    (ref,) = house.starts()

    for cause in (99, -1):
        house.do(Report(5, 1, 1, (End(ref, cause, 0, 1),)))
        assert any(isinstance(effect, Acknowledge) for effect in house.finished.effects)

    assert (house.task(number).state, house.task(number).cause) == (State.DEAD, Cause.INTERNAL)


def test_what_stands_behind_a_long_attempt_is_recalled_when_nothing_else_happens():
    loop = Loop().start()
    loop.ask("join", Join(5, 1, Capacity(slots=1)))
    loop.ask("submit", submit(size=50, is_array=True))
    loop.settle()
    for delivery in range(8):
        loop.ask("report", Report(5, 1, delivery, (End(_held(loop)[0], 1, 0, 1_000),)))
        loop.settle()
    loop.ask("started", Started(5, 1, (_held(loop)[0],)))
    loop.settle()
    loop.left.clear()

    while (wait_ms := loop.pipeline.idle_ms()) is not None:
        loop.now_ms += wait_ms
        loop.settle()

    assert [len(effect.attempts) for effect in loop.left if isinstance(effect, Recall)] == [len(_held(loop)) - 1]


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
