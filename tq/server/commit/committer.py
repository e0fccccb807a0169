"""Drives the commit loop: the thread that flushes, and the trio loop that steps the pipeline.

The thread does nothing but `store.flush`: everything else of a turn runs on the loop's thread (writes hold the GIL
wherever they run, and a flush takes no lock of Python). It is joined before the store is closed, whatever happens.

A lone turn on a quick disk is flushed on the loop's thread instead: with nobody else to serve meanwhile, two changes of
threads and their wake-ups would cost more than the flush (docs/adr/0013-lone-turns-flush-in-place.md).
"""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

import trio

from tq import errors
from tq.core.vocabulary import Answer, Recover, Recovered
from tq.errors import TqError
from tq.server.commit.commit_loop import Pipeline, Point
from tq.server.commit.intake import Inlet, Request
from tq.store.seam import Store

JOIN_S = 8.0
quick_s: Final = 0.001  # a flush that is no reason to change threads
quick_runs_min: Final = 16  # so many quick flushes in a row make a quick disk, one slow one unmakes it


class Committer:
    """One thread that flushes what it is asked for, in order. `flushed` and `fail` are called on the trio thread."""

    def __init__(self, store: Store, flushed: Callable[[int], None], fail: Callable[[errors.StoreError], None]) -> None:
        self._store = store
        self._flushed = flushed
        self._fail = fail
        self._queue: SimpleQueue[int | None] = SimpleQueue()
        self._token: trio.lowlevel.TrioToken | None = None
        self._quick_runs = 0
        # A daemon, so that a flush which never returns (a dead disk) cannot keep a failed server from exiting.
        self._thread = threading.Thread(target=self._run, name="tq-committer", daemon=True)

    def start(self) -> None:
        """Start the thread. Called on the trio thread."""
        self._token = trio.lowlevel.current_trio_token()
        self._thread.start()

    def flush(self, sequence: int, *, is_lone: bool = False) -> bool:
        """Ask for everything up to this sequence to be made durable; return whether it is at once, and nobody is told.

        `is_lone`: nobody else waits for the loop.
        """
        if not (is_lone and self._quick_runs >= quick_runs_min):
            self._queue.put(sequence)
            return False
        failure = self._flush(sequence)
        if failure is not None:
            self._fail(failure)
        return failure is None

    def close(self) -> bool:
        """End the thread after the flush under way; return whether it has ended."""
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(JOIN_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (sequence := self._queue.get()) is not None:
            failure = self._flush(sequence)
            if failure is not None:
                self._tell(self._fail, failure)
                return
            self._tell(self._flushed, sequence)

    def _flush(self, sequence: int) -> errors.StoreError | None:
        """Flush, and note how quick the disk is. Return why it failed: then nothing is known to be durable any more."""
        began_s = time.perf_counter()
        try:
            self._store.flush(sequence)
        except errors.StoreError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it was, durability is not known any more
            return errors.StoreError(f"the flush failed: {error!r}")
        self._quick_runs = self._quick_runs + 1 if time.perf_counter() - began_s < quick_s else 0
        return None

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        if self._token is None:
            raise RuntimeError("not started")
        try:
            self._token.run_sync_soon(what, *arguments)
        except trio.RunFinishedError:
            return  # the loop has ended without waiting: nobody is left who could acknowledge anything


async def run_pipeline(pipeline: Pipeline, recover: Recover, on_recovered: Callable[[Recovered], None]) -> None:
    """Step the pipeline until it ends; wait where it waits.

    Resource handling: none; the committer's thread belongs to the caller.
    Error handling: raises StoreError when the disk failed (everything pending has been answered `unknown` by then),
    and what Recover or the fold raised, or what the engine cannot put off: both end the server.
    """
    woken = trio.Event()

    def wake() -> None:
        woken.set()

    pipeline.on_wake = wake
    has_waited = True
    steps = pipeline.steps(recover, on_recovered)
    point = next(steps, None)
    while point is not None:
        # One scope for many waits: entering one costs a tenth of a lone turn. Its deadline only comes nearer, and when
        # it comes too early, there is nothing due.
        with trio.CancelScope() as alarm:
            while point is not None:
                if point is Point.RELEASED and not has_waited:
                    # Turns that write nothing never wait for a flush: let the peers run between them.
                    await trio.lowlevel.checkpoint()
                elif point is Point.RELEASED:
                    has_waited = False
                elif point is Point.FLUSHING or point is Point.IDLE:
                    if not woken.is_set():  # else look again at once: woken by a reply, or a failure in place
                        if point is Point.IDLE:
                            due = _due(pipeline)
                            if due < alarm.deadline:  # noqa: PLR1730 - setting it costs a context manager of trio's
                                alarm.deadline = due
                        await woken.wait()
                        has_waited = True
                    woken = trio.Event()
                point = next(steps, None)
        if alarm.cancelled_caught and point is Point.IDLE:
            has_waited = True
            point = next(steps, None)


def _due(pipeline: Pipeline) -> float:
    """Return when Tick has something to do, on trio's clock."""
    idle_ms = pipeline.idle_ms()
    return float("inf") if idle_ms is None else trio.current_time() + idle_ms / 1_000


async def ask(inlet: Inlet, request: Request) -> Answer:
    """Put a request of the server's own; return its answer once all that it could have seen is on disk, or raise."""
    answers: list[Answer | TqError] = []
    got = trio.Event()

    def reply(answer: Answer | TqError) -> None:
        answers.append(answer)
        got.set()

    inlet.put([Request(request.command, request.submitter, reply)])
    await got.wait()
    if isinstance(answers[0], TqError):
        raise answers[0]
    return answers[0]
