"""Load for a server: N connections, each with one durable submit of `true` outstanding at a time.

    python bench/load.py CONNECTIONS SUBMITS      prints JSON: rate, p50_ms, p99_ms

The server is found as `tq` finds it (TQ_DATA, TQ_URL…). Run it in a process of its own: frames are encoded before the
clock starts and answers are not decoded, so that what is measured is the server and not its load.
"""

import json
import os
import secrets
import selectors
import ssl
import sys
import time
from typing import Final

from tq.client.target import find
from tq.client.transport import dial
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
        self._sent_s = 0.0
        self.latencies_s: list[float] = []

    def send_next(self) -> bool:
        """Send the next submit; False when there is none left."""
        if not self._frames:
            return False
        self._sent_s = time.perf_counter()
        self.stream.sendall(self._frames.pop())
        return True

    def receive(self) -> bool:
        """Take in what has come; True when the outstanding submit is answered."""
        is_answered = False
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
            if b"Submitted" in frame:
                is_answered = True
                self.latencies_s.append(time.perf_counter() - self._sent_s)
            elif b"Failed" in frame or b"Refused" in frame:
                sys.exit(f"the server refused: {frame!r}")
        return is_answered


def submits(count: int) -> list[bytes]:
    """Return the frames of `count` submits, each with a key of its own."""
    wire = Connection()
    body = dumps(Body(argv=(b"true",), cwd=b"/", environment={"PATH": b"/usr/bin:/bin"}))
    return [wire.send([Ask(n + 1, Submit(key=secrets.token_hex(8), body=body, name="load"))]) for n in range(count)]


def run(connections: int, count: int) -> dict[str, float]:
    """Send `count` submits over `connections`, and return the rate and the latencies."""
    share = count // connections
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
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
