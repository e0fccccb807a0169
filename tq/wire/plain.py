"""Plain data: what a function is called with, and what it may return, as CBOR.

None, bool, int of 64 bits, float, str, bytes, and lists and dicts of these, dicts with keys of text: what JSON knows,
and bytes. Never pickle: whatever comes in, the outcome is such data or a ProtocolError. A tuple goes in as a list.
"""

from typing import Any, Final

from tq.limits import depth_max
from tq.wire import codec

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1
NONE: Final = b"\xf6"
_LEAVES: Final = frozenset({bool, float, str, bytes})


class NotPlain(Exception):
    """A value that is not plain data; the text says which part of it, and why."""


def dumps(value: Any, bytes_max: int, bound: str) -> bytes:
    """Return the CBOR of plain data, at most `bytes_max` bytes; `bound` is the name of that in limits.py.

    Raises NotPlain.
    """
    if value is None:
        return NONE
    if type(value) not in _LEAVES:
        _Walk(bytes_max).check(value, depth_max - 1)
    try:
        data = codec.pack(value)
    except UnicodeEncodeError:
        raise NotPlain("a text in it is no Unicode (it has a lone surrogate)") from None
    if len(data) > bytes_max:
        raise NotPlain(f"it has {len(data)} bytes as CBOR, and {bound} is {bytes_max}")
    return data


def loads(data: bytes) -> Any:
    """Return the plain data that `data` is. Raises ProtocolError."""
    return codec.unpack(data)


class _Walk:
    """Looks at every value once for each place where it stands; each takes a byte at least, so there is an end."""

    def __init__(self, room: int) -> None:
        self._room = room

    def check(self, value: Any, depth: int) -> None:
        self._room -= 1
        if value is None or isinstance(value, (str, bytes, float)):
            return
        if isinstance(value, int):
            if not _INT_MIN <= value <= _INT_MAX:
                raise NotPlain("an integer in it does not fit into 64 bits")
        elif isinstance(value, (list, tuple)):
            self._check_room(depth)
            for one in value:
                self.check(one, depth - 1)
        elif isinstance(value, dict):
            self._check_room(depth)
            for key, one in value.items():
                if not isinstance(key, str):
                    raise NotPlain(f"a key of a dict is {_named(key)}; only str can be one")
                self.check(one, depth - 1)
        else:
            raise NotPlain(f"{_named(value)} is not plain data (None, bool, int, float, str, bytes, list, dict)")

    def _check_room(self, depth: int) -> None:
        if depth <= 0:
            raise NotPlain(f"it is nested deeper than {depth_max} levels (depth_max), or contains itself")
        if self._room < 0:
            raise NotPlain("it has too many values to fit")


def _named(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
