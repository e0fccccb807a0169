"""Whatever keeps a task from running is named: in `show`, in lists, at the submit and in the status."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.support.house import House
from tq.core.engine.engine import Bounds
from tq.core.model.job import Demand
from tq.core.model.task import Cause
from tq.core.vocabulary import (
    Cancel,
    Capacity,
    Drain,
    Get,
    Handback,
    Hold,
    Join,
    List,
    Release,
    SetQueue,
    Status,
    Submit,
    Submitted,
    Times,
    WorkerLost,
)


def nobody(house: House) -> str:
    return str(house.submit())


def awaited(house: House) -> str:
    house.join()
    house.submit()
    waiting = house.submit()
    house.restart()
    return str(waiting)


def resting(house: House) -> str:
    house.join()
    job = house.submit()
    house.do(Handback(5, 1, 1, tuple(house.starts()), int(Cause.WORKER_TROUBLE)))
    return str(job)


def all_drain(house: House) -> str:
    house.join()
    house.do(Drain("host5"))
    return str(house.submit())


def its_workers_drain(house: House) -> str:
    house.join(worker=5, slots=4)
    house.join(worker=6, slots=1)
    house.do(Drain("host5"))
    return str(house.submit(demand=Demand(cpus_milli=3_000)))


def too_much(house: House) -> str:
    house.join()
    return str(house.submit(demand=Demand(cpus_milli=9_000)))


def too_much_memory(house: House) -> str:
    house.join()
    return str(house.submit(demand=Demand(mem_bytes=1 << 60)))


def no_module(house: House) -> str:
    house.join()
    return str(house.submit(demand=Demand(module="m")))


def paused(house: House) -> str:
    house.join()
    house.do(SetQueue("q", paused=True))
    return str(house.submit(queue="q"))


def bounded(house: House) -> str:
    house.join(slots=9)
    house.do(SetQueue("q", max=1))
    house.submit(queue="q")
    return str(house.submit(queue="q"))


def throttled(house: House) -> str:
    house.join(slots=9)
    return f"{house.array(3, throttle=1)}.2"


def is_held(house: House) -> str:
    house.join()
    return str(house.submit(hold=True))


def came_back_and_is_held(house: House) -> str:
    house.join()
    job = house.submit()
    refs = tuple(house.starts())
    house.do(Hold((str(job),)))
    house.do(Handback(5, 1, 1, refs))
    return str(job)


def busy(house: House) -> str:
    house.join()
    house.submit()
    return str(house.submit())


def alone(house: House) -> str:
    house.join(worker=5)
    job = house.submit(crash_limit=2)
    house.do(WorkerLost(5, 1))
    house.submit(priority=9)
    house.join(worker=6, slots=2)
    return str(job)


def alone_from_the_beginning(house: House) -> str:
    house.join(slots=2)
    house.submit()
    return str(house.submit(crash_limit=1))


def behind_what_needs_more(house: House) -> str:
    house.join(slots=2)
    house.submit(demand=Demand(cpus_milli=1_000))
    house.submit(demand=Demand(cpus_milli=2_000), priority=9)
    return str(house.submit())


def being_cancelled(house: House) -> str:
    house.bounds = Bounds(slice=1)
    house.restart()
    job = house.array(3, crash_limit=0)
    house.join(slots=3)
    house.do(WorkerLost(5, 1))
    house.do(Cancel((str(job),)))
    return f"{job}.3"


def failed(house: House) -> str:
    house.join()
    job = house.submit(retries=2)
    house.report(*house.starts(), code=1)
    return str(job)


def assigned(house: House) -> str:
    house.join()
    return str(house.submit())


def cut_off(house: House) -> str:
    house.join()
    job = house.submit()
    house.started(*house.starts())
    house.restart()
    return str(job)


def stopping(house: House) -> str:
    house.join()
    job = house.submit()
    house.do(Cancel((str(job),)))
    return str(job)


def nearly_full(house: House) -> str:
    job = str(house.submit())
    house.engine.begin(Times(house.now_ms, 0)).finish(may_lease=False)
    return job


WAYS: Final[list[tuple[Callable[[House], str], str]]] = [
    (nobody, "no worker is connected"),
    (awaited, "no worker is connected: those that ran tasks may be back"),
    (resting, "could not start its last attempts, as its log says; tried again within 60 s"),
    (all_drain, "all workers are draining"),
    (its_workers_drain, "the workers that could run it are draining"),
    (too_much, "no connected worker offers 9 CPUs"),
    (too_much_memory, "no connected worker offers what it asks for"),
    (no_module, "no connected worker allows the module m"),
    (paused, "queue q is paused"),
    (bounded, "queue q runs at most 1"),
    (throttled, "its job runs at most 1 at once"),
    (is_held, "its job is held; tq release 1"),
    (came_back_and_is_held, "its job is held; tq release 1"),
    (busy, "every worker that could run it is busy"),
    (alone, "one more lost worker would be its last, so it waits for a worker to itself"),
    (alone_from_the_beginning, "one more lost worker would be its last, so it waits for a worker to itself"),
    (behind_what_needs_more, "its turn has not come yet"),
    (being_cancelled, "its job is being cancelled"),
    (failed, "failed 1 of 3 times, and waits for its next attempt"),
    (assigned, "its worker has it, and has not said yet that it runs"),
    (cut_off, "nothing is heard of its worker: it goes to another one, unless that is back in time"),
    (stopping, "it is being stopped (cancelled)"),
    (nearly_full, "the server's disk is nearly full: nothing is started"),
]


@pytest.fixture
def house() -> House:
    return House()


def items(house: House, **command: Any) -> dict[str, dict[str, Any]]:
    answer: Any = house.engine.begin(Times(house.now_ms, 0)).apply(List(**command))
    return {item["id"]: item for item in answer.items}


def shown(house: House, name: str) -> dict[str, Any]:
    answer: Any = house.engine.begin(Times(house.now_ms, 0)).apply(Get(name))
    return dict(answer.value)


@pytest.mark.parametrize("way, why", WAYS, ids=[way.__name__ for way, _ in WAYS])
def test_every_way_to_stand_still_is_named_wherever_it_is_looked_for(house: House, way: Any, why: str) -> None:
    name = way(house)
    job = name.partition(".")[0]
    assert shown(house, name)["reason"].endswith(why)
    assert items(house, job=job)[name]["reason"].endswith(why)
    if name == job:
        assert items(house)[job]["reason"].endswith(why)


def test_a_queue_that_nobody_serves_is_named(house: House) -> None:
    house.do(Join(5, 1, Capacity(slots=1, queues=("a",))))
    answer = house.do(Submit("", b"body", queue="b"))
    assert answer == Submitted("1", warning="no connected worker serves the queue b")


def test_what_runs_and_what_has_ended_has_no_reason(house: House) -> None:
    house.join()
    job = str(house.submit())
    refs = house.starts()
    house.started(*refs)
    assert "reason" not in shown(house, job)
    house.report(*refs)
    assert "reason" not in shown(house, job)
    assert "reason" not in items(house)[job]


@pytest.mark.parametrize(
    "make, why",
    [
        (lambda house: house.array(3), "no worker is connected"),
        (lambda house: (house.join(), house.array(3, throttle=1))[1], "its job runs at most 1 at once"),
        (lambda house: house.array(3, hold=True), "its job is held; tq release 1"),
        (lambda house: (house.submit(), house.join(), house.array(3))[2], "every worker that could run it is busy"),
    ],
)
def test_an_array_has_the_reason_of_what_is_left_of_it(house: House, make: Any, why: str) -> None:
    job = str(make(house))
    assert shown(house, job)["reason"] == why
    assert items(house)[job]["reason"] == why


def test_an_array_that_gets_on_has_none(house: House) -> None:
    house.join()
    job = str(house.array(3))
    assert "reason" not in shown(house, job)


def test_an_array_whose_rest_must_run_alone_or_waits_for_retries_says_so(house: House) -> None:
    house.join(slots=2)
    job = str(house.array(2, crash_limit=2))
    house.do(WorkerLost(5, 1))
    house.submit(priority=9)
    house.join(worker=6, slots=2)
    assert "a worker to itself" in shown(house, job)["reason"]

    other = House()
    other.join(slots=2)
    job = str(other.array(2, retries=1))
    other.report(*other.starts(), code=1)
    assert shown(other, job)["reason"] == "2 failed, and wait for their next attempts"
    other.do(Cancel((f"{job}.1",)))
    assert shown(other, job)["reason"] == "1 failed, and waits for its next attempt"


def test_the_status_counts_what_is_stuck_and_not_what_only_waits_its_turn(house: House) -> None:
    bounded(house)  # another one of its queue runs: nobody has to do anything
    house.array(30)
    house.array(4, demand=Demand(module="m"))
    house.do(SetQueue("p", paused=True))
    house.array(2, queue="p", hold=True)
    house.do(Release(("5",)))
    house.array(2, demand=Demand(module="m", cpus_milli=1))
    status: Any = house.do(Status())
    assert status.value["stuck"] == [
        {"queue": "default", "tasks": 6, "reason": "no connected worker allows the module m"},
        {"queue": "p", "tasks": 2, "reason": "queue p is paused"},
    ]
