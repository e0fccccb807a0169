"""A store on a real disk for the simulator: slow, so for few seeds, but with the real log, turn keys and watermark.

A crash leaves the files as a killed process does; what was not flushed is lost, all or nothing. Every restart checks
that no turn is missing.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.support.store import killed_store
from tq.core.model.view import Changes
from tq.store.seam import OutputSlot


class Disk:
    """The store in a data directory, with what the simulator asks of MemoryStore besides."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._open = ExitStack()
        self._store = self._open.enter_context(killed_store(data))
        self.get = self._store.get
        self.scan = self._store.scan
        self.flush = self._store.flush

    @property
    def sequence(self) -> int:
        """The last turn written."""
        return self._store.sequence

    @property
    def flushed(self) -> int:
        """The last turn that is durable."""
        return self._store.flushed

    @property
    def unflushed(self) -> int:
        """How many turns a crash could lose."""
        return self.sequence - self.flushed

    def write(self, changes: Changes, *, sequence: int, epoch: int, wall_ms: int) -> None:
        """Write one turn's changes."""
        self._store.write(changes, sequence=sequence, epoch=epoch, wall_ms=wall_ms)

    def put_output(self, task: tuple[int, int, int], attempt: int, stream: int, offset: int, data: bytes) -> None:
        """Write one slot's contents."""
        self._store.put_output(task, attempt, stream, offset, data)

    def output(
        self, task: tuple[int, int, int], attempt: int, only: tuple[int, int] | None = None
    ) -> Sequence[OutputSlot]:
        """Return the stored slots of an attempt."""
        return self._store.output(task, attempt, only)

    def fail(self, reason: str) -> None:
        """Fail every later write and flush."""
        self._store._failure = reason

    def crash(self, surviving: int = 0) -> "Disk":
        """Return the store as a restart finds it. With `surviving` turns the log had just reached the disk."""
        if surviving:
            self._store._db.sync_log()
        self.close()
        return Disk(self._data)

    def close(self) -> None:
        """Let go of the directory, as a killed process does."""
        self._open.close()
