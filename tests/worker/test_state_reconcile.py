"""What both sides say when a session begins, what waits for that, and what is kept while the server is away."""

from tests.support.worker_state import CAPACITY, assign, end, holding, joined, reconcile, ref, said
from tq.core.model.task import Cause, Phase
from tq.core.vocabulary import Held
from tq.wire import messages as m
from tq.wire.held import tally
from tq.worker.instructions import Forget, Keep, Say, Settled, Stop
from tq.worker.state import WorkerState

# ---------------------------------------------------------------- reconciling


def test_a_session_begins_with_all_that_is_held_and_nothing_else() -> None:
    slots = holding(ref(1), ref(2), ref(3), ref(4))
    slots.started((ref(2),))
    slots.receive(m.StopAttempts((ref(3),), Cause.CANCELLED))
    slots.ended((end(ref(4)),))
    slots.disconnected()
    message = reconcile(slots)
    assert message.capacity is CAPACITY
    assert {held.attempt: held.phase for held in message.held} == {
        ref(1): Phase.ASSIGNED,
        ref(2): Phase.STARTED,
        ref(3): Phase.STOPPING,
        ref(4): Phase.ENDED,
    }


def test_an_empty_list_is_said_too() -> None:
    assert reconcile(WorkerState(CAPACITY)) == m.Reconcile(CAPACITY, ())


def test_a_long_list_comes_in_parts_and_the_last_one_says_so() -> None:
    slots = holding(*(ref(1, member) for member in range(2_500)))
    slots.disconnected()
    parts = said(slots.connected())
    assert [(len(part.held), part.more) for part in parts] == [(1_000, True), (1_000, True), (500, False)]
    assert len({held.attempt for part in parts for held in part.held}) == 2_500


def test_nothing_but_the_list_is_said_before_the_answer() -> None:
    slots = holding(ref(1), ref(2), ref(3))
    slots.disconnected()
    slots.connected()
    assert said(slots.started((ref(1),))) == []
    assert said(slots.ended((end(ref(2)),))) == []
    assert said(slots.recalled((ref(3),))) == []
    later = said(slots.receive(m.Reconciled((), ())))
    assert [type(message) for message in later] == [m.Ended, m.HandedBack, m.StartedAttempts]
    assert later[2] == m.StartedAttempts((ref(1),))


def test_a_worker_that_wants_to_leave_while_its_list_is_on_its_way_says_so_then() -> None:
    slots = holding(ref(1))
    slots.disconnected()
    assert not reconcile(slots).draining
    assert said(slots.leave()) == []
    assert said(slots.receive(m.Reconciled((), ()))) == [m.Draining()]


def test_a_report_whose_acknowledgement_was_lost_is_said_again_with_its_number() -> None:
    slots = holding(ref(1))
    (report,) = said(slots.ended((end(ref(1)),)))
    slots.disconnected()
    assert reconcile(slots).held == (Held(ref(1), Phase.ENDED),)
    assert said(slots.receive(m.Reconciled((), ()))) == [report]


def test_a_handback_whose_acknowledgement_was_lost_is_said_again_with_its_cause() -> None:
    slots = holding(ref(1))
    (handback,) = said(slots.recalled((ref(1),), Cause.WORKER_TROUBLE))
    slots.disconnected()
    assert reconcile(slots).held == (Held(ref(1), Phase.ENDED),)
    assert said(slots.receive(m.Reconciled((), ()))) == [handback]


def test_what_the_server_calls_settled_is_forgotten_and_the_rest_of_its_report_said_again() -> None:
    slots = holding(ref(1), ref(2))
    (report,) = said(slots.ended((end(ref(1)), end(ref(2)))))
    slots.disconnected()
    slots.connected()
    done = slots.receive(m.Reconciled((), (ref(1),)))
    assert Settled((ref(1),)) in done
    assert said(done) == [m.Ended(report.delivery, (end(ref(2)),))]
    assert slots.held == {ref(2): Phase.ENDED}


def test_what_lives_is_never_forgotten_by_a_settled() -> None:
    slots = holding(ref(1))
    slots.disconnected()
    joined(slots, settled=(ref(1),))
    assert slots.held == {ref(1): Phase.ASSIGNED}


def test_what_the_server_does_not_want_is_stopped_with_its_cause_and_the_rest_kept() -> None:
    slots = holding(ref(1), ref(2), ref(3))
    slots.started((ref(1), ref(2)))
    slots.disconnected()
    slots.connected()
    done = slots.receive(m.Reconciled(((ref(1), Cause.LOST), (ref(3), Cause.CANCELLED)), ()))
    assert done[-2:] == [Stop((ref(1),), Cause.LOST), Stop((ref(3),), Cause.CANCELLED)]
    assert slots.held[ref(2)] is Phase.STARTED


def test_a_stop_of_what_ended_meanwhile_leaves_its_report_alone() -> None:
    slots = holding(ref(1))
    slots.disconnected()
    slots.connected()
    slots.ended((end(ref(1)),))
    done = slots.receive(m.Reconciled(((ref(1), Cause.CANCELLED),), ()))
    assert [type(one) for one in done] == [Say]
    assert said(done)[0].ends == (end(ref(1)),)


def test_the_list_can_be_asked_for_again_without_repeating_reports() -> None:
    slots = holding(ref(1), ref(2))
    slots.ended((end(ref(1)),))
    (again,) = said(slots.receive(m.ReconcileAgain()))
    assert {held.attempt for held in again.held} == {ref(1), ref(2)}
    assert said(slots.ended((end(ref(2)),))) != []  # the session goes on meanwhile
    assert slots.receive(m.Reconciled((), ())) == []


def test_messages_that_come_without_a_session_are_dropped() -> None:
    slots = holding(ref(1))
    slots.disconnected()
    assert slots.receive(assign(ref(2))) == []
    assert slots.receive(m.StopAttempts((ref(1),), Cause.CANCELLED)) == []
    assert slots.held == {ref(1): Phase.ASSIGNED}


# ---------------------------------------------------------------- the server is away


def test_results_go_to_the_disk_while_the_server_is_away_and_from_it_once_acknowledged() -> None:
    slots = holding(ref(1))
    slots.disconnected()
    (keep,) = slots.ended((end(ref(1)),))
    assert keep == Keep(m.Ended(keep.message.delivery, (end(ref(1)),)))
    joined(slots)
    assert slots.receive(m.Acknowledged(keep.message.delivery)) == [Settled((ref(1),)), Forget(keep.message.delivery)]
    assert slots.receive(m.Acknowledged(keep.message.delivery)) == []


def test_results_without_an_acknowledgement_go_to_the_disk_when_the_connection_breaks_and_only_once() -> None:
    slots = holding(ref(1))
    (report,) = said(slots.ended((end(ref(1)),)))
    assert slots.disconnected() == [Keep(report)]
    slots.connected()
    assert slots.disconnected() == []


def test_results_that_end_while_the_answer_is_awaited_go_to_the_disk_too() -> None:
    slots = holding(ref(1))
    slots.disconnected()
    slots.connected()
    assert [type(one) for one in slots.ended((end(ref(1)),))] == [Keep]


def test_a_settled_result_goes_from_the_disk() -> None:
    slots = holding(ref(1))
    slots.disconnected()
    (keep,) = slots.ended((end(ref(1)),))
    slots.connected()
    assert slots.receive(m.Reconciled((), (ref(1),))) == [Settled((ref(1),)), Forget(keep.message.delivery)]
    assert slots.receive(m.Acknowledged(keep.message.delivery)) == []


def test_a_settled_handback_is_said_for_the_rest_only() -> None:
    slots = holding(ref(1), ref(2))
    (handback,) = said(slots.recalled((ref(1), ref(2)), Cause.WORKER_TROUBLE))
    slots.disconnected()
    slots.connected()
    (again,) = said(slots.receive(m.Reconciled((), (ref(2),))))
    assert again == m.HandedBack(handback.delivery, (ref(1),), Cause.WORKER_TROUBLE)


def test_a_handback_without_an_acknowledgement_goes_to_the_disk_too() -> None:
    slots = holding(ref(1))
    (handback,) = said(slots.recalled((ref(1),), Cause.WORKER_TROUBLE))
    assert slots.disconnected() == [Keep(handback)]


def test_a_new_worker_presents_what_the_last_one_left_and_numbers_on() -> None:
    left = [m.Ended(7, (end(ref(1)),)), m.HandedBack(8, (ref(5),), Cause.DRAIN), m.Ended(9, (end(ref(2)), end(ref(3))))]
    slots = WorkerState(CAPACITY)
    slots.restore(left)
    assert {held.attempt for held in reconcile(slots).held} == {ref(1), ref(2), ref(3), ref(5)}
    assert said(slots.receive(m.Reconciled((), ()))) == left
    slots.receive(assign(ref(4)))
    assert said(slots.ended((end(ref(4)),)))[0].delivery == 10
    assert slots.receive(m.Acknowledged(7)) == [Settled((ref(1),)), Forget(7)]


# ---------------------------------------------------------------- the tally of beats


def test_beats_count_from_the_acknowledged_delivery_to_the_report() -> None:
    slots = joined()
    assert slots.beat() == m.Beat(0, 0)
    slots.receive(assign(ref(1), ref(2)))
    assert slots.beat() == m.Beat(*tally([ref(1), ref(2)]))
    slots.ended((end(ref(1)),))
    assert slots.beat() == m.Beat(*tally([ref(2)]))
    slots.recalled((ref(2),))
    assert slots.beat() == m.Beat(0, 0)


def test_what_ended_before_the_answer_counts_until_its_report_is_said() -> None:
    slots = holding(ref(1), ref(2))
    slots.ended((end(ref(1)),))
    slots.disconnected()
    slots.connected()
    assert slots.beat() == m.Beat(*tally([ref(2)]))  # as listed
    slots.ended((end(ref(2)),))
    assert slots.beat() == m.Beat(*tally([ref(2)]))
    slots.receive(m.Reconciled((), ()))
    assert slots.beat() == m.Beat(0, 0)
