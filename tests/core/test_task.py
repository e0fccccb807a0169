"""The table of moves: every pair of state and trigger."""

import itertools

import pytest

from tq.core.model.task import TRANSITIONS, IllegalMove, State, Trigger, is_legal, transition


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
