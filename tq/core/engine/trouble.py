"""Trouble of a worker's own: it could not start what it was given, and nobody else is to pay for that.

What it hands back goes into the queue uncharged, and the worker rests: a second, then twice as long for each trouble in
a row, up to a minute; then it gets one attempt as a try. So a task never goes straight back to the worker that could
not start it, and others get it at once (docs/adr/0014). Soft state only (`LIVE_TROUBLE`): a restart of the server, or
of the worker, tries again from the beginning.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from tq.core.engine.step import Step
from tq.core.live import LIVE_TROUBLE, LiveWorker, Trouble


def note_trouble(step: Step, worker: int, leases: Iterable[int]) -> None:
    """Let a worker rest that could not start these. Those leased before its last trouble belong to that one."""
    before = step.live.workers[worker].trouble
    if before is not None and all(lease <= before.sequence for lease in leases):
        return
    trouble = Trouble(before.count + 1 if before else 1, 0, step.sequence)
    _put(step, worker, trouble)
    step.count("worker_troubles")


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
