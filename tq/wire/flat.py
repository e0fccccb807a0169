"""Messages of nothing but integers, to bytes and back without a detour: most of what an idle fleet says is a beat.

All else goes the general way (codec.py), and so does whatever is not read here: nothing is an error here. The bytes are
the same, and so are the messages; it takes a third of the instructions.
"""

from struct import Struct
from typing import Final, get_args

from msgspec.structs import astuple, fields

from tq.wire.messages import Message

_INT_MAX: Final = 2**63 - 1
_NAME_BYTES_MASK: Final = 0x1F  # of a text's head, if the text is shorter than 24 bytes
_BYTE: Final = tuple(bytes((value,)) for value in range(256))
_PACK_8, _PACK_16, _PACK_32, _PACK_64 = (Struct(f">B{code}").pack for code in "BHIQ")


def head(kind: int, value: int) -> bytes:
    """Return the head of a CBOR item, the shortest form. `kind` is its major type, in the three highest bits."""
    if value < 24:
        return _BYTE[kind | value]
    if value < 2**8:
        return _PACK_8(kind | 24, value)
    if value < 2**16:
        return _PACK_16(kind | 25, value)
    return _PACK_32(kind | 26, value) if value < 2**32 else _PACK_64(kind | 27, value)


def _beginning(kind: type[Message]) -> bytes:
    """Return what a message of this kind begins with: the head of its array, and its name."""
    name = kind.__name__.encode()
    return head(0x80, 1 + len(fields(kind))) + head(0x60, len(name)) + name


def unsigned(value: int) -> bytes:
    """Return the CBOR of a natural number, the shortest form."""
    return _SMALL[value] if value < 256 else head(0, value)


_SMALL: Final = tuple(head(0, value) for value in range(256))
_BEGINNINGS: Final = {
    kind: _beginning(kind) for kind in get_args(Message) if all(field.type is int for field in fields(kind))
}
_KINDS: Final = {b"\x81" + beginning: (kind, len(fields(kind))) for kind, beginning in _BEGINNINGS.items()}


def encoded(message: Message) -> bytes | None:
    """Return the CBOR of a message of integers, None for another one."""
    done = _BEGINNINGS.get(type(message))
    if done is not None:
        for value in astuple(message):
            if 0 <= value < 256:  # as in `unsigned`, without its call
                done += _SMALL[value]
            else:
                done += head(0, value) if value > 0 else head(0x20, ~value)
    return done


def decoded(body: bytes) -> Message | None:
    """Return the message of a frame's body that is one message of integers from 0 on, all of them there; else None."""
    if len(body) < 4:
        return None
    begin = 3 + (body[2] & _NAME_BYTES_MASK)
    found = _KINDS.get(body[:begin])
    if found is None:
        return None
    kind, count = found
    values: list[int] = []
    value = rest = 0  # of an integer that is longer than its head: what there is of it, and how many bytes are to come
    for byte in body[begin:]:
        if rest:
            value = value << 8 | byte
            rest -= 1
            if not rest:
                if value > _INT_MAX:
                    return None
                values.append(value)
        elif byte < 24:
            values.append(byte)
        elif byte < 28:
            value, rest = 0, 1 << byte - 24
        else:
            return None
    return kind(*values) if len(values) == count and not rest else None
