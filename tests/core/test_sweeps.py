"""Sweeps: bounded slices, that end, that reach all that was meant and nothing else, and that hold up nobody."""

import msgspec
import pytest
from msgspec.structs import replace

from tests.support.house import House
from tq.core.change.stop import ref_of
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.job import Sweep
from tq.core.model.task import Cause, State
from tq.core.model.timers import TimerKind, timer
from tq.core.read import job_search
from tq.core.read.overview import status
from tq.core.vocabulary import (
    Acted,
    Cancel,
    Drain,
    End,
    GetRequest,
    Handback,
    Hold,
    Release,
    Report,
    Retry,
    SetPriority,
    SetThrottle,
    Status,
    Tick,
    Times,
    Where,
    WorkerLost,
)
from tq.errors import AlreadyEnded, BadRequest

SLICE = 2


@pytest.fixture
def house():
    return House(Bounds(slice=SLICE))


def _came_back(house: House, size: int, *, running: int = 0) -> int:
    """Return a held array whose members came back to the queue, but for the last ones, which run at worker 5."""
    number = house.array(size, retries=1)
    house.join(slots=size)
    refs = house.starts()
    house.do(Hold((str(number),)))
    house.do(Handback(5, 1, 7, tuple(refs[: size - running])))
    return number


def _sweep_on(house: House) -> int:
    """Tick until no sweep is left, fifty times at most; return how many are left."""
    for _ in range(50):
        if not _sweeps(house):
            break
        house.do(Tick())
    return _sweeps(house)


def _sweeps(house: House) -> int:
    return len(house.store.scan(tables.SWEEP, (0,), (1 << 40,), 1_000))


def _states(house: House, number: int) -> list[State]:
    return [task.state for _, task in house.store.scan(tables.TASK, (number, 0, 0), (number, 1), 1_000)]


def test_what_goes_on_in_the_background_is_said_until_it_is_over(house):
    for _ in range(5):
        house.submit()
    assert house.do(Status()).value["sweeps"] == []
    assert house.do(SetPriority((), Where(), priority=3)).sweeping
    assert house.do(Status()).value["sweeps"] == [{"verb": "set", "job": "3", "last": "5"}]
    assert _sweep_on(house) == 0
    assert house.do(Status()).value["sweeps"] == []


def test_a_sweep_that_makes_no_sense_keeps_nobody_from_the_status(house):
    commands = (b"", b"\x90", b"\xc1", b"\x01")
    sweeps = {(number,): Sweep(command, 1, 2) for number, command in enumerate(commands, 1)}
    house.store.write({tables.SWEEP: sweeps}, sequence=house.store.sequence + 1, epoch=1, wall_ms=1)
    assert status(house.store, house.engine.live, Status()).value["sweeps"] == []


@pytest.mark.parametrize("where", [Where(cause="exit"), Where(is_letter=True)])
def test_a_cancel_of_what_only_the_records_tell_ends_and_leaves_the_others(house, where):
    number = _came_back(house, 6, running=1)
    house.do(Cancel((), where))

    assert _sweep_on(house) == 0
    assert _states(house, number) == [State.QUEUED] * 5 + [State.RUNNING]
    progress = house.store.get(tables.PROGRESS, (number, 0))
    assert progress is not None
    assert not progress.cancelling


def test_a_task_that_fails_between_two_slices_of_a_cancel_hides_no_others(house):
    number = _came_back(house, 6, running=1)
    house.do(Cancel((str(number),), Where(states=("held",))))
    assert _sweeps(house) == 1
    house.report(ref_of((number, 0, 5), house.task(number, 5)), code=1)

    assert _sweep_on(house) == 0
    assert _states(house, number) == [State.CANCELLED] * 5 + [State.RETRYING]


@pytest.mark.parametrize("states", [("queued", "running", "retrying"), ("queued", "retrying")])
def test_a_cancel_of_several_states_finds_what_goes_from_one_to_the_other_between_its_slices(house, states):
    """Such a cancel lets starts go on: what it has not reached may be leased, fail, and wait for its next attempt."""
    number = _came_back(house, 8)
    house.do(WorkerLost(5, 1))
    house.do(Release((str(number),)))
    house.do(Cancel((str(number),), Where(states=states)))
    house.join(session=2, slots=3)
    refs = house.starts()
    assert len(refs) == 3
    house.report(refs[0], session=2, code=1)
    assert house.task(number, refs[0].member).state is State.RETRYING

    assert _sweep_on(house) == 0
    left = [task for _, task in house.store.scan(tables.TASK, (number, 0, 0), (number, 1), 1_000)]
    assert all(task.state.word not in states or task.cause is Cause.CANCELLED for task in left), left
    assert house.task(number, refs[0].member).state is State.CANCELLED


@pytest.mark.parametrize("running", [0, 1])
def test_a_cancel_of_some_does_not_end_the_cancel_of_all(house, running):
    number = _came_back(house, 9, running=running)
    house.do(Drain("host5") if running else WorkerLost(5, 1))
    house.do(Release((str(number),)))
    house.do(Cancel((str(number),)))
    house.do(Cancel((str(number),), Where(states=("running" if running else "queued",))))
    house.join(6, slots=9)

    assert house.starts() == []
    assert _sweep_on(house) == 0
    assert sorted(_states(house, number)) == [State.RUNNING] * running + [State.CANCELLED] * (9 - running)


def test_one_command_looks_at_no_more_rows_than_it_may_however_many_jobs_have_some():
    house = House(Bounds(slice=10))
    for _ in range(10):
        _came_back(house, 4)
        house.do(WorkerLost(5, 1))

    for command, state in ((Cancel((), Where()), State.CANCELLED), (Retry((), Where()), State.QUEUED)):
        answer = house.do(command)

        assert isinstance(answer, Acted)
        assert answer.sweeping
        assert 0 < answer.done <= 10
        assert _sweep_on(house) == 0
        assert {state for number in range(1, 11) for state in _states(house, number)} == {state}


def test_many_jobs_by_id_are_all_begun_at_once(house):
    numbers = [_came_back(house, 3) for _ in range(SLICE)]
    house.do(WorkerLost(5, 1))
    house.do(Release(tuple(map(str, numbers))))
    house.do(Cancel(tuple(map(str, numbers))))
    house.join(session=2, slots=9)

    assert house.starts() == []
    assert _sweep_on(house) == 0
    assert [_states(house, number) for number in numbers] == [[State.CANCELLED] * 3] * SLICE


def test_what_had_ended_is_counted_once():
    house = House()
    number = house.array(2, retries=1)
    house.join(slots=2)
    one, other = house.starts()
    house.report(one)
    house.report(other, code=1)
    assert house.do(Cancel((str(number),))) == Acted(done=1, unchanged=1)


def test_what_came_back_in_the_report_that_ends_an_array_early_is_cancelled_once():
    house = House()
    number = house.array(3, max_fails=0, retries=0)
    house.join(slots=3)
    lost, failed, _ = house.starts()
    house.do(Report(5, 1, 9, (End(lost, int(Cause.LOST), 0, 1), End(failed, int(Cause.EXIT), 1, 1))))
    assert _states(house, number) == [State.CANCELLED, State.DEAD, State.RUNNING]


class TestTheLaterWordCounts:
    """A retry and a cancel of one job, the one while the other is still at work."""

    def _dead(self, house: House, size: int) -> str:
        number = house.array(size)
        house.join(slots=size)
        house.report(*house.starts(), code=1)
        house.do(WorkerLost(5, 1))
        return str(number)

    @pytest.mark.parametrize("of", [lambda job: Retry((job,)), lambda _job: Retry((), Where(states=("dead",)))])
    def test_what_is_cancelled_is_not_brought_back_by_an_older_retry(self, house, of):
        job = self._dead(house, 9)
        house.do(of(job))
        assert _sweeps(house) == 1
        house.do(Cancel((job,)))

        assert _sweep_on(house) == 0
        assert set(_states(house, int(job))) == {State.CANCELLED, State.DEAD}
        house.do(Retry((job,)))
        assert _sweep_on(house) == 0
        assert _states(house, int(job)) == [State.QUEUED] * 9

    def test_what_is_in_one_turn_with_the_cancel_counts_by_its_order(self, house):
        job = self._dead(house, 9)
        house.turn(Retry((job,)), Cancel((job,)))
        assert _sweep_on(house) == 0
        assert State.QUEUED not in _states(house, int(job))

        house.turn(Cancel((), Where()), Retry((job,)))
        assert _sweep_on(house) == 0
        assert _states(house, int(job)) == [State.QUEUED] * 9

    @pytest.mark.parametrize("member", ["", ".1"])
    def test_what_is_being_cancelled_is_not_retried_before_that_is_done(self, house, member):
        number = _came_back(house, 9)
        house.do(WorkerLost(5, 1))
        house.do(Cancel((str(number),)))
        with pytest.raises(AlreadyEnded, match="is being cancelled"):
            house.do(Retry((f"{number}{member}",)))

        assert _sweep_on(house) == 0
        assert isinstance(house.do(Retry((f"{number}{member}",))), Acted)

    @pytest.mark.parametrize(
        "of", [lambda job: Retry((job,)), lambda job: Retry((f"{job}.1",)), lambda job: Retry((job,), Where(name="z"))]
    )
    def test_what_an_earlier_cancel_has_still_to_reach_is_not_retried_before_it_has(self, house, of):
        for _ in range(SLICE * 2):
            house.submit()
        number = house.array(2, name="z")
        house.do(Cancel((str(number),)))
        house.do(Cancel((), Where()))
        assert _sweeps(house) == 1
        retry = of(str(number))
        with pytest.raises(AlreadyEnded, match="is being cancelled"):
            house.do(retry)
        assert _sweep_on(house) == 0

        house.do(retry)
        assert house.store.get(tables.PROGRESS, (number, 0)).counts[State.QUEUED] > 0

    @pytest.mark.parametrize("where", [Where(queue="other"), Where(states=("dead", "cancelled")), Where(cause="exit")])
    def test_a_cancel_of_something_else_holds_up_no_retry(self, house, where, monkeypatch):
        monkeypatch.setattr(job_search, "page_keys_max", 1)  # the one that it means is not found without a walk
        for _ in range(SLICE * 2):
            house.submit(queue="other")
        number = house.submit()
        house.do(Cancel((str(number),)))
        house.do(Cancel((), where))
        assert _sweeps(house) == 1
        house.do(Retry((str(number),)))
        assert _sweep_on(house) == 0
        assert house.store.get(tables.PROGRESS, (number, 0)).counts[State.QUEUED] == 1

    def test_a_cancel_that_comes_after_a_retry_cancels_what_that_has_queued(self, house):
        job = self._dead(house, 9)
        house.do(Retry((job,)))
        house.do(Cancel((), Where()))
        assert _sweep_on(house) == 0
        assert State.QUEUED not in _states(house, int(job))

    def test_a_cancel_that_has_passed_a_job_holds_up_no_retry_of_it(self, house):
        number = house.submit()
        for _ in range(SLICE * 3):
            house.submit()
        house.do(Cancel((), Where()))
        assert _sweeps(house) == 1
        house.do(Retry((str(number),)))
        assert _sweep_on(house) == 0
        assert house.store.get(tables.PROGRESS, (number, 0)).counts[State.QUEUED] == 1

    @pytest.mark.parametrize("older, newer", [(Release, Hold), (Hold, Release)])
    @pytest.mark.parametrize("was_held", [True, False])
    def test_a_hold_and_a_release_are_not_undone_by_an_older_one_that_comes_later(self, house, older, newer, was_held):
        for _ in range(SLICE * 2):
            house.submit(hold=older is Release)
        number = house.submit(hold=was_held)
        house.do(older((), Where()))
        assert _sweeps(house) == 1

        assert house.do(newer((str(number),))) == Acted(1)
        with pytest.raises(AlreadyEnded, match="was"):
            house.do(newer((str(number),)))
        assert _sweep_on(house) == 0
        assert house.store.get(tables.PROGRESS, (number, 0)).hold is (newer is Hold)
        held = [house.store.get(tables.PROGRESS, (job, 0)).hold for job in range(1, number)]
        assert held == [older is Hold] * (SLICE * 2)

    @pytest.mark.parametrize("older, newer", [(Release, Hold), (Hold, Release)])
    def test_of_two_that_are_at_work_the_later_one_counts(self, house, older, newer):
        for place in range(SLICE * 3):
            house.submit(hold=place % 2 > 0)
        house.do(older((), Where()))
        house.do(newer((), Where()))
        assert _sweeps(house) == 2

        assert _sweep_on(house) == 0
        held = [house.store.get(tables.PROGRESS, (job, 0)).hold for job in range(1, SLICE * 3 + 1)]
        assert held == [newer is Hold] * (SLICE * 3)

    @pytest.mark.parametrize("kind, field", [(SetPriority, "priority"), (SetThrottle, "throttle")])
    def test_a_priority_or_bound_is_not_undone_by_an_older_one_that_comes_later(self, house, kind, field):
        numbers = [house.array(2) for _ in range(SLICE * 3)]
        for value in (9, 5):
            house.do(kind((), Where(), **{field: value}))
        house.do(kind((str(numbers[-1]),), **{field: 50}))
        assert _sweeps(house) == 2

        assert _sweep_on(house) == 0
        requests = [house.do(GetRequest(str(number))).submit for number in numbers]
        assert [getattr(request, field) for request in requests] == [5] * (SLICE * 3 - 1) + [50]

    def test_a_hold_leaves_the_priority_that_an_older_sweep_is_to_give(self, house):
        numbers = [house.submit() for _ in range(SLICE * 2)]
        house.do(SetPriority((), Where(), priority=7))
        house.do(Hold((str(numbers[-1]),)))
        assert _sweep_on(house) == 0
        assert house.store.get(tables.PROGRESS, (numbers[-1], 0)).rank == 93


class TestWhatIsWrong:
    """A command that cannot be carried out is refused at once: in a slice it would end the tick, and so the server."""

    @pytest.mark.parametrize(
        "command", [SetPriority((), Where(name="z"), priority=500), Cancel((), Where(), signal=99)]
    )
    def test_it_is_refused_before_a_job_is_found(self, house, command):
        for _ in range(SLICE + 1):
            house.submit()
        house.submit(name="z")
        with pytest.raises(BadRequest):
            house.do(command)
        assert _sweeps(house) == 0

    @pytest.mark.parametrize("is_there", [True, False])
    def test_a_stored_one_is_dropped(self, house, is_there):
        house.submit(name="z")
        meta = house.store.get(tables.META, ())
        bad = SetPriority((), Where(name="z"), priority=500)
        changes = {
            tables.META: {(): replace(meta, sequence=meta.sequence + 1)},
            tables.SWEEP: {(1,): Sweep(msgspec.msgpack.encode(bad), 1, 1)} if is_there else {},
            tables.TIMER: {timer(TimerKind.SWEEP, 0, 1): True},
        }
        house.store.write(changes, sequence=meta.sequence + 1, epoch=1, wall_ms=1)
        house.restart()

        assert house.engine.next_due_ms(Times(house.now_ms, 1)) == 0
        assert _sweep_on(house) == 0


def test_a_retry_that_is_due_does_not_wait_for_a_crowd_of_sweeps():
    house = House(Bounds(slice=1))
    house.join()
    failing = house.submit(retries=1, backoff_ms=(1_000, 1_000))
    house.report(*house.starts(), code=1)
    for _ in range(3):
        house.submit()
    for _ in range(150):
        house.do(Retry((), Where()))
    house.now_ms = max(house.now_ms, house.task(failing).due_ms)
    house.do(Tick())
    assert house.task(failing).state is not State.RETRYING
    assert _sweeps(house) > 100
