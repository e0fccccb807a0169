"""A network of ordered, reliable streams, as TLS over TCP shows it: delay and cuts, never loss or reordering inside.

A cut may come at any byte: what was sent before arrives, the rest never does. Either end may go on for a while without
noticing (half-open); what it sends then is lost. Bytes of an old connection may arrive after a new one has begun.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tests.sim.world import MS, Process, World
from tq.wire.connection import Connection
from tq.wire.messages import Message


class End:
    """One end of a connection, as its process sees it. `on_messages` and `on_end` are set by the owner."""

    def __init__(self, process: Process, is_encoded: bool) -> None:
        self.process = process
        self.life = process.life
        self.is_open = True  # may send and receive
        self.on_messages: Callable[[list[Message]], None] = _ignore
        self.on_end: Callable[[], None] = _ignore
        self.peer: End = self
        self.delay_us = MS
        self.coming: deque[Any] = deque()  # frames on their way here; None = end of stream
        self.arrives_us = 0  # when the last of them does: order within a stream
        self.is_cut = False  # nothing more will come
        self.held_until_us = 0  # a partition
        self._codec = Connection(1 << 18) if is_encoded else None

    def send(self, messages: Sequence[Message]) -> None:
        """Send a frame; what is sent into a dead connection is lost without notice."""
        if self.is_open and messages:
            peer = self.peer
            if not peer.is_cut:
                peer._expect(self._codec.send(messages) if self._codec else list(messages))

    def close(self) -> None:
        """Close in order: the other end gets what was sent, then the end of the stream."""
        if self.is_open:
            self.is_open = False
            self.coming.clear()
            if not self.peer.is_cut:
                self.peer.is_cut = True
                self.peer._expect(None)

    def _expect(self, frame: Any) -> None:
        world = self.process.world
        delay_us = self.delay_us + int(world.dice.random() * self.delay_us)
        self.arrives_us = max(self.arrives_us, world.now_us + delay_us, self.held_until_us)
        self.coming.append(frame)
        world.at(self.arrives_us, self._arrive)

    def _arrive(self) -> None:
        process = self.process
        world = process.world
        if not self.coming or not self.is_open or process.life != self.life:
            return
        if self.held_until_us > world.now_us:
            world.at(self.held_until_us, self._arrive)
            return
        if process.frozen_until_us > world.now_us:
            world.at(process.frozen_until_us, self._arrive)
            return
        frame = self.coming.popleft()
        if frame is None:
            self.is_open = False
            self.on_end()
            if not self.peer.is_cut:  # what is not read any more is reset: the other end hears of it as well
                self.peer.is_cut = True
                self.peer._expect(None)
            return
        messages = self._codec.receive_data(frame) if self._codec else frame
        if messages:
            world.saw(process.name, messages)
            self.on_messages(messages)

    def lose(self, *, is_noticed: bool) -> None:
        """Cut what comes here at some byte; the end of the stream follows, or (unnoticed) nothing ever."""
        if self.is_cut:
            return
        world = self.process.world
        waiting = len(self.coming)
        keep = world.dice.randint(0, waiting) if waiting else 0
        torn = self.coming[keep] if keep < waiting else None
        while len(self.coming) > keep:
            self.coming.pop()
        if self._codec and torn:
            part = torn[: world.dice.randint(0, len(torn) - 1)]
            if part:
                self._expect(part)
        self.is_cut = True
        if is_noticed:
            self._expect(None)


class Network:
    """Makes connections. `is_encoded` carries bytes, else the messages themselves (the same, but faster)."""

    def __init__(self, world: World, *, is_encoded: bool) -> None:
        self.world = world
        self.is_encoded = is_encoded
        self.partitions: dict[str, int] = {}  # name of a process -> until when nothing passes

    def dial(self, near: Process, far: Process, accept: Callable[[End], None]) -> End | None:
        """Connect two processes; None when that fails now."""
        if self.partitions.get(near.name, 0) > self.world.now_us or far.is_frozen:
            return None
        here, there = End(near, self.is_encoded), End(far, self.is_encoded)
        here.peer, there.peer = there, here
        slow = self.world.dice.choice((MS // 10, MS // 2, 2 * MS, 20 * MS))
        here.delay_us = there.delay_us = slow
        if self.world.chance(0.2):
            there.delay_us = 50 * MS
        accept(there)
        return here

    def cut(self, end: End, *, near_notices: bool = True, far_notices: bool = True) -> None:
        """Break a connection in both directions."""
        end.lose(is_noticed=near_notices)
        end.peer.lose(is_noticed=far_notices)

    def part(self, name: str, end: End | None, for_us: int) -> None:
        """Let nothing pass for a while; what was sent arrives afterwards."""
        until_us = self.world.now_us + for_us
        self.partitions[name] = until_us
        if end is not None:
            end.held_until_us = end.peer.held_until_us = until_us

    def die(self, end: End) -> None:
        """A process is gone. The other end gets some of what it sent; it may hear of the end, or not (a dead host)."""
        end.is_open = False
        end.coming.clear()
        end.is_cut = True
        end.peer.lose(is_noticed=self.world.chance(0.9))


def _ignore(*_: object) -> None:
    """Do nothing."""
