"""Ten mutants of tq: each breaks one promise on purpose, as a careless change would.

A mutant is applied by a patch at run time (`patch.setattr`), never to the files. test_mutants.py shows that the quick
tests find each one; who adds a promise adds its mutant here.
"""

from collections.abc import Callable
from typing import Final

import pytest

from tq.core import engine, tables
from tq.core.engine import fence, join, report
from tq.core.engine.fence import Verdict
from tq.core.engine.step import Step
from tq.core.job import Progress
from tq.core.task import Phase, State
from tq.core.view import Overlay
from tq.server.commit_loop import Pipeline, Point

Mutant = Callable[[pytest.MonkeyPatch], None]
_READS: Final = tuple(engine._READS)


def skip_the_attempt_check(patch: pytest.MonkeyPatch) -> None:
    """Whoever speaks of a task that runs is believed, whichever attempt they mean."""
    judge = fence.judge

    def believe(step, task, ref, worker):
        if task is not None and task.state is State.RUNNING:
            return Verdict.CURRENT
        return judge(step, task, ref, worker)

    _judge_by(patch, believe)


def release_before_the_flush(patch: pytest.MonkeyPatch) -> None:
    """A turn's answers leave when it is written, not when it is on disk."""
    close = Pipeline._close

    def hasty(self, turn):
        for point in close(self, turn):
            if point is Point.WRITTEN:
                for reply, answer in self._flight.replies:
                    reply(answer)
                self._flight.replies = []
            yield point

    patch.setattr(Pipeline, "_close", hasty)


def do_not_persist_the_cursor_of_an_array(patch: pytest.MonkeyPatch) -> None:
    """The place up to which an array's members were leased stays as it was at the submit."""
    settle = Step.settle

    def forgetful(self):
        for key, progress in self._progress.items():
            stored = self.overlay.get(tables.PROGRESS, key)
            if stored is not None:
                progress.cursor = stored.cursor
        settle(self)

    patch.setattr(Step, "settle", forgetful)


def release_a_read_that_saw_an_unflushed_turn(patch: pytest.MonkeyPatch) -> None:
    """A read is answered at once, though what it saw may never reach the disk."""
    apply = Pipeline._apply

    def hasty(self, turn, request):
        apply(self, turn, request)
        if isinstance(request.command, _READS) and self._answers.replies:
            reply, answer = self._answers.replies.pop()
            reply(answer)

    patch.setattr(Pipeline, "_apply", hasty)


def accept_a_superseded_session(patch: pytest.MonkeyPatch) -> None:
    """A worker's older connection is heard beside its newer one."""
    for module in (fence, join, report):
        patch.setattr(module, "is_current_session", lambda step, worker, session: worker in step.live.workers)


def charge_no_loss(patch: pytest.MonkeyPatch) -> None:
    """A lost attempt is nobody's fault, so that a task may kill its workers for ever."""
    lose = report.lose

    def mild(step, key, task, *, charged):
        lose(step, key, task, charged=False)

    patch.setattr(report, "lose", mild)


def ignore_what_the_server_has_and_the_worker_does_not_hold(patch: pytest.MonkeyPatch) -> None:
    """A worker that comes back without an attempt is thought to hold it still."""
    patch.setattr(join, "_give_back_missing", lambda *_: None)


def do_not_store_the_key(patch: pytest.MonkeyPatch) -> None:
    """A submit is made as often as it is sent."""
    put = Overlay.put

    def forgetful(self, table, key, record):
        if table is not tables.KEY:
            put(self, table, key, record)

    patch.setattr(Overlay, "put", forgetful)


def take_an_untouched_member_of_a_cancelled_array_for_queued(patch: pytest.MonkeyPatch) -> None:
    """A member without a record is queued, whatever has become of its array."""
    move = Step.move

    def is_startable(self, lane):
        has_room = not self.throttle or self.counts[State.RUNNING] < self.throttle
        has_untouched = lane == self.lane and self.untouched > 0
        return has_room and not self.hold and (self.again_in(lane) > 0 or has_untouched)

    def credulous(self, key, task, trigger, **fields):
        progress = self.progress(key[:2])
        first = progress.first
        try:
            progress.first = State.QUEUED if task is None else first
            return move(self, key, task, trigger, **fields)
        finally:
            progress.first = first

    patch.setattr(Progress, "is_startable", is_startable)
    patch.setattr(Step, "move", credulous)


def accept_a_claim_after_the_successors_lease(patch: pytest.MonkeyPatch) -> None:
    """A worker that comes back with a lost attempt keeps it, though its successor runs elsewhere."""
    judge = fence.judge

    def generous(step, task, ref, worker):
        if task is not None and ref.attempt < task.attempt and task.phase in (Phase.ASSIGNED, Phase.STARTED):
            return Verdict.CURRENT
        return judge(step, task, ref, worker)

    _judge_by(patch, generous)


def _judge_by(patch: pytest.MonkeyPatch, judge) -> None:
    patch.setattr(fence, "judge", judge)
    patch.setattr(join, "judge", judge)


MUTANTS: Final[tuple[Mutant, ...]] = (
    skip_the_attempt_check,
    release_before_the_flush,
    do_not_persist_the_cursor_of_an_array,
    release_a_read_that_saw_an_unflushed_turn,
    accept_a_superseded_session,
    charge_no_loss,
    ignore_what_the_server_has_and_the_worker_does_not_hold,
    do_not_store_the_key,
    take_an_untouched_member_of_a_cancelled_array_for_queued,
    accept_a_claim_after_the_successors_lease,
)
