"""What bulk may have of the commit loop while others ask."""

from tests.server.rig import Loop, submit
from tq import limits
from tq.core.vocabulary import AddEntries
from tq.server.commit_loop import Point
from tq.server.intake import Request


def part(number: int, size: int = limits.turn_bulk_bytes_max) -> Request:
    return Request(AddEntries("u", number, (b"x",)), "me", None, size)


def test_a_turn_ends_its_bulk_at_a_cap_of_bytes_and_takes_on_what_somebody_waits_for() -> None:
    loop = Loop().start()
    for number in range(5):
        loop.inlet.put([part(number, limits.turn_bulk_bytes_max // 2)])
    loop.run()
    assert loop.pipeline.counters.commands == 2 + 2  # a turn that is being flushed, and the open one
    loop.ask("single", submit("s"), loop.intake.inlet())
    loop.run()
    assert loop.pipeline.counters.commands == 2 + 2 + 1
    loop.flush()
    loop.run()
    loop.flush()
    loop.run()

    assert "single" in loop.answers()
    loop.now_ms += limits.bulk_rest_ms
    loop.settle()
    assert loop.pipeline.counters.commands == 2 + 2 + 1 + 1


def test_bulk_rests_after_a_turn_of_its_own_while_somebody_asks() -> None:
    loop = Loop().start()
    other = loop.intake.inlet()
    for number in range(3):
        loop.inlet.put([part(number)])
    loop.ask("a", submit("a"), other)
    loop.run()
    assert loop.pipeline.counters.commands == 1 + 1  # in a turn with bulk, and nothing waits for it but bulk
    loop.ask("b", submit("b"), other)
    loop.run()
    assert loop.pipeline.counters.commands == 1 + 1 + 1
    loop.flush()
    loop.now_ms += 10  # the rest counts from the end of the flush
    loop.run()
    loop.flush()

    assert loop.run() is Point.IDLE
    assert loop.pipeline.idle_ms() == limits.bulk_rest_ms
    loop.now_ms += limits.bulk_rest_ms - 1
    loop.ask("c", submit("c"), other)  # a question does not lengthen the rest
    loop.settle()
    assert list(loop.answers()) == ["a", "b", "c"]
    assert loop.pipeline.counters.commands == 1 + 1 + 2
    assert loop.pipeline.idle_ms() == 1
    loop.now_ms += 1
    loop.settle()

    # Somebody asked since the turn with the first part, but nobody during or since that with the second.
    assert loop.pipeline.counters.commands == 1 + 1 + 2 + 2


def test_bulk_that_rests_is_taken_at_the_stop() -> None:
    loop = Loop().start()
    loop.inlet.put([part(0)])
    loop.ask("a", submit("a"), loop.intake.inlet())
    loop.settle()
    loop.inlet.put([part(1)])
    assert loop.run() is Point.IDLE
    assert loop.pipeline.counters.commands == 2

    loop.pipeline.stop()
    loop.settle()

    assert loop.pipeline.counters.commands == 3
    assert next(loop.steps, None) is None
