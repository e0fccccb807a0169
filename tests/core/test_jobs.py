"""Jobs of many tasks: the cursor, cancel of millions, sweeps, order, throttle, chains."""

import pytest

from tests.support.house import House, held
from tq import limits
from tq.core.change.stop import ref_of
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.job import Demand
from tq.core.model.task import Cause, Phase, State
from tq.core.vocabulary import (
    Acted,
    AttemptRef,
    Cancel,
    Capacity,
    Drain,
    DrainAsked,
    Get,
    GetRequest,
    Handback,
    Held,
    Join,
    List,
    SetThrottle,
    Start,
    Status,
    Submit,
    Tick,
    Times,
    Wait,
    WorkerLost,
)
from tq.errors import AlreadyEnded, BadRequest, TaskNotFound


@pytest.fixture
def house():
    return House()


def _run(house, rounds=10_000, **peer):
    """Report everything that is started, until nothing more starts; return the members in order."""
    order = [ref.member for ref in house.starts()]
    while house.starts() and rounds:
        rounds -= 1
        house.report(*house.starts(), **peer)
        order += [ref.member for ref in house.starts()]
    return order


def test_an_array_runs_each_member_once_in_order(house):
    house.join(slots=2)
    number = house.array(50)
    assert _run(house) == list(range(50))
    assert house.store.get(tables.PROGRESS, (number, 0)).ended_ms > 0
    assert house.engine.live.workers[5].slots_used == 0


def test_members_that_came_back_start_before_untouched_ones(house):
    house.join()
    number = house.array(5)
    house.do(WorkerLost(5, 1))
    house.join(session=2)
    assert [ref.member for ref in house.starts()] == [0]
    assert house.task(number).attempt == 2


def test_a_member_cancelled_before_its_start_is_stepped_over(house):
    number = house.array(6)
    house.do(Cancel((f"{number}.1", f"{number}.3", f"{number}.4")))
    house.join()
    assert _run(house) == [1, 4, 5]
    assert house.store.get(tables.PROGRESS, (number, 0)).ahead == 0


def test_no_dispatch_steps_over_more_cancelled_members_than_its_bound_and_nothing_overtakes_them():
    house = House(Bounds(slice=4, lanes=2))
    number = house.array(14)
    for value in range(11, 0, -1):
        house.do(Cancel((f"{number}.{value}",)))
    house.submit()
    rounds = 0
    turn = house.engine.begin(Times(house.now_ms, 0))
    turn.apply(Join(5, 1, Capacity(slots=1)))
    finished = turn.finish()
    while finished.is_cut:
        rounds += 1
        assert not any(isinstance(effect, Start) for effect in finished.effects)
        meta = finished.changes[tables.META][()]
        house.store.write(finished.changes, sequence=meta.sequence, epoch=meta.epoch, wall_ms=1)
        finished = house.engine.begin(Times(house.now_ms, 0)).finish()
    (start,) = (effect for effect in finished.effects if isinstance(effect, Start))
    assert [(one.attempt.job, one.attempt.member) for one in start.attempts] == [(number, 11)]
    assert rounds == 2


def test_cancel_of_ten_million_untouched_members_is_one_field(house):
    number = house.array(10_000_000)
    answer = house.do(Cancel((str(number),)))

    assert (answer.done, answer.sweeping) == (10_000_000, False)
    assert tables.TASK not in house.finished.changes
    house.join()
    assert house.starts() == []
    with pytest.raises(AlreadyEnded):
        house.do(Cancel((str(number),)))


def test_a_cancel_beyond_one_command_goes_on_as_a_sweep_over_a_restart():
    house = House(Bounds(slice=3))
    house.join(slots=8)
    number = house.array(20)
    refs = house.starts()
    answer = house.do(Cancel((str(number),)))
    assert answer.sweeping
    house.report(refs[7])
    assert house.task(number, 7).state is State.CANCELLED
    house.restart()
    house.join(slots=8, held=held(*refs[:7]))
    assert house.starts() == []
    for _ in range(5):
        house.do(Tick())

    assert house.store.scan(tables.SWEEP, (0,), (1 << 40,), 5) == []
    assert {house.task(number, member).phase for member in range(7)} == {Phase.STOPPING}
    house.report(*refs[:7], cause=Cause.CANCELLED, code=-15)
    assert house.store.get(tables.PROGRESS, (number, 0)).counts[State.CANCELLED] == 20


def test_priority_goes_before_age_and_age_before_all_else(house):
    jobs = [house.submit(), house.submit(priority=5), house.submit(), house.submit(priority=-5)]
    house.join()
    order = [house.starts()[0].job]
    for _ in range(3):
        house.report(*house.starts())
        order.append(house.starts()[0].job)
    assert order == [jobs[1], jobs[0], jobs[2], jobs[3]]


def test_a_job_that_comes_back_stands_at_its_own_age(house):
    house.join()
    first, _second = house.submit(), house.submit()
    house.do(WorkerLost(5, 1))
    house.join(session=2)
    assert house.starts()[0].job == first


def test_what_comes_to_two_lanes_in_one_turn_fills_every_slot(house):
    house.join(slots=3)
    house.submit()
    house.turn(Submit("", b"body"), Submit("", b"body", demand=Demand(cpus_milli=1)))
    assert len(house.starts()) == 2


def test_an_array_at_its_throttle_blocks_nobody(house):
    house.join(slots=4)
    throttled = house.array(10, throttle=2)
    assert [ref.job for ref in house.starts()] == [throttled] * 2
    other = house.submit()
    assert [ref.job for ref in house.starts()] == [other]
    assert house.engine.live.workers[5].slots_used == 3


def test_a_new_throttle_lets_more_start_at_once_and_recalls_what_has_not_started(house):
    house.join(slots=6)
    other = house.submit(hold=True)
    number = house.array(10, throttle=2)
    first, second = house.starts()
    assert house.do(SetThrottle((str(number), str(other)), throttle=4)) == Acted(1, unchanged=1)
    refs = [first, second, *house.starts()]
    assert len(refs) == 4
    house.started(first)
    house.do(SetThrottle((str(number),), throttle=1))
    assert (house.recalls(), house.starts()) == (refs[1:], [])
    house.do(Handback(5, 1, 1, tuple(refs[1:])))
    assert house.starts() == []
    house.restart()
    house.join(slots=6, held=(Held(first, int(Phase.STARTED)),))
    assert house.starts() == []
    house.do(SetThrottle((str(number),), throttle=0))
    assert len(house.starts()) == 5
    assert house.do(GetRequest(str(number))).submit.throttle == 0


@pytest.mark.parametrize("throttle", [-1, 1 << 40])
def test_a_throttle_that_makes_no_sense_is_refused(house, throttle):
    number = house.array(3)
    with pytest.raises(BadRequest):
        house.do(SetThrottle((str(number),), throttle=throttle))


def test_of_one_task_and_of_what_has_ended_no_throttle_is_set(house):
    number, ended = house.submit(), house.array(2)
    house.do(Cancel((str(ended),)))
    with pytest.raises(AlreadyEnded, match="1 is one task"):
        house.do(SetThrottle((str(number),), throttle=1))
    with pytest.raises(AlreadyEnded, match="2 had ended already"):
        house.do(SetThrottle((str(ended),), throttle=1))
    with pytest.raises(BadRequest, match="whole jobs"):
        house.do(SetThrottle((f"{ended}.1",), throttle=1))


def test_nobody_is_kept_for_an_array_whose_only_place_a_member_has_that_runs_alone(house):
    house.join(slots=2)
    array = house.array(2, throttle=1, crash_limit=2, demand=Demand(cpus_milli=2_000))
    house.started(*house.starts())
    house.join(7, slots=2)
    house.submit(queue="busy", demand=Demand(cpus_milli=1_000))
    assert house.task(2).worker == 7
    house.do(WorkerLost(5, 1))
    assert house.starts() == [], "what is lost once more must run alone now"

    house.turn(
        Join(6, 1, Capacity(slots=2, cpus_milli=2_000, host="host6"), ()),
        Submit("", b"body", demand=Demand(cpus_milli=1_000)),
    )
    assert [(ref.job, house.task(ref.job).worker) for ref in house.starts()] == [(array, 6), (3, 7)]


@pytest.mark.parametrize("throttle", [1, 2])
def test_a_place_of_its_array_waits_with_a_member_that_waits_to_run_alone(house, throttle):
    """Its array would take each place that comes free, as long as no worker is empty: and so to its own end."""
    house.join(7, slots=1)
    number = house.array(9, throttle=throttle, crash_limit=2)
    house.started(*house.starts(), worker=7)
    house.array(9)
    for worker in (5, 6):
        house.join(worker, slots=2)
    house.do(WorkerLost(7, 1))
    assert house.do(Get(f"{number}.1")).value["state"] == "queued"
    reason = house.do(Get(str(number))).value.get("reason", "")
    assert ("to itself" in reason) is (throttle == 1)  # else another one runs

    seen = []
    for worker in (5, 6, 5, 6):
        oldest = next(iter(house.engine.live.workers[worker].held))
        house.report(ref_of(oldest, house.task(oldest[0], oldest[2])), worker=worker, run_us=10**6)
        seen += [ref.member for ref in house.starts() if ref.job == number]
        if 0 in seen:
            break
    assert house.task(number).phase is Phase.ASSIGNED
    assert house.engine.live.workers[house.task(number).worker].slots_used == 1
    assert seen.index(0) < throttle


def test_queues_take_turns_though_one_has_an_endless_array(house):
    house.join(slots=1)
    house.array(1_000, queue="a")
    other = house.array(3, queue="b")
    seen = []
    refs = held_refs(house)
    for _ in range(400):
        house.report(refs.pop(0))
        refs += house.starts()
        seen += [ref.job for ref in house.starts()]
        if seen.count(other) == 3:
            break
    assert seen.count(other) == 3


def held_refs(house):
    """Return what worker 5 holds, oldest first."""
    return [
        AttemptRef(*key, house.store.get(tables.TASK, key).attempt, house.store.get(tables.TASK, key).lease)
        for key in house.engine.live.workers[5].held
    ]


def test_a_demand_that_does_not_fit_blocks_nobody_behind_it(house):
    house.join(slots=2)
    house.submit(demand=Demand(cpus_milli=64_000))
    house.submit()
    assert len(house.starts()) == 1


def test_cpus_of_a_worker_are_never_given_twice(house):
    house.join(slots=2)
    house.submit(demand=Demand(cpus_milli=1500))
    assert len(house.starts()) == 1
    house.submit(demand=Demand(cpus_milli=1000))
    assert house.starts() == []


class TestChains:
    """Prefetch: short tasks stream, nothing waits behind a long one."""

    def _stream(self, house, run_us=1_000, slots=2, size=500):
        house.join(slots=slots)
        number = house.array(size)
        for _ in range(4 // slots):
            house.report(*house.starts(), run_us=run_us)
        return number

    def test_nothing_is_prefetched_while_run_times_are_unknown(self, house):
        house.join(slots=2)
        house.array(100)
        assert len(house.starts()) == 2

    def test_a_chain_is_as_deep_as_its_work_is_short(self, house):
        self._stream(house, run_us=1_000)
        live = house.engine.live.workers[5]
        assert len(live.held) == 2 * limits.prefetch_ms
        assert live.slots_used == 2

    def test_few_short_tasks_stand_behind_others_as_evenly_as_they_can(self, house):
        self._stream(house, slots=1, size=4)
        for worker, slots in ((6, 1), (7, 1), (8, 2)):
            house.join(worker, slots=slots)
        house.array(11)
        assert self._held(house) == {5: 3, 6: 2, 7: 2, 8: 4}
        house.array(4)
        assert self._held(house) == {5: 3, 6: 3, 7: 3, 8: 6}

    def _held(self, house):
        return {number: len(live.held) for number, live in house.engine.live.workers.items()}

    def test_what_stands_in_a_chain_counts_against_the_throttle_of_its_array(self, house):
        self._stream(house, slots=1, size=4)
        house.array(100, throttle=3)
        assert len(house.starts()) == 3

    def test_long_tasks_are_never_prefetched(self, house):
        self._stream(house, run_us=200_000)
        assert len(house.engine.live.workers[5].held) == 2

    def test_what_stands_behind_a_long_attempt_is_recalled(self, house):
        self._stream(house, slots=1)
        refs = held_refs(house)
        house.started(refs[0])
        house.now_ms += limits.prefetch_ms
        house.do(Tick())
        assert set(house.recalls()) == set(refs[1:])
        house.do(Tick())
        assert house.recalls() == []
        house.do(Handback(5, 1, 1, tuple(refs[1:])))
        assert list(house.engine.live.workers[5].held) == [refs[0].task]
        assert house.starts() == []

    def test_what_stands_behind_a_quick_one_of_another_lane_is_not_asked_back(self, house):
        house.join(slots=2)
        for queue in "ab" * 4:
            house.submit(queue=queue)
            house.report(*house.starts(), run_us=1_000)
        long, _ = (house.submit(queue=queue) for queue in "ab")
        behind, _ = (house.array(9, queue=queue) for queue in "ab")
        house.started(next(ref for ref in held_refs(house) if ref.job == long))
        house.now_ms += limits.prefetch_ms
        house.do(Tick())
        assert [ref.job for ref in house.recalls()] == [behind] * 9

    def test_what_has_been_asked_back_is_not_asked_again_where_more_has_to_come_back(self, house):
        self._stream(house)
        refs = held_refs(house)
        asked = []
        for running in refs[:2]:
            house.started(running)
            house.now_ms += limits.prefetch_ms
            house.do(Tick())
            asked += house.recalls()
        assert (len(asked), set(asked)) == (len(refs) - 2, set(refs[2:]))

    def test_a_few_slow_tasks_after_many_quick_ones_end_the_prefetch(self, house):
        self._stream(house, slots=1)
        house.report(*held_refs(house)[:100], run_us=1_000)
        lane = house.engine.live.workers[5].held[held_refs(house)[0].task]
        house.report(held_refs(house)[0], run_us=900_000)
        assert house.engine.live.depth(lane) > 1, "one is no rule"
        for _ in range(limits.prefetch_runs_latest // 2):
            house.report(held_refs(house)[0], run_us=900_000)
        assert house.engine.live.depth(lane) == 1

    def test_a_slow_task_now_and_then_does_not_end_the_prefetch(self, house):
        self._stream(house, slots=1)
        lane = house.engine.live.workers[5].held[held_refs(house)[0].task]
        for _ in range(20):
            house.report(*held_refs(house)[:4], run_us=1_000)
            house.report(held_refs(house)[0], run_us=900_000)
            assert house.engine.live.depth(lane) > 1

    def test_the_engine_says_when_a_chain_must_be_looked_at(self, house):
        self._stream(house, slots=1)
        house.started(held_refs(house)[0])
        due_ms = house.engine.next_due_ms(Times(house.now_ms, 0))
        assert due_ms is not None
        assert 0 < due_ms <= limits.prefetch_ms


class TestDrain:
    """A draining worker gets nothing more."""

    def test_a_drained_worker_gets_nothing_until_it_is_undrained(self, house):
        house.join()
        house.do(Drain("host5"))
        house.submit()
        assert house.starts() == []
        house.do(Drain("w0000000000000005", on=False))
        assert len(house.starts()) == 1

    def test_a_drain_that_did_not_reach_its_worker_is_asked_again(self, house):
        house.join()
        house.do(Drain("host5"))
        house.join(session=2)
        assert DrainAsked(5, 2, on=True) in house.finished.effects
        house.submit()
        assert house.starts() == []

    def test_an_unknown_or_ambiguous_worker_is_refused(self, house):
        with pytest.raises(TaskNotFound):
            house.do(Drain("nobody"))
        house.join(worker=5)
        house.join(worker=6)
        with pytest.raises(BadRequest):
            house.do(Drain("w0000"))


class TestReads:
    """What people look at."""

    def test_jobs_are_listed_newest_first_in_pages(self, house):
        for _ in range(7):
            house.submit()
        page = house.do(List(limit=3))
        seen = [item["id"] for item in page.items]
        while page.next:
            page = house.do(List(limit=3, page=page.next))
            seen += [item["id"] for item in page.items]
        assert seen == ["7", "6", "5", "4", "3", "2", "1"]

    def test_members_are_listed_untouched_or_not(self, house):
        house.join()
        number = house.array(5)
        house.report(*house.starts())
        page = house.do(List(job=str(number)))
        assert [item["state"] for item in page.items] == ["succeeded", "running", "queued", "queued", "queued"]
        only = house.do(List(job=str(number), states=("queued",), limit=2))
        assert [item["id"] for item in only.items] == ["1.3", "1.4"]

    def test_filters_apply(self, house):
        house.submit(name="a", tags=("x",))
        house.submit(name="b", queue="q")

        def found(**fields):
            return [item["id"] for item in house.do(List(**fields)).items]

        assert (found(name="a"), found(tag="x"), found(queue="q"), found(states=("dead",))) == (["1"], ["1"], ["2"], [])

    def test_wait_is_done_when_all_have_ended(self, house):
        house.join(slots=2)
        number = house.array(3)
        refs = house.starts()
        assert not house.do(Wait((str(number),))).done
        assert not house.do(Wait((f"{number}.1",), "running")).done
        house.started(refs[0])
        assert house.do(Wait((f"{number}.1",), "running")).done
        house.report(*refs)
        _run(house)
        assert house.do(Wait((f"{number}", f"{number}.2"))).done

    def test_a_read_of_what_is_not_there_says_so(self, house):
        for command in (Get("9"), Wait(("9",)), List(job="9"), Cancel(("9",))):
            with pytest.raises(TaskNotFound):
                house.do(command)
        with pytest.raises(BadRequest):
            house.do(List(states=("junk",)))
        with pytest.raises(BadRequest, match="done or running"):
            house.do(Wait(("9",), "sometime"))

    def test_the_counts_of_status_are_those_of_the_tasks(self, house):
        house.join()
        house.array(5)
        house.submit(hold=True)
        tasks = house.do(Status()).value["tasks"]
        assert (tasks["queued"], tasks["running"], tasks["held"]) == (4, 1, 1)
