"""Load for a server: N connections, each with one durable submit of `true` outstanding at a time.

    python bench/load.py CONNECTIONS SUBMITS [BATCH]      prints JSON: rate, p50_ms, p99_ms

With BATCH so many submits are in one frame, and outstanding together: to fill a queue, not to measure an answer.

The server is found as `tq` finds it (TQ_DATA, TQ_URL…). Run it in a process of its own: frames are encoded before the
clock starts and answers are not decoded, so that what is measured is the server and not its load.
"""

import itertools
import json
import os
import secrets
import selectors
import ssl
import sys
import time
from typing import Final

from tq.client.drivers.transport import dial
from tq.client.target import find
from tq.core.vocabulary import Submit
from tq.wire.body import Body
from tq.wire.codec import dumps
from tq.wire.connection import LENGTH_BYTES, Connection
from tq.wire.messages import Ask

RECEIVE_BYTES: Final = 64 * 1024


class Peer:
    """One connection: what it still has to send, and when it sent the last."""

    def __init__(self, frames: list[bytes]) -> None:
        transport = dial(TARGET)
        transport.greet(TARGET.token, 0, 0)
        self.stream: ssl.SSLSocket = transport._stream  # the load speaks frames itself
        self.stream.setblocking(False)
        self._frames = frames
        self._unread = bytearray()
        self._owed = 0
        self._sent_s = 0.0
        self.latencies_s: list[float] = []

    def send_next(self) -> bool:
        """Send the next submit; False when there is none left."""
        if not self._frames:
            return False
        self._sent_s = time.perf_counter()
        self._owed = BATCH
        self.stream.sendall(self._frames.pop())
        return True

    def receive(self) -> bool:
        """Take in what has come; True when what was sent is answered."""
        try:
            while data := self.stream.recv(RECEIVE_BYTES):
                self._unread += data
        except ssl.SSLWantReadError:
            pass
        else:
            sys.exit("the server closed a connection")
        while len(self._unread) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self._unread[:LENGTH_BYTES], "big")
            if len(self._unread) < end:
                break
            frame = bytes(self._unread[:end])
            del self._unread[:end]
            answers = frame.count(b"Submitted")
            self._owed -= answers
            if answers and not self._owed:
                self.latencies_s.append(time.perf_counter() - self._sent_s)
                return True
            if b"Failed" in frame or b"Refused" in frame:
                sys.exit(f"the server refused: {frame!r}")
        return False


def submits(count: int) -> list[bytes]:
    """Return the frames of `count` submits, each with a key of its own."""
    wire = Connection()
    body = dumps(Body(argv=(b"true",), cwd=b"/", environment={"PATH": b"/usr/bin:/bin"}))
    asks = (Ask(n + 1, Submit(key=secrets.token_hex(8), body=body, name="load")) for n in range(count))
    return [wire.send(batch) for batch in iter(lambda: list(itertools.islice(asks, BATCH)), [])]


def run(connections: int, count: int) -> dict[str, float]:
    """Send `count` submits over `connections`, and return the rate and the latencies."""
    share = count // connections // BATCH * BATCH
    peers = [Peer(submits(share)) for _ in range(connections)]
    ready = selectors.DefaultSelector()
    for peer in peers:
        ready.register(peer.stream, selectors.EVENT_READ, peer)
    open_peers = connections
    begin = time.perf_counter()
    for peer in peers:
        peer.send_next()
    while open_peers:
        for key, _ in ready.select():
            if key.data.receive() and not key.data.send_next():
                open_peers -= 1
    took_s = time.perf_counter() - begin
    latencies_s = sorted(latency for peer in peers for latency in peer.latencies_s)
    return {
        "rate": share * connections / took_s,
        "p50_ms": latencies_s[len(latencies_s) // 2] * 1_000,
        "p99_ms": latencies_s[len(latencies_s) * 99 // 100] * 1_000,
    }


if __name__ == "__main__":
    TARGET = find({}, os.environ)
    CONNECTIONS, SUBMITS, BATCH = (int(argument) for argument in [*sys.argv[1:], "1"][:3])
    print(json.dumps(run(CONNECTIONS, SUBMITS)))
