"""How many of a lane may run at once: the latest word of the server counts, and goes back to it with the list."""

from msgspec.structs import replace

from tests.support.slots import assign, joined, reconcile, ref
from tq.worker.instructions import Fetch, Spawn


def test_the_list_says_the_latest_width_of_each_lane() -> None:
    slots = joined()
    slots.receive(assign(ref(1), delivery=1))
    slots.receive(replace(assign(ref(2), delivery=2), width=1))
    slots.receive(replace(assign(ref(3), delivery=3), lane=9, width=4))
    slots.disconnected()

    assert reconcile(slots).widths == ((1, 1), (9, 4))


def test_what_waited_for_its_input_does_not_bring_an_old_width_back() -> None:
    slots = joined()
    assert Fetch(7) in slots.receive(assign(ref(1), delivery=1, stdin=7))
    slots.receive(replace(assign(ref(2), delivery=2), width=1))

    (spawn,) = slots.fetched(7, b"input")

    assert isinstance(spawn, Spawn)
    assert spawn.assign.width == 1
