"""Retries by policy, rounds, losses and the lone attempt, dead letters: what follows a failure or a loss."""

import pytest
from msgspec.structs import replace

from tests.support.house import House
from tq import limits
from tq.core.engine.engine import Bounds
from tq.core.model import retry, tables
from tq.core.model.job import Demand, Job
from tq.core.model.task import Cause, Phase, State, Trigger
from tq.core.repair import invariants
from tq.core.vocabulary import (
    Cancel,
    End,
    Get,
    Handback,
    Hold,
    Release,
    Report,
    Requeue,
    Retry,
    SetPriority,
    Tick,
    Times,
    Wait,
    WorkerLost,
)
from tq.errors import BadRequest

AT_ONCE = (0, 0)


@pytest.fixture
def house():
    return House()


def fail(house, ref, code=1, cause=Cause.EXIT):
    house.report(ref, code=code, cause=cause)


def lone_start(house):
    (ref,) = house.starts()
    return ref


class TestFailures:
    """Failures are bounded by retries, and wait in between."""

    def test_retries_2_are_3_attempts_and_then_a_dead_letter(self, house):
        house.join()
        number = house.submit(retries=2, backoff_ms=(10, 10))
        for attempt in (1, 2, 3):
            ref = lone_start(house)
            assert ref.attempt == attempt
            fail(house, ref, code=attempt)
            if attempt < 3:
                assert house.task(number).state is State.RETRYING
                house.do(Tick())
                assert house.starts() == []
                house.now_ms += 10
                house.do(Tick())
        task = house.task(number)
        assert (task.state, task.failures, task.code) == (State.DEAD, 3, 3)
        assert [(entry.attempt, entry.code, Cause(entry.cause)) for entry in task.history] == [
            (1, 1, Cause.EXIT),
            (2, 2, Cause.EXIT),
        ]
        assert len(house.store.scan(tables.DEAD, (0,), (1 << 62,), 9)) == 1

    def test_two_failures_and_a_success_end_succeeded_with_their_history(self, house):
        house.join()
        number = house.submit(retries=2, backoff_ms=AT_ONCE)
        for code in (7, 8, 0):
            fail(house, lone_start(house), code=code)
            house.do(Tick())
        document = house.do(Get(str(number))).value
        assert document["state"] == "succeeded"
        assert [entry["code"] for entry in document["history"]] == [7, 8]

    def test_who_waits_is_told_how_long_the_pause_is_and_of_an_array_how_many_have_one(self, house):
        one = house.submit(retries=1, backoff_ms=(5_000, 5_000))
        many = house.array(2, retries=1, backoff_ms=(4_000, 9_000))
        house.join(slots=3)
        for ref in house.starts():
            fail(house, ref)
        waited = house.do(Wait((str(one), f"{many}.1", str(many))))
        drawn_ms = retry.backoff_ms(house.store.get(tables.JOB, (many, 0)), (many, 0, 0), 1, 1)
        assert [outcome.pause_ms for outcome in waited.outcomes] == [5_000, drawn_ms, 0]
        assert [outcome.retrying for outcome in waited.outcomes] == [0, 0, 2]
        house.now_ms += 9_000
        house.do(Tick())
        again = house.do(Wait((str(one), str(many))))
        assert [(outcome.pause_ms, outcome.retrying) for outcome in again.outcomes] == [(0, 0), (0, 0)]

    def test_who_waits_is_told_how_an_attempt_ended_of_which_the_next_one_runs_already(self, house):
        number = house.submit(retries=1, backoff_ms=AT_ONCE)

        def earlier():
            (outcome,) = house.do(Wait((str(number),))).outcomes
            return outcome.state, outcome.earlier_attempt, outcome.earlier_cause, outcome.earlier_code

        house.join(worker=6)
        house.do(WorkerLost(6, 1))
        assert earlier() == ("queued", 0, "", 0)  # its phase says that it was lost
        house.join()
        second = lone_start(house)
        assert earlier() == ("running", 1, "lost", 0)
        fail(house, second, code=3)
        house.do(Tick())
        third = lone_start(house)
        assert earlier() == ("running", 2, "exit", 3)
        fail(house, third, code=4)
        assert earlier() == ("dead", 0, "", 0)
        house.do(Retry((str(number),)))
        assert earlier() == ("running", 0, "", 0)  # what an earlier round was like says nothing of this one

    def test_the_wait_survives_a_restart(self, house):
        house.join()
        number = house.submit(retries=1, backoff_ms=(50, 50))
        fail(house, lone_start(house))
        house.restart()
        house.join(session=2)
        assert house.engine.next_due_ms(Times(house.now_ms, 0)) in range(1, 50)
        house.now_ms += 60
        house.do(Tick())
        assert lone_start(house).attempt == 2
        assert house.task(number).state is State.RUNNING

    def test_what_waits_for_its_next_attempt_is_held_cancelled_and_never_started(self, house):
        house.join()
        held, gone = house.submit(retries=1, backoff_ms=(50, 50)), house.submit(retries=1, backoff_ms=(50, 50))
        house.join(slots=2)
        for ref in (*house.starts(), *house.starts()):
            fail(house, ref)
        while house.starts():
            fail(house, lone_start(house))
        assert house.task(held).state is house.task(gone).state is State.RETRYING
        house.do(Hold((str(held),)))
        house.do(Cancel((str(gone),)))
        house.now_ms += 60
        house.do(Tick())
        assert house.starts() == []
        assert house.do(Get(str(held))).value["state"] == "held"
        assert house.task(gone).state is State.CANCELLED
        house.do(Release((str(held),)))
        assert lone_start(house).job == held

    def test_the_next_attempt_is_announced(self, house):
        house.join()
        number = house.submit(retries=1, backoff_ms=(5_000, 5_000))
        fail(house, lone_start(house))
        document = house.do(Get(str(number))).value
        assert document["state"] == "retrying"
        assert document["due_ms"] == document["ended_ms"] + 5_000
        assert "1 of 2 times" in document["reason"]

    def test_an_array_ends_early_by_its_dead_members_not_by_its_failures(self, house):
        house.join()
        number = house.array(5, retries=1, backoff_ms=AT_ONCE, max_fails=0)
        fail(house, lone_start(house))
        assert house.store.get(tables.PROGRESS, (number, 0)).counts[State.CANCELLED] == 0
        second = lone_start(house)
        house.do(Tick())
        house.report(second)
        assert lone_start(house).member == 0
        fail(house, lone_start(house))
        assert house.store.get(tables.PROGRESS, (number, 0)).counts[State.CANCELLED] == 3

    def test_many_that_are_due_at_once_all_start(self):
        house = House(Bounds(slice=2, leases=7, lanes=1))
        house.join(slots=4_000)
        house.array(150, retries=1, backoff_ms=AT_ONCE)
        refs = []
        while house.starts():
            refs += house.starts()
            house.turn()
        house.delivery += 1
        house.do(Report(5, 1, house.delivery, tuple(End(ref, int(Cause.EXIT), 1, 5) for ref in refs)))
        again = set()
        for _ in range(60):
            house.do(Tick())
            again |= set(house.starts())
        assert len(again) == 150


POLICY = Job(
    queue="default",
    name="",
    tags=(),
    demand=Demand(),
    size=1,
    is_array=False,
    array_first=1,
    array_step=1,
    retries=1,
    crash_limit=3,
    priority=0,
    submitter="",
    trace="",
    submitted_ms=0,
    body=b"",
)


def job(**fields):
    return replace(POLICY, **fields)


@pytest.mark.parametrize(
    "policy, cause, code, is_retried",
    [
        ({}, Cause.EXIT, 1, True),
        ({}, Cause.SIGNAL, -9, True),
        ({}, Cause.TIME_LIMIT, -15, True),
        ({}, Cause.OOM, -9, True),
        ({}, Cause.EXCEPTION, 1, True),
        ({}, Cause.SPAWN_FAILED, 127, False),
        ({}, Cause.CWD_MISSING, 0, False),
        ({}, Cause.UNKNOWN_FUNCTION, 0, False),
        ({"retry_on": (127,)}, Cause.SPAWN_FAILED, 127, True),
        ({"retry_on": (3,)}, Cause.EXIT, 3, True),
        ({"retry_on": (3,)}, Cause.EXIT, 4, False),
        ({"retry_on": (-9,)}, Cause.SIGNAL, -9, True),
        ({"retry_on": (3,)}, Cause.EXIT, 75, True),
        ({"no_retry_on": (3,)}, Cause.EXIT, 3, False),
        ({"no_retry_on": (3,)}, Cause.EXIT, 4, True),
        ({"no_retry_on": (75,)}, Cause.EXIT, 75, False),
        ({"retries": 0}, Cause.EXIT, 75, False),
    ],
)
def test_what_is_tried_again(policy, cause, code, is_retried):
    expected = Trigger.FAIL if is_retried else Trigger.GIVE_UP
    assert retry.after_failure(job(**policy), 1, cause, code) is expected


def test_a_backoff_doubles_its_bound_up_to_the_longest_and_is_spread():
    policy = job(backoff_ms=(100, 1_000))
    waits = [[retry.backoff_ms(policy, (n, 0, 0), n, failures) for n in range(500)] for failures in range(1, 9)]
    assert [max(part) <= min(100 << place, 1_000) for place, part in enumerate(waits)] == [True] * 8
    assert all(max(part) > min(100 << place, 1_000) * 0.9 for place, part in enumerate(waits))
    assert all(min(part) < min(100 << place, 1_000) * 0.1 for place, part in enumerate(waits))
    assert retry.backoff_ms(policy, (1, 0, 0), 1, 10_000) <= 1_000
    assert retry.backoff_ms(job(backoff_ms=(70, 70)), (1, 0, 0), 1, 5) == 70


def test_exit_codes_up_to_255_signals_up_to_64_and_waits_up_to_their_bound_may_be_named(house):
    house.submit(retry_on=(-64, 255), no_retry_on=(0,), backoff_ms=(0, limits.backoff_ms_max))


@pytest.mark.parametrize(
    "fields",
    [
        {"retries": -2},
        {"crash_limit": -1},
        {"backoff_ms": (5, 1)},
        {"backoff_ms": (-1, 1)},
        {"backoff_ms": (1, 1 << 50)},
        {"retry_on": (256,)},
        {"no_retry_on": (-65,)},
        {"retry_on": (3,), "no_retry_on": (3,)},
        {"retry_on": tuple(range(65))},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(house, fields):
    with pytest.raises(BadRequest):
        house.submit(**fields)


class TestLosses:
    """Charged losses are bounded by the crash limit; the last chance is taken alone."""

    def test_the_attempt_before_the_last_loss_has_its_worker_to_itself(self, house):
        number = house.submit(crash_limit=2)
        others = house.array(20, crash_limit=2)
        house.join(slots=3)
        assert len(house.starts()) == 3
        house.do(WorkerLost(5, 1))
        house.join(worker=6, slots=3)
        refs = house.starts()
        alone = {ref.job for ref in refs}
        assert len(alone) == 1
        # Those that were lost with it have one loss, too: each of the three runs alone, and then the rest together.
        seen = []
        while refs:
            seen.append(refs)
            house.report(*refs, worker=6)
            refs = house.starts()
        assert [len(refs) for refs in seen[:3]] == [1, 1, 1]
        assert {ref.task for refs in seen[:3] for ref in refs} == {(number, 0, 0), (others, 0, 0), (others, 0, 1)}
        assert house.task(number).state is State.SUCCEEDED

    def test_only_a_loss_while_alone_makes_a_dead_letter(self, house):
        house.join(slots=2)
        killer, bystander = house.submit(crash_limit=3), house.submit(crash_limit=3)
        worker = 5
        for _ in range(10):
            if house.task(killer).state is State.DEAD:
                break
            runs = {key[1:] for key, _ in house.store.scan(tables.RUNNING, (worker,), (worker + 1,), 9)}
            if (killer, 0, 0) not in runs:
                (ref,) = house.starts()
                house.report(ref, worker=worker)
                continue
            if house.task(killer).losses == 2:
                assert runs == {(killer, 0, 0)}
            house.do(WorkerLost(worker, 1))
            worker += 1
            house.join(worker=worker, slots=2)
        task = house.task(killer)
        assert (task.state, task.cause, task.losses) == (State.DEAD, Cause.LOST, 3)
        assert house.task(bystander).state in (State.SUCCEEDED, State.RUNNING)
        assert house.task(bystander).losses == 2

    def test_one_worker_is_emptied_for_it_and_the_others_go_on(self, house):
        house.join(worker=5, slots=2)
        lost = house.submit(crash_limit=2)
        house.do(WorkerLost(5, 1))
        house.join(worker=6, slots=2)
        first = lone_start(house)
        assert first.job == lost
        house.do(Requeue((str(lost),)))
        house.array(50, priority=1)
        house.join(worker=7, slots=2)
        assert len(house.starts()) == 2
        house.delivery += 1
        # What must run alone waits in the queue again; the array is ahead of it by its priority.
        house.do(Report(6, 1, house.delivery, (End(first, int(Cause.REQUEUE), 0, 5),)))
        assert len(house.starts()) == 2
        house.do(SetPriority((str(lost),), priority=50))
        held = {6: [], 7: []}
        for key, _ in house.store.scan(tables.RUNNING, (0,), (99,), 99):
            held[key[0]].append(key[1:])
        refs = {}
        for worker in (6, 7):
            for key in held[worker]:
                task = house.task(key[0], key[2])
                refs[key] = (worker, task)
        # Worker 6 ends both: nothing new is leased to it before it is empty, then only the lone one.
        started = []
        for key in held[6]:
            worker, task = refs[key]
            house.delivery += 1
            ref = type(first)(*key, task.attempt, task.lease)
            house.do(Report(6, 1, house.delivery, (End(ref, int(Cause.EXIT), 0, 5),)))
            started.append([ref.job for ref in house.starts()])
        assert started == [[], [lost]]

    def test_a_crash_limit_of_1_runs_alone_from_the_beginning_and_0_never_does(self, house):
        house.join(slots=4)
        house.array(3, crash_limit=1)
        assert len(house.starts()) == 1
        house.do(Cancel(("1",)))
        number = house.array(3, crash_limit=0)
        house.join(worker=6, slots=3)
        for worker in range(7, 17):
            house.do(WorkerLost(worker - 1, 1))
            house.join(worker=worker, slots=3)
        assert house.task(number, 0).losses == 10
        assert len(house.starts()) == 3

    def test_a_claim_of_a_lost_attempt_takes_its_charge_and_its_loneliness_back(self, house):
        house.join(slots=2)
        number = house.submit(crash_limit=2)
        ref = lone_start(house)
        house.do(WorkerLost(5, 1))
        assert house.task(number).losses == 1
        house.join(session=2, slots=2)
        # It came without the attempt: the next one is leased, alone.
        (second,) = house.starts()
        assert second.attempt == ref.attempt + 1
        house.submit()
        assert house.starts() == []

    def test_a_retry_by_hand_runs_in_company_again(self, house):
        house.join(slots=2)
        number = house.submit(crash_limit=1)
        house.do(WorkerLost(5, 1))
        assert house.task(number).state is State.DEAD
        several = house.submit(crash_limit=2)
        house.join(worker=6, slots=2)
        house.do(WorkerLost(6, 1))
        house.join(worker=7, slots=2)
        house.do(WorkerLost(7, 1))
        assert house.task(several).state is State.DEAD
        house.do(Retry((str(several),)))
        house.join(worker=8, slots=2)
        house.submit()
        assert (house.task(several).round, house.task(several).losses) == (2, 0)
        running = house.store.scan(tables.RUNNING, (8,), (9,), 9)
        assert len(running) == 2

    def test_losses_end_an_array_early_too(self, house):
        house.join()
        number = house.array(4, crash_limit=1, max_fails=0)
        house.do(WorkerLost(5, 1))
        assert house.store.get(tables.PROGRESS, (number, 0)).counts[State.CANCELLED] == 3


class TestHistory:
    """What has run leaves a line, whatever became of it."""

    def test_a_requeued_attempt_leaves_its_line_and_one_that_never_ran_none(self, house):
        house.join()
        number = house.submit()
        ref = lone_start(house)
        house.started(ref)
        house.do(Requeue((str(number),)))
        house.report(ref, code=-15, cause=Cause.REQUEUE)
        (entry,) = house.task(number).history
        assert (entry.attempt, Cause(entry.cause), entry.code, entry.charged) == (1, Cause.REQUEUE, -15, False)
        again = lone_start(house)
        house.delivery += 1
        house.do(Handback(5, 1, house.delivery, (again,)))
        assert len(house.task(number).history) == 1
        assert house.task(number).phase is Phase.ASSIGNED

    def test_one_that_was_stopped_before_its_start_leaves_none_either(self, house):
        house.join()
        number = house.submit()
        ref = lone_start(house)
        house.do(Requeue((str(number),)))
        house.report(ref, cause=Cause.REQUEUE, run_us=0)
        assert house.task(number).history == ()
        assert lone_start(house).attempt == 2

    def test_a_requeued_attempt_that_is_lost_leaves_its_line_uncharged(self, house):
        house.join()
        number = house.submit()
        house.started(lone_start(house))
        house.do(Requeue((str(number),)))
        house.do(WorkerLost(5, 1))
        task = house.task(number)
        (entry,) = task.history
        assert (entry.attempt, Cause(entry.cause), entry.charged, task.losses) == (1, Cause.LOST, False, 0)

    @pytest.mark.parametrize("is_due", [False, True], ids=["waits for its next attempt", "is queued again"])
    def test_a_failure_before_a_cancel_stays_a_failure_and_stands_there_once(self, house, is_due):
        house.join()
        number = house.submit(retries=1, backoff_ms=(0, 0))
        house.report(lone_start(house), code=3)
        failed_ms = house.task(number).ended_ms
        if is_due:
            house.do(WorkerLost(5, 1))
            house.do(Tick())
        house.do(Cancel((str(number),)))
        task = house.task(number)
        assert (task.state, task.cause) == (State.CANCELLED, Cause.CANCELLED)
        (entry,) = task.history
        assert (entry.attempt, Cause(entry.cause), entry.code, entry.ended_ms) == (1, Cause.EXIT, 3, failed_ms)
        house.do(Retry((str(number),)))
        assert house.task(number).history == task.history

    def test_so_does_a_loss(self, house):
        house.join()
        number = house.submit()
        house.do(WorkerLost(5, 1))
        house.do(Cancel((str(number),)))
        house.do(Retry((str(number),)))
        house.join(worker=6)
        (entry,) = house.task(number).history
        assert (entry.attempt, Cause(entry.cause), entry.charged) == (1, Cause.LOST, True)

    def test_losses_stand_in_it_with_their_charge(self, house):
        house.join()
        number = house.submit()
        house.do(WorkerLost(5, 1))
        house.join(worker=6)
        (entry,) = house.task(number).history
        assert (Cause(entry.cause), entry.charged, entry.host) == (Cause.LOST, True, "host5")


def test_the_rounds_of_a_task_count_anew_and_attempts_go_on(house):
    house.join()
    number = house.submit(retries=1, backoff_ms=AT_ONCE)
    for round_number in (1, 2):
        for failure in (1, 2):
            ref = lone_start(house)
            assert ref.attempt == (round_number - 1) * 2 + failure
            fail(house, ref)
            assert house.task(number).failures == failure
            house.do(Tick())
        assert house.task(number).state is State.DEAD
        house.do(Retry((str(number),)))
        assert house.task(number).round == round_number + 1
    assert invariants.idle_room(house.store, house.engine.live, house.now_ms) == []


def test_a_function_of_a_module_called_alone_stands_in_no_lone_lane(house):
    house.join(slots=4)
    lone = house.submit(crash_limit=1)
    assert lone_start(house).job == lone
    house.submit(demand=Demand(module="alone"))
    assert house.starts() == []
    lanes = {lane.demand.module: lane.alone for lane in house.engine.live.lanes.values()}
    assert lanes == {"": True, "alone": False}
