"""What can be read of a damaged store: a view that passes over what it cannot, and remembers where that was.

For salvage alone. A damaged block ends an iterator, so the rows behind it are found by seeking ahead: doubling the
distance until a seek succeeds, then halving. Keys sort as numbers do, and one hole is one stretch of keys.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from tq.core.model.view import Key, Table
from tq.store.keys import FAMILIES, KEYS, OUTPUT, TRIMMED_KEY, turn_key, turn_sequence
from tq.store.records import RECORDS
from tq.store.rocks import Family, Raw, RocksError

R = TypeVar("R")

_PAGE: Final = 1_000
_KEY_BYTES: Final = 48  # beyond the longest key of integers; names are told apart by as many
_TOP: Final = b"\xff" * _KEY_BYTES
_BY_TAG: Final = {codec.tag: (table.name, codec) for table, codec in KEYS.items()} | {OUTPUT.tag: ("output", OUTPUT)}


class Hole(NamedTuple):
    """Keys that cannot be read: from `low` to before `high`. `behind` is the last one before them, if any."""

    family: str
    low: bytes
    high: bytes
    behind: bytes


class Lost(NamedTuple):
    """Turns that are missing in some families."""

    first: int
    last: int
    families: tuple[str, ...]


class DamagedStore:
    """A `View` of what is left of the families. `holes` and `garbled` (by table) grow while it is read."""

    def __init__(self, families: Mapping[str, Family]) -> None:
        self.holes: list[Hole] = []
        self.garbled: Counter[str] = Counter()
        self._families = families
        self._counted: set[bytes] = set()

    def get(self, table: Table[R], key: Key) -> R | None:
        """Return the record at `key`; None where there is none that can be read."""
        codec = KEYS[table]
        packed = codec.pack(*key)
        try:
            raw = self._families[codec.family].get(packed)
        except RocksError:
            self.rows(codec.family, packed, packed + b"\0", 1)  # notes the hole
            return None
        return None if raw is None else self._decode(table, packed, raw)

    def scan(self, table: Table[R], low: Key, high: Key, limit: int) -> Sequence[tuple[Key, R]]:
        """Return at most `limit` rows of those that can be read; none only where there are no more."""
        codec = KEYS[table]
        at, end = codec.bound(low), codec.bound(high)
        found: list[tuple[Key, R]] = []
        while not found and (rows := self.rows(codec.family, at, end, limit)):
            for key, raw in rows:
                record = self._decode(table, key, raw)
                if record is not None:
                    found.append((codec.unpack(key), record))
            at = rows[-1][0] + b"\0"
        return found

    def _decode(self, table: Table[R], key: bytes, raw: bytes) -> R | None:
        try:
            record: R = RECORDS[table].decode(raw)
        except ValueError:
            if key not in self._counted:  # read twice, counted once
                self._counted.add(key)
                self.garbled[table.name] += 1
            return None
        return record

    def all_rows(self, family: str, low: bytes, high: bytes) -> Iterator[Raw]:
        """Yield every row of [low, high) that can be read."""
        while rows := self.rows(family, low, high, _PAGE):
            yield from rows
            low = rows[-1][0] + b"\0"

    def rows(self, family: str, low: bytes, high: bytes, limit: int) -> list[Raw]:
        """Return the first `limit` rows of [low, high) that can be read."""
        found: list[Raw] = []
        while low < high and len(found) < limit:
            rows, error = self._families[family].scan_whole(low, high, limit - len(found))
            found += rows
            if error is None:
                break
            behind = rows[-1][0] if rows else b""
            low = self._beyond(family, behind + b"\0" if behind else low, behind)
        return found

    def _beyond(self, family: str, low: bytes, behind: bytes) -> bytes:
        """Return the first key at or behind `low`, in a hole, that can be read; note the hole."""
        for hole in self.holes:
            if hole.family == family and hole.low <= low < hole.high:
                return hole.high
        base = int.from_bytes(low[:_KEY_BYTES].ljust(_KEY_BYTES, b"\0"), "big")
        distance, most = 1, int.from_bytes(_TOP, "big") - base
        while distance < most and self._first_from(family, base + distance) is None:
            distance *= 2
        if distance >= most:
            high = _TOP
        else:
            near, far = distance // 2, distance  # no seek, a seek
            while far - near > 1:
                middle = (near + far) // 2
                near, far = (near, middle) if self._first_from(family, base + middle) is not None else (middle, far)
            high = self._first_from(family, base + far) or _TOP
        self.holes.append(Hole(family, low, high, behind))
        return high

    def _first_from(self, family: str, number: int) -> bytes | None:
        """Return the first key from a place on, the top where there is none; None where that cannot be read."""
        rows, error = self._families[family].scan_whole(number.to_bytes(_KEY_BYTES, "big"), _TOP, 1)
        if rows:
            return rows[0][0]
        return _TOP if error is None else None

    def is_blind(self, family: str) -> bool:
        """Whether nothing of a family can be found by seeking, as when one of its newest table files is unreadable."""
        self.rows(family, b"", _TOP, 1)
        return any((hole.family, hole.low, hole.high) == (family, b"", _TOP) for hole in self.holes)

    # ------------------------------------------------------------ turns

    def turns(self, watermark: int) -> tuple[int, list[Lost]]:
        """Return the last turn that there was, and those that are missing, as far as turn keys tell."""
        base = max(self._trimmed(family) for family in FAMILIES)  # all families were flushed up to there
        present = {family: list(self._runs(family, base)) for family in FAMILIES}
        last = max([watermark, base, *(run[1] for runs in present.values() for run in runs)])
        missing = {family: list(_gaps(runs, base, last)) for family, runs in present.items()}
        edges = sorted({edge for gaps in missing.values() for first, end in gaps for edge in (first, end + 1)})
        lost = []
        for first, after in itertools.pairwise(edges):
            families = tuple(name for name, gaps in missing.items() if any(a <= first <= b for a, b in gaps))
            if families:
                lost.append(Lost(first, after - 1, families))
        return last, lost

    def _trimmed(self, family: str) -> int:
        rows = self.rows(family, TRIMMED_KEY, TRIMMED_KEY + b"\0", 1)
        return int.from_bytes(rows[0][1], "big") if rows else 0

    def _runs(self, family: str, base: int) -> Iterator[tuple[int, int]]:
        """Yield the stretches (first, last) of turns that a family has, behind `base`."""
        first = last = 0
        for key, _ in self.all_rows(family, turn_key(base + 1), TRIMMED_KEY):
            sequence = turn_sequence(key)[0]
            if first and sequence == last + 1:
                last = sequence
                continue
            if first:
                yield first, last
            first = last = sequence
        if first:
            yield first, last


def _gaps(runs: list[tuple[int, int]], base: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield what lies between runs, from behind `base` up to `last`."""
    due = base + 1
    for first, end in runs:
        if first > due:
            yield due, first - 1
        due = end + 1
    if due <= last:
        yield due, last


def words(lost: Lost) -> str:
    """Return what is missing, as a sentence."""
    turns = f"commit {lost.first} is" if lost.first == lost.last else f"commits {lost.first} to {lost.last} are"
    return f"{turns} lost" + ("" if len(lost.families) == len(FAMILIES) else f" in {', '.join(lost.families)}")


def hole_words(hole: Hole) -> str:
    """Return what cannot be read, as a sentence."""
    begin = f"behind {_named(hole.behind)}" if hole.behind else "the beginning"
    end = "the end" if hole.high == _TOP else _named(hole.high)
    return f"family {hole.family} cannot be read from {begin} to {end}"


def _named(key: bytes) -> str:
    name, codec = _BY_TAG.get(key[0], ("", None)) if key else ("", None)
    if codec is None:
        return f"key {key.hex()}"
    try:
        return f"{name} {codec.unpack(key)}"
    except Exception:  # noqa: BLE001 - any bytes may stand there
        return f"{name} {key.hex()}"
