"""Who waits for what a turn has changed is answered with that turn, while it has time."""

from collections.abc import Callable, Iterable, Sequence

from tests.server.rig import Loop, submit
from tq import limits
from tq.core.vocabulary import Effect, TaskChanged, Wait, Waited
from tq.server.commit.commit_loop import Point
from tq.server.commit.intake import Inlet, Request


def test_who_waits_for_what_a_turn_has_changed_is_answered_with_that_turn() -> None:
    loop = Loop().start()
    loop.rereads = watching(loop, Wait(("1",)))
    loop.ask("submitted", submit())
    assert loop.run() is Point.FLUSHING
    assert loop.left == []
    loop.flush()
    loop.to(Point.REPLIED)

    assert names(loop) == ["submitted", "seen"]
    assert_queued(loop.answers()["seen"])
    assert loop.intake.is_empty


def test_what_a_full_turn_has_no_time_to_read_again_is_read_in_the_next() -> None:
    loop = Loop().start()
    loop.rereads = watching(loop, Wait(("1",)))
    loop.lap_step = limits.turn_ms_max  # the submit alone takes all of its turn
    loop.ask("submitted", submit())
    loop.run()
    loop.flush()
    loop.to(Point.REPLIED)
    assert names(loop) == ["submitted"]
    loop.settle()

    assert_queued(loop.answers()["seen"])


def watching(loop: Loop, wait: Wait) -> Callable[[Sequence[Effect]], Iterable[tuple[Inlet, Request]]]:
    """Return who reads this again whenever a job has changed."""

    def rereads(effects: Sequence[Effect]) -> Iterable[tuple[Inlet, Request]]:
        request = Request(wait, "me", lambda answer: loop.left.append(("seen", answer)))
        return [(loop.inlet, request) for effect in effects if isinstance(effect, TaskChanged)]

    return rereads


def assert_queued(answer: object) -> None:
    assert isinstance(answer, Waited)
    assert [outcome.state for outcome in answer.outcomes] == ["queued"]


def names(loop: Loop) -> list[str]:
    return [entry[0] for entry in loop.left if isinstance(entry, tuple)]
