"""Which large inputs a worker may read: those of attempts that it was given, in this session or before it."""

from typing import Final

from tq.core.engine.engine import Engine
from tq.core.model import tables
from tq.errors import StoreDamaged
from tq.store.seam import Store

blobs_max: Final = 10_000


class Inputs:
    """The inputs of one worker's attempts."""

    def __init__(self, engine: Engine, store: Store, worker: int) -> None:
        self._engine = engine
        self._store = store
        self._worker = worker
        self._given: set[int] = set()

    def give(self, blob: int) -> None:
        """Note that an attempt with this input was sent in this session."""
        if len(self._given) >= blobs_max:
            self._given.clear()  # those of what it holds are found again
        self._given.add(blob)

    def may_read(self, blob: int) -> bool:
        """Whether an attempt with this input was sent in this session, or the worker brought one with it."""
        if blob not in self._given:
            live = self._engine.live.workers.get(self._worker)
            jobs = {task[:2] for task in live.held} if live is not None else set()
            records = (self._store.get(tables.JOB, key) for key in jobs)
            if not any(record is not None and record.stdin == blob for record in records):
                return False
            self.give(blob)
        return True

    def piece(self, blob: int, piece: int) -> bytes:
        """Return a piece of an input, an empty one behind the last. Raises StoreDamaged, also for one that is lost and
        has others behind it, as after a salvage: the task would take what is before it for all of its input.
        """
        data = self._store.get(tables.BODY, (blob, piece))
        if data is None and (not piece or self._store.scan(tables.BODY, (blob, piece + 1), (blob + 1,), 1)):
            raise StoreDamaged(f"piece {piece} of input {blob} is lost", hint="submit it again, with its input")
        return data or b""
