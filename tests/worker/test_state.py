"""What a worker holds and what it does about it: every event, in the orders that cost others their tasks."""

import pytest
from msgspec.structs import replace

from tests.support.worker_state import CAPACITY, assign, end, holding, joined, reconcile, ref, said
from tq.core.model.task import Cause, Phase
from tq.core.vocabulary import End
from tq.wire import messages as m
from tq.worker.instructions import Aside, Fetch, Forget, Instruction, Recall, Say, Settled, Spawn, Stop, StopAfter
from tq.worker.state import WorkerState

# ---------------------------------------------------------------- the usual life


def test_an_assignment_is_acknowledged_and_goes_to_the_launcher_as_it_came() -> None:
    slots = joined()
    message = assign(ref(1), ref(2), delivery=9)
    assert slots.receive(message) == [Spawn(message, b""), Say(m.Assigned(9))]
    assert slots.held == {ref(1): Phase.ASSIGNED, ref(2): Phase.ASSIGNED}


def test_ends_of_one_batch_are_one_report_of_the_same_values() -> None:
    slots = holding(ref(1), ref(2))
    ends = (end(ref(1)), end(ref(2), code=3))
    (message,) = said(slots.ended(ends))
    assert isinstance(message, m.Ended)
    assert message.ends == ends


def test_an_ended_attempt_is_held_until_its_report_is_acknowledged() -> None:
    slots = holding(ref(1))
    (report,) = said(slots.ended((end(ref(1)),)))
    assert slots.held == {ref(1): Phase.ENDED}
    assert slots.receive(m.Acknowledged(report.delivery)) == [Settled((ref(1),))]
    assert slots.held == {}


def test_deliveries_have_numbers_of_their_own() -> None:
    slots = holding(ref(1), ref(2), ref(3))
    numbers = [said(slots.ended((end(one),)))[0].delivery for one in (ref(1), ref(2))]
    numbers.append(said(slots.recalled((ref(3),)))[0].delivery)
    assert numbers == sorted(set(numbers))


def test_an_acknowledgement_of_another_number_settles_nothing() -> None:
    slots = holding(ref(1))
    (report,) = said(slots.ended((end(ref(1)),)))
    assert slots.receive(m.Acknowledged(report.delivery + 1)) == []
    assert slots.held == {ref(1): Phase.ENDED}


def test_started_is_said_once_and_only_of_what_had_not_ended() -> None:
    slots = holding(ref(1), ref(2))
    slots.ended((end(ref(2)),))
    assert said(slots.started((ref(1), ref(2), ref(9)))) == [m.StartedAttempts((ref(1),))]
    assert slots.started((ref(1),)) == []
    assert slots.held[ref(1)] is Phase.STARTED


def test_the_same_assignment_twice_starts_once() -> None:
    slots = holding(ref(1))
    done = slots.receive(assign(ref(1), ref(2), delivery=2))
    assert done == [Spawn(assign(ref(2), delivery=2), b""), Say(m.Assigned(2))]
    assert slots.receive(assign(ref(1), ref(2), delivery=3)) == [Say(m.Assigned(3))]


def test_an_assignment_of_an_ended_attempt_does_not_start_it_again() -> None:
    slots = holding(ref(1))
    slots.ended((end(ref(1)),))
    assert slots.receive(assign(ref(1), delivery=2)) == [Say(m.Assigned(2))]
    assert slots.held == {ref(1): Phase.ENDED}


def test_a_second_end_of_an_attempt_changes_nothing() -> None:
    slots = holding(ref(1))
    slots.ended((end(ref(1)),))
    assert slots.ended((end(ref(1), code=1),)) == []
    assert slots.ended((end(ref(1), Cause.DRAIN),)) == []


# ---------------------------------------------------------------- stop and recall


def test_a_stop_goes_to_the_launcher_for_what_is_assigned_or_runs() -> None:
    slots = holding(ref(1), ref(2), ref(3))
    slots.started((ref(1),))
    slots.ended((end(ref(3)),))
    done = slots.receive(m.StopAttempts((ref(1), ref(2), ref(3), ref(9)), Cause.CANCELLED))
    assert done == [Stop((ref(1), ref(2)), Cause.CANCELLED)]
    assert slots.held[ref(1)] is slots.held[ref(2)] is Phase.STOPPING


def test_the_first_cause_of_a_stop_stands() -> None:
    slots = holding(ref(1))
    slots.receive(m.StopAttempts((ref(1),), Cause.TIME_LIMIT))
    assert slots.receive(m.StopAttempts((ref(1),), Cause.CANCELLED)) == []
    assert slots.receive(m.StopAttempts((ref(1),), Cause.CANCELLED, 9)) == [Stop((ref(1),), Cause.CANCELLED, 9)]


def test_a_recall_asks_the_launcher_for_what_has_not_started() -> None:
    slots = holding(ref(1), ref(2))
    slots.started((ref(1),))
    assert slots.receive(m.RecallAttempts((ref(1), ref(2), ref(9)))) == [Recall((ref(2),))]
    assert slots.receive(m.RecallAttempts((ref(1),))) == []


def test_what_the_launcher_gives_back_is_handed_back_until_acknowledged() -> None:
    slots = holding(ref(1))
    (handback,) = said(slots.recalled((ref(1),)))
    assert (handback.attempts, handback.cause) == ((ref(1),), Cause.NONE)
    assert slots.held == {ref(1): Phase.ENDED}
    assert slots.receive(m.Acknowledged(handback.delivery)) == [Settled((ref(1),))]
    assert slots.receive(m.Acknowledged(handback.delivery)) == []
    assert slots.held == {}


def test_trouble_of_this_machine_is_said_with_the_handback() -> None:
    slots = holding(ref(1))
    (handback,) = said(slots.recalled((ref(1),), Cause.WORKER_TROUBLE))
    assert handback.cause == Cause.WORKER_TROUBLE


def test_what_started_before_the_recall_came_ends_with_a_report() -> None:
    slots = holding(ref(1))
    slots.receive(m.RecallAttempts((ref(1),)))
    (message,) = said(slots.ended((end(ref(1)),)))
    assert isinstance(message, m.Ended)
    assert slots.recalled((ref(1),)) == []


# ---------------------------------------------------------------- large inputs


def test_an_attempt_with_a_large_input_waits_for_it() -> None:
    slots = joined()
    message = assign(ref(1), stdin=4)
    assert slots.receive(message) == [Say(m.Assigned(1)), Fetch(4)]
    assert slots.fetched(4, b"data") == [Spawn(message, b"data")]
    assert slots.fetched(4, b"data") == []


def test_an_input_is_fetched_once_for_all_that_wait_for_it() -> None:
    slots = joined()
    slots.receive(assign(ref(1), stdin=4))
    assert slots.receive(assign(ref(2), delivery=2, stdin=4)) == [Say(m.Assigned(2))]
    assert [type(one) for one in slots.fetched(4, b"")] == [Spawn, Spawn]


def test_an_input_is_asked_for_again_in_the_next_session() -> None:
    slots = joined()
    slots.receive(assign(ref(1), stdin=4))
    slots.disconnected()
    slots.connected()
    assert Fetch(4) in slots.receive(m.Reconciled((), ()))


def test_what_waits_for_its_input_is_recalled_without_the_launcher() -> None:
    slots = joined()
    slots.receive(assign(ref(1), ref(2), stdin=4))
    (handback,) = said(slots.receive(m.RecallAttempts((ref(1),))))
    assert handback.attempts == (ref(1),)
    assert slots.fetched(4, b"") == [Spawn(assign(ref(2), stdin=4), b"")]


def test_what_waits_for_its_input_is_stopped_without_the_launcher() -> None:
    slots = joined()
    slots.receive(assign(ref(1), stdin=4))
    done = slots.receive(m.StopAttempts((ref(1),), Cause.CANCELLED))
    assert said(done)[0].ends == (End(ref(1), Cause.CANCELLED, 0, 0),)
    assert slots.fetched(4, b"") == []


def test_an_input_for_which_nobody_waits_any_more_is_asked_for_anew() -> None:
    slots = joined()
    slots.receive(assign(ref(1), ref(2), stdin=4))
    slots.receive(m.RecallAttempts((ref(1),)))
    assert slots.receive(assign(ref(3), delivery=2, stdin=4)) == [Say(m.Assigned(2))]
    slots.receive(m.RecallAttempts((ref(2), ref(3))))
    assert slots.receive(assign(ref(4), delivery=3, stdin=4)) == [Say(m.Assigned(3)), Fetch(4)]


def test_what_has_got_its_input_is_recalled_from_the_launcher() -> None:
    slots = joined()
    slots.receive(assign(ref(1), stdin=4))
    slots.fetched(4, b"")
    slots.receive(assign(ref(2), delivery=2, stdin=5))
    done = slots.receive(m.RecallAttempts((ref(1), ref(2))))
    assert done[0] == Recall((ref(1),))
    assert [message.attempts for message in said(done)] == [(ref(2),)]


def test_the_same_assignment_twice_asks_for_its_input_once() -> None:
    slots = joined()
    slots.receive(assign(ref(1), stdin=4))
    slots.fetched(4, b"")
    assert slots.receive(assign(ref(1), delivery=2, stdin=4)) == [Say(m.Assigned(2))]


# ---------------------------------------------------------------- the launcher dies


def test_a_dead_launcher_loses_what_started_and_the_oldest_assigned_one_for_each_slot() -> None:
    slots = holding(*(ref(1, member) for member in range(5)))
    slots.started((ref(1, 0),))
    slots.receive(m.StopAttempts((ref(1, 1),), Cause.CANCELLED))
    report, handback = said(slots.launcher_died())
    assert {(one.attempt.member, one.cause) for one in report.ends} == {(member, Cause.LOST) for member in range(4)}
    assert handback == m.HandedBack(handback.delivery, (ref(1, 4),), Cause.LOST)


def test_a_dead_launcher_changes_nothing_about_what_it_had_not_got() -> None:
    slots = joined()
    slots.receive(assign(ref(1), stdin=4))
    slots.receive(assign(ref(2), delivery=2))
    slots.ended((end(ref(2)),))
    assert slots.launcher_died() == []
    assert [type(one) for one in slots.fetched(4, b"")] == [Spawn]


def test_a_launcher_that_the_worker_kills_to_leave_hands_everything_back() -> None:
    slots = holding(ref(1), ref(2), ref(3))
    slots.started((ref(1),))
    messages = said(slots.launcher_died(Cause.DRAIN))
    assert {one for message in messages for one in message.attempts} == {ref(1), ref(2), ref(3)}


# ---------------------------------------------------------------- draining


def test_leaving_is_said_and_hands_back_what_has_not_started() -> None:
    slots = holding(ref(1), ref(2))
    slots.started((ref(1),))
    assert slots.leave() == [Say(m.Draining()), Recall((ref(2),))]
    slots.recalled((ref(2),))
    assert not slots.is_idle
    slots.ended((end(ref(1)),))
    assert slots.is_idle


def test_what_is_assigned_to_a_draining_worker_goes_back_at_once() -> None:
    slots = joined()
    slots.leave()
    acknowledgement, handback = said(slots.receive(assign(ref(1), delivery=3)))
    assert acknowledgement == m.Assigned(3)
    assert handback.attempts == (ref(1),)


def test_what_leaving_stops_is_handed_back_and_not_reported() -> None:
    slots = holding(ref(1), ref(2))
    slots.leave()
    slots.started((ref(1), ref(2)))
    assert slots.stop_all(Cause.DRAIN) == [Stop((ref(1), ref(2)), Cause.DRAIN)]
    report, handback = said(slots.ended((end(ref(1), Cause.DRAIN, -15), end(ref(2)))))
    assert report.ends == (end(ref(2)),)
    assert (handback.attempts, handback.cause) == ((ref(1),), Cause.DRAIN)


def test_a_worker_that_leaves_says_so_in_its_next_list() -> None:
    slots = WorkerState(CAPACITY)
    assert slots.leave() == []
    assert reconcile(slots).draining


def test_the_server_drains_a_worker_and_takes_it_back() -> None:
    slots = holding(ref(1))
    assert slots.receive(m.DrainWorker(on=True)) == [StopAfter(-1), Recall((ref(1),))]
    assert slots.is_draining
    assert slots.receive(m.DrainWorker(on=False)) == [StopAfter(-1)]
    assert said(slots.receive(assign(ref(2), delivery=2))) == [m.Assigned(2)]


def test_the_server_cannot_keep_a_worker_that_leaves() -> None:
    slots = joined()
    slots.leave()
    slots.receive(m.DrainWorker(on=False))
    assert slots.is_draining


# ---------------------------------------------------------------- another lineage


def abandoned() -> tuple[WorkerState, list[Instruction]]:
    slots = joined()
    slots.receive(assign(ref(1), ref(2)))
    slots.receive(assign(ref(3), delivery=2, stdin=4))
    slots.ended((end(ref(1)),))
    slots.disconnected()
    return slots, slots.abandon()


def test_another_lineage_stops_everything_and_puts_results_aside() -> None:
    slots, done = abandoned()
    assert Stop((ref(2),), Cause.LOST) in done
    assert not any(isinstance(one, Forget) for one in done)  # its file is what goes aside
    settled = Settled((ref(1), ref(3)))  # else their output would go to the other store, which may know the names
    assert done.index(Aside((end(ref(1)),), 1)) < done.index(settled)  # which forgets their output
    assert slots.is_abandoned


def test_what_ends_for_another_lineage_goes_aside_and_nothing_is_owed_any_more() -> None:
    slots, _ = abandoned()
    assert slots.ended((end(ref(2)),)) == [Aside((end(ref(2)),)), Settled((ref(2),))]
    assert not slots.is_abandoned
    assert reconcile(slots).held == ()
    assert slots.receive(m.Reconciled((), ())) == []


@pytest.mark.parametrize("how", ["recalled", "launcher_died"])
def test_abandoning_ends_however_the_launcher_lets_go(how: str) -> None:
    slots, _ = abandoned()
    done = slots.recalled((ref(2),)) if how == "recalled" else slots.launcher_died()
    assert said(done) == []
    assert Settled((ref(2),)) in done
    assert not slots.is_abandoned


def test_abandoning_drops_what_was_to_be_handed_back_and_ends_the_session() -> None:
    slots = holding(ref(1), ref(2))
    slots.recalled((ref(1),))
    slots.receive(m.DrainWorker(on=True))
    assert slots.abandon() == [Settled((ref(1),)), Stop((ref(2),), Cause.LOST)]
    assert slots.receive(assign(ref(3), delivery=2)) == []
    assert not slots.is_draining


def test_an_end_that_nobody_here_knows_goes_aside() -> None:
    slots = joined()
    assert slots.ended((end(ref(9)),)) == [Aside((end(ref(9)),)), Settled((ref(9),))]


def test_an_input_for_another_lineage_starts_nothing() -> None:
    slots, _ = abandoned()
    assert slots.fetched(4, b"data") == []


def test_an_idle_worker_goes_over_to_another_lineage_at_once() -> None:
    slots = joined()
    assert slots.abandon() == []
    assert not slots.is_abandoned


def test_the_same_names_in_another_lineage_are_new_attempts() -> None:
    slots, _ = abandoned()
    slots.ended((end(ref(2)),))
    joined(slots)
    assert [type(one) for one in slots.receive(assign(ref(1), ref(2)))] == [Spawn, Say]


# ---------------------------------------------------------------- bounds


def test_many_ends_at_once_are_several_reports_that_each_fit_a_frame() -> None:
    refs = [ref(1, member) for member in range(3_000)]
    slots = holding(*refs)
    reports = said(slots.ended(tuple(End(one, Cause.EXIT, 0, 1, b"x" * 1_000) for one in refs)))
    assert [one.attempt for report in reports for one in report.ends] == refs
    assert all(len(report.ends) <= 1_000 for report in reports)
    assert all(sum(len(one.result) for one in report.ends) < 200_000 for report in reports)


def test_many_small_ends_are_bounded_by_what_one_command_may_have() -> None:
    refs = [ref(1, member) for member in range(2_500)]
    reports = said(holding(*refs).ended(tuple(end(one) for one in refs)))
    assert [len(report.ends) for report in reports] == [1_000, 1_000, 500]


def test_one_large_end_is_one_report() -> None:
    large = End(ref(1), Cause.EXIT, 0, 1, b"x" * 200_000)
    assert [report.ends for report in said(holding(ref(1)).ended((large,)))] == [(large,)]


def test_many_handbacks_at_once_are_several_messages() -> None:
    refs = [ref(1, member) for member in range(2_500)]
    slots = holding(*refs)
    messages = said(slots.recalled(tuple(refs)))
    assert [len(message.attempts) for message in messages] == [1_000, 1_000, 500]


def test_the_list_says_the_latest_width_of_each_lane() -> None:
    slots = joined()
    slots.receive(assign(ref(1), delivery=1))
    slots.receive(replace(assign(ref(2), delivery=2), width=1))
    slots.receive(replace(assign(ref(3), delivery=3), lane=9, width=4))
    slots.disconnected()

    assert reconcile(slots).widths == ((1, 1), (9, 4))


def test_what_waited_for_its_input_does_not_bring_an_old_width_back() -> None:
    slots = joined()
    assert Fetch(7) in slots.receive(assign(ref(1), delivery=1, stdin=7))
    slots.receive(replace(assign(ref(2), delivery=2), width=1))

    (spawn,) = slots.fetched(7, b"input")

    assert isinstance(spawn, Spawn)
    assert spawn.assign.width == 1


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
