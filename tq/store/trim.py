"""When turn keys go: after all memtables were flushed, those before the flush prove nothing any more.

Hourly, at a full log, and after so many turns that reading their keys would slow down a start. The flush runs in a
thread of its own, since it takes longer than anybody waits for an answer; the next turn then deletes the keys.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tq.limits import wal_bytes_max

_TURNS: Final = 100_000
_EVERY_S: Final = 3_600.0


class Trimmer:
    """Says up to which turn the keys may be deleted. `flush` flushes all memtables and must not raise but return False.

    `wrote` and `take` belong to the thread that writes, `flushed` to the one that flushes the log.
    """

    def __init__(self, flush: Callable[[], bool], trimmed: int) -> None:
        self._flush = flush
        self._thread: threading.Thread | None = None
        self._ready = 0
        self._bytes = 0
        self._turn = trimmed
        self._at_s = time.monotonic()

    def wrote(self, size_bytes: int) -> None:
        """Note that so much went into the log."""
        self._bytes += size_bytes

    def flushed(self, sequence: int) -> None:
        """Begin to flush the memtables if it is time. Every turn up to `sequence` is written."""
        if not self._is_busy() and self._is_due(sequence):
            # A daemon like the committer's: a disk that never answers must not keep a failed server from exiting.
            thread = threading.Thread(target=self._run, args=(sequence,), name="tq-trim", daemon=True)
            with suppress(RuntimeError):  # too many processes here: the next turn asks again
                thread.start()
                self._thread = thread

    def take(self) -> int:
        """Return the turn up to which keys are to be deleted now, 0 for none; once."""
        turn, self._ready = self._ready, 0
        return turn

    def join(self) -> None:
        """Wait for a flush that is under way."""
        if self._thread is not None:
            self._thread.join()

    def _is_busy(self) -> bool:
        return self._ready > 0 or (self._thread is not None and self._thread.is_alive())

    def _is_due(self, sequence: int) -> bool:
        return (
            sequence - self._turn >= _TURNS
            or self._bytes >= wal_bytes_max
            or (sequence > self._turn and time.monotonic() - self._at_s >= _EVERY_S)
        )

    def _run(self, sequence: int) -> None:
        self._bytes, self._turn, self._at_s = 0, sequence, time.monotonic()
        if self._flush():
            self._ready = sequence
