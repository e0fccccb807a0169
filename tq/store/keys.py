"""Keys on disk: tuples packed into bytes that sort as the tuples do, and where each table lives.

A key is the table's tag byte, then its fields as fixed-width big-endian unsigned integers, and a string only in the
last place (so that it needs no escaping). One packer is generated for each table: a generic loop costs 0.5 us a key
more (measured). Tags and widths are the format of the disk (docs/store-format.md): a number in `LAYOUT` is never
changed nor used again. This file never opens anything; it knows no database.
"""

from collections.abc import Callable
from functools import partial
from struct import Struct, error
from typing import Any, Final

from tq.core.model.tables import TABLES
from tq.core.model.view import Key, Table

FAMILIES: Final = ("state", "tasks", "bodies", "queues", "output")

# Keys that are in every family (turns.py). They sort before all tables.
TURN_TAG: Final = 0
TRIMMED_TAG: Final = 1

# The one key format without a table: output comes by the second door (output.py).
OUTPUT_TAG: Final = 40

# Table: its tag and its column family, chosen by how long its rows live (docs/store-format.md).
LAYOUT: Final[dict[str, tuple[int, str]]] = {
    "meta": (16, "state"),
    "job": (17, "bodies"),
    "progress": (18, "state"),
    "task": (19, "tasks"),
    "running": (20, "queues"),
    "again": (21, "queues"),
    "ready": (22, "queues"),
    "lane": (23, "state"),
    "lane_name": (24, "state"),
    "timer": (25, "queues"),
    "key": (26, "state"),
    "dead": (27, "state"),
    "ended": (28, "state"),
    "upload": (29, "state"),
    "body": (30, "bodies"),
    "sweep": (31, "state"),
    "token": (32, "state"),
    "entries": (33, "bodies"),
    "entry_at": (34, "state"),
    "key_end": (35, "state"),
    "queue": (36, "state"),
    "blob_user": (37, "state"),
    "result": (38, "bodies"),
    "named": (39, "state"),
}

# Struct codes by field name: B 8, I 32, Q 64 bits. `name` is a string and has none.
WIDTHS: Final[dict[str, str]] = {
    "job": "Q",
    "part": "I",
    "member": "I",
    "worker": "Q",
    "lane": "I",
    "rank": "B",
    "since": "Q",
    "clock": "B",
    "due": "Q",
    "kind": "B",
    "time": "Q",
    "blob": "Q",
    "piece": "I",
    "first": "I",
    "sweep": "Q",
    "word": "Q",
    "back": "Q",
    "lease": "Q",
    "attempt": "I",
    "sequence": "Q",
    "stream": "B",
    "place": "B",
}
_BYTES: Final = {"B": 1, "I": 4, "Q": 8}
_STRING: Final = "name"


class KeyCodec:
    """Packs and unpacks the keys of one table.

    `pack(*key)` takes every field; `bound(key)` takes a prefix, or values past the width of their field, and gives the
    bytes that split the table's keys where the tuple would.
    """

    __slots__ = ("_codes", "_prefixes", "_string", "family", "high", "low", "pack", "tag", "unpack")

    def __init__(self, tag: int, family: str, fields: tuple[str, ...]) -> None:
        self.tag = tag
        self.family = family
        self.low = bytes((tag,))
        self.high = bytes((tag + 1,))
        self._string = fields[-1:] == (_STRING,)
        self._codes = "".join(WIDTHS[field] for field in fields if field != _STRING)
        self._prefixes = tuple(
            partial(Struct(">B" + self._codes[:count]).pack, tag) for count in range(len(self._codes) + 1)
        )
        self.pack: Callable[..., bytes] = self._prefixes[-1]
        self.unpack: Callable[[bytes], Key] = Struct(">x" + self._codes).unpack
        if self._string:
            self.pack, self.unpack = _string_packer(self._prefixes[-1], ">x" + self._codes)

    def bound(self, key: Key) -> bytes:
        """Return the bytes before which exactly the keys less than `key` sort. `key` may be any prefix."""
        integers = len(self._codes)
        try:
            if len(key) <= integers:
                return self._prefixes[len(key)](*key)
            if self._string and len(key) == integers + 1:
                return self.pack(*key)
        except error:
            return self._clamped(key)
        # Longer than a whole key: just behind that key, as (a, b, 0) is behind (a, b).
        whole = integers + self._string
        return self.bound(key[:whole]) + b"\0"

    def _clamped(self, key: Key) -> bytes:
        """Bound of a key of which some integer does not fit its field: before or behind all that do fit."""
        for place, (code, value) in enumerate(zip(self._codes, key, strict=False)):
            width = _BYTES[code]
            prefix = self._prefixes[place](*key[:place])
            if value < 0:
                return prefix
            if value >= 1 << (8 * width):
                # Behind every key with this prefix: all ones, and longer than any key of integers.
                return prefix + b"\xff" * (sum(_BYTES[rest] for rest in self._codes[place:]) + 1)
        raise TypeError(f"not a key: {key!r}")


def _string_packer(head: Callable[..., bytes], form: str) -> tuple[Callable[..., bytes], Callable[[bytes], Key]]:
    """Return packer and unpacker of a key whose last field is a string. UTF-8 sorts as code points do."""
    integers = Struct(form)
    size = integers.size
    if size == 1:
        tag = head()

        def pack_string(name: str) -> bytes:
            return tag + name.encode()

        def unpack_string(raw: bytes) -> Key:
            return (raw[1:].decode(),)

        return pack_string, unpack_string

    def pack(*key: Any) -> bytes:
        return head(*key[:-1]) + key[-1].encode()  # type: ignore[no-any-return]

    def unpack(raw: bytes) -> Key:
        return (*integers.unpack(raw[:size]), raw[size:].decode())

    return pack, unpack


def key_codec(table: Table[Any]) -> KeyCodec:
    """Return the codec of a table in `LAYOUT`, or raise KeyError: a new table needs a tag and a family there."""
    tag, family = LAYOUT[table.name]
    return KeyCodec(tag, family, table.fields)


KEYS: Final[dict[Table[Any], KeyCodec]] = {table: key_codec(table) for table in TABLES}

_TURN: Final = KeyCodec(TURN_TAG, "", ("sequence",))
turn_key: Final = _TURN.pack
turn_sequence: Final[Callable[[bytes], Key]] = _TURN.unpack
TRIMMED_KEY: Final = bytes((TRIMMED_TAG,))

OUTPUT: Final = KeyCodec(OUTPUT_TAG, "output", ("job", "part", "member", "attempt", "stream", "place"))
