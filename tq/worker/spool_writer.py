"""The child that takes results and handbacks to the spool and away again, in the order in which that was decided.

Also who speaks to the server from here (state_dir.py), before any result of theirs. Runs in a thread, since each write
waits for the disk. A disk that fails costs the safety net, not the worker: the results are in memory too, the failure
is said, and what could not be written is tried again.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from math import inf
from typing import Final

import trio

from tq.net.log import log
from tq.net.thread import in_thread
from tq.worker import instructions as i
from tq.worker.interpreter import Interpreter, ToDisk
from tq.worker.spool import Spool
from tq.worker.state_dir import StateDirectory

_AGAIN_S: Final = 10.0


async def run_disk(interpreter: Interpreter, spool: Spool, home: StateDirectory) -> None:
    """Carry out what is queued for the disk, for ever."""
    while True:
        with trio.move_on_after(_AGAIN_S if spool.behind or home.is_behind else inf) as patience:
            await interpreter.disk_work.wait()
        interpreter.disk_work = trio.Event()
        with trio.CancelScope(shield=True):  # what has been taken must not be dropped at the worker's end
            await in_thread(_write_all, _take(interpreter), spool, home, patience.cancelled_caught)


def finish(interpreter: Interpreter, spool: Spool, home: StateDirectory) -> None:
    """Carry out what is left, at the worker's end: what finds no room now is lost, and its tasks run again."""
    _write_all(_take(interpreter), spool, home, is_due=True)
    if spool.behind:
        log("results_lost", level="error", results=spool.behind, path=spool.path.resolve())


def _take(interpreter: Interpreter) -> list[tuple[int, ToDisk]]:
    work, interpreter.to_disk = interpreter.to_disk, []
    return work


def _write_all(work: Sequence[tuple[int, ToDisk]], spool: Spool, home: StateDirectory, is_due: bool) -> None:
    try:
        home.catch_up()
    except OSError as error:  # until there is room, the next worker has no predecessor to name
        if not is_due:
            log("cannot_remember", level="warning", error=error.strerror, path=home.path)
    write_down(spool, work)
    if is_due and spool.behind:
        with suppress(OSError):  # said when it failed first
            log("spool_caught_up", results=spool.catch_up())


def write_down(spool: Spool, work: Sequence[tuple[int, ToDisk]]) -> None:
    """Carry out instructions, each with the lineage that it is about; one that fails costs itself alone. Blocks."""
    failures: Counter[str] = Counter()
    for (lineage, kind), group in groupby(work, key=lambda item: (item[0], type(item[1]))):
        if kind is i.Keep:
            with _counting(failures):
                spool.keep(lineage, [one for _, one in group if isinstance(one, i.Keep)])
        else:
            for _, one in group:
                with _counting(failures):
                    _write_one(spool, lineage, one)
    for error, times in failures.items():  # not one line for each of thousands
        log("spool_failed", level="error", error=error, times=times, path=spool.path.resolve())


@contextmanager
def _counting(failures: Counter[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        failures[str(error.strerror)] += 1


def _write_one(spool: Spool, lineage: int, instruction: ToDisk) -> None:
    if isinstance(instruction, i.Forget):
        spool.forget(instruction.delivery)
    elif isinstance(instruction, i.Aside):
        path = spool.orphan(lineage, instruction)
        log(
            "results_orphaned",
            level="warning",
            lineage=f"{lineage:016x}",
            results=len(instruction.ends),
            path=path.resolve(),
        )
