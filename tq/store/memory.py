"""A store in memory, for tests and the simulator: the same keys and records as on disk, in sorted dicts.

Keys and records are packed and encoded as in RocksDB, so that what a test reads is what a server would read, and no
two readers ever share a record. `crash()` loses what was not flushed, and keeps as much of it as the caller says: a
write-ahead log survives as a prefix. It does no I/O and knows no clock.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from tq.core.model.tables import FORGOTTEN, TABLES
from tq.core.model.view import Changes, Key, Table
from tq.errors import StoreError
from tq.store.keys import KEYS
from tq.store.output import pack_slot, slot_bounds, unpack_slots
from tq.store.ranges import ranges
from tq.store.records import RECORDS
from tq.store.seam import OutputSlot

R = TypeVar("R")

# Below so many new keys, inserting one by one is cheaper than sorting all.
_FEW: Final = 16


class _Rows:
    """One table: a dict, and its keys in order as of the last scan; `fresh` are those that came since."""

    __slots__ = ("data", "fresh", "keys")

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []
        self.fresh: set[bytes] = set()

    def set(self, key: bytes, value: bytes | None) -> bytes | None:
        """Set or (None) remove; return what was there."""
        before = self.data.get(key)
        if value is not None:
            self.data[key] = value
            if before is None:
                self.fresh.add(key)
        elif before is not None:
            del self.data[key]
            if key in self.fresh:
                self.fresh.remove(key)
            else:
                del self.keys[bisect_left(self.keys, key)]
        return before

    def page(self, low: bytes, high: bytes, limit: int) -> list[bytes]:
        """Return the first `limit` keys in [low, high)."""
        keys, fresh = self.keys, self.fresh
        if fresh:
            if len(fresh) < _FEW:
                for key in fresh:
                    insort(keys, key)
            else:
                keys += fresh
                keys.sort()
            fresh.clear()
        start = bisect_left(keys, low)
        return keys[start : min(bisect_left(keys, high, start), start + limit)]


_Undo = list[tuple[_Rows, bytes, bytes | None]]


class MemoryStore:
    """Implements `tq.store.seam.Store`. `sequence` is the last turn written, `flushed` the last made durable."""

    def __init__(self) -> None:
        self.sequence = 0
        self.flushed = 0
        self._tables: dict[Table[Any], _Rows] = {table: _Rows() for table in TABLES}
        self._output = _Rows()
        # What was written since the last flush, oldest first: the sequence after it, and how to take it back.
        self._unflushed: list[tuple[int, _Undo]] = []
        self._failure = ""

    def get(self, table: Table[R], key: Key) -> R | None:
        """Return the record at `key`, or None."""
        raw = self._tables[table].data.get(KEYS[table].pack(*key))
        if raw is None:
            return None
        record: R = RECORDS[table].decode(raw)
        return record

    def scan(self, table: Table[R], low: Key, high: Key, limit: int) -> Sequence[tuple[Key, R]]:
        """Return at most `limit` rows with low <= key < high, in key order. A key may be a prefix."""
        codec, rows = KEYS[table], self._tables[table]
        unpack, decode, data = codec.unpack, RECORDS[table].decode, rows.data
        return [(unpack(key), decode(data[key])) for key in rows.page(codec.bound(low), codec.bound(high), limit)]

    def write(self, changes: Changes, *, sequence: int, epoch: int, wall_ms: int) -> None:
        """Write one turn's changes. `sequence` must follow on the last one."""
        self._check_usable()
        if sequence != self.sequence + 1:
            raise ValueError(f"turn {sequence} does not follow on turn {self.sequence}")
        del epoch, wall_ms
        undo: _Undo = []
        for table, changed in changes.items():
            if table is FORGOTTEN:
                continue
            rows, pack, encode = self._tables[table], KEYS[table].pack, RECORDS[table].encode
            for key, record in changed.items():
                packed = pack(*key)
                undo.append((rows, packed, rows.set(packed, None if record is None else encode(record))))
        for gone in ranges(changes.get(FORGOTTEN, {}).items()):
            rows = self._output if gone.table is None else self._tables[gone.table]
            undo.extend((rows, key, rows.set(key, None)) for key in rows.page(gone.low, gone.high, len(rows.data)))
        self.sequence = sequence
        self._unflushed.append((sequence, undo))

    def flush(self, sequence: int) -> None:
        """Make everything written so far durable."""
        self._check_usable()
        if sequence > self.sequence:
            raise ValueError(f"turn {sequence} is not written yet")
        self._unflushed.clear()
        self.flushed = self.sequence

    def put_output(self, task: tuple[int, int, int], attempt: int, stream: int, offset: int, data: bytes) -> None:
        """Write one slot's contents. Durable with the next flush."""
        self._check_usable()
        key, value = pack_slot(task, attempt, stream, offset, data)
        self._unflushed.append((self.sequence, [(self._output, key, self._output.set(key, value))]))

    def output(
        self, task: tuple[int, int, int], attempt: int, only: tuple[int, int] | None = None
    ) -> Sequence[OutputSlot]:
        """Return the stored slots of an attempt, ordered by stream and offset."""
        data = self._output.data
        keys = self._output.page(*slot_bounds(task, attempt, only), len(data))
        return unpack_slots(((key, data[key]) for key in keys), only)

    def statistics(self) -> dict[str, Any]:
        """Return the number of rows of each table."""
        counts = {table.name: len(rows.data) for table, rows in self._tables.items() if rows.data}
        return {"kind": "memory", "sequence": self.sequence, "flushed": self.flushed, "rows": counts}

    def close(self) -> None:
        """Nothing can be written any more; what was not flushed stays readable."""
        self.fail("the store is closed")

    # ---------------------------------------------------------------- for tests and the simulator

    @property
    def unflushed(self) -> int:
        """How many writes (turns and puts of output) a crash could lose: the bound of `crash`'s argument."""
        return len(self._unflushed)

    def crash(self, surviving: int = 0) -> "MemoryStore":
        """Return the store as a restart finds it: what was flushed, and the first `surviving` writes after that.

        The store itself is of no use any more (its rows go to the new one): it fails every later write.
        """
        kept, lost = self._unflushed[:surviving], self._unflushed[surviving:]
        for _, undo in reversed(lost):
            for rows, key, before in reversed(undo):
                rows.set(key, before)
        after = MemoryStore()
        after._tables, after._output = self._tables, self._output
        after.sequence = after.flushed = kept[-1][0] if kept else self.flushed
        self.fail("the store crashed")
        return after

    def fail(self, reason: str) -> None:
        """Fail every later write and flush, as a disk does after its first error."""
        self._failure = reason

    def _check_usable(self) -> None:
        if self._failure:
            raise StoreError(self._failure)
