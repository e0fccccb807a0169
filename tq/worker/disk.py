"""The child that takes results and handbacks to the spool and away again, in the order in which that was decided.

Runs in a thread, since each write waits for the disk. A disk that fails costs the safety net, not the worker: the
results are in memory too, and the failure is said.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import trio

from tq.net.log import log
from tq.worker import instructions as i
from tq.worker.hands import Hands, ToDisk
from tq.worker.spool import Spool


async def run_disk(hands: Hands, spool: Spool) -> None:
    """Carry out what is queued for the disk, for ever."""
    while True:
        await hands.disk_work.wait()
        hands.disk_work = trio.Event()
        with trio.CancelScope(shield=True):  # what has been taken must not be dropped at the worker's end
            await trio.to_thread.run_sync(write_down, spool, _take(hands))


def finish(hands: Hands, spool: Spool) -> None:
    """Carry out what is left, at the worker's end."""
    write_down(spool, _take(hands))


def write_down(spool: Spool, work: Sequence[tuple[int, ToDisk]]) -> None:
    """Carry out instructions, each with the lineage that it is about; one that fails costs itself alone. Blocks."""
    for (lineage, kind), group in groupby(work, key=lambda item: (item[0], type(item[1]))):
        if kind is i.Keep:
            with _saying_failure(spool):
                spool.keep(lineage, [one for _, one in group if isinstance(one, i.Keep)])
        else:
            for _, one in group:
                with _saying_failure(spool):
                    _write_one(spool, lineage, one)


@contextmanager
def _saying_failure(spool: Spool) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log("spool_failed", level="error", error=error.strerror, path=spool.path)


def _write_one(spool: Spool, lineage: int, instruction: ToDisk) -> None:
    if isinstance(instruction, i.Forget):
        spool.forget(instruction.delivery)
    elif isinstance(instruction, i.Aside):
        path = spool.orphan(lineage, instruction)
        log("results_orphaned", level="warning", lineage=f"{lineage:016x}", results=len(instruction.ends), path=path)


def _take(hands: Hands) -> list[tuple[int, ToDisk]]:
    work, hands.to_disk = hands.to_disk, []
    return work
