"""What bulk may have of the commit loop while others ask."""

from tests.server.rig import Loop, submit
from tq import limits
from tq.core.vocabulary import AddEntries
from tq.server.commit.commit_loop import Point
from tq.server.commit.intake import Request

FILL = limits.turn_bulk_bytes_max
FILL_BESIDE = limits.turn_bulk_bytes_beside_max


def put(loop: Loop, count: int, size: int) -> None:
    """Put parts of an upload, of so many bytes each."""
    for number in range(count):
        loop.inlet.put([Request(AddEntries("u", number, (b"x",)), "me", None, size)])


def test_a_turn_ends_its_bulk_at_a_cap_of_bytes_and_takes_on_what_somebody_waits_for() -> None:
    loop = Loop().start()
    put(loop, 5, FILL // 2)
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


def test_beside_others_a_turn_has_less_bulk_and_bulk_rests_after_it() -> None:
    loop = Loop().start()
    other = loop.intake.inlet()
    loop.ask("a", submit("a"), other)
    loop.settle()
    put(loop, 5, FILL_BESIDE // 2)
    loop.run()
    assert loop.pipeline.counters.commands == 1 + 2
    loop.ask("b", submit("b"), other)
    loop.run()
    assert loop.pipeline.counters.commands == 1 + 2 + 1  # the turn behind the one with bulk has none
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
    assert loop.pipeline.counters.commands == 1 + 2 + 1 + 1
    assert loop.pipeline.idle_ms() == 1
    loop.now_ms += 1
    loop.settle()
    assert loop.pipeline.counters.commands == 1 + 2 + 1 + 1 + 2


def test_bulk_alone_does_not_rest() -> None:
    loop = Loop().start()
    loop.ask("a", submit("a"), loop.intake.inlet())
    loop.settle()
    loop.now_ms += limits.bulk_beside_ms
    put(loop, 5, FILL // 2)

    loop.settle()

    assert loop.pipeline.counters.commands == 1 + 5
    assert loop.pipeline.counters.flushes == 1 + 1 + 3  # Recover, a, and bulk in the turns that it fills


def test_bulk_that_rests_is_taken_at_the_stop() -> None:
    loop = Loop().start()
    put(loop, 1, FILL)
    loop.ask("a", submit("a"), loop.intake.inlet())
    loop.settle()
    put(loop, 1, FILL)
    assert loop.run() is Point.IDLE
    assert loop.pipeline.counters.commands == 2

    loop.pipeline.stop()
    loop.settle()

    assert loop.pipeline.counters.commands == 3
    assert next(loop.steps, None) is None
