"""A worker that cannot start what it is given rests, longer each time; nobody's tasks pay for it."""

from typing import Any

import pytest

from tests.support.house import House
from tq.core.engine import ready
from tq.core.model.task import Cause, State
from tq.core.vocabulary import (
    AttemptRef,
    Cancel,
    Demand,
    Drain,
    Get,
    Handback,
    SetQueue,
    Submit,
    Tick,
    Times,
    WorkerLost,
    Workers,
)
from tq.limits import trouble_chars_max, troubles_failed_max

TROUBLE = Cause.WORKER_TROUBLE


@pytest.fixture
def house() -> House:
    house = House()
    house.join()
    return house


def trouble(house: House, *refs: AttemptRef, worker: int = 5) -> None:
    house.do(Handback(worker, 1, 1, refs, int(TROUBLE), "no space left" + "!" * 1_000))


def due_ms(house: House) -> int | None:
    return house.engine.next_due_ms(Times(house.now_ms, house.now_ms))


def after(house: House, ms: int) -> list[AttemptRef]:
    """Let time pass; return what is leased then."""
    house.now_ms += ms
    house.do(Tick())
    return house.starts()


def worker(house: House) -> dict[str, Any]:
    page: Any = house.do(Workers())
    return page.items[0]  # type: ignore[no-any-return]


def quarantine(house: House, job: int) -> None:
    """Let the only worker have trouble five times in a row."""
    for count in range(5):
        trouble(house, house.starts()[0] if count else ref_of(house, job))
        if count < 4:
            assert len(after(house, 60_000)) == 1
    assert worker(house)["state"] == "quarantined"
    assert worker(house)["trouble"] == "no space left".ljust(trouble_chars_max, "!")


def ref_of(house: House, job: int) -> AttemptRef:
    task = house.task(job)
    return AttemptRef(job, 0, 0, task.attempt, task.lease)


def test_what_a_worker_could_not_start_goes_back_uncharged_and_never_straight_back_to_it(house: House) -> None:
    job = house.submit()
    trouble(house, *house.starts())
    task = house.task(job)
    assert (task.state, task.failures, task.losses, house.starts()) == (State.QUEUED, 0, 0, [])


def test_another_worker_gets_it_at_once(house: House) -> None:
    house.submit()
    (ref,) = house.starts()
    house.join(worker=6)
    trouble(house, ref)
    assert house.task(ref.job).worker == 6


def test_it_is_tried_again_after_a_second_then_two_up_to_a_minute(house: House) -> None:
    house.submit()
    pauses = []
    for _ in range(8):
        trouble(house, *house.starts())
        wait_ms = due_ms(house)
        assert wait_ms is not None
        assert after(house, wait_ms - 2) == []  # a turn of this house takes a millisecond
        assert len(after(house, 1)) == 1
        pauses.append(wait_ms)
    assert pauses == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]


def test_who_has_rested_and_finds_nothing_to_try_is_looked_at_no_more(house: House) -> None:
    job = house.submit()
    trouble(house, *house.starts())
    house.do(Cancel((str(job),)))
    assert after(house, 1_000) == []
    assert due_ms(house) is None


def test_the_try_is_one_attempt_however_many_slots_and_lanes_there_are() -> None:
    house = House()
    house.join(slots=8)
    house.array(20, queue="a")
    trouble(house, *house.starts())
    house.array(20, queue="b")
    assert len(after(house, 1_000)) == 1
    assert after(house, 500) == []


def test_who_has_rested_gets_its_try_before_the_chains_of_others_take_all(house: House) -> None:
    for _ in range(4):
        short = house.submit()
        house.report(ref_of(house, short), run_us=100)
    trouble(house, ref_of(house, house.submit()))
    house.join(worker=6)
    house.now_ms += 1_000
    house.array(10)
    assert [task.worker for task in map(house.task, [6] * 10, range(10))].count(5) == 1


def test_what_a_worker_cannot_start_keeps_nothing_else_from_it() -> None:
    house = House()
    house.join(modules=("m",))
    calls = [house.submit(demand=Demand(module="m")) for _ in range(3)]
    trouble(house, ref_of(house, calls[0]))
    other = house.submit()
    (ref,) = after(house, 1_000)
    assert ref.job == other, "another lane first"
    house.report(ref)
    assert [ref.job for ref in house.starts()] == calls[:1], "all is well again: in their order"


def test_where_there_is_no_other_lane_another_job_is_tried_and_then_what_failed(house: House) -> None:
    bad = house.submit()
    trouble(house, *house.starts())
    good = house.submit()
    (ref,) = after(house, 1_000)
    assert ref.job == good
    trouble(house, ref)
    (ref,) = after(house, 2_000)
    assert ref.job == bad, "there is nothing else"
    trouble(house, ref)
    third = house.submit()
    (ref,) = after(house, 4_000)
    assert ref.job == third, "both have failed"


def test_what_one_worker_could_not_start_goes_to_another_and_the_first_tries_something_else(house: House) -> None:
    bad = house.submit()
    house.join(worker=6)
    busy = house.submit()
    trouble(house, ref_of(house, bad))
    good = house.submit()
    (ref,) = after(house, 1_000)
    assert (ref.job, house.task(good).worker) == (good, 5)
    house.report(ref_of(house, busy), worker=6)
    assert (house.starts()[0].job, house.task(bad).worker) == (bad, 6)


def test_a_worker_in_trouble_is_kept_for_nothing_that_another_has_taken_meanwhile() -> None:
    house = House()
    house.join(slots=2)
    busy = house.submit(demand=Demand(cpus_milli=1_000))
    house.started(ref_of(house, busy))
    bad = house.submit()
    trouble(house, ref_of(house, bad))
    house.join(worker=6, slots=2)
    assert house.task(bad).worker == 6
    house.now_ms += 1_000
    wide = Submit("", b"body", demand=Demand(cpus_milli=2_000))  # only the other worker has so many free
    house.turn(Tick(), wide, Submit("", b"body"))
    assert [(ref.job, house.task(ref.job).worker) for ref in house.starts()] == [(3, 6), (4, 5)]


def test_a_worker_in_trouble_is_kept_for_nothing_that_another_one_takes_after_it() -> None:
    house = House()
    house.do(SetQueue("default", max=9))
    house.join(slots=2)
    house.started(ref_of(house, house.submit(demand=Demand(cpus_milli=1_000))))
    bad = house.submit()
    house.join(worker=6, slots=2)
    for number in (5, 6):
        assert house.task(bad).worker == number
        trouble(house, ref_of(house, bad), worker=number)
    house.do(SetQueue("default", paused=True))
    house.now_ms += 1_000
    wide = Submit("", b"body", priority=5, demand=Demand(cpus_milli=2_000))  # only the second has so many free
    narrow = Submit("", b"body", demand=Demand(cpus_milli=1_000))
    house.turn(wide, narrow, SetQueue("default", paused=False))
    assert [(ref.job, house.task(ref.job).worker) for ref in house.starts()] == [(3, 6)]
    assert house.finished.is_cut
    house.do(Tick())
    assert [(ref.job, house.task(ref.job).worker) for ref in house.starts()] == [(4, 5)]


def test_a_worker_remembers_the_latest_jobs_that_it_could_not_start(house: House) -> None:
    jobs = []
    for _ in range(troubles_failed_max + 1):
        jobs.append(house.submit())
        (ref,) = house.starts() or after(house, 60_000)
        assert ref.job == jobs[-1]
        trouble(house, ref)
    state = house.engine.live.workers[5].trouble
    assert state is not None
    assert [job for _, job, _ in state.failed] == jobs[1:]


def test_a_worker_in_trouble_without_room_keeps_no_place_in_a_queue(house: House) -> None:
    house.do(SetQueue("q", max=2))
    trouble(house, ref_of(house, house.submit(queue="q")))
    assert after(house, 1_000)  # the try: it has said nothing yet
    lone = house.submit(queue="q", crash_limit=1)
    assert after(house, 5_000) == []
    house.join(6, slots=1)

    assert [ref.job for ref in house.starts()] == [lone]


def test_a_worker_in_trouble_takes_no_place_in_a_queue_that_is_owed_to_who_comes_first_there() -> None:
    house = House()
    house.do(SetQueue("q", max=1))
    house.join(slots=1)
    trouble(house, ref_of(house, house.submit(queue="q")))
    house.join(worker=6, slots=1)
    house.now_ms += 1_000
    first = house.submit(queue="q")
    behind = house.submit(queue="q", demand=Demand(cpus_milli=100))
    assert house.task(1).worker == 6
    house.report(ref_of(house, 1), worker=6)
    assert [(ref.job, house.task(ref.job).worker) for ref in house.starts()] == [(first, 6)]
    house.report(ref_of(house, first), worker=6)
    assert [ref.job for ref in house.starts()] == [behind]


def test_what_must_run_alone_is_tried_again_where_nobody_else_has_room() -> None:
    house = House()
    house.do(SetQueue("q", max=1))
    house.join(slots=1)
    lone = house.submit(queue="q", crash_limit=1)
    trouble(house, ref_of(house, lone))
    house.do(SetQueue("q", paused=True))
    house.join(worker=6, slots=1)
    house.submit(queue="other")
    assert house.task(2).worker == 6, "it is busy from now on"
    house.now_ms += 1_000
    house.do(SetQueue("q", paused=False))
    assert [(ref.job, house.task(ref.job).worker) for ref in house.starts()] == [(lone, 5)]


def test_workers_in_trouble_look_only_at_what_they_could_run(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    for number in (5, 6, 7):
        house.join(worker=number, slots=1)
    house.array(3)
    for ref in house.starts():
        house.do(SetQueue("default", paused=True))
        trouble(house, ref, worker=house.task(1, ref.member).worker)
    for queue in range(9):
        house.submit(queue=f"q{queue}", demand=Demand(mem_bytes=1 << 60))
    looks: list[int] = []
    head = ready._head
    monkeypatch.setattr(
        ready, "_head", lambda step, number, resting: looks.append(number) or head(step, number, resting)
    )
    assert after(house, 1_000) == []
    assert looks == []


def test_a_try_that_says_nothing_is_followed_by_another_one_after_the_same_pause() -> None:
    house = House()
    house.join(slots=2)
    house.array(4)
    trouble(house, *house.starts())
    assert len(after(house, 1_000)) == 1
    assert len(after(house, 1_000)) == 1


@pytest.mark.parametrize("how", ["started", "succeeded", "failed"])
def test_an_attempt_that_runs_ends_the_trouble(house: House, how: str) -> None:
    house.array(9, retries=0)
    trouble(house, *house.starts())
    (ref,) = after(house, 1_000)
    if how == "started":
        house.started(ref)
    else:
        house.report(ref, code=0 if how == "succeeded" else 3)
    assert worker(house)["troubles"] == 0
    (again,) = house.starts() or [ref]
    trouble(house, again)
    assert due_ms(house) == 1_000


def test_what_was_leased_before_the_trouble_neither_counts_again_nor_ends_it() -> None:
    house = House()
    house.join(slots=3)
    house.array(3)
    first, second, third = house.starts()
    trouble(house, first)
    trouble(house, second)
    assert worker(house)["troubles"] == 1
    house.report(third)
    assert worker(house)["troubles"] == 1


def test_a_lost_launcher_ends_no_trouble(house: House) -> None:
    house.submit()
    trouble(house, *house.starts())
    (ref,) = after(house, 1_000)
    house.report(ref, cause=Cause.LOST)
    assert worker(house)["troubles"] == 1


def test_after_five_in_a_row_it_is_quarantined_and_still_tried_once_a_minute(house: House) -> None:
    job = house.submit()
    quarantine(house, job)
    assert after(house, 16_000) != []


def test_undrain_lets_it_go_on_at_once(house: House) -> None:
    job = house.submit()
    quarantine(house, job)
    house.do(Drain("host5", on=False))
    assert [ref.job for ref in house.starts()] == [job]
    assert (worker(house)["state"], worker(house)["troubles"], worker(house)["trouble"]) == ("up", 0, "")


def test_a_worker_that_was_lost_begins_anew(house: House) -> None:
    job = house.submit()
    quarantine(house, job)
    house.do(WorkerLost(5, 1))
    house.join(session=2)
    assert [ref.job for ref in house.starts()] == [job]


def test_why_a_task_waits_is_said_where_nobody_else_could_run_it(house: House) -> None:
    job = house.submit()
    trouble(house, *house.starts())
    again: Any = house.do(Get(str(job)))
    assert "could not start its last attempts" in again.value["reason"]
    submitted: Any = house.do(Submit("", b"body"))
    assert "could not start its last attempts, as its log says; tried again within 60 s" in submitted.warning
    waiting: Any = house.do(Get(submitted.id))
    assert waiting.value["reason"] == submitted.warning
    house.join(worker=6)
    assert house.task(job).worker == 6
    other: Any = house.do(Submit("", b"body"))
    assert other.warning == ""


def test_a_plain_handback_is_no_trouble(house: House) -> None:
    house.submit()
    house.do(Handback(5, 1, 1, tuple(house.starts()), int(Cause.DRAIN)))
    assert len(house.starts()) == 1


def test_trouble_of_a_superseded_session_counts_nothing(house: House) -> None:
    house.submit()
    refs = tuple(house.starts())
    house.join(session=2, held=())
    house.do(Handback(5, 1, 1, refs, int(TROUBLE)))
    assert worker(house)["troubles"] == 0
