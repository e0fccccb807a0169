"""Records on disk: msgpack, the format number in front.

A record is an array-like struct with `tag=1`, so its format number is the first item of the array. Fields are only
ever added at the end, with defaults, and need no new number; anything else makes a new class with the next tag, and
the old class moves into `OLDER` with the function that turns one into the other. So every store that a release ever
wrote can be read. An index without a record is an empty value; bytes are stored as they are.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from tq.core.model.tables import TABLES
from tq.core.model.view import Table
from tq.errors import StoreDamaged

Upgrade = Callable[[Any], Any]

# Record type: its earlier formats, each with the function that makes the next newer one of it.
OLDER: Final[dict[type[Any], tuple[tuple[type[Any], Upgrade], ...]]] = {}

_encoder: Final = msgspec.msgpack.Encoder()


class RecordCodec:
    """Encodes and decodes the records of one table: `encode(record) -> bytes`, `decode(bytes) -> record`."""

    __slots__ = ("decode", "encode")

    def __init__(self, record: type[Any], older: tuple[tuple[type[Any], Upgrade], ...] = ()) -> None:
        self.encode: Callable[[Any], bytes] = _encoder.encode
        self.decode: Callable[[bytes], Any]
        if record is bool:
            self.encode, self.decode = _encode_true, _decode_true
        elif record is bytes:
            self.encode, self.decode = _same, _same
        elif older:
            self.decode = _reader(record, older)
        else:
            self.decode = msgspec.msgpack.Decoder(record).decode


def _encode_true(_record: bool) -> bytes:
    return b""


def _decode_true(_raw: bytes) -> bool:
    return True


def _same(raw: bytes) -> bytes:
    return raw


def _reader(record: type[Any], older: tuple[tuple[type[Any], Upgrade], ...]) -> Callable[[bytes], Any]:
    """Return a decoder that reads the newest format, and older ones through their upgrades."""
    kinds: Any = record
    for kind, _ in older:
        kinds = kinds | kind
    decode = msgspec.msgpack.Decoder(kinds).decode
    upgrades = dict(older)

    def read(raw: bytes) -> Any:
        found = decode(raw)
        while type(found) is not record:
            found = upgrades[type(found)](found)
        return found

    return read


def damaged_record(table: Table[Any], key: Any, error: Exception) -> StoreDamaged:
    """Return the error that says which record could not be read."""
    return StoreDamaged(
        f"the record at {key} of table {table.name} cannot be read: {error}",
        hint="see what else is wrong with `tq store check`; then tq restore, or tq store salvage --dry-run",
    )


def record_codec(table: Table[Any]) -> RecordCodec:
    """Return the codec of a table's records, its older formats included."""
    return RecordCodec(table.record, OLDER.get(table.record, ()))


RECORDS: Final[dict[Table[Any], RecordCodec]] = {table: record_codec(table) for table in TABLES}
