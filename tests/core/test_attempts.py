"""Attempts: leased, started, reported, handed back, lost, claimed. The fence decides what a word is worth."""

import pytest
from msgspec.structs import replace

from tests.support.house import House, held
from tq.client.sansio.documents import document
from tq.core.model.task import Cause, Phase, State
from tq.core.vocabulary import Acknowledge, AttemptRef, Cancel, Get, GetResults, Handback, Retry, Supersede, WorkerLost


@pytest.fixture
def house():
    return House()


def _shown(house, job):
    """Return the exit code, signal and history of a task as people see them, in both kinds of answers."""
    shown = document(house.do(Get(str(job))).value)
    (result,) = house.do(GetResults(str(job))).items
    assert (result.phase, result.code) == (shown["phase"], house.task(job).code)
    return shown["exit_code"], shown["signal"], [(one["cause"], one["exit_code"]) for one in shown["history"]]


def _running(house, **fields):
    """Submit one task and have worker 5 lease it."""
    number = house.submit(**fields)
    if not house.starts():
        house.join()
    (ref,) = house.starts()
    return number, ref


def test_a_task_is_leased_in_the_turn_of_its_submit(house):
    house.join()
    number = house.submit()
    (ref,) = house.starts()

    assert ref == AttemptRef(number, 0, 0, 1, house.finished.sequence)
    assert house.task(number).phase is Phase.ASSIGNED


def test_exit_0_succeeds_and_all_else_is_dead_with_its_code(house):
    for code, cause, state in (
        (0, Cause.EXIT, State.SUCCEEDED),
        (7, Cause.EXIT, State.DEAD),
        (-9, Cause.SIGNAL, State.DEAD),
        (127, Cause.SPAWN_FAILED, State.DEAD),
        (0, Cause.CWD_MISSING, State.DEAD),
        (0, Cause.TIME_LIMIT, State.DEAD),
    ):
        number, ref = _running(house)
        house.report(ref, code=code, cause=cause)
        task = house.task(number)
        assert (task.state, task.code, task.cause, task.phase) == (state, code, cause, Phase.ENDED)
        assert any(isinstance(effect, Acknowledge) for effect in house.finished.effects)


def test_a_repeat_of_the_accepted_report_is_known_and_changes_nothing(house):
    number, ref = _running(house)
    house.report(ref)
    house.report(ref, code=3)

    assert house.task(number).state is State.SUCCEEDED
    assert (house.counted("known_reports"), house.counted("stale_reports")) == (1, 0)


@pytest.mark.parametrize("wrong", [{"attempt": 2}, {"lease": 1}, {"job": 99}, {"member": 7}])
def test_a_report_that_does_not_match_is_stale_counted_and_acknowledged(house, wrong):
    number, ref = _running(house)
    house.report(replace(ref, **wrong), code=3)

    assert house.task(number).state is State.RUNNING
    assert house.counted("stale_reports") == 1
    assert any(isinstance(effect, Acknowledge) for effect in house.finished.effects)


def test_a_report_of_another_worker_is_stale(house):
    number, ref = _running(house)
    house.join(worker=6)
    house.report(ref, worker=6)

    assert house.task(number).state is State.RUNNING
    assert house.counted("stale_reports") == 1


def test_a_word_of_a_superseded_session_is_dropped(house):
    number, ref = _running(house)
    house.join(session=2, held=held(ref))
    assert Supersede(5, 1) in house.finished.effects
    house.report(ref, session=1)

    assert house.task(number).state is State.RUNNING
    assert house.counted("superseded") == 1
    assert not any(isinstance(effect, Acknowledge) for effect in house.finished.effects)
    house.join(session=1)
    assert house.counted("superseded") == 2
    assert house.engine.live.workers[5].session_number == 2


def test_a_lost_task_goes_to_another_worker_with_a_new_lease(house):
    number, ref = _running(house)
    house.join(worker=6)
    house.do(WorkerLost(5, 1))
    (again,) = house.starts()

    assert (again.attempt, again.lease > ref.lease) == (2, True)
    assert house.task(number).losses == 1
    assert [entry.cause for entry in house.task(number).history] == [Cause.LOST]


def test_a_lost_task_is_dead_at_its_crash_limit(house):
    number, _ = _running(house, crash_limit=2)
    house.do(WorkerLost(5, 1))
    house.join(session=2)
    house.do(WorkerLost(5, 2))

    assert (house.task(number).state, house.task(number).cause) == (State.DEAD, Cause.LOST)
    assert house.task(number).losses == 2


def test_without_a_crash_limit_a_task_is_lost_for_ever(house):
    number, _ = _running(house, crash_limit=0)
    for session in range(1, 9):
        house.do(WorkerLost(5, session))
        house.join(session=session + 1)
    assert house.task(number).state is State.RUNNING
    assert house.task(number).attempt == 9


def test_the_loss_of_an_old_session_does_nothing(house):
    number, ref = _running(house)
    house.join(session=2, held=held(ref))
    house.do(WorkerLost(5, 1))
    house.do(WorkerLost(99, 1))
    assert house.task(number).state is State.RUNNING
    assert house.counted("superseded") == 2


def test_a_lost_attempt_is_claimed_until_its_successor_is_leased(house):
    number, ref = _running(house)
    house.do(WorkerLost(5, 1))
    assert house.task(number).losses == 1
    answer = house.join(session=2, held=held(ref))

    assert (answer.stop, answer.settled) == ((), ())
    task = house.task(number)
    assert (task.state, task.attempt, task.losses, task.phase) == (State.RUNNING, 1, 0, Phase.STARTED)
    assert house.counted("claims") == 1
    assert house.starts() == []


def test_a_lost_attempt_that_ended_meanwhile_counts(house):
    number, ref = _running(house)
    house.do(WorkerLost(5, 1))
    house.join(session=2, held=held(ref, phase=Phase.ENDED))
    house.report(ref, session=2)

    assert (house.task(number).state, house.task(number).attempt) == (State.SUCCEEDED, 1)


def test_a_claim_after_the_successors_lease_is_told_to_stop(house):
    number, ref = _running(house)
    house.join(worker=6)
    house.do(WorkerLost(5, 1))
    answer = house.join(session=2, held=held(ref))

    assert answer.stop == ((ref, int(Cause.LOST)),)
    house.report(ref, session=2)
    assert house.task(number).state is State.RUNNING
    assert house.counted("stale_reports") == 2


@pytest.mark.parametrize("has_started", [False, True])
def test_what_the_worker_does_not_hold_goes_back_uncharged_and_is_told_if_it_had_started(house, has_started):
    number, ref = _running(house)
    if has_started:
        house.started(ref)
    house.join(session=2)

    (again,) = house.starts()
    task = house.task(number)
    assert (again.attempt, task.losses) == (2, 0)
    told = [(1, Cause.LOST, False)] if has_started else []
    assert [(one.attempt, one.cause, one.charged) for one in task.history] == told
    house.report(ref, session=2)
    assert house.counted("stale_reports") == 1


def test_an_accepted_end_that_is_presented_again_is_settled(house):
    _, ref = _running(house)
    house.report(ref)
    answer = house.join(session=2, held=held(ref, phase=Phase.ENDED))
    assert answer.settled == (ref,)


def test_a_restart_keeps_what_runs(house):
    number, ref = _running(house)
    house.restart()
    answer = house.join(session=1, held=held(ref))

    assert answer == type(answer)()
    house.report(ref)
    assert (house.task(number).state, house.task(number).attempt) == (State.SUCCEEDED, 1)


def test_a_worker_that_does_not_come_back_after_a_restart_is_an_ordinary_loss(house):
    number, _ = _running(house)
    house.restart()
    assert list(house.engine.live.workers) == [5]
    house.do(WorkerLost(5, 0))
    assert house.task(number).state is State.QUEUED
    assert house.engine.live.workers == {}


def test_a_handback_is_uncharged_and_is_not_claimable(house):
    number, ref = _running(house)
    house.do(Handback(5, 1, 1, (ref,)))
    (again,) = house.starts()
    assert (again.attempt, house.task(number).losses, house.task(number).history) == (2, 0, ())


def test_what_is_handed_back_with_a_dead_launcher_may_have_run_and_stays_in_the_history_uncharged(house):
    number, ref = _running(house)
    house.do(Handback(5, 1, 1, (ref,), int(Cause.LOST)))
    (again,) = house.starts()
    task = house.task(number)
    assert (again.attempt, task.losses) == (2, 0)
    assert [(entry.attempt, entry.cause, entry.charged) for entry in task.history] == [(1, Cause.LOST, False)]


def test_a_successor_on_the_state_directory_speaks_for_its_predecessor(house):
    number, ref = _running(house)
    house.join(worker=6, session=1, held=held(ref, phase=Phase.ENDED), predecessors=(5,))
    assert house.task(number).worker == 6
    house.report(ref, worker=6)

    assert (house.task(number).state, house.task(number).losses) == (State.SUCCEEDED, 0)
    assert list(house.engine.live.workers) == [6]


def test_a_predecessors_attempts_are_lost_at_once(house):
    number, _ = _running(house)
    house.join(worker=6, session=1, predecessors=(5,))
    (again,) = house.starts()
    assert (again.attempt, house.task(number).losses) == (2, 1)
    assert Supersede(5, 1) in house.finished.effects


def test_a_launcher_that_died_is_a_charged_loss(house):
    number, ref = _running(house)
    house.report(ref, cause=Cause.LOST)
    assert house.task(number).losses == 1
    assert house.starts()[0].attempt == 2


def test_an_attempt_that_its_leaving_worker_stopped_goes_back_uncharged(house):
    number, ref = _running(house)
    house.report(ref, code=-15, cause=Cause.DRAIN)
    task = house.task(number)
    assert (task.state, task.attempt, task.failures, task.losses) == (State.RUNNING, 2, 0, 0)


def test_a_loss_charges_what_may_have_run_and_no_bystander(house):
    house.join(slots=2)
    number = house.array(60)
    for _ in range(2):
        house.report(*house.starts())
    assert len(house.engine.live.workers[5].held) == 56
    house.do(WorkerLost(5, 1))

    losses = [house.task(number, member).losses for member in range(4, 60)]
    assert sum(losses) == 2
    assert losses[:2] == [1, 1]


def test_what_was_lost_before_anybody_heard_of_its_start_counts_from_when_it_was_leased(house):
    number, ref = _running(house)
    leased_ms = house.task(number).leased_ms
    house.do(WorkerLost(5, 1))
    house.join(6)
    (lost,) = house.task(number).history
    assert (lost.attempt, lost.started_ms) == (ref.attempt, leased_ms)


class TestCancel:
    """Cancel while an attempt runs: the slot is held until its processes are gone."""

    def test_a_running_task_stays_running_until_its_end(self, house):
        number, ref = _running(house)
        answer = house.do(Cancel((str(number),)))

        assert (answer.done, answer.stopping) == (0, 1)
        assert house.stops() == [ref]
        assert (house.task(number).state, house.task(number).phase) == (State.RUNNING, Phase.STOPPING)
        house.report(ref, code=-15, cause=Cause.CANCELLED)
        task = house.task(number)
        assert (task.state, task.cause, task.code) == (State.CANCELLED, Cause.CANCELLED, -15)

    def test_an_end_after_the_cancel_is_cancelled_with_its_code_kept(self, house):
        number, ref = _running(house)
        house.do(Cancel((str(number),)))
        house.report(ref, code=0)
        assert (house.task(number).state, house.task(number).code) == (State.CANCELLED, 0)

    @pytest.mark.parametrize("how", ["lost", "handback", "not held"])
    def test_a_cancelled_attempt_that_goes_another_way_is_cancelled(self, house, how):
        number, ref = _running(house)
        house.do(Cancel((str(number),)))
        if how == "lost":
            house.do(WorkerLost(5, 1))
        elif how == "handback":
            house.do(Handback(5, 1, 1, (ref,)))
        else:
            house.join(session=2)
        assert house.task(number).state is State.CANCELLED
        assert house.starts() == []

    def test_a_worker_out_of_reach_hears_the_stop_when_it_reconciles(self, house):
        number, ref = _running(house)
        house.restart()
        house.do(Cancel((str(number),)))
        answer = house.join(held=held(ref))
        assert answer.stop == ((ref, int(Cause.CANCELLED)),)


def test_what_a_worker_still_runs_of_a_task_that_has_ended_here_is_stopped(house):
    number, ref = _running(house)
    house.do(WorkerLost(5, 1))
    house.do(Cancel((str(number),)))
    assert house.task(number).state is State.CANCELLED

    joined = house.join(session=2, held=held(ref, phase=Phase.STARTED))
    assert [stopped for stopped, _ in joined.stop] == [ref]
    assert joined.settled == ()


class TestWhatIsCancelledHasTheExitCodeOfItsLatestAttemptAndNoOther:
    """Nobody knows one of an attempt that was lost, and what never ran has none: 0 would be a success."""

    def test_what_was_lost_before(self, house):
        number, _ = _running(house)
        house.do(WorkerLost(5, 1))
        house.do(Cancel((str(number),)))
        assert _shown(house, number) == (None, None, [("lost", None)])

    @pytest.mark.parametrize("is_launcher", [False, True])
    def test_what_is_lost_while_it_is_stopped(self, house, is_launcher):
        number, ref = _running(house)
        house.started(ref)
        house.do(Cancel((str(number),)))
        if is_launcher:
            house.report(ref, cause=Cause.LOST)
        else:
            house.do(WorkerLost(5, 1))
        assert (house.task(number).state, house.task(number).cause) == (State.CANCELLED, Cause.CANCELLED)
        assert _shown(house, number) == (None, None, [("lost", None)])
        house.do(Retry((str(number),)))
        assert _shown(house, number) == (None, None, [("lost", None)])

    def test_what_never_ran(self, house):
        number = house.array(3)
        house.do(Cancel((f"{number}.3",)))
        house.join(slots=2)
        first, second = house.starts()
        house.do(Cancel((str(number),)))
        house.do(Handback(5, 1, 1, (first,)))
        house.report(second, cause=Cause.CANCELLED, run_us=0)
        for place in (1, 2, 3):
            shown = document(house.do(Get(f"{number}.{place}")).value)
            assert (shown["state"], shown["exit_code"], shown["history"]) == ("cancelled", None, [])
        house.do(Retry((str(number),)))
        assert [house.task(number, member).history for member in range(3)] == [()] * 3

    def test_what_ran(self, house):
        number, ref = _running(house)
        house.do(Cancel((str(number),)))
        house.report(ref, code=-15, cause=Cause.CANCELLED)
        assert _shown(house, number) == (None, 15, [])

    def test_what_waits_for_its_next_attempt(self, house):
        number, ref = _running(house, retries=1)
        house.report(ref, code=3)
        house.do(Cancel((str(number),)))
        assert _shown(house, number) == (3, None, [("exit", 3)])
