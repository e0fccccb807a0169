"""CBOR to messages and back. Owner of cbor2: nothing else in tq imports it.

Whatever bytes come in, the outcome is messages or `ProtocolError`. Three layers see to that: cbor2 with every
liberty of CBOR taken away (no tags, no indefinite lengths, no duplicate or odd keys, bounded depth, nothing after
the item), a look for integers that no table could store, and msgspec's strict conversion to the schema.

Messages are encoded one by one, so that a sender knows the size of each and a frame is plain concatenation
(connection.py). Nothing here may keep state between frames: a decoder that is used twice has leaked shared values
from one message into the next (CVE-2025-68131).
"""

import re
from collections.abc import Sequence
from io import BytesIO
from math import isfinite
from typing import Any, Final, TypeVar

import cbor2
import msgspec

from tq import limits
from tq.core.vocabulary import Document, Page
from tq.errors import ProtocolError
from tq.wire import flat
from tq.wire.messages import Message, Reply

_Record = TypeVar("_Record", bound=msgspec.Struct)

_BYTES: Final = (bytes,)  # what is passed on as it is, where msgspec would make text of it
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1

# An 8-byte integer (head 0x1b, or 0x3b when negative) with its highest bit set is outside of int64. The same bytes
# may stand inside a string: a match is a suspicion, and only then is the decoded object walked. Two patterns, since
# each begins with one fixed byte: such a search runs at the speed of memchr (ten times that of one alternation).
_LARGE_POSITIVE: Final = re.compile(rb"\x1b[\x80-\xff]")
_LARGE_NEGATIVE: Final = re.compile(rb"\x3b[\x80-\xff]")

# The name of a message that this version does not know is the one value that an error may repeat.
_UNKNOWN_NAME: Final = re.compile(r"Invalid value '[A-Za-z]{1,32}' - at `[^']*`\Z")

# cbor2 calls `tag_hook` only for tags that it does not know; the ones below it would decode by itself (a regular
# expression from a peer, a cyclic list, a 4,000-digit number). A test looks for tags that are missing here.
_KNOWN_TAGS: Final = (
    0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799,
)  # fmt: skip


def _refuse_tag(*_: object) -> Any:
    raise ProtocolError("tags are not allowed")


_TAG_DECODERS: Final = dict.fromkeys(_KNOWN_TAGS, _refuse_tag)


class _Frame(msgspec.Struct, array_like=True):
    """The schema of a frame.

    In a struct because msgspec remembers what it found out about a struct's types, while `convert(..., list[Message])`
    looks at all messages again at each call: 1 us instead of 33.
    """

    messages: list[Message]


def encode_message(message: Message) -> bytes:
    """Return the CBOR of one message (1 us, and about 1 us more for each attempt in it)."""
    return flat.encoded(message) or cbor2.dumps(msgspec.to_builtins(message, builtin_types=_BYTES))


def array_head(count: int) -> bytes:
    """Return the CBOR head of an array of `count` items, the shortest form."""
    return flat.head(0x80, count)


def encode(messages: Sequence[Message]) -> bytes:
    """Return the body of a frame: the CBOR array of these messages, without the length before it."""
    return array_head(len(messages)) + b"".join(map(encode_message, messages))


def decode(body: bytes) -> list[Message]:
    """Return the messages in the body of a frame, at least one; `ProtocolError` for anything else."""
    message = flat.decoded(body)
    if message is not None:
        return [message]
    items = unpack(body)
    try:
        messages = msgspec.convert((items,), _Frame, builtin_types=_BYTES).messages
    except msgspec.ValidationError as error:
        raise ProtocolError(f"not a message of the protocol: {_without_values(error)}") from error
    if not messages:
        raise ProtocolError("a frame without a message")
    for message in messages:
        if type(message) is Reply:
            _check_document(message)
    return messages


def dumps(record: msgspec.Struct) -> bytes:
    """Return the CBOR of an opaque part of a message (wire/body.py)."""
    return encode_message(record)  # type: ignore[arg-type]  # any struct is encoded alike


def loads(data: bytes, kind: type[_Record]) -> _Record:
    """Return the opaque part of a message, checked as strictly as a frame; `ProtocolError` for anything else."""
    item = unpack(data)
    try:
        return msgspec.convert(item, kind, builtin_types=_BYTES)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"not a {kind.__name__}: {_without_values(error)}") from error


def pack(value: Any) -> bytes:
    """Return the CBOR of plain values, which whoever calls has checked (wire/plain.py)."""
    return cbor2.dumps(value)


def unpack(data: bytes) -> Any:
    """Return the one CBOR item that `data` is: null, bools, int64, floats, strings, lists, dicts by string."""
    source = BytesIO(data)
    decoder = cbor2.CBORDecoder(
        source,
        tag_hook=_refuse_tag,
        semantic_decoders=_TAG_DECODERS,
        max_depth=limits.depth_max,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )
    try:
        item = decoder.decode()
    except cbor2.CBORError as error:
        raise ProtocolError(f"not the CBOR that the protocol allows: {_without_values(error)}") from error
    if source.tell() != len(data):
        raise ProtocolError(f"{len(data) - source.tell()} bytes after the end of the CBOR item")
    if _LARGE_POSITIVE.search(data) or _LARGE_NEGATIVE.search(data):
        _check_integers(item)
    return item


def _without_values(error: Exception) -> str:
    """Return an error's text for a log, without what the peer sent: it may be long, hostile, or a misplaced token."""
    text = str(error)
    return text if _UNKNOWN_NAME.match(text) else text.partition("'")[0].strip(" :-")


def _check_integers(item: Any) -> None:
    """Raise ProtocolError if an integer anywhere in `item` is not an int64. Without recursion."""
    rest = [[item]]
    while rest:
        for one in rest.pop():
            kind = type(one)
            if kind is int:
                if not _INT_MIN <= one <= _INT_MAX:
                    raise ProtocolError("an integer outside of 64 bits")
            elif kind is list:
                rest.append(one)
            elif kind is dict:
                rest.append(list(one.values()))


def _check_document(message: Reply) -> None:
    """Raise ProtocolError if an untyped value in an answer is not what JSON knows.

    Documents are the only place where the schema says nothing about values, so CBOR's own oddities (undefined,
    simple values, infinity) would get through to whoever prints them.
    """
    answer = message.answer
    if type(answer) not in (Document, Page):
        return
    rest: list[Any] = [answer.value] if isinstance(answer, Document) else list(answer.items)  # type: ignore[union-attr]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            if not all(type(key) is str for key in one):
                raise ProtocolError("a key in a document that is not text")
            rest.extend(one.values())
        elif isinstance(one, list):
            rest.extend(one)
        elif isinstance(one, float):
            if not isfinite(one):
                raise ProtocolError("a number in a document that is not finite")
        elif one is not None and type(one) not in (str, int, bool, bytes):
            raise ProtocolError("a value in a document that is neither text, number, bool, bytes, list nor map")
