"""A link: messages to and from one peer, over any trio stream. One reader, one writer, bounded queues.

    async with open_link(stream, connection) as link:
        link.send_nowait(message)
        async for messages in link:      # all that one read brought, in order
            ...

Whatever is ready goes out in one frame: a TLS record costs 40 us whatever is in it, so a batch costs no more than
one message. There are two classes. Control messages never wait behind output: between two output frames of at most
64 KiB everything of control goes first. Inside a class messages keep their order; so *what must not overtake output*
(the report of an attempt whose output was sent before) is sent in the class of output.

A link ends by itself when the peer closes, resets, or does not read: then the iteration ends, `ended_because` says
why, and everything that is sent from then on is dropped without an error, as if it had been lost on the way. What
must not get lost carries a delivery number and is sent again on the next connection.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import trio

from tq import limits
from tq.errors import ProtocolError
from tq.net.idle_polling import IdlePolling
from tq.net.secure import SecureStream
from tq.wire.connection import Connection
from tq.wire.messages import Goodbye, Message

_WRITE_BYTES_MAX: Final = limits.frame_bytes_max  # of control, at once
_CLOSE_S: Final = 1.0


class Link:
    """One peer. Made by `open_link`. Not for use by several readers; anybody may send."""

    def __init__(self, stream: trio.abc.Stream, connection: Connection, *, queue_bytes_max: int) -> None:
        self.stream = stream
        self._prompt = stream if isinstance(stream, SecureStream) else None
        self.connection = connection
        self.ended_because = ""
        self.on_bytes: Callable[[], None] | None = None  # called for each sign of life: any bytes that come
        self.queue_bytes_max = queue_bytes_max
        self._control: deque[bytes] = deque()
        self._output: deque[bytes] = deque()
        self._control_bytes = 0
        self._output_bytes = 0
        self._work = trio.Event()
        self._room = trio.Event()
        self._is_reading = False
        self._reader_ended = trio.Event()
        self._writing = trio.CancelScope()  # of the write under way
        self._living = trio.CancelScope()  # of the writer; has a second left once the link ends
        self._is_closing = False
        self.is_closed_here = False
        self._is_broken = False
        self._is_writing = False
        self._is_cut_off = False  # the kernel took a part of what was written at once: the writer sends the rest

    # ------------------------------------------------------------ sending

    def send_nowait(self, message: Message, *, output: bool = False) -> bool:
        """Queue a message; it leaves with the next frame. Returns False if the link has ended, and drops it then.

        A peer for which more than `queue_bytes_max` bytes wait does not read, and the link ends: for output ask
        `has_room` before, or use `send`. Raises TooLarge for what no frame could carry.
        """
        piece = self.connection.encode(message)
        if self._is_closing:
            return False
        if output:
            self._output.append(piece)
            self._output_bytes += len(piece)
        else:
            self._control.append(piece)
            self._control_bytes += len(piece)
        if self._control_bytes + self._output_bytes > self.queue_bytes_max:
            self._end("it does not read what it is sent")
            return False
        self._work.set()
        return True

    def answer_nowait(self, message: Message) -> bool:
        """Send a message at once if nothing stands before it; else as `send_nowait`.

        For what its peer waits for: it saves the way through the writer, and cannot share a frame.
        """
        prompt = self._free_stream()
        if prompt is None or self._control or self._output:
            return self.send_nowait(message)
        piece = self.connection.encode(message)
        return self._write_now(prompt, self.connection.framed([piece]))

    def push(self) -> None:
        """Write the next frame of what is queued at once, if nothing stands before it; the writer sends the rest.

        For what somebody waits for: the writer's turn comes when everybody else has had theirs.
        """
        prompt = self._free_stream()
        if prompt is not None and self.queued_bytes:
            self._write_now(prompt, self._take())

    def _free_stream(self) -> SecureStream | None:
        """Return the stream if one may write to it now, without waiting."""
        return None if self._is_closing or self._is_writing or self._is_cut_off else self._prompt

    def _write_now(self, prompt: SecureStream, batch: bytes) -> bool:
        """Write what the kernel takes; the writer sends the rest. Return False if the link has ended."""
        try:
            self._is_cut_off = not prompt.send_now(batch)
        except trio.BrokenResourceError:
            self._end("the connection broke")
            return False
        if self._is_cut_off:
            self._work.set()
        return True

    async def send(self, message: Message, *, output: bool = True) -> bool:
        """Wait until there is room for output, then queue a message. Returns False if the link has ended."""
        while not (self.has_room or self._is_closing):
            await self._room.wait()
        await trio.lowlevel.checkpoint()
        return self.send_nowait(message, output=output)

    async def wait_read(self, bytes_max: int) -> None:
        """Wait until no more than `bytes_max` bytes are queued for the peer, or the link has ended."""
        while self.queued_bytes > bytes_max and not self._is_closing:
            await self._room.wait()

    @property
    def has_room(self) -> bool:
        """Whether less output waits than goes into four of its frames."""
        return self._output_bytes < 4 * limits.output_frame_bytes_max

    @property
    def queued_bytes(self) -> int:
        """How much waits to be sent."""
        return self._control_bytes + self._output_bytes

    # ------------------------------------------------------------ receiving

    def __aiter__(self) -> "Link":
        return self

    async def __anext__(self) -> list[Message]:
        """Return what came, never an empty list.

        Raises ProtocolError for what is no message: nothing more comes, and whoever reads closes, and says why.
        """
        while True:
            try:
                self._is_reading = True
                data = b"" if self.is_closed_here else await self.stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._end("the connection broke")
                raise StopAsyncIteration from None
            finally:
                self._is_reading = False
                if self._is_closing:
                    self._reader_ended.set()
            if self.is_closed_here:  # before it was received, or while this waited for it
                raise StopAsyncIteration
            if self.on_bytes is not None and data:
                self.on_bytes()
            if not data:
                self._end("it closed" if self.connection.is_between_frames else "it closed in the middle of a frame")
                raise StopAsyncIteration
            try:
                messages = self.connection.receive_data(data)
            except ProtocolError as error:
                self.ended_because = str(error)
                raise
            if messages:
                return messages

    def rest(self, idle_polling: IdlePolling | None) -> None:
        """Let what comes be read a moment later, together with what others send; with None at once again."""
        if self._prompt is not None:
            self._prompt.rest(None if self._is_closing else idle_polling)

    # ------------------------------------------------------------ ending

    def close(self, goodbye: Message | None = None) -> None:
        """End the link: what is queued still goes out, then `goodbye`, for at most a second; then the stream closes.

        The iteration ends too: what comes after this is not read any more.
        """
        if goodbye is not None:
            self.send_nowait(goodbye)
        self.is_closed_here = True
        self._end("closed here", at_once=False)

    def _end(self, because: str, *, at_once: bool = True) -> None:
        if at_once:
            self._is_broken = True
            self._control.clear()
            self._output.clear()
            self._control_bytes = self._output_bytes = 0
            self._writing.cancel()
        if not self._is_closing:
            self._is_closing = True
            self.ended_because = self.ended_because or because
            self._living.deadline = trio.current_time() + _CLOSE_S
            self.rest(None)
        self._work.set()
        self._room.set()

    async def _write(self) -> None:
        """Send what is queued until the link ends, then close the stream. The only writer of the stream.

        *Resource handling*: closes the stream however it ends, which also ends a reader that waits.
        *Error handling*: raises nothing but Cancelled; a write that fails, or makes no progress for
        `delivery_s_max`, ends the link.
        """
        try:
            with self._living:
                while not self._is_closing:
                    await self._work.wait()
                    self._work = trio.Event()
                    await self._drain()
                await self._drain()
                await self._linger()
        finally:
            self._end("closed here")
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
                await trio.aclose_forcefully(self.stream)

    async def _linger(self) -> None:
        """Say that no more comes, and wait until the peer closes too.

        A socket that is closed with unread bytes in it resets the connection, and a reset destroys what the peer has
        not read yet: the refusal or goodbye that was just sent.
        """
        if self._is_broken:
            return
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if isinstance(self.stream, trio.abc.HalfCloseableStream):
                await self.stream.send_eof()
            if self._is_reading:  # it ends with what it gets, and no other begins
                await self._reader_ended.wait()
            if not self._is_broken:
                while await self.stream.receive_some():
                    pass

    async def _drain(self) -> None:
        while self._is_cut_off or self.queued_bytes:
            batch = b"" if self._is_cut_off else self._take()
            self._is_cut_off = False
            try:
                if self._prompt is not None:
                    if self._prompt.send_now(batch):
                        continue  # the usual case costs no trip through the scheduler
                    rest = self._prompt.flush
                else:
                    rest = partial(self.stream.send_all, batch)
                self._is_writing = True
                with trio.move_on_after(limits.delivery_s_max) as self._writing:
                    await rest()
                self._is_writing = False
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._end("the connection broke")
            if self._writing.cancelled_caught:  # a frame is cut in two: nothing can follow it
                self._end("it does not read what it is sent")

    def _take(self) -> bytes:
        """Return the next bytes to write: everything of control (bounded), else one frame of output."""
        if self._control:
            pieces, taken = _take_up_to(self._control, _WRITE_BYTES_MAX)
            self._control_bytes -= taken
            self._make_room()
            return self.connection.framed(pieces)
        if not self._output:
            return b""
        pieces, taken = _take_up_to(self._output, limits.output_frame_bytes_max)
        self._output_bytes -= taken
        self._make_room()
        return self.connection.framed(pieces)

    def _make_room(self) -> None:
        if self._room.statistics().tasks_waiting:
            self._room.set()
            self._room = trio.Event()


def _take_up_to(queue: deque[bytes], bytes_max: int) -> tuple[list[bytes], int]:
    """Remove and return pieces from the left: at least one, and no more than `bytes_max` bytes else."""
    pieces = [queue.popleft()]
    taken = len(pieces[0])
    while queue and taken + len(queue[0]) <= bytes_max:
        piece = queue.popleft()
        pieces.append(piece)
        taken += len(piece)
    return pieces, taken


@asynccontextmanager
async def open_link(
    stream: trio.abc.Stream,
    connection: Connection,
    *,
    goodbye: Goodbye | None = None,
    queue_bytes_max: int = limits.send_queue_bytes_max,
) -> AsyncIterator[Link]:
    """Run a link over `stream` while the block lasts; afterwards it is closed, `goodbye` said if the block ended well.

    What the block raises comes out as it is, not in an exception group.
    """
    link = Link(stream, connection, queue_bytes_max=queue_bytes_max)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link._write)  # noqa: SLF001 - the other half of the class
        try:
            yield link
        except Exception as error:  # noqa: BLE001 - passed on below: a nursery would wrap it in a group
            failure = error
        link.close(goodbye if failure is None else None)
    if failure is not None:
        raise failure
