"""Drives the commit loop: the thread that flushes, and the trio loop that steps the pipeline.

The thread does nothing but `store.flush`: everything else of a turn runs on the loop's thread (writes hold the GIL
wherever they run, and a flush takes no lock of Python). It is joined before the store is closed, whatever happens.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue

import trio

from tq import errors
from tq.core.vocabulary import Recovered
from tq.server.commit_loop import Pipeline, Point
from tq.store.seam import Store

JOIN_S = 8.0


class Committer:
    """One thread that flushes what it is asked for, in order. `flushed` and `fail` are called on the trio thread."""

    def __init__(self, store: Store, flushed: Callable[[int], None], fail: Callable[[errors.StoreError], None]) -> None:
        self._store = store
        self._flushed = flushed
        self._fail = fail
        self._queue: SimpleQueue[int | None] = SimpleQueue()
        self._token: trio.lowlevel.TrioToken | None = None
        # A daemon, so that a flush which never returns (a dead disk) cannot keep a failed server from exiting.
        self._thread = threading.Thread(target=self._run, name="tq-committer", daemon=True)

    def start(self) -> None:
        """Start the thread. Called on the trio thread."""
        self._token = trio.lowlevel.current_trio_token()
        self._thread.start()

    def flush(self, sequence: int) -> None:
        """Ask for everything up to this sequence to be made durable."""
        self._queue.put(sequence)

    def close(self) -> bool:
        """End the thread after the flush under way; return whether it has ended."""
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(JOIN_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (sequence := self._queue.get()) is not None:
            try:
                self._store.flush(sequence)
            except errors.StoreError as error:
                self._tell(self._fail, error)
                return
            except Exception as error:  # noqa: BLE001 - whatever it was, durability is not known any more
                self._tell(self._fail, errors.StoreError(f"the flush failed: {error!r}"))
                return
            self._tell(self._flushed, sequence)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        if self._token is None:
            raise RuntimeError("not started")
        try:
            self._token.run_sync_soon(what, *arguments)
        except trio.RunFinishedError:
            return  # the loop has ended without waiting: nobody is left who could acknowledge anything


async def run_pipeline(pipeline: Pipeline, lineage: int, on_recovered: Callable[[Recovered], None]) -> None:
    """Step the pipeline until it ends; wait where it waits.

    Resource handling: none; the committer's thread belongs to the caller.
    Error handling: raises StoreError when the disk failed (everything pending has been answered `unknown` by then),
    and whatever Recover, Tick, Dispatch or the fold raised: both end the server.
    """
    woken = trio.Event()

    def wake() -> None:
        woken.set()

    pipeline.on_wake = wake
    has_waited = True
    for point in pipeline.steps(lineage, on_recovered):
        if point is Point.FLUSHING:
            await woken.wait()
            woken, has_waited = trio.Event(), True
        elif point is Point.IDLE:
            idle_ms = pipeline.idle_ms()
            with trio.move_on_after(float("inf") if idle_ms is None else idle_ms / 1_000):
                await woken.wait()
            woken, has_waited = trio.Event(), True
        elif point is Point.RELEASED and not has_waited:
            # Turns that write nothing never wait for a flush: let the peers run between them.
            await trio.lowlevel.checkpoint()
        elif point is Point.RELEASED:
            has_waited = False
