"""Whether anything of a task has run before is said with every attempt: it decides what becomes of files of output."""

import msgspec
import pytest

from tests.support.house import House, held
from tq.core.model.task import Cause, Task
from tq.core.vocabulary import Assignment, AttemptRef, Cancel, Drain, Handback, Requeue, Retry, Start, Tick, WorkerLost
from tq.store.records import RecordCodec


@pytest.fixture
def house():
    house = House()
    house.join()
    return house


def told(house: House) -> Assignment:
    (assignment,) = [one for effect in house.finished.effects if isinstance(effect, Start) for one in effect.attempts]
    return assignment


def lease(house: House, **fields) -> AttemptRef:
    house.submit(**fields)
    assert not told(house).has_run
    return told(house).attempt


def again(house: House) -> bool:
    """Let whoever waits start; return whether it is told that something has run."""
    if not house.starts():
        house.do(Tick())
    if not house.starts():
        house.join(worker=6, slots=4)
    return told(house).has_run


def hand_back(house: House, ref: AttemptRef, cause: Cause) -> None:
    house.do(Handback(5, 1, 1, (ref,), int(cause)))


@pytest.mark.parametrize("cause", [Cause.NONE, Cause.WORKER_TROUBLE])
def test_what_is_given_back_unstarted_has_not_run(house, cause):
    hand_back(house, lease(house), cause)

    assert not again(house)


@pytest.mark.parametrize("cause", [Cause.DRAIN, Cause.CUT_OFF, Cause.LOST])
def test_what_was_stopped_or_may_have_ended_unheard_has_run(house, cause):
    hand_back(house, lease(house), cause)

    assert again(house)


@pytest.mark.parametrize("cause", [Cause.SPAWN_FAILED, Cause.CWD_MISSING])
def test_what_could_not_be_started_has_not_run(house, cause):
    ref = lease(house)
    house.report(ref, cause=cause, code=127, run_us=0)
    house.do(Retry((str(ref.job),)))

    assert not again(house)


def test_a_failure_has_run_whatever_comes_between(house):
    ref = lease(house, retries=1, backoff_ms=(0, 0))
    house.report(ref, code=1)
    for _ in range(12):  # more than a history holds
        assert again(house)
        house.report(told(house).attempt, cause=Cause.SPAWN_FAILED, code=127, run_us=0)
        house.do(Retry((str(ref.job),)))

    assert again(house)


@pytest.mark.parametrize("is_started", [False, True])
def test_what_is_lost_may_have_run(house, is_started):
    ref = lease(house)
    if is_started:
        house.started(ref)
    house.do(WorkerLost(5, 1))

    assert again(house)


def test_what_is_lost_uncharged_may_have_run_too():
    house = House()
    house.join(slots=2)
    number = house.array(60)
    for _ in range(2):
        house.report(*house.starts())
    house.do(WorkerLost(5, 1))

    lost = [task for member in range(4, 60) if not (task := house.task(number, member)).losses]
    assert len(lost) > 50
    assert all(task.has_run for task in lost)


def test_what_a_worker_never_got_has_not_run(house):
    lease(house)
    house.join(session=2)

    assert not again(house)


def test_what_started_and_was_then_forgotten_has_run(house):
    ref = lease(house)
    house.join(session=2, held=held(ref))
    house.join(session=3)

    assert again(house)


@pytest.mark.parametrize("run_us", [0, 9])
def test_a_requeue_has_run_if_its_process_has(house, run_us):
    ref = lease(house)
    house.do(Requeue((str(ref.job),)))
    house.report(ref, cause=Cause.REQUEUE, run_us=run_us)

    assert again(house) is (run_us > 0)


@pytest.mark.parametrize("has_run", [False, True])
def test_a_new_round_goes_on_with_the_files_of_the_one_before(house, has_run):
    ref = lease(house)
    house.do(Cancel((str(ref.job),)))
    house.report(ref, cause=Cause.CANCELLED, run_us=9 * has_run)
    house.do(Retry((str(ref.job),)))

    assert again(house) is has_run


def test_what_has_a_record_without_an_attempt_has_not_run(house):
    house.do(Drain("host5"))
    number = house.array(2)
    house.do(Cancel((f"{number}.1",)))
    house.do(Retry((f"{number}.1",)))
    house.join(worker=6, slots=4)

    assert [
        one.has_run for effect in house.finished.effects if isinstance(effect, Start) for one in effect.attempts
    ] == [False, False]


def test_a_record_that_does_not_say_may_have_run():
    codec = RecordCodec(Task)
    fields = msgspec.msgpack.decode(codec.encode(Task(3, attempt=1, has_run=False)))

    assert codec.decode(msgspec.msgpack.encode(fields[:-2])).has_run
