"""A crowd of idle workers in one light process: each with its own TLS connection, its list, and a beat in time.

    python bench/crowd.py COUNT      prints `ready` when all have joined; ends when its standard input does

They speak the protocol as a worker does that holds nothing and may take nothing (it drains). The server is found as
`tq` finds it (TQ_DATA, TQ_URL…).
"""

import heapq
import os
import secrets
import selectors
import ssl
import sys
import time
from typing import Final

from tq import __version__
from tq.client.drivers.transport import dial
from tq.client.target import Target, find
from tq.core.vocabulary import Capacity
from tq.wire import messages as m
from tq.wire.connection import Connection

RECEIVE_BYTES: Final = 64 * 1024
BEAT: Final = Connection().send([m.Beat(number=1_000)])


class Crowd:
    """The connections, and when each is to say next that it lives."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._ready = selectors.DefaultSelector()
        self._due: list[tuple[float, int]] = []
        self._streams: dict[int, ssl.SSLSocket] = {}
        self._beat_s = 5.0

    def join(self) -> None:
        """Add one worker: the handshake, the hello, and the list of what it holds."""
        transport = dial(self._target)
        worker = secrets.randbits(63) | 1
        transport.send([m.Hello(m.VERSIONS, f"tq {__version__}", self._target.token, "worker", worker=worker)])
        welcome = transport._first()
        assert isinstance(welcome, m.Welcome), welcome
        host = f"crowd-{len(self._streams)}"
        transport.send([m.Reconcile(Capacity(slots=1, host=host, software=f"tq {__version__}"), (), draining=True)])
        self._beat_s = welcome.beat_ms / 1_000
        stream = transport._stream
        stream.setblocking(False)
        place = stream.fileno()
        self._streams[place] = stream
        self._ready.register(stream, selectors.EVENT_READ, stream)
        heapq.heappush(self._due, (time.monotonic() + self._beat_s, place))

    def attend(self, *, may_wait: bool = True) -> None:
        """Send the beats that are due, and throw away what has come; with `may_wait` wait until there is either."""
        now_s = time.monotonic()
        while self._due and self._due[0][0] <= now_s:
            due_s, place = heapq.heappop(self._due)
            self._streams[place].sendall(BEAT)
            heapq.heappush(self._due, (due_s + self._beat_s, place))
        for key, _ in self._ready.select(max(0.0, self._due[0][0] - now_s) if may_wait else 0.0):
            if key.fileobj is sys.stdin:
                sys.exit(0)
            self._read(key.data)

    def until_told(self) -> None:
        """Live until the standard input ends."""
        self._ready.register(sys.stdin, selectors.EVENT_READ)
        while True:
            self.attend()

    def _read(self, stream: ssl.SSLSocket) -> None:
        try:
            while data := stream.recv(RECEIVE_BYTES):
                if b"Refused" in data or b"Goodbye" in data:
                    sys.exit(f"the server sent one away: {data!r}")
        except ssl.SSLWantReadError:
            return
        sys.exit("the server closed a connection")


def main() -> None:
    """Join all, say so, and stay."""
    crowd, begin = Crowd(find({}, os.environ)), time.monotonic()
    for _ in range(int(sys.argv[1])):
        crowd.join()
        if time.monotonic() - begin > 0.2:
            crowd.attend(may_wait=False)
            begin = time.monotonic()
    print("ready", flush=True)
    crowd.until_told()


if __name__ == "__main__":
    main()
