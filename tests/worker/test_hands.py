"""What is decided becomes frames and messages, in the order in which a launcher or a server understands them."""

from types import SimpleNamespace

from tests.support.slots import assign, joined, ref
from tq.wire import messages as m
from tq.worker import frames
from tq.worker.hands import FOLLOW_BYTES, Hands


async def test_who_is_followed_while_its_input_comes_is_followed_from_its_start() -> None:
    """A launcher knows nothing of what it does not hold: told before, it would have forgotten."""
    told: list[frames.Down] = []
    hands = Hands(joined(), "0" * 16)
    hands.launcher = SimpleNamespace(send=told.append)
    hands.carry_out(hands.slots.receive(assign(ref(1), ref(2), stdin=4)))
    hands.follow(m.FollowOutput(ref(2), on=True))
    told.clear()

    hands.take_blob(m.Blob(4, 0, b"input"))
    hands.take_blob(m.Blob(4, 1, b""))

    assert [type(one) for one in told] == [frames.Input, frames.Spawn, frames.Forget, frames.Follow]
    assert told[3] == frames.Follow(ref(2), FOLLOW_BYTES)
