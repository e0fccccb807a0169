"""What waits for a launcher's slots: order and width of lanes, without processes."""

from types import SimpleNamespace

from tests.support.launcher import ref
from tq.launcher.attempt import Attempt, Stage
from tq.launcher.lanes import Lanes


def attempts(lane: int, count: int) -> list[Attempt]:
    order = SimpleNamespace(lane=lane)
    return [Attempt(ref(lane, member), member, order) for member in range(count)]


def take_all(lanes: Lanes) -> list[Attempt]:
    taken = []
    while (attempt := lanes.take()) is not None:
        attempt.stage = Stage.RUNNING
        taken.append(attempt)
    return taken


def test_a_lane_gives_out_its_width_in_order_and_one_more_for_each_that_ends():
    lanes, waiting = Lanes(), attempts(1, 5)
    lanes.add(1, 2, waiting)

    assert take_all(lanes) == waiting[:2]
    assert lanes.queued == 3
    lanes.release(1)
    assert take_all(lanes) == [waiting[2]]
    assert take_all(lanes) == []


def test_a_lowered_width_counts_for_what_was_offered_before():
    lanes, waiting = Lanes(), attempts(1, 4)
    lanes.add(1, 4, waiting)
    lanes.add(1, 1, [])

    assert take_all(lanes) == waiting[:1]


def test_a_raised_width_counts_at_once():
    lanes, waiting = Lanes(), attempts(1, 4)
    lanes.add(1, 1, waiting)
    assert take_all(lanes) == waiting[:1]
    lanes.add(1, 3, [])

    assert take_all(lanes) == waiting[1:3]


def test_the_lane_whose_head_waits_longest_goes_first():
    lanes = Lanes()
    first, second, third = attempts(1, 1), attempts(2, 1), attempts(1, 1)
    for lane, some in ((1, first), (2, second), (1, third)):
        lanes.add(lane, 9, some)

    assert take_all(lanes) == first + second + third


def test_what_is_dropped_is_passed_over():
    lanes, waiting = Lanes(), attempts(1, 4)
    lanes.add(1, 9, waiting)
    for attempt in waiting[:2]:
        lanes.drop(attempt)

    assert lanes.queued == 2
    assert take_all(lanes) == waiting[2:]
    assert lanes.queued == 0


def test_a_lane_that_has_nothing_is_forgotten_and_may_come_back():
    lanes = Lanes()
    for _ in range(3):
        [attempt] = attempts(1, 1)
        lanes.add(1, 1, [attempt])
        assert take_all(lanes) == [attempt]
        lanes.release(1)
        assert lanes._lanes == {}
    [dropped] = attempts(2, 1)
    lanes.add(2, 0, [dropped])
    assert take_all(lanes) == []
    lanes.drop(dropped)
    assert lanes._lanes == {}
