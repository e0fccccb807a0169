"""What may leave the server, and when: nothing of a turn before its own flush."""

from typing import Any

import pytest

from tests.server.rig import Loop, submit
from tq import errors, limits
from tq.core.engine import dispatch, turn
from tq.core.engine.engine import Engine
from tq.core.model import tables
from tq.core.model.view import pages
from tq.core.placement.fold import FoldFailed
from tq.core.vocabulary import (
    Acknowledge,
    AttemptRef,
    Cancel,
    Capacity,
    Document,
    Done,
    End,
    Get,
    Join,
    Joined,
    List,
    Page,
    Report,
    Start,
    Status,
    Submitted,
    TaskChanged,
)
from tq.server.commit.commit_loop import Point
from tq.server.commit.intake import Look, Request
from tq.store.memory import MemoryStore


def named(loop: Loop) -> list[str]:
    return [entry[0] if isinstance(entry, tuple) else type(entry).__name__ for entry in loop.left]


def test_an_answer_leaves_only_after_the_flush_of_its_turn() -> None:
    loop = Loop().start()
    loop.ask("submit", submit())

    assert loop.run() is Point.FLUSHING
    assert loop.left == []
    loop.flush()
    loop.run()

    assert loop.answers()["submit"] == Submitted("1", warning="no worker is connected")


@pytest.mark.parametrize("point", [Point.APPLIED, Point.WRITTEN, Point.FLUSHING, Point.FLUSHED])
def test_nothing_has_left_at_any_point_before_the_answers(point: Point) -> None:
    loop = Loop().start()
    loop.ask("submit", submit())
    if point is Point.FLUSHED:
        loop.run()
        loop.flush()

    loop.to(point)

    assert loop.left == []


def test_answers_leave_before_the_effects_of_their_turn() -> None:
    loop = Loop().start()
    loop.ask("submit", submit())
    loop.run()
    loop.flush()

    loop.to(Point.REPLIED)
    assert named(loop) == ["submit"]
    loop.to(Point.RELEASED)
    assert named(loop) == ["submit", "TaskChanged"]


def test_commands_that_come_during_a_flush_make_one_turn_that_waits_for_it() -> None:
    loop = Loop().start()
    loop.ask("a", submit("a"))
    loop.run()
    loop.ask("b", submit("b"))
    loop.run()
    loop.ask("c", submit("c"))
    loop.run()

    assert len(loop.flushes) == 1  # one flush at a time
    assert loop.store.sequence == loop.flushes[0]  # the next turn is not written
    loop.flush()
    loop.run()
    assert list(loop.answers()) == ["a"]
    loop.flush()
    loop.run()
    assert list(loop.answers()) == ["a", "b", "c"]
    assert loop.pipeline.counters.flushes == 3  # Recover, a, and b with c


def test_a_read_that_could_have_seen_a_turn_waits_for_its_flush() -> None:
    loop = Loop().start()
    loop.ask("submit", submit())
    loop.run()
    loop.ask("get", Get("1"))
    loop.run()

    assert loop.left == []
    loop.flush()
    loop.run()

    assert named(loop) == ["submit", "TaskChanged", "get"]
    assert isinstance(loop.answers()["get"], Document)


def test_a_look_at_the_store_waits_like_any_read() -> None:
    loop = Loop().start()
    loop.ask("submit", submit())
    loop.run()
    loop.ask("look", Look(lambda view: Done(str(view.get(tables.PROGRESS, (1, 0)) is not None))))
    loop.run()

    assert loop.left == []
    loop.flush()
    loop.run()
    assert loop.answers()["look"] == Done("True")


def test_a_turn_that_changes_nothing_is_answered_without_a_flush() -> None:
    loop = Loop().start()
    loop.ask("list", List())

    assert loop.run() is Point.IDLE
    assert isinstance(loop.answers()["list"], Page)
    assert loop.flushes == []


def test_a_refused_command_is_answered_with_its_refusal_and_the_turn_goes_on() -> None:
    loop = Loop().start()
    loop.ask("bad", Get("no id"))
    loop.ask("good", submit())
    loop.settle()

    assert isinstance(loop.answers()["bad"], errors.BadRequest)
    assert isinstance(loop.answers()["good"], Submitted)
    assert loop.pipeline.counters.refused == 1


def test_a_bug_costs_its_command_and_nothing_else() -> None:
    loop = Loop().start()
    broken = Look(lambda view: 1 / 0)  # type: ignore[arg-type, return-value]
    loop.ask("bug", broken)
    loop.ask("good", submit())
    loop.settle()

    assert isinstance(loop.answers()["bug"], errors.InternalError)
    assert isinstance(loop.answers()["good"], Submitted)
    assert loop.bugs == [broken]
    assert loop.pipeline.counters.bugs == 1


def test_an_answer_that_a_session_cannot_take_costs_nobody_else() -> None:
    loop = Loop().start()
    loop.inlet.put([Request(submit("a"), "me", lambda _: 1 / 0)])  # type: ignore[arg-type, return-value]
    loop.ask("good", submit("b"))
    loop.settle()

    assert isinstance(loop.answers()["good"], Submitted)
    assert loop.pipeline.counters.bugs == 1


class BrokenDispatch(Engine):
    """An engine whose Dispatch fails when it is told to."""

    is_broken = False

    def begin(self, times: Any) -> Any:
        turn = super().begin(times)
        if self.is_broken:
            turn.finish = lambda **_: 1 / 0  # type: ignore[assignment, method-assign]
        return turn


def test_an_exception_in_dispatch_stops_the_loop_and_answers_nothing() -> None:
    store = MemoryStore()
    engine = BrokenDispatch(store)
    loop = Loop(store, engine).start()
    engine.is_broken = True
    loop.ask("submit", submit())

    with pytest.raises(ZeroDivisionError):
        loop.run()
    assert loop.left == []


def test_after_a_failed_write_everything_pending_is_unknown_and_the_loop_ends() -> None:
    loop = Loop().start()
    loop.ask("flying", submit("a"))
    loop.run()
    loop.ask("open", submit("b"))
    loop.ask("read", Status())
    loop.run()
    loop.ask("waiting", submit("c"))
    loop.pipeline.fail(errors.StoreError("the disk is gone"))

    with pytest.raises(errors.StoreError, match="the disk is gone"):
        loop.run()
    loop.ask("late", submit("d"))

    assert set(loop.answers()) == {"flying", "open", "read", "waiting", "late"}
    assert {type(answer) for answer in loop.answers().values()} == {errors.Unknown}


@pytest.mark.parametrize("when", ["write", "read"])
def test_a_store_that_fails_in_the_loop_is_the_end_of_it(when: str) -> None:
    loop = Loop().start()
    if when == "read":

        def fail(view: Any) -> Any:
            raise errors.StoreError("reading failed")

        loop.ask("command", Look(fail))
    else:
        loop.ask("command", submit())
        loop.store.fail("no space left")

    with pytest.raises(errors.StoreError):
        loop.run()
    assert isinstance(loop.answers()["command"], errors.Unknown)


def test_after_the_first_failure_nothing_is_acknowledged_any_more_even_what_was_flushed() -> None:
    loop = Loop().start()
    loop.ask("submit", submit())
    loop.run()
    loop.flush()
    loop.pipeline.fail(errors.StoreError("gone"))

    with pytest.raises(errors.StoreError):
        loop.run()
    assert isinstance(loop.answers()["submit"], errors.Unknown)


def test_stopping_finishes_what_was_taken_and_refuses_what_comes() -> None:
    loop = Loop().start()
    loop.ask("before", submit("a"))
    loop.pipeline.stop()
    loop.ask("after", submit("b"))
    loop.settle()

    assert next(loop.steps, None) is None
    assert isinstance(loop.answers()["before"], Submitted)
    assert isinstance(loop.answers()["after"], errors.NotDone)
    assert loop.store.sequence == loop.store.flushed


def test_stopping_during_a_flush_waits_for_it() -> None:
    loop = Loop().start()
    loop.ask("submit", submit())
    loop.run()
    loop.pipeline.stop()

    assert loop.run() is Point.FLUSHING
    loop.flush()
    assert loop.run() is None
    assert isinstance(loop.answers()["submit"], Submitted)


def test_stopping_does_not_wait_for_what_is_due_and_the_next_start_goes_on_with_it() -> None:
    loop = Loop().start()
    loop.ask("submit", submit(size=3_000, is_array=True))
    loop.settle()
    loop.ask("join", Join(5, 1, Capacity(slots=2_500)))
    loop.settle()
    loop.ask("cancel", Cancel(("1",)))  # a sweep of several turns: each is due when the one before is on disk
    turns = loop.pipeline.counters.turns
    loop.pipeline.stop()
    while loop.run() is Point.FLUSHING:
        loop.now_ms += 10
        loop.flush()
    assert loop.pipeline.counters.turns == turns + 1
    assert "cancel" in loop.answers()
    assert any(pages(loop.store, tables.SWEEP))

    after = Loop(loop.store)
    after.now_ms = loop.now_ms
    after.start()
    for _ in range(5):
        after.now_ms += 10
        after.settle()
    assert not any(pages(loop.store, tables.SWEEP))


@pytest.mark.parametrize("is_filled_during_a_flush", [False, True])
def test_a_turn_ends_at_its_cap_of_time(is_filled_during_a_flush: bool) -> None:
    loop = Loop().start()
    loop.lap_step = limits.turn_ms_max / 4
    for number in range(40):
        loop.ask(str(number), submit(str(number)))
        if is_filled_during_a_flush:  # bit by bit
            loop.run()
    loop.run()
    assert 0 < loop.pipeline.counters.commands < 20
    loop.settle()
    assert len(loop.answers()) == 40


def test_a_turn_ends_at_its_cap_of_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "turn_changes_max", 20)
    loop = Loop().start()
    for number in range(40):
        loop.ask(str(number), submit(str(number)))
    loop.run()

    assert 0 < loop.pipeline.counters.commands < 20
    loop.settle()
    assert len(loop.answers()) == 40


def test_what_is_due_is_done_without_anybody_asking() -> None:
    loop = Loop().start()
    loop.ask("submit", submit(size=3_000, is_array=True))
    loop.settle()
    loop.ask("join", Join(5, 1, Capacity(slots=2_500)))
    loop.settle()
    loop.left.clear()
    loop.ask("cancel", Cancel(("1",)))  # more running members than one command may stop: a sweep, due at once
    loop.settle()
    loop.now_ms += 10
    loop.settle()

    stopped = sum(len(entry.attempts) for entry in loop.left if type(entry).__name__ == "Stop")
    assert stopped == 2_000 + 500
    assert loop.pipeline.idle_ms() is None


def test_dispatch_goes_on_by_itself_where_its_bound_cut_it_off() -> None:
    loop = Loop().start()
    loop.ask("submit", submit(size=5_000, is_array=True))
    loop.settle()
    loop.ask("join", Join(5, 1, Capacity(slots=4_096)))
    loop.settle()

    started = sum(len(entry.attempts) for entry in loop.left if isinstance(entry, Start))
    assert started == 4_096


def test_nothing_is_leased_while_it_must_not_be_and_goes_on_afterwards() -> None:
    loop = Loop().start()
    loop.pipeline.may_lease = False
    loop.ask("join", Join(5, 1, Capacity(slots=1)))
    loop.ask("submit", submit())
    loop.settle()
    assert not any(isinstance(entry, Start) for entry in loop.left)

    loop.pipeline.may_lease = True
    loop.pipeline.dispatch_again()
    loop.settle()
    assert sum(isinstance(entry, Start) for entry in loop.left) == 1


def test_a_turn_that_only_reads_does_not_forget_that_more_may_be_leased() -> None:
    loop = Loop().start()
    loop.pipeline.may_lease = False
    loop.ask("join", Join(5, 1, Capacity(slots=1)))
    loop.ask("submit", submit())
    loop.settle()
    loop.ask("status", Status())
    loop.to(Point.APPLIED)
    loop.pipeline.may_lease = True
    loop.pipeline.dispatch_again()
    loop.settle()
    assert sum(isinstance(entry, Start) for entry in loop.left) == 1


def test_a_command_whose_fold_fails_ends_the_server_and_is_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop().start()
    loop.ask("submit", submit())
    monkeypatch.setattr(turn, "fold", lambda *_: 1 / 0)
    with pytest.raises(FoldFailed):
        loop.settle()
    assert isinstance(loop.answers()["submit"], errors.Unknown)
    assert loop.store.get(tables.JOB, (1, 0)) is None


def test_a_question_looks_for_nothing_to_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop().start()
    dispatched: list[object] = []
    monkeypatch.setattr(dispatch, "dispatch", lambda *_args, **_named: dispatched.append(_args))
    loop.ask("status", Status())
    loop.settle()
    assert "status" in loop.answers()
    assert not dispatched

    loop.ask("status", Status())
    loop.ask("cancel", Cancel(("1",), dry_run=True))
    loop.settle()
    assert len(dispatched) == 1


def test_a_report_is_acknowledged_once_it_is_on_disk() -> None:
    loop = Loop().start()
    loop.ask("join", Join(5, 1, Capacity(slots=1)))
    loop.ask("submit", submit())
    loop.settle()
    (start,) = (entry for entry in loop.left if isinstance(entry, Start))
    ref: AttemptRef = start.attempts[0].attempt
    loop.left.clear()

    loop.inlet.put([Request(Report(5, 1, 9, (End(ref, 1, 0, 100),)))])
    loop.run()
    assert loop.left == []
    loop.flush()
    loop.run()

    assert loop.left == [Acknowledge(5, 1, 9), TaskChanged(1, 0)]


def test_recover_is_the_first_turn_and_is_told_once_it_is_on_disk() -> None:
    loop = Loop()
    loop.run()
    assert loop.recovered is None
    loop.flush()
    loop.run()
    assert loop.recovered is not None
    assert loop.recovered.lineage == 7
    assert loop.recovered.epoch == 1

    again = Loop(loop.store.crash(0)).start()
    assert again.recovered is not None
    assert again.recovered.epoch == 2


def test_joining_is_answered_before_the_assignments_that_follow_from_it() -> None:
    loop = Loop().start()
    loop.ask("submit", submit())
    loop.settle()
    loop.left.clear()
    loop.ask("join", Join(5, 1, Capacity(slots=1)))
    loop.settle()

    assert loop.left[0] == ("join", Joined())
    assert isinstance(loop.left[1], Start)


def test_whoever_cannot_be_answered_is_told_so_and_does_not_wait_for_ever() -> None:
    loop = Loop().start()
    got: list[Any] = []

    def reply(answer: Any) -> None:
        got.append(answer)
        if isinstance(answer, Document):
            raise KeyError("a bug of the session's")

    loop.inlet.put([Request(Status(), "me", reply)])
    loop.settle()

    assert [type(answer) for answer in got] == [Document, errors.InternalError]


def test_a_turn_that_is_on_disk_at_once_is_answered_without_waking_anybody() -> None:
    loop = Loop().start()
    woken: list[None] = []

    def flush(sequence: int) -> bool:
        loop.store.flush(sequence)
        loop.pipeline.on_wake = lambda: woken.append(None)
        return True

    loop.pipeline._flush = flush
    loop.ask("submit", submit())

    assert loop.run() is Point.IDLE
    assert list(loop.answers()) == ["submit"]
    assert woken == []


def test_a_turn_is_lone_if_one_peer_waits_for_it_and_nobody_for_the_next() -> None:
    lone: list[bool] = []
    loop = Loop().start()
    flush = loop.pipeline._flush

    def look(sequence: int) -> None:
        lone.append(loop.pipeline.is_lone)
        flush(sequence)

    loop.pipeline._flush = look
    loop.ask("a", submit("a"))
    loop.settle()
    loop.ask("b", submit("b"))
    loop.ask("c", submit("c"))
    loop.settle()

    assert lone == [True, False]
