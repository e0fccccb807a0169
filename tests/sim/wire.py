"""Level 2: a connection between two real links, as trio streams in memory that somebody may delay, halve or cut.

Bytes of each direction go through a pump, in pieces of any size, each a while later. A cut may fall at any byte; an end
that does not notice goes on with half of a connection, and what it sends is lost.
"""

from collections.abc import Callable

import trio
from trio.testing import memory_stream_pair

from tests.sim.world import MS, SECOND, World
from tq.net.idle_polling import IdlePolling
from tq.net.secure import SecureStream

_PIECE_MAX = 1 << 16


class PromptStream(SecureStream):
    """A stream in memory as a link knows it over a socket: it takes at once what there is room for, mostly all."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._raw, self.inner = memory_stream_pair()
        self._rest = b""
        self._is_flushing = False

    def send_now(self, data: bytes) -> bool:
        """Take as much as goes now; return whether that was all."""
        if self._is_flushing:
            raise self._world.violated("somebody writes to a stream while the writer does")
        self._rest += data
        return self._push()

    async def flush(self) -> None:
        """Send what `send_now` left over."""
        self._is_flushing = True
        try:
            while not self._push():  # noqa: ASYNC110 - there may be room for a part of it again
                await trio.sleep(self._world.wait_us(50 * MS) / SECOND)
        finally:
            self._is_flushing = False

    def _push(self) -> bool:
        room = self._world.dice.randint(0, len(self._rest)) if self._world.chance(0.1) else len(self._rest)
        taken, self._rest = self._rest[:room], self._rest[room:]
        try:
            if taken:
                self.inner.receive_stream.put_data(taken)
        except trio.ClosedResourceError:
            raise trio.BrokenResourceError("the other end is closed") from None
        return not self._rest

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what is there; b'' at the end."""
        return bytes(await self._raw.receive_some(max_bytes))

    def rest(self, idle_polling: IdlePolling | None) -> None:
        """Go on as before: it has no socket."""

    async def send_eof(self) -> None:
        """Say that no more comes."""
        await self._raw.send_eof()

    async def aclose(self) -> None:
        """Close."""
        await self._raw.aclose()


class WireEnd:
    """One end: the `stream` that its process uses, and what the network does with what comes out of it (`inner`)."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.stream = PromptStream(world)
        self.inner = self.stream.inner
        self.is_cut = False  # nothing more comes here
        self.peer = self

    async def hang_up(self) -> None:
        """End what comes here: the process reads the end of the stream, perhaps in the middle of a frame."""
        self.is_cut = True
        await trio.aclose_forcefully(self.inner)


class Wire:
    """Two ends and the pumps between them. `near` is the end of who dialled."""

    def __init__(self, world: World, nursery: trio.Nursery, name: str) -> None:
        self.world = world
        self.near, self.far = WireEnd(world, name), WireEnd(world, "server")
        self.near.peer, self.far.peer = self.far, self.near
        self.held_until_us = 0  # a partition
        self.mean_us = world.dice.choice((MS // 10, MS // 2, 2 * MS, 20 * MS))
        self._nursery = nursery
        nursery.start_soon(self._pump, self.near, self.far)
        nursery.start_soon(self._pump, self.far, self.near)

    async def _pump(self, source: WireEnd, target: WireEnd) -> None:
        world = self.world
        try:
            while data := await source.inner.receive_some(world.dice.randint(1, _PIECE_MAX)):
                await trio.sleep(world.wait_us(self.mean_us) / SECOND)
                while self.held_until_us > world.now_us:  # noqa: ASYNC110 - it may be held anew
                    await trio.sleep((self.held_until_us - world.now_us) / SECOND)
                if not target.is_cut:
                    await target.inner.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # an end was closed, or cut
        if not target.is_cut and not source.is_cut:
            await target.hang_up()

    def cut(self, *, near_notices: bool, far_notices: bool) -> None:
        """Break it in both directions, at whatever bytes were under way."""
        for end, notices in ((self.near, near_notices), (self.far, far_notices)):
            end.is_cut = True
            if notices:
                self._nursery.start_soon(end.hang_up)

    def die(self, end: WireEnd) -> None:
        """The process of an end is gone; the other hears of it, or not (a dead host)."""
        end.is_cut = True
        end.peer.is_cut = True
        if self.world.chance(0.9):
            self._nursery.start_soon(end.peer.hang_up)


class Clockwork:
    """Runs the events of the simulated world at their times on trio's clock, beside the real tasks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._more = trio.Event()
        world.on_event = self._wake

    def _wake(self) -> None:
        self._more.set()

    async def run(self, is_over: Callable[[], bool], until_us: int) -> bool:
        """Let things happen until `is_over`; return whether it was before `until_us`."""
        world = self._world
        while not is_over():
            if world.now_us > until_us:
                return False
            self._more = trio.Event()
            with trio.move_on_at(min(world.next_us(), until_us + 1) / SECOND):
                await self._more.wait()
            world.run_due()
        return True


class TrioWorld(World):
    """A world whose time is trio's."""

    @property
    def now_us(self) -> int:
        """The time."""
        self.last_us = round(trio.current_time() * SECOND)
        return self.last_us

    @now_us.setter
    def now_us(self, _: int) -> None:
        """It cannot be set: it passes."""
