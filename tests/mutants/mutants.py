"""Mutants of tq: each breaks one promise on purpose, as a careless change would.

A mutant is applied by a patch at run time (`patch.setattr`), never to the files. test_mutants.py shows that the quick
tests find each one; who adds a promise adds its mutant here.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Final

import pytest
from msgspec.structs import replace

from tq.core.bulk import sweeps, verbs
from tq.core.change import fence, idempotency, lanes
from tq.core.change.fence import Verdict
from tq.core.change.step import Step
from tq.core.engine import join, report
from tq.core.engine.handlers import CHANGES, READS
from tq.core.model import tables
from tq.core.model.job import Progress
from tq.core.model.task import Phase, State
from tq.core.model.view import Overlay
from tq.core.placement import fit
from tq.core.placement.live import LIVE_SESSION
from tq.core.vocabulary import Retry, WorkerSilent
from tq.server.commit.commit_loop import Pipeline, Point
from tq.server.sessions.worker_protocol import WorkerPeer
from tq.store.recent import Recent
from tq.wire.messages import GetBlob
from tq.worker import spool
from tq.worker.interpreter import Interpreter

Mutant = Callable[[pytest.MonkeyPatch], None]
_READS: Final = tuple(READS)


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
    move_run = Step.move_run

    def is_startable(self, lane):
        has_room = not self.throttle or self.counts[State.RUNNING] < self.throttle
        has_untouched = lane == self.lane and self.untouched > 0
        return has_room and not self.hold and (self.again_in(lane) > 0 or has_untouched)

    def credulous(self, key, members, trigger, **fields):
        progress = self.progress(key)
        first = progress.first
        try:
            progress.first = State.QUEUED
            return move_run(self, key, members, trigger, **fields)
        finally:
            progress.first = first

    patch.setattr(Progress, "is_startable", is_startable)
    patch.setattr(Step, "move_run", credulous)


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


def read_what_a_task_was_first(patch: pytest.MonkeyPatch) -> None:
    """Of the rows that were written last the store remembers the first version of each."""

    def wrote(self, changes):
        for key, record in changes.get(tables.TASK, {}).items():
            self._rows.setdefault(key, record)

    patch.setattr(Recent, "wrote", wrote)


def believe_an_old_word_of_silence(patch: pytest.MonkeyPatch) -> None:
    """What is said of an earlier session of a worker counts for the one that it has."""

    def worker_silent(step, command):
        live = step.live.workers.get(command.worker)
        if live is not None and live.session is not None:
            step.overlay.put(LIVE_SESSION, (command.worker,), replace(live.session, silent=command.on))

    patch.setitem(CHANGES, WorkerSilent, worker_silent)


def fill_one_worker_after_the_other(patch: pytest.MonkeyPatch) -> None:
    """Short tasks stand behind one another on the first worker, while the next one has nothing."""

    patch.setattr(fit, "_evenly", iter)


def forget_which_hold_came_last(patch: pytest.MonkeyPatch) -> None:
    """A hold or a release says nothing of which sweeps are older."""
    patch.setattr(verbs, "_hold", lambda acting, progress, *, on: setattr(progress, "hold", on))


def derive_a_lane_without_what_waits(patch: pytest.MonkeyPatch) -> None:
    """A lane whose row is lost comes back, but nobody knows of its ready jobs."""
    lost_lanes = lanes.lost_lanes

    def poor(view, live):
        return {number: replace(lane, ready=0) for number, lane in lost_lanes(view, live).items()}

    patch.setattr(lanes, "lost_lanes", poor)


def give_away_what_is_on_its_way(patch: pytest.MonkeyPatch) -> None:
    """When a worker lists what it holds once more, what was sent and is not acknowledged counts as not there."""

    def renumber(self, widths):
        self._is_asked_again, self.session = False, self._number()

    patch.setattr(WorkerPeer, "_renumber", renumber)


def free_an_input_that_others_use(patch: pytest.MonkeyPatch) -> None:
    """An input goes with the first of its jobs that is forgotten."""
    patch.setattr(idempotency, "_is_used_elsewhere", lambda step, blob, number: False)


def end_trouble_by_what_ran_before(patch: pytest.MonkeyPatch) -> None:
    """A worker that could not start something rests no more once anything else of it has run."""
    note_success = report.note_success
    patch.setattr(report, "note_success", lambda step, worker, _leases: note_success(step, worker, (1 << 62,)))


def forget_the_widths_of_chains(patch: pytest.MonkeyPatch) -> None:
    """A worker that comes back to a new server has one slot reserved for each lane, however many it runs."""
    patch.setattr(join, "_restore_widths", lambda *_: None)


def believe_an_older_list_of_a_drain(patch: pytest.MonkeyPatch) -> None:
    """What was asked of a worker that was cut off is forgotten when it comes back and has not heard of it."""
    patch.setattr(join, "_drains", lambda step, command, before: (command.draining, -1))


def keep_results_without_their_names(patch: pytest.MonkeyPatch) -> None:
    """What a worker keeps on its disk is gone after a power cut: nobody has made its name durable."""
    patch.setattr(spool, "files", SimpleNamespace(**{**vars(spool.files), "sync_directory": lambda path: None}))


def ask_nothing_back_of_who_comes_back(patch: pytest.MonkeyPatch) -> None:
    """What may not start any more starts, if its worker was away when that was said."""
    patch.setattr(join, "_is_stopped", lambda step, key, running: False)


def take_any_piece_of_an_input(patch: pytest.MonkeyPatch) -> None:
    """An input is made of whatever pieces come, also of those that were asked for before."""

    def take_blob(self, message):
        pieces = self.inputs.get(message.blob)
        if pieces is not None and message.data:
            pieces.append(message.data)
            self._say(GetBlob(message.blob, message.piece + 1))
        elif pieces is not None:
            del self.inputs[message.blob]
            self.carry_out(self.slots.fetched(message.blob, b"".join(pieces)))

    patch.setattr(Interpreter, "take_blob", take_blob)


def bring_back_what_was_cancelled_after_the_retry(patch: pytest.MonkeyPatch) -> None:
    """A retry that is still on its way to a task queues it again, though it was cancelled meanwhile."""
    is_overtaken = sweeps.is_overtaken

    def forget(acting, progress):
        return not isinstance(acting.command, Retry) and is_overtaken(acting, progress)

    patch.setattr(sweeps, "is_overtaken", forget)


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
    read_what_a_task_was_first,
    believe_an_old_word_of_silence,
    fill_one_worker_after_the_other,
    forget_which_hold_came_last,
    derive_a_lane_without_what_waits,
    give_away_what_is_on_its_way,
    free_an_input_that_others_use,
    end_trouble_by_what_ran_before,
    forget_the_widths_of_chains,
    believe_an_older_list_of_a_drain,
    keep_results_without_their_names,
    ask_nothing_back_of_who_comes_back,
    take_any_piece_of_an_input,
    bring_back_what_was_cancelled_after_the_retry,
)
