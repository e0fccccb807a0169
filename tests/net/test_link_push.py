"""What is written at once, past the writer: whole frames in order, and the writer goes on where the kernel stops."""

import math

import trio
from trio.testing import wait_all_tasks_blocked

from tq import limits
from tq.net.link import open_link
from tq.net.secure import SecureStream
from tq.wire.connection import Connection
from tq.wire.messages import Beat, Message


class Kernel(SecureStream):
    """A stream that takes `room` bytes at once; the rest waits for `read`. Nothing ever comes from its peer."""

    def __init__(self, room: float = math.inf) -> None:
        self.room = room
        self.taken = b""
        self.is_broken = False
        self._rest = b""
        self._read = trio.Event()

    def send_now(self, data: bytes) -> bool:
        if self.is_broken:
            raise trio.BrokenResourceError
        self._rest += data
        count = int(min(self.room, len(self._rest)))
        self.taken, self._rest, self.room = self.taken + self._rest[:count], self._rest[count:], self.room - count
        return not self._rest

    async def flush(self) -> None:
        while not self.send_now(b""):
            await self._read.wait()
            self._read = trio.Event()

    def read(self, room: float = math.inf) -> None:
        """Let the peer read: there is room for so much more."""
        self.room = room
        self._read.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep_forever()
        return b""

    async def send_eof(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def frames(self) -> list[list[Message]]:
        """Return the messages of each whole frame that was taken."""
        found, data = [], self.taken
        while len(data) >= 4 and len(data) >= (end := 4 + int.from_bytes(data[:4], "big")):
            found.append(Connection(limits.frame_bytes_max).receive_data(data[:end]))
            data = data[end:]
        return found


def connection() -> Connection:
    return Connection(limits.frame_bytes_max)


async def test_what_is_queued_leaves_at_once_and_in_one_frame(autojump_clock: trio.testing.MockClock) -> None:
    kernel = Kernel()
    async with open_link(kernel, connection()) as link:
        for count in range(3):
            link.send_nowait(Beat(count), output=True)
        link.push()
        assert kernel.frames() == [[Beat(0), Beat(1), Beat(2)]]
        link.push()
        await wait_all_tasks_blocked()
        assert len(kernel.frames()) == 1


async def test_the_writer_sends_what_the_kernel_did_not_take_and_nothing_overtakes_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    kernel = Kernel(room=5)
    async with open_link(kernel, connection()) as link:
        link.send_nowait(Beat(0))
        link.push()
        link.send_nowait(Beat(1))
        link.push()
        link.answer_nowait(Beat(2))
        assert len(kernel.taken) == 5
        await wait_all_tasks_blocked()
        link.send_nowait(Beat(3))
        link.push()  # the writer is at it
        assert len(kernel.taken) == 5
        kernel.read()
        await wait_all_tasks_blocked()
        assert [message for frame in kernel.frames() for message in frame] == [Beat(0), Beat(1), Beat(2), Beat(3)]


async def test_more_than_a_frame_is_left_to_the_writer(autojump_clock: trio.testing.MockClock) -> None:
    kernel = Kernel()
    count = limits.output_frame_bytes_max // 4
    async with open_link(kernel, connection()) as link:
        for number in range(count):
            link.send_nowait(Beat(number), output=True)
        link.push()
        assert len(kernel.frames()) == 1
        assert link.queued_bytes
        await wait_all_tasks_blocked()
        assert [message for frame in kernel.frames() for message in frame] == [Beat(number) for number in range(count)]


async def test_a_connection_that_breaks_there_ends_the_link(autojump_clock: trio.testing.MockClock) -> None:
    kernel = Kernel()
    async with open_link(kernel, connection()) as link:
        kernel.is_broken = True
        link.send_nowait(Beat(0))
        link.push()
        assert link.ended_because == "the connection broke"
        link.push()
        assert not link.send_nowait(Beat(1))
