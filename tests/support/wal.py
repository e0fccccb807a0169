"""Where the records of a RocksDB log file lie, so that a test can cut it there.

A log is blocks of 32 KiB; a record is one fragment or more, each with a header of 7 bytes (checksum 4, length 2, type
1) and never across a block's end (RocksDB's wiki, "Write Ahead Log File Format").
"""

from pathlib import Path
from struct import Struct
from typing import Final

_BLOCK: Final = 32 * 1024
_header: Final = Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def record_ends(log: Path) -> list[int]:
    """Return the offset behind each whole record of a log file, in order."""
    raw, at, ends = log.read_bytes(), 0, list[int]()
    while at + _header.size <= len(raw):
        left = _BLOCK - at % _BLOCK
        if left < _header.size:
            at += left
            continue
        _, length, kind = _header.unpack_from(raw, at)
        if kind == 0:
            break
        at += _header.size + length
        if kind in (_FULL, _LAST):
            ends.append(at)
        elif kind not in (_FIRST, _MIDDLE):
            raise ValueError(f"{log.name} has a record of type {kind} at {at}")
    return ends
