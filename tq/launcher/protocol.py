"""The talk of a worker with its launcher: the messages, and how they become bytes and back.

One stream socket between the two processes. A frame is its length (u32, big-endian) and one message in msgpack, an
array whose first item is the message's name; at most `frame_bytes_max`. Refs, assignments and ends are those of the
core's vocabulary, so that the worker passes them on as they are, and `Spawn` carries the submitted body unparsed.

    down   Spawn Stop Recall Follow Slots Input Forget Lease Functions Ping
    up     Ended Started Output Recalled Left Pong

End of file on the launcher's side means: kill everything, exit. Frames keep their order, so all `Output` of an
attempt comes before, or inside, the `Ended` that tells of its end. After that `Ended` (or the `Recalled`) the launcher
knows nothing of the attempt any more; whatever names an attempt that it does not hold is ignored, since the news of
its end is then already on the way. This module does no I/O and must stay cheap to import.
"""

from collections.abc import Iterator
from struct import Struct
from typing import Final, TypeVar

import msgspec

from tq.core.vocabulary import Assignment, AttemptRef, End
from tq.launcher.scratch import Made

frame_bytes_max: Final = 1024 * 1024
input_piece_bytes: Final = 256 * 1024
_LENGTH_BYTES: Final = 4
_length: Final = Struct(">I").unpack_from
_T = TypeVar("_T")


class FrameError(Exception):
    """The other end sent what is no frame; there is no way to go on with this connection."""


class _Frame(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages: only the options of the struct."""


# ---------------------------------------------------------------- down: worker to launcher


class Spawn(_Frame, frozen=True, tag=True):
    """Start these attempts, in this order, at most `width` of the lane at once (the latest width of a lane counts).

    The fields are those of `wire.messages.Assign`; `worker` is the worker's id as 16 hex digits. `stdin` 0 means the
    body's own input, else the number of an input that `Input` has brought completely. An attempt that is held
    already is not started twice.
    """

    lane: int
    width: int
    is_array: bool
    queue: str
    trace: str
    body: bytes
    stdin: int
    worker: str
    attempts: tuple[Assignment, ...]


class Stop(_Frame, frozen=True, tag=True):
    """End these attempts: stop signal to the group, CONT, after a grace KILL to all; then `Ended` with `cause`.

    `kill_after_ms` -1 means the grace that the body says, 0 KILL at once; `signal` 0 the one that the body says. A
    second Stop may shorten the grace and send another signal, and keeps the first cause. A queued attempt ends at once
    with `cause`, code 0 and run_us 0: it never ran.
    """

    attempts: tuple[AttemptRef, ...]
    cause: int
    kill_after_ms: int = -1
    signal: int = 0


class Recall(_Frame, frozen=True, tag=True):
    """Give back (`Recalled`) what of these has not started; the rest runs on."""

    attempts: tuple[AttemptRef, ...]


class Follow(_Frame, frozen=True, tag=True):
    """Send this attempt's output as it comes, for `credit` more bytes (they add up); 0 = no longer.

    Without credit left nothing is sent until more comes, and what the ring loses meanwhile is a gap in the offsets.
    """

    attempt: AttemptRef
    credit: int


class Slots(_Frame, frozen=True, tag=True):
    """At most so many attempts at once, over all lanes. Before the first of these nothing starts."""

    count: int


class Input(_Frame, frozen=True, tag=True):
    """A piece of the large input `blob`, at byte `offset`. Pieces come in order, before the Spawn that uses it."""

    blob: int
    offset: int
    data: bytes


class Forget(_Frame, frozen=True, tag=True):
    """No further Spawn will use this input; attempts that are held already still get it."""

    blob: int


class Lease(_Frame, frozen=True, tag=True):
    """The server has heard the worker: attempts that must stop when it is cut off may live until then.

    `until_s` counts from the start of the machine (CLOCK_BOOTTIME).
    """

    until_s: float


class Functions(_Frame, frozen=True, tag=True):
    """Whose functions may be called (none before this comes), where they are imported from, and where they run."""

    modules: tuple[str, ...]
    path: tuple[bytes, ...]
    directory: bytes


class Ping(_Frame, frozen=True, tag=True):
    """Answer with a Pong. A launcher that does not is stuck in a spawn, and only KILL helps."""


# ---------------------------------------------------------------- up: launcher to worker


class Output(_Frame, frozen=True, tag=True, gc=False):
    """The contents so far of one slot of an attempt's output; the fields are those of `wire.messages.Output`."""

    attempt: AttemptRef
    stream: int
    offset: int
    data: bytes


class Ended(_Frame, frozen=True, tag=True):
    """These attempts have ended, with no process left. `outputs` must be passed on before the reports."""

    ends: tuple[End, ...]
    outputs: tuple[Output, ...] = ()


class Started(_Frame, frozen=True, tag=True):
    """These have been running for a moment (capture.py: 20 ms); those that end earlier are never named."""

    attempts: tuple[AttemptRef, ...]


class Recalled(_Frame, frozen=True, tag=True):
    """Given back, never ran. `cause` 0: as asked; WORKER_TROUBLE: they could not be started here, for `error`."""

    attempts: tuple[AttemptRef, ...]
    cause: int = 0
    error: str = ""


class Left(_Frame, frozen=True, tag=True):
    """An attempt that has ended left this directory full: the worker removes it (scratch.py)."""

    directory: Made


class Pong(_Frame, frozen=True, tag=True):
    """How it stands: attempts that hold a slot, that wait, bytes not yet sent, attempts that cannot be killed.

    The first word of every launcher, too: it is ready, and has read no order yet.
    """

    live: int
    queued: int
    unsent_bytes: int
    degraded: int


Down = Spawn | Stop | Recall | Follow | Slots | Input | Forget | Lease | Functions | Ping
Up = Ended | Started | Output | Recalled | Left | Pong

_encoder: Final = msgspec.msgpack.Encoder()
_down: Final = msgspec.msgpack.Decoder(Down)
_up: Final = msgspec.msgpack.Decoder(Up)


def encode(message: Down | Up) -> bytes:
    """Return `message` as one frame, or raise `FrameError` if it is too long."""
    return framed(message)


def downs(buffer: bytearray) -> list[Down]:
    """Take the complete messages of the worker out of `buffer`. Raises FrameError."""
    return taken(_down, buffer)


def ups(buffer: bytearray) -> list[Up]:
    """Take the complete messages of the launcher out of `buffer`. Raises FrameError."""
    return taken(_up, buffer)


def framed(message: msgspec.Struct) -> bytes:
    """Return any message as one frame; as `encode`."""
    body = _encoder.encode(message)
    if len(body) > frame_bytes_max:
        raise FrameError(f"a frame of {len(body)} bytes exceeds frame_bytes_max ({frame_bytes_max})")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def input_frames(blob: int, data: bytes) -> Iterator[Input]:
    """Cut a large input into messages. An empty input is one empty piece."""
    for offset in range(0, max(len(data), 1), input_piece_bytes):
        yield Input(blob, offset, data[offset : offset + input_piece_bytes])


def taken(decoder: "msgspec.msgpack.Decoder[_T]", buffer: bytearray) -> list[_T]:
    """Take the complete messages of any kind out of `buffer`. Raises FrameError."""
    try:
        return [decoder.decode(body) for body in _cut(buffer)]
    except msgspec.MsgspecError as error:
        raise FrameError(str(error)) from error


def _cut(buffer: bytearray) -> list[bytearray]:
    """Take the bodies of all complete frames out of `buffer`; decode nothing before a frame is complete."""
    bodies: list[bytearray] = []
    begin = 0
    while len(buffer) - begin >= _LENGTH_BYTES:
        (size,) = _length(buffer, begin)
        if size > frame_bytes_max:
            raise FrameError(f"a frame of {size} bytes exceeds frame_bytes_max ({frame_bytes_max})")
        end = begin + _LENGTH_BYTES + size
        if end > len(buffer):
            break
        bodies.append(buffer[begin + _LENGTH_BYTES : end])
        begin = end
    if begin:
        del buffer[:begin]
    return bodies
