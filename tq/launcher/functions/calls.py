"""The talk of a launcher with a process that calls functions: one answer to each call, before the next one begins.

    launcher --- Setup, Calls, Hold, Keep --> caller (warm_process.py)
             <-- Ready, Found, Returned ---

Several short calls may lie in the channel, so that neither side waits for the other. The process looks for a word
before it begins each of them: so after a `Hold` has been sent, and what has come been read, the first call without an
answer is the only one that runs or may have begun, and `Keep` says what is to become of those behind it. After an
answer with output, and one that is its last, the process holds by itself: until then the pipes are that call's alone.

Frames are those of protocol.py: a length and one message in msgpack. This module does no I/O.
"""

from typing import Annotated, Final

import msgspec

from tq.launcher.program import Own
from tq.launcher.protocol import framed, taken
from tq.limits import result_bytes_max


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages: only the options of the struct."""


class Setup(_Message, frozen=True, tag=True):
    """The first message: where to import from, before all else (`path`, as in sys.path)."""

    path: tuple[bytes, ...]


class Calls(_Message, frozen=True, tag=True):
    """Call a function once for each of `each`, numbered from `first` on: calls of a process are numbered from 1.

    `arguments` is the plain data [positional, by name]; behind the positional ones come the member's value, or its
    entry (text in columns, or one plain value). `names` and `is_array` make the `TQ_…` variables of each
    (program.py).
    """

    first: int
    function: str
    arguments: bytes
    names: dict[bytes, bytes]
    is_array: bool
    has_plain_entries: bool
    each: tuple[Own, ...]


class Hold(_Message, frozen=True, tag=True):
    """Begin no further call before a `Keep`."""


class Keep(_Message, frozen=True, tag=True):
    """Forget the calls that have a number above this one, and go on."""

    number: int


class Ready(_Message, frozen=True, tag=True):
    """The process has started and waits for its first call."""


class Found(_Message, frozen=True, tag=True):
    """The function of a call was there to be called for the first time in this process: only now it begins."""

    number: int


_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Byte = Annotated[int, msgspec.Meta(ge=0, lt=256)]


class Returned(_Message, frozen=True, tag=True):
    """How a call ended, as an attempt's report says it (vocabulary.End, wire.body.Usage).

    `has_output`: there are bytes in the pipes. `is_spent`: this process calls nothing more, end it. It may be the
    function that speaks here: what no server would take must not come as far, or the worker reports it for ever.
    """

    number: int
    run_us: _Count
    cause: _Byte
    code: _Byte
    value: Annotated[bytes, msgspec.Meta(max_length=result_bytes_max)]
    error: str
    user_us: _Count
    system_us: _Count
    peak_kib: _Count
    has_output: bool
    is_spent: bool


Down = Setup | Calls | Hold | Keep
Up = Ready | Found | Returned

_down: Final = msgspec.msgpack.Decoder(Down)
_up: Final = msgspec.msgpack.Decoder(Up)


def encode(message: Down | Up) -> bytes:
    """Return the frame of a message."""
    return framed(message)


def words(buffer: bytearray) -> list[Down]:
    """Take the complete messages to a caller out of `buffer`. Raises FrameError."""
    return taken(_down, buffer)


def answers(buffer: bytearray) -> list[Up]:
    """Take the complete messages of a caller out of `buffer`. Raises FrameError."""
    return taken(_up, buffer)
