"""Every row of a store, with bounded memory: what `tq store check` walks before it asks the core's invariants.

Reads only. What is wrong is told as text, one line each, at most `PROBLEMS_MAX`; a damaged block ends the walk of its
family only.
"""

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from tq import __version__
from tq.errors import StoreError
from tq.store.directory import written_by
from tq.store.disk import DiskStore
from tq.store.keys import FAMILIES, KEYS, OUTPUT, TRIMMED_TAG, TURN_TAG, KeyCodec
from tq.store.output import unpack_slots
from tq.store.records import RECORDS
from tq.store.rocks import Raw

PROBLEMS_MAX: Final = 100
_PAGE: Final = 1_000
_BY_TAG: Final[dict[int, tuple[str, KeyCodec, Callable[[bytes], object]]]] = {
    OUTPUT.tag: ("output", OUTPUT, bytes),
    **{codec.tag: (table.name, codec, RECORDS[table].decode) for table, codec in KEYS.items()},
}
_IN_ALL: Final = (TURN_TAG, TRIMMED_TAG)


class Checked(NamedTuple):
    """Rows by table name (output slots as `output`), and what is wrong, in words."""

    rows: dict[str, int]
    problems: list[str]


def check_bytes(store: DiskStore) -> Checked:
    """Read every key and record of every family, and check that each is what its table has there."""
    counts: Counter[str] = Counter()
    problems: list[str] = []
    for family in FAMILIES:
        try:
            for row in _raw_rows(store, family):
                name, problem = _check_row(family, row)
                counts[name] += 1
                if problem and len(problems) < PROBLEMS_MAX:
                    problems.append(problem)
        except StoreError as error:
            problems.append(f"family {family}: {error}")
    if counts["unknown"]:
        last = written_by(store.data) or "of another version"
        problems.append(f"this is tq {__version__}; the store was served last by tq {last}, which may know these keys")
    return Checked(dict(counts), problems)


def _raw_rows(store: DiskStore, family: str) -> Iterator[Raw]:
    low = b""
    while rows := store.raw_rows(family, low, _PAGE):
        yield from rows
        low = rows[-1][0] + b"\0"


def _check_row(family: str, row: Raw) -> tuple[str, str]:
    """Return the name of the row's table, and what is wrong with it ('' = nothing)."""
    key, value = row
    tag = key[0] if key else -1
    if tag in _IN_ALL:
        return "turn", ""
    if tag not in _BY_TAG:
        return "unknown", f"family {family}: the key {key.hex()} belongs to no table"
    name, codec, decode = _BY_TAG[tag]
    try:
        if codec.family != family:
            problem = f"stands in family {family} instead of {codec.family}"
        elif codec.pack(*codec.unpack(key)) != key:
            problem = "is not a key of this table"
        else:
            unpack_slots([row]) if codec is OUTPUT else decode(value)
            return name, ""
    except (ValueError, struct.error) as error:
        problem = str(error)
    return name, f"table {name}, key {key.hex()}: {problem}"
