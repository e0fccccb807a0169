"""The talk of a launcher with a process that calls functions: one call at a time, one answer to each.

    launcher --- Setup, Call ---> caller (functions.py)
             <-- Ready, Returned ---

Frames are those of frames.py: a length and one message in msgpack. A call says what is different for its attempt; the
rest stays in the process. This module does no I/O.
"""

from typing import Final, TypeVar

import msgspec

from tq.worker.frames import FrameError, cut_frames, framed

_T = TypeVar("_T")


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages: only the options of the struct."""


class Setup(_Message, frozen=True, tag=True):
    """The first message: where to import from, before all else (`path`, as in sys.path)."""

    path: tuple[str, ...]


class Call(_Message, frozen=True, tag=True):
    """Call a function, with `TQ_…` variables that hold for this call alone.

    `arguments` is the plain data [positional, by name]; `last` is what comes behind the positional ones: the member's
    value, or its entry (text in columns, or one plain value).
    """

    function: str
    arguments: bytes
    environment: dict[bytes, bytes]
    value: int | None = None
    entry: bytes | None = None
    is_plain_entry: bool = False


class Ready(_Message, frozen=True, tag=True):
    """The process has started and waits for its first call."""


class Returned(_Message, frozen=True, tag=True):
    """How a call ended, as an attempt's report says it (vocabulary.End, wire.body.Usage).

    `has_output`: there are bytes in the pipes. `is_spent`: this process calls nothing more, end it.
    """

    cause: int
    code: int
    value: bytes
    error: str
    user_us: int
    system_us: int
    peak_kib: int
    has_output: bool
    is_spent: bool


_down: Final = msgspec.msgpack.Decoder(Setup | Call)
_up: Final = msgspec.msgpack.Decoder(Ready | Returned)


def encode(message: Setup | Call | Ready | Returned) -> bytes:
    """Return the frame of a message."""
    return framed(message)


def calls(buffer: bytearray) -> list[Setup | Call]:
    """Take the complete messages to a caller out of `buffer`. Raises FrameError."""
    return [_decoded(_down, body) for body in cut_frames(buffer)]


def answers(buffer: bytearray) -> list[Ready | Returned]:
    """Take the complete messages of a caller out of `buffer`. Raises FrameError."""
    return [_decoded(_up, body) for body in cut_frames(buffer)]


def _decoded(decoder: "msgspec.msgpack.Decoder[_T]", body: bytes) -> _T:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(str(error)) from error
