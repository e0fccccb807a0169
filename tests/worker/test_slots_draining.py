"""A worker that leaves says so whenever it is asked to go on."""

from tests.support.slots import joined, said
from tq.wire import messages as m


def test_who_leaves_and_is_asked_to_go_on_says_that_it_leaves() -> None:
    slots = joined()
    slots.leave()

    assert said(slots.receive(m.DrainWorker(on=False))) == [m.Draining()]
    assert slots.is_draining


def test_who_does_not_leave_goes_on_without_a_word() -> None:
    slots = joined()
    slots.receive(m.DrainWorker(on=True))

    assert said(slots.receive(m.DrainWorker(on=False))) == []
    assert not slots.is_draining
