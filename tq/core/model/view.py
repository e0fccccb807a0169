"""How the core sees state: typed tables, a View to read them, an Overlay to change them.

The core never sees bytes or files. `View` has two methods; RocksDB and a sorted dict implement it (store/), and an
`Overlay` lays changes over any View, so that a command sees what the commands before it in the turn have changed,
and a refused command leaves nothing behind.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

R = TypeVar("R")
Key = tuple[Any, ...]  # unsigned integers, a string only in the last place
Row = tuple[Key, Any]


class Table(Generic[R]):
    """A named table: its record type and the names of its key fields.

    An index without a record has the type `bool` and the record `True`.
    """

    __slots__ = ("fields", "name", "record")

    def __init__(self, name: str, record: type[R], *fields: str) -> None:
        self.name = name
        self.record = record
        self.fields = fields

    def __repr__(self) -> str:
        return f"<Table {self.name}>"


class View(Protocol):
    """What the core may ask of a store."""

    def get(self, table: Table[R], key: Key) -> R | None:
        """Return the record at `key`, or None."""
        ...

    def scan(self, table: Table[R], low: Key, high: Key, limit: int) -> Sequence[tuple[Key, R]]:
        """Return at most `limit` rows with low <= key < high, in key order. A key may be a prefix."""
        ...


PAGE: Final = 1_000
BEHIND_NAMES: Final = "\U0010ffff" * 129  # sorts behind every name and key: those have at most 128 characters


def pages(view: View, table: Table[R]) -> Iterator[Sequence[tuple[Key, R]]]:
    """Yield all rows of a table in bounded pages. For starts and checks, never inside a turn."""
    is_text = table.fields == ("name",)
    low: Key = ("",) if is_text else (0,)
    high: Key = (BEHIND_NAMES,) if is_text else (1 << 63,)
    while rows := view.scan(table, low, high, PAGE):
        yield rows
        last = rows[-1][0]
        low = (*last[:-1], last[-1] + ("\0" if isinstance(last[-1], str) else 1))


Changes = dict[Table[Any], dict[Key, Any]]


class Overlay:
    """Changes laid over a View. `None` as a record means deleted. Sorted lazily, only where a scan asks."""

    __slots__ = ("_sorted", "below", "changes")

    def __init__(self, below: View) -> None:
        self.below = below
        self.changes: Changes = defaultdict(dict)
        self._sorted: dict[Table[Any], list[Key]] = {}

    def get(self, table: Table[R], key: Key) -> R | None:
        """Return the record at `key` as changed here, else as below."""
        mine = self.changes.get(table)
        if mine is not None and key in mine:
            record: R | None = mine[key]
            return record
        return self.below.get(table, key)

    def put(self, table: Table[R], key: Key, record: R) -> None:
        """Set the record at `key`."""
        self.changes[table][key] = record

    def delete(self, table: Table[Any], key: Key) -> None:
        """Remove the record at `key`, whether it exists or not."""
        self.changes[table][key] = None

    def scan(self, table: Table[R], low: Key, high: Key, limit: int) -> Sequence[tuple[Key, R]]:
        """Merge what is below with the changes here; at most `limit` rows in key order."""
        mine = self.changes.get(table)
        if not mine:
            return self.below.scan(table, low, high, limit)
        keys = self._keys(table, mine)
        start, stop = bisect_left(keys, low), bisect_left(keys, high)
        if start == stop:
            return self.below.scan(table, low, high, limit)
        ours = keys[start:stop]
        # Every key of ours may hide one row below, so ask for that many more.
        rows = {key: record for key, record in self.below.scan(table, low, high, limit + len(ours)) if key not in mine}
        rows.update((key, mine[key]) for key in ours if mine[key] is not None)
        return sorted(rows.items(), key=_by_key)[:limit]

    def merge(self, changes: Changes) -> None:
        """Take over the changes of a finished layer above."""
        for table, rows in changes.items():
            self.changes[table].update(rows)

    def take(self) -> Changes:
        """Return the changes; what is below is seen as it is again."""
        changes, self.changes = self.changes, defaultdict(dict)
        self._sorted.clear()
        return changes

    def _keys(self, table: Table[Any], mine: dict[Key, Any]) -> list[Key]:
        keys = self._sorted.get(table)
        if keys is None or len(keys) != len(mine):
            keys = self._sorted[table] = sorted(mine)
        return keys


def _by_key(row: tuple[Key, Any]) -> Key:
    return row[0]
