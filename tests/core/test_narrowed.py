"""A sweep that fails at one job by a bug: that job rests, the others are done, and the order of commands stays."""

from collections.abc import Iterable

import pytest

from tests.support.damage import Damaged, without, without_lane
from tests.support.house import House
from tq.core.bulk import sweeps
from tq.core.change.stop import ref_of
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.job import Lane, Sweep
from tq.core.model.task import State
from tq.core.repair.rebuild import Rebuild
from tq.core.vocabulary import Acted, Cancel, Command, Retry, SetPriority, Tick, Where
from tq.errors import AlreadyEnded
from tq.store.memory import MemoryStore

SLICE = 2


class Bad:
    """Jobs of which the lane of some is lost, so that whatever moves one of these raises."""

    def __init__(self, queues: Iterable[str], *, dead: bool = False) -> None:
        house = House()
        self.jobs = [house.submit(queue=queue, retries=0) for queue in queues]
        if dead:
            house.join(slots=len(self.jobs))
            for number in self.jobs:
                house.report(ref_of((number, 0, 0), house.task(number)), code=1)
        [number] = [key[0] for key, lane in house.store.scan(tables.LANE, (0,), (99,), 99) if lane.queue == "bad"]
        self._key = (number,)
        self._lane: Lane | None = house.store.get(tables.LANE, self._key)
        self.store: MemoryStore = house.store
        without_lane(self.store, number)

    def mend(self) -> Damaged:
        """Put the lane back, and start anew."""
        without(self.store, tables.LANE, self._key, self._lane)
        return Damaged(self.store, Bounds(slice=SLICE))

    def sweeps(self) -> list[Sweep]:
        """Return what is still to be done."""
        return [sweep for _, sweep in self.store.scan(tables.SWEEP, (0,), (1 << 40,), 99)]

    def state(self, number: int) -> State:
        """Return the state of a job of one task."""
        progress = self.store.get(tables.PROGRESS, (number, 0))
        assert progress is not None
        return State(progress.counts.index(1))


def tick_on(life: Damaged) -> int:
    """Tick as long as something is due; return how many bugs were met."""
    bugs = 0
    for _ in range(100):
        if life.due_ms() != 0:
            return bugs
        life.do(Tick())
        bugs += len(life.bugs)
    raise AssertionError("something is due for ever")


def test_a_sweep_passes_over_the_job_that_fails_and_comes_back_to_it() -> None:
    bad = Bad(["a"] * 5 + ["bad"] + ["a"] * 5)
    poison = bad.jobs[5]
    life = Damaged(bad.store, Bounds(slice=SLICE))
    assert life.do(Cancel((), Where())) == Acted(2, sweeping=True)
    assert tick_on(life) == 1
    assert [number for number in bad.jobs if bad.state(number) is not State.CANCELLED] == [poison]
    assert [(sweep.job, sweep.last) for sweep in bad.sweeps()] == [(poison, poison)]
    for wait_ms in (1_000, 2_000):
        assert life.due_ms() == wait_ms
        life.now_ms += wait_ms
        assert tick_on(life) == 1

    life = bad.mend()
    assert tick_on(life) == 0
    assert bad.state(poison) is State.CANCELLED
    assert bad.sweeps() == []


def test_a_start_of_the_server_tries_what_was_left_at_once() -> None:
    bad = Bad(["a"] * 3 + ["bad"] + ["a"] * 6)
    life = Damaged(bad.store, Bounds(slice=SLICE))
    life.do(Cancel((), Where()))
    life.do(Tick())
    assert len(life.bugs) == 1
    life = Damaged(bad.store, Bounds(slice=SLICE))
    assert tick_on(life) == 1
    assert [number for number in bad.jobs if bad.state(number) is not State.CANCELLED] == [bad.jobs[3]]


def test_what_is_cancelled_later_is_not_brought_back_by_a_part_of_an_older_retry() -> None:
    bad = Bad(["a"] * 3 + ["bad"] + ["a"] * 4, dead=True)
    life = Damaged(bad.store, Bounds(slice=SLICE))
    life.do(Retry((), Where()))
    *_, early, late = bad.jobs
    for number in (early, late):
        life.do(Retry((str(number),)))
        life.do(Cancel((str(number),)))
    assert tick_on(life) == 1
    assert [bad.state(number).word for number in bad.jobs] == [
        *("queued",) * 3,
        "dead",
        *("queued",) * 2,
        *("cancelled",) * 2,
    ]


def test_only_what_a_cancel_failed_at_waits_for_it_before_it_can_be_retried() -> None:
    bad = Bad(["a"] * 3 + ["bad"] + ["a"] * 4)
    poison, sound = bad.jobs[3], bad.jobs[-1]
    life = Damaged(bad.store, Bounds(slice=SLICE))
    life.do(Cancel((), Where()))
    with pytest.raises(AlreadyEnded, match="is being cancelled"):
        life.do(Retry((str(sound),)))
    assert tick_on(life) == 1
    with pytest.raises(AlreadyEnded, match="is being cancelled"):
        life.do(Retry((str(poison),)))
    assert life.do(Retry((str(sound),))) == Acted(1)
    life.now_ms += 1_000
    assert tick_on(life) == 1
    assert bad.state(sound) is State.QUEUED


def test_a_sweep_that_fails_more_often_than_by_accident_rests_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "put_off_of_sweep_max", 3)
    bad = Bad(["a", "a"] + ["a", "bad"] * 8)
    life = Damaged(bad.store, Bounds(slice=SLICE))
    life.do(SetPriority((), Where(), priority=5))
    bugs = tick_on(life)
    parts = bad.sweeps()
    assert bugs == len(parts) == 4
    assert sum(part.job == part.last for part in parts) == 3
    assert life.due_ms() == 1_000
    life = bad.mend()
    assert tick_on(life) == 0
    ranks = [bad.store.get(tables.PROGRESS, (number, 0)).rank for number in bad.jobs]  # type: ignore[union-attr]
    assert ranks == [95] * len(bad.jobs)


@pytest.mark.parametrize("command", [Cancel((), Where()), Retry((), Where())])
def test_a_salvage_keeps_how_old_a_part_is(command: Command) -> None:
    bad = Bad(["bad"])
    encoded = sweeps.packed(command)
    rows = {(7,): Sweep(encoded, 1, 1, 0, 2), (5,): Sweep(encoded, 2, 2), (1,): Sweep(encoded, 3, 3)}
    for key, sweep in rows.items():
        without(bad.store, tables.SWEEP, key, sweep)
    meta = bad.store.get(tables.META, ())
    assert meta is not None
    new = [change for changes in Rebuild(bad.store, meta, is_sure=True).changes() for change in changes.items()]
    found = {key: sweep for table, change in new if table is tables.SWEEP for key, sweep in change.items()}
    assert {key[0]: (sweep.job, sweep.part_of) for key, sweep in found.items()} == {1: (3, 0), 2: (1, 0), 3: (2, 0)}


def test_a_command_by_filter_that_fails_at_one_job_goes_on_as_a_sweep() -> None:
    bad = Bad(["a", "bad", "a"])
    life = Damaged(bad.store)
    assert life.do(Cancel((), Where())) == Acted(0, sweeping=True)
    assert [type(what) for what, _ in life.bugs] == [Cancel]
    assert tick_on(life) == 1
    assert [bad.state(number).word for number in bad.jobs] == ["cancelled", "queued", "cancelled"]
    life = bad.mend()
    assert tick_on(life) == 0
    assert bad.state(bad.jobs[1]) is State.CANCELLED


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_command_that_names_the_job_or_only_asks_fails(dry_run: bool) -> None:
    bad = Bad(["a", "bad", "a"])
    life = Damaged(bad.store)
    with pytest.raises(KeyError):
        life.do(Cancel((), Where(), dry_run=True) if dry_run else Cancel(tuple(map(str, bad.jobs))))
    assert [bad.state(number).word for number in bad.jobs] == ["queued"] * 3
    assert bad.sweeps() == []
