"""Ids as people write them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tq.core.model import ids
from tq.core.model.ids import TaskId
from tq.core.model.job import Demand, Job
from tq.core.model.task import TRANSITIONS, IllegalMove, State, Trigger, is_legal, transition
from tq.errors import BadRequest, TaskNotFound


def _job(size, first=1, step=1, *, is_array=True):
    return Job("q", "", (), Demand(), size, is_array, first, step, 0, 3, 0, "", "", 0, b"")


@given(st.integers(1, 10**17), st.none() | st.integers(0, (1 << 63) - 1))
def test_an_id_is_read_as_it_is_printed(job, value):
    assert ids.parse(str(TaskId(job, value))) == TaskId(job, value)


@pytest.mark.parametrize("text", ["", "0", "x", "4 2", "42.", "42.-1", "042", "42.07", "9" * 30, "４２", "42\n"])
def test_a_malformed_id_is_refused_with_a_hint(text):
    with pytest.raises(BadRequest) as caught:
        ids.parse(text)
    assert "42" in caught.value.hint


def test_a_node_of_a_job_without_nodes_is_not_found():
    with pytest.raises(TaskNotFound):
        ids.parse("42.compile")


@given(st.integers(1, 50), st.integers(0, 1000), st.integers(1, 9))
def test_a_member_is_found_by_the_value_that_it_shows(size, first, step):
    job = _job(size, first, step)
    for member in (0, size // 2, size - 1):
        assert ids.position(1, job, ids.value_of(job, member)) == member


@pytest.mark.parametrize("value", [0, 4, 2, 100])
def test_a_value_that_the_array_does_not_have_is_not_found(value):
    with pytest.raises(TaskNotFound):
        ids.position(1, _job(2, 1, 2), value)


def test_a_task_that_is_no_array_has_no_members():
    with pytest.raises(TaskNotFound):
        ids.position(1, _job(1, is_array=False), 1)


@pytest.mark.parametrize("state, trigger", list(itertools.product(State, Trigger)))
def test_a_pair_moves_as_the_table_says_or_not_at_all(state, trigger):
    expected = TRANSITIONS.get((state, trigger))
    assert is_legal(state, trigger) is (expected is not None)
    if expected is None:
        with pytest.raises(IllegalMove):
            transition(state, trigger)
    else:
        assert transition(state, trigger) is expected


def test_a_terminal_state_is_left_only_by_a_retry():
    leaving = {trigger for (state, trigger) in TRANSITIONS if state.is_terminal}
    assert leaving == {Trigger.RETRY, Trigger.RETRY_BLOCKED, Trigger.FORCE_RETRY}


def test_terminal_states_are_numbered_last():
    assert [state for state in State if state.is_terminal] == list(State)[State.SUCCEEDED :]


def test_every_state_can_be_reached_and_every_living_state_can_be_left():
    assert set(TRANSITIONS.values()) == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State)
