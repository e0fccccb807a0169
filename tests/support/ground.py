"""A store in memory that counts what scans pass over: deleted keys are slow to pass until they are compacted away."""

from typing import Any

from tq.core.model import tables
from tq.core.model.view import Changes, Key
from tq.store.memory import MemoryStore


class Ground(MemoryStore):
    """Counts the deleted rows of a table that scans pass over, and the others that they read.

    Of scans from a key with fewer fields than `fields_min` nothing is counted: so the invariants look at a table.
    """

    def __init__(self, table: Any = tables.AGAIN, fields_min: int = 2) -> None:
        super().__init__()
        self.table = table
        self.fields_min = fields_min
        self.deleted: set[Key] = set()
        self.passed = 0
        self.read = 0

    def write(self, changes: Changes, **more: Any) -> None:
        for key, record in changes.get(self.table, {}).items():
            if record is None:
                self.deleted.add(key)
            else:
                self.deleted.discard(key)
        super().write(changes, **more)

    def scan(self, table: Any, low: Key, high: Key, limit: int) -> Any:
        rows = super().scan(table, low, high, limit)
        if table is self.table and len(low) >= self.fields_min:
            end = rows[-1][0] if len(rows) == limit else high
            self.read += len(rows)
            self.passed += sum(low <= key < end for key in self.deleted)
        return rows
