"""One end of a connection without I/O: bytes in, messages out, and back.

A frame is a 4-byte big-endian length and a CBOR array of messages. The length is checked against the bound as soon
as its four bytes are there, before anything is kept or allocated for it. After a ProtocolError the connection is
over: nothing that follows in the stream can be trusted to begin where a frame begins.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from tq import limits
from tq.errors import ProtocolError, TooLarge
from tq.wire.codec import array_head, decode, encode_message
from tq.wire.messages import Message, RecallAttempts, Reconcile, StartedAttempts, StopAttempts

LENGTH_BYTES: Final = 4
_ENVELOPE_BYTES: Final = LENGTH_BYTES + 5  # the length, and the longest head of an array

# What may go in several messages instead of one: the field that is divided. Messages with a delivery number are
# not among them, since an acknowledgement of the first half would stand for both; their senders count.
_DIVISIBLE: Final[dict[type[msgspec.Struct], str]] = {
    Reconcile: "held",
    StopAttempts: "attempts",
    RecallAttempts: "attempts",
    StartedAttempts: "attempts",
}


class Connection:
    """Parses what a peer sends, and makes the frames that it is sent.

    `frame_bytes_max` bounds the frames that come in; raise it once the peer is authenticated (`frame_bytes_max =
    limits.frame_bytes_max`). `send_bytes_max` bounds those that go out.
    """

    def __init__(
        self, frame_bytes_max: int = limits.frame_hello_bytes_max, *, send_bytes_max: int = limits.frame_bytes_max
    ) -> None:
        self.frame_bytes_max = frame_bytes_max
        self.send_bytes_max = send_bytes_max
        self._unread = bytearray()
        self._failure: ProtocolError | None = None

    @property
    def is_between_frames(self) -> bool:
        """Whether the peer may close here without cutting a frame in two."""
        return not self._unread

    def receive_data(self, data: bytes | bytearray) -> list[Message]:
        """Return the messages that are complete with `data`, in order; maybe none. Raises ProtocolError for ever."""
        if self._failure is not None:
            raise self._failure
        try:
            if not self._unread and type(data) is bytes and _is_frame(data, self.frame_bytes_max):
                return decode(data[LENGTH_BYTES:])
            self._unread += data
            return self._take_messages()
        except ProtocolError as error:
            self._failure = error
            self._unread.clear()
            raise

    def send(self, messages: Sequence[Message]) -> bytes:
        """Return the frames that carry `messages`, in order: one, or more if one would exceed its bound."""
        return self.framed([self.encode(message) for message in messages])

    def framed(self, pieces: Sequence[bytes]) -> bytes:
        """Return the frames that carry these encoded messages, in order."""
        return _frame(pieces) if len(pieces) == 1 else b"".join(frames(pieces, self.send_bytes_max))

    def encode(self, message: Message) -> bytes:
        """Return the CBOR of one message, for `frames`. Raises TooLarge if no frame could carry it."""
        piece = encode_message(message)
        if len(piece) > self.send_bytes_max - _ENVELOPE_BYTES:
            name = type(message).__name__
            raise TooLarge(
                f"a message {name} of {len(piece)} bytes exceeds frame_bytes_max ({self.send_bytes_max} bytes)",
                hint="ask for less at a time",
            )
        return piece

    def _take_messages(self) -> list[Message]:
        unread, start = self._unread, 0
        messages: list[Message] = []
        try:
            while len(unread) - start >= LENGTH_BYTES:
                length = int.from_bytes(unread[start : start + LENGTH_BYTES], "big")
                if length > self.frame_bytes_max:
                    raise ProtocolError(f"a frame of {length} bytes exceeds the bound of {self.frame_bytes_max} bytes")
                end = start + LENGTH_BYTES + length
                if end > len(unread):
                    break
                messages += decode(bytes(unread[start + LENGTH_BYTES : end]))
                start = end
        finally:
            del unread[:start]  # once a call, and CPython only moves the start: no quadratic copying
        return messages


def frames(pieces: Iterable[bytes], frame_bytes_max: int = limits.frame_bytes_max) -> list[bytes]:
    """Return frames that carry these encoded messages in order, each frame as full as its bound allows.

    A piece that exceeds the bound by itself gets a frame of its own: `Connection.encode` has refused it before.
    """
    done: list[bytes] = []
    batch: list[bytes] = []
    room = frame_bytes_max - _ENVELOPE_BYTES
    for piece in pieces:
        if batch and len(piece) > room:
            done.append(_frame(batch))
            batch, room = [], frame_bytes_max - _ENVELOPE_BYTES
        batch.append(piece)
        room -= len(piece)
    if batch:
        done.append(_frame(batch))
    return done


def divided(message: Message, items_max: int = limits.members_per_command_max) -> list[Message]:
    """Return `message` as one or more messages of at most `items_max` attempts each (an attempt takes < 64 bytes).

    For those kinds of messages whose parts mean together what the whole means; the others come back as they are.
    """
    field = _DIVISIBLE.get(type(message))
    items = getattr(message, field) if field else ()
    if field is None or len(items) <= items_max:
        return [message]
    parts = [
        msgspec.structs.replace(message, **{field: items[at : at + items_max]})
        for at in range(0, len(items), items_max)
    ]
    if isinstance(message, Reconcile):
        parts[:-1] = [msgspec.structs.replace(part, more=True) for part in parts[:-1]]
    return parts


def _is_frame(data: bytes, frame_bytes_max: int) -> bool:
    """Whether `data` is one whole frame within the bound, as nearly all that one read brings is."""
    length = len(data) - LENGTH_BYTES
    return 0 < length <= frame_bytes_max and data.startswith(length.to_bytes(LENGTH_BYTES, "big"))


def _frame(pieces: Sequence[bytes]) -> bytes:
    body = array_head(len(pieces)) + b"".join(pieces)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body
