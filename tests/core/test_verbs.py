"""Acting on many: hold, release, requeue, retry, priority, forget; by id, range and filter, at once or as a sweep."""

import pytest

from tests.support.house import House
from tq import limits
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.task import Cause, State
from tq.core.vocabulary import (
    Acted,
    Cancel,
    Forget,
    Get,
    Handback,
    Hold,
    List,
    Release,
    Requeue,
    Retain,
    Retry,
    SetPriority,
    Stop,
    Submit,
    Tick,
    Wait,
    Where,
    WorkerLost,
)
from tq.errors import AlreadyEnded, BadRequest, KeyConflict, TaskNotFound, TooLarge


@pytest.fixture
def house():
    return House()


def _finish(house, **report):
    while house.starts():
        house.report(*house.starts(), **report)


def signals(house: House) -> list[int]:
    """Return the signals of the last turn's stops."""
    return [effect.signal for effect in house.finished.effects if isinstance(effect, Stop)]


class TestSelection:
    """What ids, ranges and filters name."""

    def test_a_range_of_members_is_cancelled_and_no_others(self, house):
        number = house.array(9)
        assert house.do(Cancel((f"{number}.3-5", f"{number}.4"))) == Acted(done=3, unchanged=1)
        states = [item["state"] for item in house.do(List(job=str(number))).items]
        assert [states.index("cancelled"), states.count("cancelled")] == [2, 3]

    @pytest.mark.parametrize(
        "ids, error",
        [
            (("1.1", "1.5-3"), BadRequest),
            (("1.1", "x"), BadRequest),
            (("1.1-99",), TaskNotFound),
            (("2", "1.10"), TaskNotFound),
        ],
    )
    def test_what_makes_no_sense_or_names_nothing_is_refused_whole(self, house, ids, error):
        house.array(9)
        with pytest.raises(error):
            house.do(Cancel(ids))
        assert house.store.scan(tables.TASK, (0,), (9,), 5) == []

    def test_of_several_ids_those_that_name_nothing_are_told_and_the_others_done(self, house):
        house.array(9)
        ids = ("7", "1.1", "1.8-10", "1.2")
        assert house.do(Cancel(ids, dry_run=True)) == Acted(2, unknown=("7", "1.8-10"))
        assert house.do(Cancel(ids)) == Acted(2, unknown=("7", "1.8-10"))
        assert len(house.store.scan(tables.TASK, (0,), (9,), 5)) == 2
        with pytest.raises(AlreadyEnded, match=r"nothing to do: 1\.1 had ended already; not found: 7"):
            house.do(Cancel(("7", "1.1")))
        with pytest.raises(TaskNotFound, match=r"^not found: 7, 1\.10"):
            house.do(Cancel(("7", "1.10")))

    def test_a_wait_for_several_names_all_that_are_not_there(self, house):
        house.array(9)
        with pytest.raises(TaskNotFound, match=r"^not found: 7, 1\.10"):
            house.do(Wait(("7", "1", "1.10")))
        with pytest.raises(TaskNotFound, match=r"^there is no job 7"):
            house.do(Wait(("1", "7")))

    def test_more_members_than_one_command_may_touch_are_refused(self):
        house = House(Bounds(slice=3))
        house.array(9)
        with pytest.raises(TooLarge):
            house.do(Cancel(("1.1-4",)))
        with pytest.raises(TooLarge):
            house.do(Cancel(("1.1-3", "1.4")))

    def test_neither_ids_nor_a_filter_is_refused(self, house):
        with pytest.raises(BadRequest):
            house.do(Cancel())

    def test_of_ids_and_a_filter_those_that_match(self, house):
        array, other = house.array(4), house.submit(name="a")
        house.do(Cancel((f"{array}.2",)))
        where = Where(states=("cancelled",))
        assert house.do(Retry((str(array), str(other)), where)).done == 1
        with pytest.raises(AlreadyEnded, match="is none of those that are meant"):
            house.do(Cancel((f"{array}.1",), where))
        with pytest.raises(AlreadyEnded, match="is none of those that are meant"):
            house.do(Cancel((f"{array}.1",), Where(tag="t")))
        with pytest.raises(AlreadyEnded, match=r"nothing to do: 1\.1, 2: the last one does not run"):
            house.do(Requeue((f"{array}.1", str(other))))
        with pytest.raises(AlreadyEnded, match="has none of those that are meant"):
            house.do(Cancel((str(other),), Where(name="b")))
        with pytest.raises(AlreadyEnded, match="has none of the dead letters that are meant"):
            house.do(Retry((str(other),), Where(is_letter=True)))

    def test_a_filter_takes_what_matches_all_its_parts(self, house):
        house.submit(name="a", queue="q", tags=("t",))
        house.submit(name="a", queue="other", tags=("t",))
        assert house.do(Cancel(where=Where(name="a", queue="q", tag="t"))) == Acted(done=1)
        assert [house.do(Get(str(job))).value["state"] for job in (1, 2)] == ["cancelled", "queued"]

    def test_a_filter_that_matches_nothing_does_nothing(self, house):
        house.submit()
        assert house.do(Cancel(where=Where(name="nobody"))) == Acted(0)

    def test_a_dry_run_counts_and_changes_nothing(self, house):
        house.join(slots=2)
        house.array(9)
        assert house.do(Cancel(("1",), dry_run=True)) == Acted(done=7, stopping=2)
        assert house.finished.changes == {}
        assert house.stops() == []

    def test_a_signal_reaches_what_runs_and_what_is_being_stopped_already(self, house):
        house.join()
        number = house.submit()
        house.do(Cancel((str(number),)))
        assert signals(house) == [0]
        house.do(Cancel((str(number),)))
        assert signals(house) == []
        house.do(Cancel((str(number),), signal=9))
        assert signals(house) == [9]
        house.do(Cancel((str(number),), signal=64))
        assert signals(house) == [64]
        for signal in (-1, 65, 1 << 40):
            with pytest.raises(BadRequest, match="no signal"):
                house.do(Cancel((str(number),), signal=signal))

    def test_a_signal_goes_on_with_a_sweep(self):
        house = House(Bounds(slice=3))
        house.join(slots=10)
        house.array(9)
        assert house.do(Cancel(("1",), signal=2)).sweeping
        said = signals(house)
        for _ in range(5):
            house.do(Tick())
            said += signals(house)
        assert len(said) > 1
        assert set(said) == {2}

    def test_states_of_a_filter_choose_among_the_tasks_of_a_job(self, house):
        house.join(slots=2)
        house.array(9)
        assert house.do(Cancel(where=Where(states=("queued",)))) == Acted(done=7, unchanged=0)
        assert house.task(1, 0).state is State.RUNNING

    def test_a_filter_over_many_jobs_goes_on_as_a_sweep_over_a_restart(self):
        house = House(Bounds(slice=3))
        for _ in range(10):
            house.submit(tags=("old",))
        assert house.do(Cancel(where=Where(tag="old"))).sweeping
        newer = house.submit(tags=("old",))
        house.restart()
        for _ in range(5):
            house.do(Tick())
        states = [item["state"] for item in house.do(List()).items]
        assert states == ["queued"] + ["cancelled"] * 10
        assert house.do(Get(str(newer))).value["state"] == "queued"


class TestHold:
    """A hold is a flag of the job: it stops what waits, at once."""

    def test_ten_million_untouched_members_are_held_and_released_as_one_field(self, house):
        number = house.array(10_000_000)
        assert house.do(Hold((str(number),))) == Acted(1)
        house.join()
        assert house.starts() == []
        assert house.do(Get(str(number))).value["counts"] == {"held": 10_000_000}
        house.do(Release((str(number),)))
        assert len(house.starts()) == 1

    def test_what_runs_goes_on_and_what_comes_back_waits(self, house):
        house.join()
        number = house.array(3)
        house.do(Hold((str(number),)))
        house.do(WorkerLost(5, 1))
        house.join(session=2)
        assert house.starts() == []
        assert house.do(Get(f"{number}.1")).value["state"] == "held"
        house.do(Release((str(number),)))
        assert [ref.member for ref in house.starts()] == [0]

    def test_what_is_assigned_and_has_not_started_is_recalled(self, house):
        house.join(slots=2)
        number = house.array(2)
        refs = house.starts()
        house.started(refs[0])
        house.do(Hold((str(number),)))
        assert house.recalls() == [refs[1]]
        house.do(Handback(5, 1, 1, (refs[1],)))
        assert house.starts() == []
        house.do(Release((str(number),)))
        refs = house.starts()
        house.do(Hold((str(number),)))
        assert house.recalls() == refs, "once for each time that it was assigned"

    def test_a_second_hold_and_a_needless_release_are_refused(self, house):
        number = str(house.submit(hold=True))
        with pytest.raises(AlreadyEnded, match="held already"):
            house.do(Hold((number,)))
        house.do(Release((number,)))
        with pytest.raises(AlreadyEnded, match="not held"):
            house.do(Release((number,)))

    def test_members_cannot_be_held(self, house):
        house.array(3)
        with pytest.raises(BadRequest, match="whole jobs"):
            house.do(Hold(("1.2",)))


class TestRequeue:
    """Requeue stops what runs and puts it back, uncharged."""

    @pytest.mark.parametrize("how", ["report", "lost"])
    def test_a_requeued_attempt_goes_back_uncharged(self, house, how):
        house.join()
        number = house.submit()
        (ref,) = house.starts()
        assert house.do(Requeue((str(number),))) == Acted(0, stopping=1)
        assert house.stops() == [ref]
        if how == "report":
            house.report(ref, code=-15, cause=Cause.REQUEUE)
        else:
            house.do(WorkerLost(5, 1))
            house.join(session=2)
        task = house.task(number)
        assert (task.state, task.attempt, task.losses, task.failures) == (State.RUNNING, 2, 0, 0)

    def test_a_cancel_overrides_a_requeue(self, house):
        house.join()
        number = house.submit()
        (ref,) = house.starts()
        house.do(Requeue((str(number),)))
        house.do(Cancel((str(number),)))
        house.report(ref, code=-15, cause=Cause.REQUEUE)
        assert house.task(number).state is State.CANCELLED

    def test_what_does_not_run_cannot_be_requeued(self, house):
        number = house.submit()
        with pytest.raises(AlreadyEnded, match="does not run"):
            house.do(Requeue((str(number),)))


class TestRetry:
    """Retry by hand opens a new round."""

    def test_a_dead_task_starts_a_new_round_and_keeps_its_history(self, house):
        house.join()
        number = house.submit()
        house.report(*house.starts(), code=3)
        assert house.do(Retry((str(number),))) == Acted(1)
        (ref,) = house.starts()
        assert ref.attempt == 2
        task = house.task(number)
        assert (task.round, task.failures, [entry.code for entry in task.history]) == (2, 0, [3])
        house.report(ref)
        assert house.task(number).state is State.SUCCEEDED
        assert house.store.scan(tables.DEAD, (0,), (1 << 62,), 5) == []

    def test_only_what_failed_is_retried(self, house):
        house.join(slots=3)
        number = house.array(3)
        refs = house.starts()
        house.report(refs[0])
        house.report(refs[1], code=1)
        house.report(refs[2])
        assert house.do(Retry((str(number),))).done == 1
        assert [ref.member for ref in house.starts()] == [1]

    def test_a_success_is_retried_only_by_force(self, house):
        house.join()
        number = house.submit()
        _finish(house)
        with pytest.raises(AlreadyEnded, match="force"):
            house.do(Retry((str(number),)))
        house.do(Retry((str(number),), force=True))
        assert house.starts()[0].attempt == 2

    def test_ten_million_cancelled_members_are_retried_as_one_field(self, house):
        number = house.array(10_000_000)
        house.do(Cancel((str(number),)))
        assert house.do(Retry((str(number),))).done == 10_000_000
        house.join()
        assert [ref.member for ref in house.starts()] == [0]

    def test_failed_tasks_are_found_by_a_filter(self, house):
        house.join(slots=4)
        number = house.array(4)
        refs = house.starts()
        house.report(*refs[:2], code=1)
        house.do(Cancel((f"{number}.3",)))
        house.report(*refs[2:])
        assert house.do(Retry(where=Where(states=("failed",)))).done == 2
        assert [ref.member for ref in house.starts()] == [0, 1]

    def test_a_report_of_an_earlier_round_is_known_and_changes_nothing(self, house):
        house.join()
        number = house.submit()
        (ref,) = house.starts()
        house.report(ref, code=3)
        house.do(Retry((str(number),)))
        house.report(ref, code=0)
        assert house.task(number).state is State.RUNNING


def test_a_new_priority_changes_the_place_in_the_lane(house):
    jobs = [house.submit() for _ in range(3)]
    house.do(SetPriority((str(jobs[2]),), priority=9))
    house.do(SetPriority((str(jobs[0]),), priority=-9))
    house.join()
    order = [house.starts()[0].job]
    for _ in range(2):
        house.report(*house.starts())
        order.append(house.starts()[0].job)
    assert order == [jobs[2], jobs[1], jobs[0]]
    assert house.do(Get(str(jobs[0]))).value["priority"] == -9
    with pytest.raises(BadRequest):
        house.do(SetPriority((str(jobs[0]),), priority=101))


class TestForget:
    """A forgotten job leaves nothing, and only ended ones can be forgotten."""

    def _done(self, house, size=4, code=0, **fields):
        number = house.array(size, **fields)
        _finish(house, code=code)
        return number

    @pytest.mark.parametrize("code", [0, 1])
    def test_a_forgotten_job_is_gone_with_all_its_rows(self, house, code):
        house.join(slots=4)
        number = self._done(house, code=code)
        assert house.do(Forget((str(number),))) == Acted(1)
        for table in (tables.JOB, tables.PROGRESS, tables.TASK, tables.DEAD, tables.ENDED, tables.READY):
            assert house.store.scan(table, (0,), (1 << 62,), 5) == []
        with pytest.raises(TaskNotFound):
            house.do(Get(str(number)))

    def test_what_has_not_ended_cannot_be_forgotten(self, house):
        number = house.submit()
        with pytest.raises(AlreadyEnded, match="has not ended"):
            house.do(Forget((str(number),)))
        assert house.do(Get(str(number))).value["state"] == "queued"

    def test_a_job_with_many_dead_letters_is_hidden_at_once_and_goes_in_slices(self):
        house = House(Bounds(slice=3))
        house.join(slots=4)
        number = self._done(house, size=10, code=1)
        assert house.do(Forget((str(number),))).sweeping
        for command in (Get(str(number)), Retry((str(number),)), Cancel((str(number),))):
            with pytest.raises(TaskNotFound):
                house.do(command)
        house.restart()
        for _ in range(5):
            house.do(Tick())
        assert house.store.scan(tables.PROGRESS, (0,), (1 << 62,), 5) == []
        assert house.store.scan(tables.DEAD, (0,), (1 << 62,), 5) == []

    def _ended(self, house, last):
        """Return a job: three members succeeded, then `last` ones ended by their code, or (None) were cancelled."""
        number = house.array(3 + len(last))
        refs = house.starts()
        house.report(*refs[:3])
        for ref, code in zip(refs[3:], last, strict=True):
            if code is None:
                house.do(Cancel((f"{number}.{ref.member + 1}",)))
            house.report(ref, code=code or 0, cause=Cause.CANCELLED if code is None else Cause.EXIT)
        return number

    @pytest.mark.parametrize("last", [[None], [1], [1, 1, None]])
    def test_what_is_forgotten_between_two_slices_of_a_retry_is_forgotten(self, last):
        house = House(Bounds(slice=3))
        house.join(slots=6)
        number = self._ended(house, last)
        assert house.do(Retry((str(number),))).sweeping
        house.do(Forget((str(number),)))
        for _ in range(8):
            house.do(Tick())
        for table in (tables.JOB, tables.PROGRESS, tables.TASK, tables.AGAIN, tables.READY, tables.DEAD, tables.SWEEP):
            assert house.store.scan(table, (0,), (1 << 62,), 5) == []

    def test_a_filter_by_state_forgets_whole_jobs_their_dead_letters_too(self, house):
        house.join(slots=4)
        house.array(2)
        good, bad = house.starts()
        house.report(good)
        house.report(bad, code=1)

        assert house.do(Forget(where=Where(states=("succeeded",)))) == Acted(1)

        assert house.store.scan(tables.DEAD, (0,), (1 << 62,), 5) == []

    def test_the_key_of_a_forgotten_job_lives_for_a_day(self, house):
        house.join()
        first = house.do(Submit("k", b"body"))
        _finish(house)
        house.do(Forget((first.id,)))
        assert house.do(Submit("k", b"body")).id == first.id
        with pytest.raises(KeyConflict):
            house.do(Submit("k", b"other"))
        house.now_ms += limits.key_ttl_ms
        house.do(Tick())
        assert house.do(Submit("k", b"other")).id == "2"

    def test_what_ended_long_ago_is_forgotten_by_itself_and_dead_letters_are_kept(self, house):
        house.join(slots=4)
        good, bad = self._done(house), self._done(house, code=1)
        house.now_ms += 1_000
        fresh = self._done(house)
        assert house.do(Retain(500)) == Acted(1)
        assert [item["id"] for item in house.do(List()).items] == [str(fresh), str(bad)]
        assert good not in (fresh, bad)
        assert house.do(Retain(500)) == Acted(0)
        house.do(Retry((str(bad),)))
        _finish(house)
        house.now_ms += 1_000
        assert house.do(Retain(500)) == Acted(2)


def test_a_cancel_of_what_runs_ends_though_much_that_is_not_meant_came_back():
    house = House(Bounds(slice=2))
    number = house.array(6)
    house.join(slots=6)
    house.do(WorkerLost(5, 1))
    house.join(session=2)

    house.do(Cancel((), Where(states=("running",))))
    for _ in range(6):
        house.do(Tick())

    assert house.store.scan(tables.SWEEP, (0,), (99,), 9) == []
    assert house.store.get(tables.PROGRESS, (number, 0)).counts[State.QUEUED] == 5


class TestFiltersByState:
    """A filter by state means states as they are shown: under a hold, what came back to the queue is held."""

    @pytest.fixture
    def held(self, house):
        """Return a held job whose one task came back to the queue."""
        number = house.submit()
        house.join()
        starts = tuple(house.starts())
        house.do(Hold((str(number),)))
        house.do(Handback(5, 1, 1, starts))
        return str(number)

    def test_a_held_job_is_listed_released_and_cancelled_as_held(self, house, held):
        assert [item["id"] for item in house.do(List(states=("held",))).items] == [held]
        assert house.do(Cancel(where=Where(states=("held",)), dry_run=True)) == Acted(1)
        assert house.do(Release(where=Where(states=("held",)))) == Acted(1)

    def test_and_not_as_queued(self, house, held):
        assert house.do(List(states=("queued",))).items == ()
        assert house.do(Cancel(where=Where(states=("queued",)))) == Acted(0)
        assert house.do(Get(held)).value["state"] == "held"
