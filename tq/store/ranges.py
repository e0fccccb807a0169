"""What goes with a forgotten job, as ranges of keys: its members' records, its output, its blobs. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from tq.core.model.job import Forgotten
from tq.core.model.tables import BODY, ENTRIES, ENTRY_AT, RESULT, TASK
from tq.core.model.view import Key, Table
from tq.store.keys import KEYS, OUTPUT

job_tables: Final[tuple[Table[Any], ...]] = (TASK, RESULT)
blob_tables: Final[tuple[Table[Any], ...]] = (BODY, ENTRIES, ENTRY_AT)


class Range(NamedTuple):
    """All keys of `table` (None = of the output) in [low, high)."""

    table: Table[Any] | None
    family: str
    low: bytes
    high: bytes


def ranges(forgotten: Iterable[tuple[Key, Forgotten]]) -> Iterator[Range]:
    """Yield what to delete for the rows of FORGOTTEN."""
    for (job,), what in forgotten:
        for table in job_tables:
            keys = KEYS[table]
            yield Range(table, keys.family, keys.bound((job,)), keys.bound((job + 1,)))
        yield Range(None, OUTPUT.family, OUTPUT.bound((job,)), OUTPUT.bound((job + 1,)))
        for blob in what.blobs:
            for table in blob_tables:
                keys = KEYS[table]
                yield Range(table, keys.family, keys.bound((blob,)), keys.bound((blob + 1,)))
