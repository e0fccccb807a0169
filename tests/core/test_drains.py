"""Server and worker agree on whether the worker drains, whatever crosses on the way.

Else they lease and hand back without end.
"""

import pytest

from tests.support.house import House, held
from tq.core.model.task import Cause, Phase, State
from tq.core.vocabulary import Drain, DrainAsked, Handback, WorkerDrains, WorkerLost
from tq.errors import BadRequest, TaskNotFound
from tq.limits import put_off_max


def asked(house: House) -> list[DrainAsked]:
    return [effect for effect in house.finished.effects if isinstance(effect, DrainAsked)]


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("on", [True, False])
def test_what_was_asked_while_the_worker_was_cut_off_holds_and_is_told_again(on: bool, is_lost: bool) -> None:
    house = House()
    house.join(draining=not on)
    house.do(Drain("host5", on=on))
    if is_lost:
        house.do(WorkerLost(5, 1))
        assert not house.engine.live.workers

    house.join(session=2, draining=not on)

    assert house.engine.live.workers[5].draining is on
    assert asked(house) == [DrainAsked(5, 2, on)]


def test_a_server_that_has_restarted_believes_the_worker() -> None:
    house = House()
    house.join()
    house.do(Drain("host5"))

    house.restart()
    house.join(session=1, draining=True)

    assert house.engine.live.workers[5].draining
    assert asked(house) == []


def test_who_agrees_is_told_nothing() -> None:
    house = House()
    house.join(draining=True)
    house.join(session=2, draining=True)

    assert house.engine.live.workers[5].draining
    assert asked(house) == []


def test_a_worker_that_wants_nothing_more_gets_nothing_more_but_by_its_latest_session() -> None:
    house = House()
    house.join(session=2)
    house.do(WorkerDrains(5, 1))
    assert not house.engine.live.workers[5].draining
    house.do(WorkerDrains(5, 2))
    house.submit()
    assert house.starts() == []


# ---------------------------------------------------------------- a deadline


def test_the_deadline_goes_to_the_worker_which_stops_what_still_runs() -> None:
    house = House()
    house.join()
    house.do(Drain("host5", deadline_ms=30_000))
    assert asked(house) == [DrainAsked(5, 1, on=True, deadline_ms=30_000)]


def test_a_reconnected_worker_is_told_what_is_left_of_its_deadline() -> None:
    house = House()
    house.join()
    house.do(Drain("host5", deadline_ms=30_000))
    house.now_ms += 10_000
    house.join(session=2, draining=True)
    ((left_ms),) = [effect.deadline_ms for effect in asked(house)]
    assert left_ms == 20_000 - 1  # the turn itself takes a millisecond here

    house.now_ms += 60_000
    house.join(session=3, draining=True)
    assert [effect.deadline_ms for effect in asked(house)] == [0]

    house.do(Drain("host5", deadline_ms=0))
    house.join(session=4, draining=True)
    assert [effect.deadline_ms for effect in asked(house)] == [0]


def test_the_last_word_counts_also_without_a_deadline() -> None:
    house = House()
    house.join()
    house.do(Drain("host5", deadline_ms=30_000))
    house.do(Drain("host5"))
    house.join(session=2, draining=True)
    assert asked(house) == []


def test_a_deadline_goes_on_while_the_worker_is_lost() -> None:
    house = House()
    house.join()
    house.do(Drain("host5", deadline_ms=30_000))
    house.do(WorkerLost(5, 1))
    house.now_ms += 10_000
    house.join(session=2)
    assert asked(house) == [DrainAsked(5, 2, on=True, deadline_ms=20_000 - 2)]
    assert not house.engine.live.gone


def test_of_workers_that_never_come_back_no_more_than_a_bound_are_remembered() -> None:
    house = House()
    for worker in range(1, put_off_max + 3):
        house.join(worker=worker)
        house.do(WorkerLost(worker, 1))
    assert list(house.engine.live.gone) == list(range(3, put_off_max + 3))


@pytest.mark.parametrize("wrong", [{"deadline_ms": -2}, {"deadline_ms": 10**12}, {"on": False, "deadline_ms": 0}])
def test_a_deadline_that_makes_no_sense_is_refused(wrong: dict[str, int]) -> None:
    house = House()
    house.join()
    with pytest.raises(BadRequest, match="deadline"):
        house.do(Drain("host5", **wrong))
    assert not house.engine.live.workers[5].draining


def test_a_worker_that_nobody_knows_or_that_is_away_is_named() -> None:
    house = House()
    house.submit()
    house.join()
    with pytest.raises(TaskNotFound, match="no worker 'w99' is known"):
        house.do(Drain("w99"))
    house.restart()
    with pytest.raises(TaskNotFound, match="w0000000000000005 is not connected"):
        house.do(Drain("w0000000000000005"))


def test_what_ended_with_its_worker_s_predecessor_is_not_given_up_before_it_is_reported() -> None:
    house = House()
    house.join()
    job = house.submit(crash_limit=1)
    (ref,) = house.starts()
    house.started(ref)
    house.join(worker=6, held=held(ref, phase=Phase.ENDED), predecessors=(4, 5))
    house.report(ref, worker=6)
    task = house.task(job)
    assert (task.state, task.losses, task.attempt) == (State.SUCCEEDED, 0, 1)
    assert house.counted("claims") == 1


def test_what_ran_with_a_predecessor_and_is_not_brought_is_lost_at_once() -> None:
    house = House()
    house.join(slots=2)
    job = house.array(2, crash_limit=3)
    first, second = house.starts()
    house.started(first, second)
    house.join(worker=6, held=held(first, phase=Phase.ENDED), predecessors=(5,))
    assert house.task(job, 1).losses == 1


# ---------------------------------------------------------------- what was stopped


@pytest.mark.parametrize("cause", [Cause.DRAIN, Cause.CUT_OFF])
@pytest.mark.parametrize("unheard", ["nothing", "its start", "its worker, which was lost, and is back"])
def test_what_ran_and_was_stopped_goes_back_uncharged_and_stays_in_the_history(cause: Cause, unheard: str) -> None:
    house = House()
    house.join()
    job = house.submit(retries=0, crash_limit=2 if unheard.startswith("its worker") else 1)
    (ref,) = house.starts()
    session = 1
    if unheard != "its start":
        house.started(ref)
    if unheard.startswith("its worker"):
        house.do(WorkerLost(5, 1))
        session = 2
        house.join(session=session, held=held(ref, phase=Phase.ENDED))
    house.do(Handback(5, session, 1, (ref,), int(cause)))
    task = house.task(job)
    assert (task.failures, task.losses, task.attempt) == (0, 0, 2)
    assert [(one.attempt, one.cause, one.charged, one.host) for one in task.history] == [(1, cause, False, "host5")]


@pytest.mark.parametrize("cause", [Cause.NONE, Cause.WORKER_TROUBLE])
def test_what_never_ran_leaves_no_trace(cause: Cause) -> None:
    house = House()
    house.join()
    job = house.submit()
    house.do(Handback(5, 1, 1, tuple(house.starts()), int(cause)))
    assert house.task(job).history == ()
