"""A bug in the server's own work costs what it is about: that is put off, and the server and all else go on (I12)."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.server.rig import Loop
from tests.support.damage import Damaged, without, without_lane
from tests.support.house import House
from tq.core.change.stop import ref_of
from tq.core.engine import clock, dispatch, leases, turn
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.task import Cause, State
from tq.core.model.view import pages
from tq.core.placement import quarantine
from tq.core.placement.fold import FoldFailed
from tq.core.placement.live import Live
from tq.core.repair import invariants
from tq.core.vocabulary import (
    Acted,
    AddEntries,
    Cancel,
    Capacity,
    Demand,
    Dispatch,
    End,
    Get,
    Join,
    List,
    Report,
    Retain,
    Status,
    Submit,
    Tick,
    WorkerLost,
)
from tq.errors import StoreError
from tq.limits import put_off_of_lane_max


def two_that_failed() -> tuple[House, int, int]:
    """Return a house with two jobs that wait for their next attempt."""
    house = House()
    house.join(slots=2)
    jobs = [house.submit(retries=1, backoff_ms=(10, 10), queue=queue) for queue in ("a", "b")]
    for number in jobs:
        house.report(ref_of((number, 0, 0), house.task(number)), code=1)
    return house, jobs[0], jobs[1]


def array_without_entries() -> tuple[House, int, int, Callable[[Damaged], None]]:
    """Return a house with an array whose entries are gone, the array, a job behind it, and how they are put back."""
    house = House()
    house.do(AddEntries("in", 0, (b"one", b"two"), b"", b"x"))
    number, behind = house.array(2, entries_key="in", entries_digest=b"x"), house.submit()
    [(key, run)] = house.store.scan(tables.ENTRIES, (0,), (1 << 63,), 9)
    without(house.store, tables.ENTRIES, key)

    def mend(life: Damaged) -> None:
        without(life.store, tables.ENTRIES, key, run)
        life.engine.meta = life.store.get(tables.META, ())

    return house, number, behind, mend


def end(life: Damaged, number: int) -> None:
    """Report the end of a job that runs at the one worker."""
    task = life.store.get(tables.TASK, (number, 0, 0))
    assert task is not None
    life.do(Report(5, 1, number, (End(ref_of((number, 0, 0), task), int(Cause.EXIT), 0, 5),)))


def test_a_timer_that_fails_is_put_off_and_the_others_go_on() -> None:
    house, poison, sound = two_that_failed()
    without(house.store, tables.PROGRESS, (poison, 0))
    life = Damaged(house.store)
    rows = life.store.scan(tables.TIMER, (0,), (1,), 99)
    life.do(Tick())

    assert [(type(what), type(error)) for what, error in life.bugs] == [(Tick, KeyError)]
    assert life.store.get(tables.TASK, (sound, 0, 0)).state is State.QUEUED  # type: ignore[union-attr]
    assert life.store.get(tables.TASK, (poison, 0, 0)).state is State.RETRYING  # type: ignore[union-attr]
    left = life.store.scan(tables.TIMER, (0,), (1,), 99)
    assert [key[3] for key, _ in left] == [poison]
    assert left[0] in rows
    for wait_ms in (1_000, 2_000, 4_000):
        assert life.due_ms() == wait_ms
        life.do(Tick())
        assert life.bugs == []
        life.now_ms += wait_ms
        assert life.due_ms() == 0
        life.do(Tick())
        assert len(life.bugs) == 1


def test_a_timer_that_fails_is_tried_at_each_start_and_done_once_it_can_be() -> None:
    house, poison, _ = two_that_failed()
    progress = house.store.get(tables.PROGRESS, (poison, 0))
    without(house.store, tables.PROGRESS, (poison, 0))
    Damaged(house.store).do(Tick())
    life = Damaged(house.store)
    life.do(Tick())
    assert len(life.bugs) == 1

    without(life.store, tables.PROGRESS, (poison, 0), progress)
    life.engine.meta = life.store.get(tables.META, ())
    life.now_ms += 1_000
    life.do(Tick())
    assert life.bugs == []
    assert life.store.get(tables.TASK, (poison, 0, 0)).state is State.QUEUED  # type: ignore[union-attr]
    assert life.due_ms() is None


def test_a_job_that_fails_is_put_off_and_says_so_and_its_lane_goes_on() -> None:
    house = House()
    poison, same, other = house.submit(queue="a"), house.submit(queue="a"), house.submit(queue="b")
    without(house.store, tables.PROGRESS, (poison, 0))
    life = Damaged(house.store)
    life.do(Join(5, 1, Capacity(slots=4)))

    assert [(type(what), type(error)) for what, error in life.bugs] == [(Dispatch, KeyError)]
    assert life.started() == [same, other]
    life.do(Status())
    assert life.bugs == []
    assert life.due_ms() == 1_000
    life.now_ms += 1_000
    life.do(Tick())
    assert len(life.bugs) == 1
    assert life.due_ms() == 2_000


def test_a_job_that_is_put_off_is_told_of_and_stays_in_its_place() -> None:
    """It can be looked at, and starts in its turn once that is mended."""
    house, poison, behind, mend = array_without_entries()
    life = Damaged(house.store)
    life.do(Join(5, 1, Capacity(slots=1)))
    assert life.started() == [behind]
    assert "the server fails at starting it" in life.do(Get(str(poison))).value["reason"]
    assert "the server fails at starting it" in life.do(Get(f"{poison}.1")).value["reason"]
    assert "the server fails" not in (life.do(Get(str(behind))).value["reason"] or "")
    [stuck] = life.do(Status()).value["stuck"]
    assert (stuck["queue"], stuck["tasks"]) == ("default", 2)
    assert f"job {poison}: the server fails" in stuck["reason"]

    later = int(life.do(Submit("", b"body")).id)
    mend(life)
    life.now_ms += 1_000
    end(life, behind)
    assert life.bugs == []
    assert life.started() == [poison]
    assert later > poison
    assert life.do(Status()).value["stuck"] == []


def test_a_job_that_rests_keeps_no_worker_from_lanes_behind_it() -> None:
    """Only a lane with more to start than there is room for keeps later ones from refilling its workers."""
    house = House()
    poison, sound = house.submit(), house.submit()
    other = house.submit(demand=Demand(cpus_milli=1))
    without(house.store, tables.PROGRESS, (poison, 0))
    life = Damaged(house.store)
    life.do(Join(5, 1, Capacity(slots=1, cpus_milli=1_000)))
    assert life.started() == [sound]
    life.do(Join(6, 1, Capacity(slots=1, cpus_milli=1_000)))
    assert life.started() == [other]


def test_a_lane_of_which_all_rests_keeps_no_worker_wherever_it_stands_in_the_order() -> None:
    """Its head is not looked up: others stand before it, and one dispatch looks up so many."""
    house = House()
    house.submit(demand=Demand(mem_bytes=1))  # there is no such worker
    poison, sound = (house.submit(demand=Demand(cpus_milli=1_000)) for _ in range(2))
    without(house.store, tables.PROGRESS, (poison, 0))
    life = Damaged(house.store, Bounds(lanes=1))
    life.do(Join(5, 1, Capacity(slots=2, cpus_milli=1_000)))
    assert life.started() == [sound]

    later = int(life.do(Submit("", b"body")).id)
    assert life.started() == [later]


def test_of_a_lane_with_more_bad_jobs_than_an_accident_nothing_is_tried() -> None:
    house = House()
    jobs = [house.submit(queue="a") for _ in range(put_off_of_lane_max + 2)]
    other = house.submit(queue="b")
    for number in jobs:
        without(house.store, tables.PROGRESS, (number, 0))
    life = Damaged(house.store)
    life.do(Join(5, 1, Capacity(slots=4)))
    assert life.started() == [other]
    assert len(life.bugs) == put_off_of_lane_max + 1
    assert (1,) in life.engine.live.failed_ready


def test_a_lane_that_fails_is_put_off_and_says_so_and_the_others_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    poison, same, other = house.submit(queue="a"), house.submit(queue="a"), house.submit(queue="b")
    places = dispatch.places

    def fail(live: Live, number: int, *more: Any) -> Any:
        return places(live, number, *more) if live.lanes[number].queue == "b" else 1 / 0

    monkeypatch.setattr(dispatch, "places", fail)
    life = Damaged(house.store)
    life.do(Join(5, 1, Capacity(slots=4)))

    assert [(type(what), type(error)) for what, error in life.bugs] == [(Dispatch, ZeroDivisionError)]
    assert life.started() == [other]
    for number in (poison, same):
        assert "the server fails at starting it" in life.do(Get(str(number))).value["reason"]
    assert life.bugs == []
    assert [(one["queue"], one["tasks"]) for one in life.do(Status()).value["stuck"]] == [("a", 2)]
    assert life.due_ms() == 1_000
    life.now_ms += 1_000
    life.do(Tick())
    assert len(life.bugs) == 1
    assert life.due_ms() == 2_000


def poison_and_sound(*queues: str) -> tuple[Damaged, list[int]]:
    """Return a life in which one worker with one slot runs a job, and the others fail at their start."""
    house = House()
    jobs = [house.submit(queue=queue) for queue in queues]
    for number in jobs[:-1]:
        without(house.store, tables.PROGRESS, (number, 0))
    life = Damaged(house.store)
    life.do(Join(5, 1, Capacity(slots=1)))
    assert life.started() == jobs[-1:]
    return life, jobs


def test_what_nobody_has_room_for_when_its_rest_ends_is_not_forgotten_and_wakes_nobody() -> None:
    life, (poison, busy) = poison_and_sound("a", "a")
    life.now_ms += 1_000
    assert life.due_ms() == 0
    life.do(Tick())
    assert life.bugs == []
    assert life.due_ms() is None
    assert (1, 100, poison, 0) in life.engine.live.failed_ready

    end(life, busy)
    assert len(life.bugs) == 1
    assert life.due_ms() == 2_000


def test_what_is_put_off_says_so_until_something_of_it_starts() -> None:
    house, poison, busy, mend = array_without_entries()
    life = Damaged(house.store)
    life.do(Join(5, 1, Capacity(slots=1)))
    life.now_ms += 1_000
    life.do(Tick())
    assert "the server fails at starting it" in life.do(Get(str(poison))).value["reason"]
    assert [one["tasks"] for one in life.do(Status()).value["stuck"]] == [2]

    mend(life)
    end(life, busy)
    assert life.started() == [poison]
    assert life.do(Status()).value["stuck"] == []
    assert not life.engine.live.failed_ready


def test_what_is_put_off_and_cancelled_meanwhile_is_told_of_no_more() -> None:
    house, poison, _, _ = array_without_entries()
    life = Damaged(house.store)
    life.do(Join(5, 1, Capacity(slots=1)))
    assert len(life.do(Status()).value["stuck"]) == 1
    life.do(Cancel((str(poison),)))
    assert life.do(Status()).value["stuck"] == []
    life.now_ms += 1_000
    life.do(Tick())
    assert not life.engine.live.failed_ready
    assert life.due_ms() != 0


def test_a_lane_that_nobody_has_room_for_when_its_rest_ends_stays_one_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "put_off_of_lane_max", 1)
    life, (one, other, busy) = poison_and_sound("a", "a", "b")
    assert [*life.engine.live.failed_ready] == [(1, 100, one, 0), (1,)]
    life.now_ms += 1_000
    life.do(Tick())
    assert [*life.engine.live.failed_ready] == [(1, 100, one, 0), (1,)]
    assert life.due_ms() is None
    life.now_ms += 1
    end(life, busy)
    assert [type(error) for _, error in life.bugs] == [KeyError, KeyError]
    assert life.due_ms() == 2_000
    assert other


def test_a_timer_that_its_tick_has_no_room_for_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    house, *jobs = two_that_failed()
    for number in jobs:
        without(house.store, tables.PROGRESS, (number, 0))
    life = Damaged(house.store)
    life.do(Tick())
    assert len(life.bugs) == 2
    monkeypatch.setattr(clock, "DUE_PER_TICK", 1)
    life.now_ms += 1_000
    for _ in jobs:
        assert life.due_ms() == 0
        life.do(Tick())
        assert len(life.bugs) == 1
    assert life.due_ms() == 2_000


def test_jobs_whose_other_lane_is_lost_are_put_off_by_the_rows_that_they_are_found_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Settling fails at their rows in the lane for what runs alone; they would be found again by the other one."""
    monkeypatch.setattr(dispatch, "put_off_of_lane_max", 2)
    house = House()
    house.join(slots=6)
    poison = {house.array(3, crash_limit=2, throttle=2) for _ in range(3)}
    house.do(WorkerLost(5, 1))
    sound = house.submit(queue="other")
    for number in poison:
        progress = house.store.get(tables.PROGRESS, (number, 0)).copy()  # type: ignore[union-attr]
        progress.ready_alone = False
        without(house.store, tables.PROGRESS, (number, 0), progress)
    without_lane(house.store, 2)
    life = Damaged(house.store)
    life.do(Join(6, 1, Capacity(slots=5)))
    for wait_ms in (1_000, 2_000):
        assert {type(error) for _, error in life.bugs} == {KeyError}
        assert {key[2] for key in life.engine.live.failed_ready if len(key) > 1} <= poison
        assert {one["queue"] for one in life.do(Status()).value["stuck"]} == {"default"}
        life.now_ms += wait_ms
        life.do(Tick())
    assert life.store.get(tables.TASK, (sound, 0, 0)).state is State.RUNNING  # type: ignore[union-attr]


def test_what_waits_to_run_alone_says_so_when_its_lane_is_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    house.join(slots=1)
    number = house.submit(crash_limit=2)
    house.do(WorkerLost(5, 1))
    monkeypatch.setattr(dispatch, "put_off_of_lane_max", 0)
    monkeypatch.setattr(leases, "note_try", lambda *_: 1 / 0)
    life = Damaged(house.store)
    life.do(Join(6, 1, Capacity(slots=1)))
    assert [*life.engine.live.failed_ready] == [(2,)]
    assert "the server fails at starting it" in life.do(Get(str(number))).value["reason"]
    assert [one["tasks"] for one in life.do(Status()).value["stuck"]] == [1]


def ended_long_ago(*queues: str) -> tuple[House, list[int]]:
    """Return a house with a job in each queue that has ended, in this order, a minute ago."""
    house = House()
    house.join(slots=1)
    jobs = [house.submit(queue=queue) for queue in queues]
    for number in jobs:
        house.report(ref_of((number, 0, 0), house.task(number)))
    return house, jobs


def test_retention_passes_over_a_job_that_fails_and_comes_back_to_it() -> None:
    house, (poison, sound, later) = ended_long_ago("a", "b", "c")
    progress = house.store.get(tables.PROGRESS, (poison, 0))
    without(house.store, tables.PROGRESS, (poison, 0))
    life = Damaged(house.store)
    life.now_ms += 60_000
    assert life.do(Retain(1_000)) == Acted(2)
    assert [(type(what), type(error)) for what, error in life.bugs] == [(Retain, KeyError)]
    left = [key for page in pages(life.store, tables.ENDED) for key, _ in page]
    assert [key[1] for key in left] == [poison]
    assert life.store.get(tables.JOB, (sound, 0)) is life.store.get(tables.JOB, (later, 0)) is None

    assert life.do(Retain(1_000)) == Acted(0)
    assert life.bugs == []
    life.now_ms += 1_000
    assert life.do(Retain(1_000)) == Acted(0)
    assert len(life.bugs) == 1
    without(life.store, tables.PROGRESS, (poison, 0), progress)
    life.engine.meta = life.store.get(tables.META, ())
    life.now_ms += 2_000
    assert life.do(Retain(1_000)) == Acted(1)
    assert life.bugs == []
    assert life.store.get(tables.JOB, (poison, 0)) is None


def test_retention_goes_on_behind_a_whole_slice_that_fails() -> None:
    house, jobs = ended_long_ago(*"abcdefg")
    for number in jobs[:4]:
        without(house.store, tables.PROGRESS, (number, 0))
    life = Damaged(house.store, Bounds(slice=3))
    life.now_ms += 60_000
    assert life.do(Retain(1_000)) == Acted(0, sweeping=True)
    assert life.do(Retain(1_000)) == Acted(2, sweeping=True)
    assert life.do(Retain(1_000)) == Acted(1)
    assert life.do(Retain(1_000)) == Acted(0)
    assert [key[1] for page in pages(life.store, tables.ENDED) for key, _ in page] == jobs[:4]


def test_retention_that_fails_more_often_than_by_accident_stops_there_and_says_what_it_has_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house, (first, sound, second, later) = ended_long_ago("a", "b", "c", "d")
    for number in (first, second):
        without(house.store, tables.PROGRESS, (number, 0))
    monkeypatch.setattr(quarantine, "put_off_max", 1)
    loop = Loop(house.store)
    loop.now_ms = 1_000_000
    loop.start()
    for who, done in (("first", 1), ("second", 0)):
        loop.ask(who, Retain(1_000))
        loop.settle()
        assert loop.answers()[who] == Acted(done)
        jobs = [key[0] for page in pages(house.store, tables.JOB) for key, _ in page]
        assert jobs == [first, second, later], sound
    assert loop.pipeline.counters.bugs == 3


def test_what_no_lane_is_to_blame_for_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Damaged(House().store)
    monkeypatch.setattr(dispatch, "_recall", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        life.do(Tick())


def test_so_do_a_disk_that_fails_a_fold_that_does_and_more_bugs_than_an_accident(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house, poison, _ = two_that_failed()

    def fail(*_: Any) -> None:
        raise StoreError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(clock, "_retry", fail)
        with pytest.raises(StoreError):
            Damaged(house.store).do(Tick())
    with monkeypatch.context() as patch:
        life = Damaged(house.store)
        patch.setattr(turn, "fold", lambda *_: 1 / 0)
        with pytest.raises(FoldFailed):
            life.do(Tick())
    without(house.store, tables.PROGRESS, (poison, 0))
    monkeypatch.setattr(quarantine, "put_off_max", 0)
    monkeypatch.setattr(clock, "delay", lambda *_: 1 / 0)
    with pytest.raises(KeyError):
        Damaged(house.store).do(Tick())


def test_more_timers_than_by_accident_wait_long_and_the_server_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """One lane that is lost may be about a million members: that is no reason to end at each start."""
    monkeypatch.setattr(quarantine, "put_off_max", 2)
    house = House()
    house.join(slots=9)
    number = house.array(6, retries=1, backoff_ms=(10, 10))
    house.report(*(ref_of((number, 0, member), house.task(number, member)) for member in range(5)), code=1)
    sound = house.submit(queue="b", retries=1, backoff_ms=(10, 10))
    house.report(*house.starts(), code=1)
    house.do(Cancel((f"{number}.6",)))
    lane = house.store.get(tables.LANE, (1,))
    without_lane(house.store, 1)
    life = Damaged(house.store)
    life.do(Tick())

    assert [(type(what), type(error)) for what, error in life.bugs] == [(Tick, KeyError)] * 2
    assert life.store.get(tables.TASK, (sound, 0, 0)).state is State.QUEUED  # type: ignore[union-attr]
    assert life.due_ms() == 1_000
    assert f"job {number}: the server fails" in life.do(Status()).value["stuck"][0]["reason"]
    assert [item["id"] for item in life.do(List()).items] == [str(sound), str(number)]
    life.now_ms += 3_600_000
    life.do(Tick())
    assert len(life.bugs) == 2

    without(life.store, tables.LANE, (1,), lane)
    mended = Damaged(life.store)
    mended.now_ms = life.now_ms + 3_600_000
    mended.do(Tick())
    assert invariants.check(mended.store, mended.engine.live) == []
    assert mended.store.get(tables.PROGRESS, (number, 0)).counts[State.QUEUED] == 5  # type: ignore[union-attr]


def test_the_loop_hands_on_what_was_put_off_and_answers_everybody() -> None:
    house, poison, _ = two_that_failed()
    without(house.store, tables.PROGRESS, (poison, 0))
    loop = Loop(house.store)
    loop.now_ms = 10_000
    loop.start()
    loop.ask("status", Status())
    loop.run()
    loop.flush()
    loop.run()
    assert [type(what) for what in loop.bugs] == [Tick]
    assert loop.pipeline.counters.bugs == 1
    assert "status" in loop.answers()
