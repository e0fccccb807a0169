"""A worker that drains: because it leaves, because it was asked to, or because it has had its last task."""

from tests.support.slots import CAPACITY, assign, end, joined, ref, said
from tq.core.model.task import Cause
from tq.wire import messages as m
from tq.worker.instructions import Spawn, Stop, StopAfter
from tq.worker.state import WorkerState


def limited(tasks_max: int) -> WorkerState:
    return joined(WorkerState(CAPACITY, tasks_max=tasks_max))


def test_who_leaves_and_is_asked_to_go_on_says_that_it_leaves() -> None:
    slots = joined()
    slots.leave()

    assert said(slots.receive(m.DrainWorker(on=False))) == [m.Draining()]
    assert slots.is_draining


def test_who_does_not_leave_goes_on_without_a_word() -> None:
    slots = joined()
    slots.receive(m.DrainWorker(on=True))

    assert said(slots.receive(m.DrainWorker(on=False))) == []
    assert not slots.is_draining


# ---------------------------------------------------------------- a deadline from afar


def test_a_deadline_is_passed_on_and_taken_back_by_the_next_word() -> None:
    slots = joined()
    told = [
        one
        for message in (m.DrainWorker(True, 5_000), m.DrainWorker(True), m.DrainWorker(False))
        for one in slots.receive(message)
        if isinstance(one, StopAfter)
    ]
    assert told == [StopAfter(5_000), StopAfter(-1), StopAfter(-1)]


def test_what_a_deadline_stops_is_handed_back_as_drained() -> None:
    slots = joined()
    slots.receive(assign(ref(1)))
    slots.started([ref(1)])
    slots.receive(m.DrainWorker(True, 0))
    assert slots.stop_all(Cause.DRAIN) == [Stop((ref(1),), Cause.DRAIN)]
    (handback,) = said(slots.ended((end(ref(1), Cause.DRAIN, -15),)))
    assert isinstance(handback, m.HandedBack)
    assert (handback.attempts, handback.cause) == ((ref(1),), Cause.DRAIN)


# ---------------------------------------------------------------- the last task


def test_no_more_than_the_last_task_is_taken_and_the_rest_goes_back_at_once() -> None:
    slots = limited(2)
    done = slots.receive(assign(ref(1), ref(2), ref(3)))
    (spawn,) = [one for one in done if isinstance(one, Spawn)]
    assert [one.attempt for one in spawn.assign.attempts] == [ref(1), ref(2)]
    assert said(done) == [m.Assigned(1), m.Draining(), m.HandedBack(1, (ref(3),))]
    assert slots.is_leaving


def test_over_several_deliveries_too_and_what_crosses_the_last_goes_back() -> None:
    slots = limited(2)
    assert said(slots.receive(assign(ref(1)))) == [m.Assigned(1)]
    assert said(slots.receive(assign(ref(2), delivery=2))) == [m.Assigned(2), m.Draining()]
    assert said(slots.receive(assign(ref(3), delivery=3))) == [m.Assigned(3), m.HandedBack(1, (ref(3),))]


def test_what_went_back_without_having_run_is_not_counted() -> None:
    slots = limited(3)
    slots.receive(assign(ref(1), ref(2)))
    slots.recalled((ref(2),))
    assert slots.tasks_left == 2
    done = slots.receive(assign(ref(3), ref(4), delivery=2))
    assert [type(one) for one in said(done)] == [m.Assigned, m.Draining]


def test_a_drain_from_afar_counts_nothing() -> None:
    slots = limited(2)
    slots.receive(m.DrainWorker(True))
    slots.receive(assign(ref(1), ref(2), ref(3)))
    slots.receive(m.DrainWorker(False))
    assert slots.tasks_left == 2


def test_a_large_input_is_only_fetched_for_what_is_taken() -> None:
    slots = limited(1)
    done = slots.receive(assign(ref(1), ref(2), stdin=7))
    assert said(done) == [m.Assigned(1), m.Draining(), m.HandedBack(1, (ref(2),))]
    (spawn,) = [one for one in slots.fetched(7, b"data") if isinstance(one, Spawn)]
    assert [one.attempt for one in spawn.assign.attempts] == [ref(1)]
