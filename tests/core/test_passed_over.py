"""What a worker says, or its loss, is about many attempts: one that the server fails at costs no other one."""

from typing import Any

import pytest

from tests.support.damage import Damaged, without
from tests.support.house import House, held
from tq.core import vocabulary as v
from tq.core.change.stop import ref_of
from tq.core.model import tables
from tq.core.model.task import Cause, Phase, State
from tq.core.model.view import Key
from tq.core.vocabulary import AttemptRef
from tq.limits import passed_over_max

MANY = 4


class Crowd:
    """A worker that runs jobs, of some of which the progress is lost: whatever moves one of these raises."""

    def __init__(self, bad: int = 1, size: int = MANY) -> None:
        house = House()
        house.join(slots=size)
        jobs = [house.submit() for _ in range(size)]
        self.refs = [ref_of((number, 0, 0), house.task(number)) for number in jobs]
        house.started(*self.refs)
        self.bad, self.sound = self.refs[:bad], self.refs[bad:]
        self.lost: dict[Key, Any] = {ref.task[:2]: house.store.get(tables.PROGRESS, ref.task[:2]) for ref in self.bad}
        for key in self.lost:
            without(house.store, tables.PROGRESS, key)
        self.life = Damaged(house.store)

    def joined(self, **more: Any) -> v.Joined:
        """Let the worker come back with all that it holds, and say that nothing of it has started."""
        listed = held(*self.refs, phase=Phase.ASSIGNED)
        answer = self.life.do(v.Join(5, 2, v.Capacity(slots=len(self.refs)), listed, **more))
        assert isinstance(answer, v.Joined)
        return answer

    def states(self, refs: list[AttemptRef]) -> set[State]:
        """Return the states of these tasks."""
        tasks = (self.life.store.get(tables.TASK, ref.task) for ref in refs)
        return {task.state for task in tasks if task is not None}

    def fails_at(self, kind: type[Any], times: int = 1) -> None:
        """Check what was noted of the last command."""
        assert [(type(what), type(error)) for what, error in self.life.bugs] == [(kind, KeyError)] * times


def test_the_loss_of_a_worker_gives_back_all_but_what_the_server_fails_at() -> None:
    crowd = Crowd()
    crowd.life.do(v.WorkerLost(5, 1))
    crowd.fails_at(v.WorkerLost)
    assert crowd.states(crowd.sound) == {State.QUEUED}
    assert crowd.states(crowd.bad) == {State.RUNNING}

    crowd.life.do(v.Join(6, 1, v.Capacity(slots=MANY)))
    assert crowd.life.started() == [ref.job for ref in crowd.sound]


def test_a_worker_may_join_though_the_server_fails_at_something_that_it_holds() -> None:
    crowd = Crowd()
    assert crowd.joined(widths=((1, MANY),)) == v.Joined()
    crowd.fails_at(v.Join)
    assert crowd.states(crowd.refs) == {State.RUNNING}
    assert crowd.life.engine.live.workers[5].session_number == 2


def test_what_the_server_fails_at_keeps_its_place_when_its_worker_joins() -> None:
    crowd = Crowd()
    crowd.joined(widths=((1, MANY),))
    crowd.fails_at(v.Join)
    assert crowd.life.engine.live.workers[5].slots_used == MANY
    crowd.life.do(v.Submit("", b"another"))
    assert crowd.life.started() == []


def test_a_worker_that_does_not_hold_it_any_more_may_join_too() -> None:
    crowd = Crowd()
    crowd.life.do(v.Join(5, 2, v.Capacity(slots=MANY)))
    crowd.fails_at(v.Join)
    assert crowd.states(crowd.bad) == {State.RUNNING}
    assert crowd.states(crowd.sound) == {State.RUNNING}  # given back, and given to it again
    assert crowd.life.started() == [ref.job for ref in crowd.sound]


@pytest.mark.parametrize("kind", [v.Report, v.Handback])
def test_what_a_worker_delivers_counts_for_all_others_and_is_not_sent_for_ever(kind: type[Any]) -> None:
    crowd = Crowd()
    crowd.joined()
    ends = tuple(v.End(ref, int(Cause.EXIT), 0, 5) for ref in crowd.refs)
    crowd.life.do(v.Report(5, 2, 9, ends) if kind is v.Report else v.Handback(5, 2, 9, tuple(crowd.refs), Cause.DRAIN))
    crowd.fails_at(kind)
    acknowledged = [effect for effect in crowd.life.finished.effects if isinstance(effect, v.Acknowledge)]
    assert acknowledged == [v.Acknowledge(5, 2, 9)]
    if kind is v.Report:
        assert crowd.states(crowd.sound) == {State.SUCCEEDED}
    else:
        assert crowd.life.started() == [ref.job for ref in crowd.sound]
    assert crowd.states(crowd.bad) == {State.RUNNING}


def test_what_became_of_an_attempt_and_was_lost_by_a_bug_is_told_until_something_becomes_of_it() -> None:
    crowd = Crowd()
    crowd.joined()
    crowd.life.do(v.Report(5, 2, 9, tuple(v.End(ref, int(Cause.EXIT), 0, 5) for ref in crowd.refs)))
    [bad], [key] = crowd.bad, crowd.lost
    [stuck] = crowd.life.do(v.Status()).value["stuck"]
    assert (stuck["queue"], stuck["tasks"]) == ("default", 1)
    assert f"job {bad.job}: the server failed at what became of its attempt" in stuck["reason"]
    without(crowd.life.store, tables.PROGRESS, key, crowd.lost[key])
    crowd.life.engine.meta = crowd.life.store.get(tables.META, ())
    assert "the server failed at what became of" in crowd.life.do(v.Get(str(bad.job))).value["reason"]

    crowd.life.do(v.Join(5, 3, v.Capacity(slots=MANY)))
    assert crowd.life.bugs == []
    assert crowd.life.started() == [bad.job]
    assert crowd.life.do(v.Status()).value["stuck"] == []


def test_what_became_of_an_attempt_and_was_lost_is_told_on_when_somebody_cancels_it() -> None:
    crowd = Crowd()
    crowd.joined()
    crowd.life.do(v.Report(5, 2, 9, tuple(v.End(ref, int(Cause.EXIT), 0, 5) for ref in crowd.refs)))
    [bad], [key] = crowd.bad, crowd.lost
    without(crowd.life.store, tables.PROGRESS, key, crowd.lost[key])
    crowd.life.engine.meta = crowd.life.store.get(tables.META, ())
    crowd.life.do(v.Cancel((str(bad.job),)))
    assert crowd.states(crowd.bad) == {State.RUNNING}  # its worker does not hold it: nobody will say that it has ended
    assert "the server failed at what became of" in crowd.life.do(v.Get(str(bad.job))).value["reason"]
    assert len(crowd.life.do(v.Status()).value["stuck"]) == 1

    crowd.life.do(v.Join(5, 3, v.Capacity(slots=MANY)))
    assert crowd.states(crowd.bad) == {State.CANCELLED}
    assert crowd.life.do(v.Status()).value["stuck"] == []


def test_what_was_lost_of_an_array_is_told_while_others_of_it_go_on() -> None:
    house = House()
    house.join(slots=MANY)
    house.join(6, slots=1)
    number = house.array(MANY + 1)
    refs = [ref_of((number, 0, member), house.task(number, member)) for member in range(MANY + 1)]
    [other] = [ref for ref in refs if house.engine.live.holds(6, ref)]
    refs.remove(other)
    progress = house.store.get(tables.PROGRESS, (number, 0))
    without(house.store, tables.PROGRESS, (number, 0))
    life = Damaged(house.store)
    life.do(v.Join(5, 2, v.Capacity(slots=MANY), held(*refs)))
    life.do(v.Join(6, 2, v.Capacity(slots=1), held(other)))
    life.do(v.Report(5, 2, 9, tuple(v.End(ref, int(Cause.EXIT), 0, 5) for ref in refs)))
    without(life.store, tables.PROGRESS, (number, 0), progress)
    life.engine.meta = life.store.get(tables.META, ())
    life.do(v.Started(6, 2, (other,)))
    for ref in refs:
        assert "the server failed at what became of" in life.do(v.Get(f"{number}.{ref.member + 1}")).value["reason"]

    life.do(v.Report(6, 2, 1, (v.End(other, int(Cause.EXIT), 0, 5),)))
    life.do(v.Join(5, 3, v.Capacity(slots=0)))
    assert life.bugs == []
    assert life.do(v.Status()).value["stuck"] == []


def test_a_start_that_is_told_claims_all_others_back() -> None:
    house = House()
    house.join(slots=MANY)
    for _ in range(MANY):
        house.submit()
    refs = [ref_of((number, 0, 0), house.task(number)) for number in range(1, MANY + 1)]
    house.do(v.WorkerLost(5, 1))
    without(house.store, tables.PROGRESS, refs[0].task[:2])
    life = Damaged(house.store)
    life.do(v.Join(5, 2, v.Capacity(slots=MANY, queues=("other",))))
    life.do(v.Started(5, 2, tuple(refs)))
    tasks = [life.store.get(tables.TASK, ref.task) for ref in refs]
    assert [task.phase for task in tasks if task is not None] == [Phase.LOST, *[Phase.STARTED] * (MANY - 1)]


def test_an_array_that_has_lost_its_records_keeps_no_worker_out_that_holds_many_of_it() -> None:
    house = House()
    house.join(slots=64)
    number, sound = house.array(60), house.submit()
    refs = [ref_of((number, 0, member), house.task(number, member)) for member in range(60)]
    refs.append(ref_of((sound, 0, 0), house.task(sound)))
    house.started(*refs)
    without(house.store, tables.PROGRESS, (number, 0))
    life = Damaged(house.store)
    assert life.do(v.Join(5, 2, v.Capacity(slots=64), held(*refs, phase=Phase.ASSIGNED))) == v.Joined()
    assert [type(what) for what, _ in life.bugs] == [v.Join] * 2
    life.do(v.Report(5, 2, 9, tuple(v.End(ref, int(Cause.EXIT), 0, 5) for ref in refs)))
    assert [effect for effect in life.finished.effects if isinstance(effect, v.Acknowledge)] == [v.Acknowledge(5, 2, 9)]
    assert life.store.get(tables.TASK, (sound, 0, 0)).state is State.SUCCEEDED  # type: ignore[union-attr]
    [stuck] = life.do(v.Status()).value["stuck"]
    assert f"job {number}: " in stuck["reason"]
    life.do(v.WorkerLost(5, 2))
    assert [type(what) for what, _ in life.bugs] == [v.WorkerLost] * 2


def test_what_fails_at_more_than_by_accident_fails_as_a_whole() -> None:
    crowd = Crowd(bad=passed_over_max + 1, size=passed_over_max + 3)
    with pytest.raises(KeyError):
        crowd.life.do(v.WorkerLost(5, 1))
    crowd = Crowd(bad=passed_over_max, size=passed_over_max + 3)
    crowd.life.do(v.WorkerLost(5, 1))
    crowd.fails_at(v.WorkerLost, passed_over_max)
    assert crowd.states(crowd.sound) == {State.QUEUED}
