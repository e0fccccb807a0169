"""Trouble of a worker's own: it could not start what it was given, and nobody else is to pay for that.

What it hands back goes into the queue uncharged, and the worker rests: a second, then twice as long for each trouble in
a row, up to a minute; then it gets one attempt as a try, of something else if there is anything: what it cannot start
must not keep all else from it. So a task never goes straight back to the worker that could not start it, and others get
it at once (docs/adr/0014). Soft state only (`LIVE_TROUBLE`): a restart of the server, or
of the worker, tries again from the beginning.
"""

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from tq.core.change.step import Step
from tq.core.model import tables
from tq.core.model.view import Key
from tq.core.placement.live import LIVE_TROUBLE, LiveWorker, Trouble
from tq.core.vocabulary import Handback
from tq.limits import trouble_chars_max, troubles_failed_max


def note_trouble(step: Step, command: Handback) -> None:
    """Let a worker rest that could not start these. Those leased before its last trouble belong to that one."""
    worker, attempts = command.worker, command.attempts
    live = step.live.workers[worker]
    before = live.trouble
    failed = {(live.held[ref.task], ref.job, ref.part): None for ref in attempts if ref.task in live.held}
    if before is not None:
        failed = {**{key: None for key in before.failed if key not in failed}, **failed}
        if all(ref.lease <= before.sequence for ref in attempts):
            step.overlay.put(LIVE_TROUBLE, (worker,), replace(before, failed=_latest(failed)))
            return
    error = command.error[:trouble_chars_max]
    _put(step, worker, Trouble(before.count + 1 if before else 1, 0, step.sequence, _latest(failed), error))
    step.count("worker_troubles")


def passed_over(step: Step, worker: LiveWorker) -> Iterator[set[Key]]:
    """Yield the lanes, then the rows of READY, that a worker after trouble leaves alone if there is anything else.

    What is there in no other lane may be there in another job.
    """
    failed = worker.trouble.failed if worker.trouble is not None else ()
    yield {key[:1] for key in failed}
    rows = set[Key]()
    for _, *job in failed:
        progress = step.overlay.get(tables.PROGRESS, tuple(job))
        if progress is not None:
            rows.update((lane, progress.rank, *job) for lane in progress.lanes if progress.is_ready_in(lane))
    yield rows


def note_try(step: Step, worker: LiveWorker) -> None:
    """A worker after trouble was given an attempt: nothing more until that one, or as long a rest again, says more."""
    if worker.trouble is not None:
        _put(step, worker.worker, worker.trouble)


def note_success(step: Step, worker: int, leases: Iterable[int]) -> None:
    """Attempts with these leases have run: if one was leased after the worker's last trouble, that is over."""
    trouble = step.live.workers[worker].trouble
    if trouble is not None and any(lease > trouble.sequence for lease in leases):
        step.overlay.delete(LIVE_TROUBLE, (worker,))


def _put(step: Step, worker: int, trouble: Trouble) -> None:
    until_ms = step.times.steady_ms + trouble.pause_ms
    step.overlay.put(LIVE_TROUBLE, (worker,), replace(trouble, until_ms=until_ms))


def _latest(failed: Iterable[Key]) -> tuple[Key, ...]:
    return tuple(failed)[-troubles_failed_max:]
