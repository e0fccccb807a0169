"""What is decided becomes frames and messages, in the order in which a launcher or a server understands them."""

from types import SimpleNamespace

from tests.support.worker_state import assign, joined, ref
from tq.launcher import protocol
from tq.wire import messages as m
from tq.worker.interpreter import FOLLOW_BYTES, Interpreter


async def test_who_is_followed_while_its_input_comes_is_followed_from_its_start() -> None:
    """A launcher knows nothing of what it does not hold: told before, it would have forgotten."""
    told: list[protocol.Down] = []
    interpreter = Interpreter(joined(), "0" * 16)
    interpreter.launcher = SimpleNamespace(send=told.append)
    interpreter.carry_out(interpreter.slots.receive(assign(ref(1), ref(2), stdin=4)))
    interpreter.follow(m.FollowOutput(ref(2), on=True))
    told.clear()

    interpreter.take_blob(m.Blob(4, 0, b"input"))
    interpreter.take_blob(m.Blob(4, 1, b""))

    assert [type(one) for one in told] == [protocol.Input, protocol.Spawn, protocol.Forget, protocol.Follow]
    assert told[3] == protocol.Follow(ref(2), FOLLOW_BYTES)


async def test_an_input_that_is_asked_for_anew_is_made_of_the_pieces_that_come_next() -> None:
    """What was asked for before the attempt was given back is still on its way, and comes between the others."""
    told: list[protocol.Down] = []
    interpreter = Interpreter(joined(), "0" * 16)
    interpreter.launcher = SimpleNamespace(send=told.append)
    interpreter.carry_out(interpreter.slots.receive(assign(ref(1), stdin=4)))
    interpreter.take_blob(m.Blob(4, 0, b"in"))
    interpreter.carry_out(interpreter.slots.receive(m.RecallAttempts((ref(1),))))
    interpreter.carry_out(interpreter.slots.receive(assign(ref(2), stdin=4)))

    for piece, data in ((1, b"put"), (0, b"in"), (0, b"in"), (1, b"put"), (2, b""), (2, b"")):
        interpreter.take_blob(m.Blob(4, piece, data))

    assert [one.data for one in told if isinstance(one, protocol.Input)] == [b"input"]
