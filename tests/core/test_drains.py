"""Server and worker agree on whether the worker drains, whatever crosses on the way.

Else they lease and hand back without end.
"""

import pytest

from tests.support.house import House
from tq.core.vocabulary import Drain, DrainAsked


def asked(house: House) -> list[DrainAsked]:
    return [effect for effect in house.finished.effects if isinstance(effect, DrainAsked)]


@pytest.mark.parametrize("on", [True, False])
def test_what_was_asked_while_the_worker_was_cut_off_holds_and_is_told_again(on: bool) -> None:
    house = House()
    house.join(draining=not on)
    house.do(Drain("host5", on=on))

    house.join(session=2, draining=not on)

    assert house.engine.live.workers[5].draining is on
    assert asked(house) == [DrainAsked(5, 2, on)]


def test_a_server_that_has_restarted_believes_the_worker() -> None:
    house = House()
    house.join()
    house.do(Drain("host5"))

    house.restart()
    house.join(session=1, draining=True)

    assert house.engine.live.workers[5].draining
    assert asked(house) == []


def test_who_agrees_is_told_nothing() -> None:
    house = House()
    house.join(draining=True)
    house.join(session=2, draining=True)

    assert house.engine.live.workers[5].draining
    assert asked(house) == []
