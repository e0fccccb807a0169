"""Queues: paused ones start nothing, bounded ones never run more than their maximum."""

import pytest

from tests.support.damage import Damaged, without
from tests.support.house import House, held
from tq import limits
from tq.core.change.stop import ref_of
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.job import Queue
from tq.core.model.task import Phase, State
from tq.core.vocabulary import (
    Cancel,
    Capacity,
    Demand,
    Forget,
    Get,
    Handback,
    Held,
    Join,
    Queues,
    Recall,
    Retry,
    SetQueue,
    Submit,
    Tick,
    Wait,
)
from tq.errors import BadRequest, TaskNotFound


@pytest.fixture
def house():
    return House()


def _running(house, queue="q"):
    return sum(lane.counts[State.RUNNING] for lane in house.engine.live.lanes.values() if lane.queue == queue)


def test_a_paused_queue_starts_nothing_over_a_restart_and_blocks_no_other(house):
    house.do(SetQueue("q", paused=True))
    house.restart()
    house.join(slots=4)
    number = house.array(3, queue="q")
    assert house.starts() == []
    assert house.do(Get(f"{number}.1")).value["reason"] == "queue q is paused"
    house.submit()
    assert len(house.starts()) == 1
    house.do(SetQueue("q", paused=False))
    assert len(house.starts()) == 3


def test_setting_what_is_set_already_is_told_apart(house):
    says = [house.do(SetQueue("q", paused=paused)).unchanged for paused in (False, True, True, False, False)]
    assert says == [True, False, True, False, True]


@pytest.mark.parametrize("paused", [True, False])
def test_of_a_queue_that_is_not_there_nothing_is_set_unless_it_is_meant_to_be_new(house, paused):
    house.submit(queue="builds")
    house.do(Join(6, 1, Capacity(slots=1, queues=("gpu",))))
    with pytest.raises(TaskNotFound, match="there is no queue bulids") as refused:
        house.do(SetQueue("bulids", paused=paused, known=True))
    assert refused.value.hint == "did you mean builds? tq queue ls"
    with pytest.raises(TaskNotFound) as refused:
        house.do(SetQueue("zzz", paused=paused, known=True))
    assert refused.value.hint == "tq queue ls"
    assert house.engine.live.queues == {}
    assert [house.do(SetQueue(name, paused=True, known=True)).made for name in ("builds", "gpu", "default")] == [
        False
    ] * 3
    assert not house.do(SetQueue("zzz", max=0)).made
    assert house.do(SetQueue("zzz", max=1)).made
    assert not house.do(SetQueue("zzz", paused=paused, known=True)).made
    house.do(SetQueue("builds", paused=False, known=True))
    house.do(Cancel(("1",)))
    house.do(Forget(("1",)))
    with pytest.raises(TaskNotFound, match="there is no queue builds"):
        house.do(SetQueue("builds", paused=False, known=True))


@pytest.mark.parametrize(
    "typed", ["bulids", "ubilds", "buidls", "build", "buildss", "uilds", "bxilds", "buildz", "abuilds"]
)
def test_one_slip_of_the_fingers_is_recognised(house, typed):
    house.submit(queue="builds")
    with pytest.raises(TaskNotFound) as refused:
        house.do(SetQueue(typed, paused=True, known=True))
    assert refused.value.hint == "did you mean builds? tq queue ls"


@pytest.mark.parametrize("typed", ["lbuids", "buil", "buildsss", "bxxlds", "b", "sdliub", "ubilxx"])
def test_and_not_what_is_another_word(house, typed):
    house.submit(queue="builds")
    with pytest.raises(TaskNotFound) as refused:
        house.do(SetQueue(typed, paused=True, known=True))
    assert refused.value.hint == "tq queue ls"


def test_what_keeps_it_from_starting_is_said_to_who_looks_and_to_who_waits(house):
    def said(name):
        (outcome,) = house.do(Wait((name,))).outcomes
        document = house.do(Get(name)).value
        assert (document["reason"] if document.get("is_stuck") else "") == outcome.reason
        return outcome.reason

    number = house.array(2, queue="q")
    assert [said(f"{number}"), said(f"{number}.2")] == ["no worker is connected"] * 2
    house.do(SetQueue("q", paused=True))
    house.join(slots=1)
    assert said(f"{number}") == "queue q is paused"
    held = str(house.submit(hold=True))
    assert said(held) == f"its job is held; tq release {held}"
    house.do(SetQueue("q", paused=False))
    assert len(house.starts()) == 1
    assert said(f"{number}") == said(f"{number}.1") == said(f"{number}.2") == ""


def test_a_pause_recalls_what_has_not_started(house):
    house.join(slots=2)
    house.array(2, queue="q")
    refs = house.starts()
    house.started(refs[0])
    house.do(SetQueue("q", paused=True))
    assert house.recalls() == [refs[1]]
    house.do(Handback(5, 1, 1, (refs[1],)))
    assert house.starts() == []


def test_what_bounds_nothing_recalls_nothing(house):
    house.join(slots=2)
    house.array(2, queue="q")
    house.do(SetQueue("q", retries=5))
    assert house.recalls() == []
    house.do(SetQueue("q", max=1))
    assert len(house.recalls()) == 2


class Watched(dict):
    """Lanes that count how often somebody has gone through all of them."""

    walks = 0

    def values(self):
        self.walks += 1
        return super().values()


def test_however_many_queues_are_bounded_a_turn_goes_through_all_lanes_a_few_times_only(house):
    for number in range(50):
        house.array(2, queue=f"q{number}")
        house.do(SetQueue(f"q{number}", max=1))
    lanes = house.engine.live.lanes = Watched(house.engine.live.lanes)
    house.join(slots=60)
    assert len(house.starts()) == 50
    lanes.walks = 0
    house.report(house.starts()[0])
    assert 0 < lanes.walks < 10


def test_a_queue_is_paused_though_a_job_that_runs_has_lost_its_record(house):
    house.join(slots=2)
    lost, sound = house.submit(queue="other"), house.submit(queue="q")
    without(house.store, tables.JOB, (lost, 0))
    life = Damaged(house.store)
    life.do(Join(5, 2, Capacity(slots=2), tuple(Held(ref_of((n, 0, 0), house.task(n)), 1) for n in (lost, sound))))
    life.do(SetQueue("q", paused=True))
    assert life.bugs == []
    [recall] = [effect for effect in life.finished.effects if isinstance(effect, Recall)]
    assert [ref.job for ref in recall.attempts] == [sound]


def test_a_pause_that_did_not_reach_a_worker_recalls_when_it_is_back(house):
    house.join(slots=2)
    house.array(2, queue="q")
    refs = house.starts()
    house.started(refs[0])
    house.do(SetQueue("q", paused=True))
    house.restart()
    held = (Held(refs[0], int(Phase.STARTED)), Held(refs[1], int(Phase.ASSIGNED)))
    house.join(slots=2, held=held)
    assert house.recalls() == [refs[1]]


def test_a_queue_never_runs_more_than_its_maximum(house):
    house.do(SetQueue("q", max=3))
    house.join(slots=8)
    house.array(50, queue="q")
    refs = house.starts()
    for _ in range(20):
        assert _running(house) == 3
        house.report(refs.pop(0))
        refs += house.starts()
    house.do(SetQueue("q", max=5))
    assert _running(house) == 5
    house.do(SetQueue("q", max=0))
    assert _running(house) >= 8


def test_the_maximum_counts_over_all_lanes_of_a_queue(house):
    from tq.core.model.job import Demand

    house.do(SetQueue("q", max=2))
    house.join(slots=8)
    house.array(5, queue="q")
    house.array(5, queue="q", demand=Demand(cpus_milli=1000))
    assert _running(house) == 2


def test_settings_that_are_all_default_leave_no_record(house):
    house.do(SetQueue("q", max=2, paused=True))
    assert house.engine.live.queues == {"q": Queue(paused=True, max=2)}
    house.do(SetQueue("q", max=0, paused=False))
    assert house.engine.live.queues == {}


def test_queues_are_listed_with_counts_and_settings(house):
    house.array(3, queue="b")
    house.do(SetQueue("a", max=1))
    assert house.do(Queues()).items == (
        {"id": "a", "paused": False, "max": 1, "retries": -1, "counts": {}},
        {"id": "b", "paused": False, "max": 0, "retries": -1, "counts": {"queued": 3}},
    )


@pytest.mark.parametrize("command", [SetQueue("a b"), SetQueue(""), SetQueue("q", max=-1)])
def test_a_wrong_setting_is_refused(house, command):
    with pytest.raises(BadRequest):
        house.do(command)


def test_the_one_place_in_a_queue_waits_with_what_waits_to_run_alone(house):
    house.do(SetQueue("q", max=1))
    for worker in (5, 6):
        house.join(worker, slots=2)
        house.submit()
        running = house.starts()
    lone = house.submit(queue="q", crash_limit=1, priority=9)

    house.submit(queue="q")
    assert house.starts() == []
    house.report(*running, worker=6)
    assert [ref.job for ref in house.starts()] == [lone]


def test_nobody_is_kept_for_what_a_lease_behind_it_has_brought_to_its_bound(house):
    house.do(SetQueue("q", max=1))
    house.join(5, slots=2)
    house.join(6, slots=1)
    house.submit(demand=Demand(cpus_milli=1))
    assert house.task(house.starts()[0].job).worker == 5
    submits = [  # the queues take turns
        Submit("", b"body", queue="q", demand=Demand(cpus_milli=2_000)),
        Submit("", b"body", demand=Demand(mem_bytes=1)),
        Submit("", b"body", queue="q"),
        Submit("", b"body"),
    ]
    _, _, taken, kept = (int(answer.id) for answer in house.turn(*submits))

    assert [ref.job for ref in house.starts()] == [taken]
    assert house.finished.is_cut
    house.do(Tick())
    assert [ref.job for ref in house.starts()] == [kept]
    assert not house.finished.is_cut


def test_a_queue_whose_old_lane_another_has_taken_over_does_not_come_first_for_that(house, monkeypatch):
    monkeypatch.setattr(limits, "lanes_max", 3)
    house.join(slots=1)
    old = house.submit(queue="a", demand=Demand(cpus_milli=1))
    house.report(*house.starts())
    house.do(Forget((str(old),)))
    house.submit(queue="a")
    running = house.starts()
    owed = house.submit(queue="b")
    house.submit(queue="a")
    house.submit(queue="c", hold=True)
    house.report(*running)
    assert [ref.job for ref in house.starts()] == [owed]


class TestMaxFails:
    """An array with too many failures ends early."""

    def test_the_rest_is_cancelled_when_more_have_failed_than_may(self, house):
        house.join(slots=2)
        number = house.array(100, max_fails=1)
        refs = house.starts()
        house.report(refs[0], code=1)
        assert len(house.starts()) == 1
        other = house.starts()[0]
        house.report(refs[1], code=1)
        assert house.stops() == [other]
        house.report(other, code=-15)
        document = house.do(Get(str(number))).value
        assert document["counts"] == {"dead": 2, "cancelled": 98}
        assert "max_fails" in document["reason"]

    def test_zero_means_the_first_failure_ends_it(self, house):
        house.join()
        number = house.array(5, max_fails=0)
        house.report(*house.starts(), code=1)
        assert house.do(Get(str(number))).value["counts"] == {"dead": 1, "cancelled": 4}

    def test_who_is_retried_in_an_array_that_ended_early_has_all_its_retries(self, house):
        house.join(slots=2)
        number = house.array(3, max_fails=0, retries=1, no_retry_on=(2,))
        first, second = house.starts()
        house.report(first, code=2)
        house.report(second, code=-15)
        assert house.do(Get(str(number))).value["counts"] == {"dead": 1, "cancelled": 2}
        house.do(Retry((f"{number}.2",)))
        house.report(*house.starts(), code=1)
        assert house.task(number, 1).state is State.RETRYING

    def test_a_retry_in_slices_is_not_ended_by_what_it_has_not_come_to(self):
        house = House(Bounds(slice=3))
        house.join(slots=12)
        number = house.array(12, max_fails=1)
        refs = house.starts()
        house.report(*refs[-2:], code=1)
        house.report(*refs[:-2], code=-15)
        for _ in range(5):
            house.do(Tick())
        assert house.do(Retry((str(number),))).sweeping
        first, second = house.starts()[:2]
        house.report(first, code=1)
        for _ in range(5):
            house.do(Tick())
        assert house.do(Get(str(number))).value["counts"] == {"dead": 1, "running": 11}
        house.report(second, code=1)
        progress = house.store.get(tables.PROGRESS, (number, 0))
        assert (progress.counts[State.DEAD], progress.cancelling) == (2, True)

    def test_the_last_members_failure_has_nothing_left_to_cancel(self, house):
        house.join()
        house.array(1, max_fails=0)
        house.report(*house.starts(), code=1)
        assert house.task(1).state is State.DEAD


def test_a_queue_whose_jobs_are_all_forgotten_is_listed_no_more(house):
    house.submit()
    house.do(SetQueue("set", max=2))
    gone = house.submit(queue="branch-1")
    assert [item["id"] for item in house.do(Queues()).items] == ["branch-1", "default", "set"]
    house.do(Cancel((str(gone),)))
    assert [item["id"] for item in house.do(Queues()).items] == ["branch-1", "default", "set"]
    house.do(Forget((str(gone),)))
    assert [item["id"] for item in house.do(Queues()).items] == ["default", "set"]


@pytest.mark.parametrize("asked, of_queue, expected", [(-1, -1, 3), (-1, 5, 5), (-1, 0, 0), (2, 5, 2), (0, 5, 0)])
def test_who_does_not_say_is_tried_again_as_the_queue_or_else_the_server_says(asked, of_queue, expected):
    house = House(Bounds(retries=3))
    house.do(SetQueue("q", retries=of_queue))
    number = house.submit(queue="q", retries=asked)
    assert house.do(Get(str(number))).value["retries"] == expected


@pytest.mark.parametrize("retries", [-2, 1_000_001])
def test_retries_of_a_queue_that_make_no_sense_are_refused(retries):
    with pytest.raises(BadRequest):
        House().do(SetQueue("q", retries=retries))


def test_a_task_that_its_own_job_keeps_from_starting_says_so(house):
    house.join(slots=4)
    number = house.array(3, throttle=2)
    first, _ = house.starts()
    assert house.do(Get(f"{number}.3")).value["reason"] == "its job runs at most 2 at once"
    house.report(first)
    assert house.do(Get(f"{number}.3")).value["state"] == "running"


def reserved(house: House, worker: int = 5) -> int:
    return house.engine.live.workers[worker].slots_used


def test_a_worker_that_comes_back_keeps_the_width_that_it_was_told() -> None:
    house = House()
    house.array(5)
    house.join(slots=3)
    refs = house.starts()
    lane = house.engine.live.workers[5].held[refs[0].task]

    house.restart()
    # One has ended and two run just now, but its launcher goes on to run three.
    list_of_three = held(*refs[:2]) + held(refs[2], phase=Phase.ENDED)
    house.join(slots=3, session=2, held=list_of_three, widths=((lane, 3),))

    assert reserved(house) == 3
    assert house.starts() == []


def test_a_width_counts_only_as_far_as_attempts_are_held() -> None:
    house = House()
    house.array(5)
    house.join(slots=3)
    refs = house.starts()
    lane = house.engine.live.workers[5].held[refs[0].task]
    refs_of_one = held(refs[0])

    house.restart()
    house.join(slots=1, session=2, held=refs_of_one, widths=((lane, 3), (lane + 7, 9)))

    assert reserved(house) == 1


def test_short_attempts_that_nobody_has_called_started_are_reserved_too() -> None:
    house = House()
    house.array(2)
    house.join(slots=2)
    refs = house.starts()
    lane = house.engine.live.workers[5].held[refs[0].task]

    house.restart()
    house.join(slots=2, session=2, held=held(*refs, phase=Phase.ASSIGNED), widths=((lane, 2),))

    assert reserved(house) == 2
