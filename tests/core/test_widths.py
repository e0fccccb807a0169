"""What a worker may run at once of each lane is reserved, also after the server has forgotten what it had said."""

from tests.support.house import House, held
from tq.core.model.task import Phase


def reserved(house: House, worker: int = 5) -> int:
    return house.engine.live.workers[worker].slots_used


def test_a_worker_that_comes_back_keeps_the_width_that_it_was_told() -> None:
    house = House()
    house.array(5)
    house.join(slots=3)
    refs = house.starts()
    lane = house.engine.live.workers[5].held[refs[0].task]

    house.restart()
    # One has ended and two run just now, but its launcher goes on to run three.
    list_of_three = held(*refs[:2]) + held(refs[2], phase=Phase.ENDED)
    house.join(slots=3, session=2, held=list_of_three, widths=((lane, 3),))

    assert reserved(house) == 3
    assert house.starts() == []


def test_a_width_counts_only_as_far_as_attempts_are_held() -> None:
    house = House()
    house.array(5)
    house.join(slots=3)
    refs = house.starts()
    lane = house.engine.live.workers[5].held[refs[0].task]
    refs_of_one = held(refs[0])

    house.restart()
    house.join(slots=1, session=2, held=refs_of_one, widths=((lane, 3), (lane + 7, 9)))

    assert reserved(house) == 1


def test_short_attempts_that_nobody_has_called_started_are_reserved_too() -> None:
    house = House()
    house.array(2)
    house.join(slots=2)
    refs = house.starts()
    lane = house.engine.live.workers[5].held[refs[0].task]

    house.restart()
    house.join(slots=2, session=2, held=held(*refs, phase=Phase.ASSIGNED), widths=((lane, 2),))

    assert reserved(house) == 2
