"""A hostile network between two programs: a TCP proxy on loopback that black-holes, halves, delays and resets.

    with proxied(server.port) as line:
        ... TQ_URL=line.url ...
        line.black_hole()           # nothing passes, nobody is told: no FIN, no RST; whoever connects hears nothing
        line.black_hole(Way.DOWN)   # half-open: what the server says gets lost, what it is told arrives
        line.heal()                 # what waited arrives after all, as TCP would send it again
        line.delay(0.2)             # each piece comes so much later, each way
        line.reset()                # every connection dies with an RST; whoever comes then is served
        line.refuse()               # as reset, and whoever comes is reset too, until `heal`

Runs in a thread with a trio loop of its own; every method takes effect before it returns. Bytes are never lost, changed
or reordered inside a connection: TCP does not do that, and TLS would not let it pass.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Flag
from typing import Final

import trio

_CHUNK_BYTES: Final = 64 * 1024
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of no length: closing sends RST
_GONE: Final = (OSError, trio.ClosedResourceError)
HOST: Final = "127.0.0.1"


class Way(Flag):
    """Which way bytes go: `UP` to the server, `DOWN` to who connected."""

    UP = 1
    DOWN = 2
    BOTH = 3


class Proxy:
    """One listening port before one target. Made by `proxied`; see the head of this file."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.accepted = 0  # connections so far
        self.carried = {Way.UP: 0, Way.DOWN: 0}  # bytes
        self._target = target
        self._shut = Way(0)
        self._delay_s = 0.0
        self._is_refusing = False
        self._pairs: set[tuple[trio.socket.SocketType, trio.socket.SocketType]] = set()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), name="proxy")

    @property
    def url(self) -> str:
        """Where clients and workers find the server through this proxy."""
        return f"tq://{HOST}:{self.port}"

    # ------------------------------------------------------------ what a test asks for

    def black_hole(self, way: Way = Way.BOTH) -> None:
        """Let nothing pass this way, and tell nobody."""
        self._do(lambda: setattr(self, "_shut", way))

    def delay(self, seconds: float) -> None:
        """Let each piece come so much later."""
        self._do(lambda: setattr(self, "_delay_s", seconds))

    def reset(self) -> None:
        """Kill every connection with an RST."""
        self._do(self._reset)

    def refuse(self) -> None:
        """Kill every connection with an RST, and each that comes, until `heal`."""
        self._do(lambda: setattr(self, "_is_refusing", True))
        self._do(self._reset)

    def heal(self) -> None:
        """Be a good network again. What was held back arrives."""
        self._do(self._heal)

    def close(self) -> None:
        """End the proxy and all that it carries."""
        self._do(self._scope.cancel)
        self._thread.join()

    def start(self) -> None:
        """Listen, on a port of the kernel's choice."""
        self._thread.start()
        assert self._is_up.wait(10), "the proxy listens"

    # ------------------------------------------------------------ in its own thread

    def _do(self, what: object) -> None:
        trio.from_thread.run_sync(what, trio_token=self._token)  # type: ignore[arg-type]

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._opened = trio.Event()
        listener = trio.socket.socket()
        await listener.bind((HOST, 0))
        listener.listen(256)
        self.port = listener.getsockname()[1]
        with trio.CancelScope() as self._scope, listener:
            self._is_up.set()
            async with trio.open_nursery() as nursery:
                while True:
                    near, _ = await listener.accept()
                    self.accepted += 1
                    nursery.start_soon(self._carry, near)

    async def _carry(self, near: trio.socket.SocketType) -> None:
        """Be the network of one connection until both its ways have ended."""
        far = trio.socket.socket()
        pair = (near, far)
        self._pairs.add(pair)
        try:
            for one in pair:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._until_open(Way.UP)
            if self._is_refusing:
                return
            await far.connect((HOST, self._target))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, near, far, Way.UP)
                nursery.start_soon(self._pump, far, near, Way.DOWN)
            near.close()  # both ways have ended well: what the kernel still has goes out
            far.close()
        except _GONE:  # nobody listens there, or a socket was reset before it began
            pass
        finally:
            _kill(*pair)
            self._pairs.discard(pair)

    async def _pump(self, source: trio.socket.SocketType, sink: trio.socket.SocketType, way: Way) -> None:
        """Carry bytes one way, then the end of the stream; an end that is no FIN kills both."""
        try:
            while True:
                data = await source.recv(_CHUNK_BYTES)
                if self._delay_s:
                    await trio.sleep(self._delay_s)
                await self._until_open(way)
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                view = memoryview(data)
                while view:
                    view = view[await sink.send(view) :]
                self.carried[way] += len(data)
        except _GONE:
            await self._until_open(way)
            _kill(source, sink)

    async def _until_open(self, way: Way) -> None:
        while way & self._shut:
            await self._opened.wait()

    def _heal(self) -> None:
        self._shut, self._delay_s, self._is_refusing = Way(0), 0.0, False
        self._opened.set()
        self._opened = trio.Event()

    def _reset(self) -> None:
        for pair in self._pairs:
            _kill(*pair)


def _kill(*sockets: trio.socket.SocketType) -> None:
    for one in sockets:
        with suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        one.close()


@contextmanager
def proxied(target: int) -> Iterator[Proxy]:
    """Run a proxy before a port of this machine while the block lasts."""
    proxy = Proxy(target)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
