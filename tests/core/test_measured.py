"""A worker's measures are believed as far as they are possible; what is clipped is said to be."""

import msgspec
import pytest

from tests.support.house import House
from tq.core.change.measured import clip_run_us, cpu_us_max, run_us_max
from tq.core.model.task import Cause, State, Task
from tq.core.vocabulary import Cancel, Get, Retry
from tq.core.vocabulary.words import Times
from tq.limits import cpus_max, measured_slack_ms
from tq.store.records import RecordCodec

HOUR_MS = 3_600_000
SLACK_US = measured_slack_ms * 1_000


@pytest.fixture
def house():
    house = House()
    house.join()
    return house


def lease(house: House, **fields):
    number = house.submit(**fields)
    (ref,) = house.starts()
    return number, ref


@pytest.mark.parametrize("code, state", [(0, State.SUCCEEDED), (3, State.DEAD)])
@pytest.mark.parametrize("has_started", [False, True])
def test_a_run_longer_than_since_it_was_given_is_clipped_and_the_record_says_so(house, code, state, has_started):
    number, ref = lease(house)
    if has_started:
        house.started(ref)
    house.now_ms += 5_000
    house.report(ref, code=code, run_us=2**62)

    task = house.task(number)
    assert (task.state, task.run_clipped) == (state, True)
    assert SLACK_US + 5_000_000 <= task.run_us < SLACK_US + 5_100_000
    shown = house.do(Get(str(number))).value
    assert (shown["run_us"], shown["run_clipped"]) == (task.run_us, True)


def test_a_cancelled_one_that_says_so_is_clipped_too(house):
    number, ref = lease(house)
    house.started(ref)
    house.do(Cancel((str(number),)))
    house.report(ref, code=0, cause=Cause.CANCELLED, run_us=2**62)

    task = house.task(number)
    assert (task.state, task.run_clipped) == (State.CANCELLED, True)
    assert task.run_us < SLACK_US + 1_000_000


def test_less_than_nothing_ran_for_the_least(house):
    number, ref = lease(house)
    house.report(ref, run_us=-5)

    task = house.task(number)
    assert (task.run_us, task.run_clipped, task.has_run) == (1, True, True)


@pytest.mark.parametrize("run_us", [0, 1, 5_000_000, SLACK_US])
def test_what_is_possible_is_believed(house, run_us):
    number, ref = lease(house)
    house.now_ms += 5_000
    house.report(ref, run_us=run_us)

    assert (house.task(number).run_us, house.task(number).run_clipped) == (run_us, False)
    assert "run_clipped" not in house.do(Get(str(number))).value


def test_the_next_attempt_begins_with_a_clean_record(house):
    number, ref = lease(house)
    house.report(ref, code=3, run_us=2**62)
    assert house.task(number).run_clipped
    house.do(Retry((str(number),)))
    (ref,) = house.starts()
    assert not house.task(number).run_clipped
    house.report(ref, run_us=500)
    assert (house.task(number).run_us, house.task(number).run_clipped) == (500, False)


def test_the_clock_that_says_more_decides():
    started = Task(State.RUNNING, since_ms=10_000, leased_ms=100_000, started_ms=100_500)
    hour_us = (HOUR_MS + HOUR_MS // 256 + measured_slack_ms) * 1_000

    # the wall went back by a day meanwhile; then: the server's machine was off
    assert run_us_max(started, Times(10_000 + HOUR_MS - 500, 100_000 - 24 * HOUR_MS)) == hour_us
    assert run_us_max(started, Times(10_000, 100_000 + HOUR_MS)) == hour_us
    # not heard of as started: what the steady clock says there is of the queue
    assert run_us_max(msgspec.structs.replace(started, started_ms=0), Times(10**9, 100_000 - HOUR_MS)) == SLACK_US


def test_cpu_time_is_bounded_by_the_run_time_and_the_largest_machine():
    assert cpu_us_max(0) == SLACK_US
    assert cpu_us_max(7) == 7 * cpus_max + SLACK_US
    assert clip_run_us(0, 5) == 0


def test_a_record_of_before_says_nothing_of_it():
    codec = RecordCodec(Task)
    fields = msgspec.msgpack.decode(codec.encode(Task(State.SUCCEEDED, run_us=7, run_clipped=True)))
    task = codec.decode(msgspec.msgpack.encode(fields[:-1]))
    assert (task.run_us, task.run_clipped) == (7, False)
