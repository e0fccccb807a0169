"""Submits as prepared bytes over plain sockets, one outstanding on each: the client's own work stays off the clock.

So it is for tq (bench/load.py), so it is here: what is measured is the server. A submit is a list of exchanges: bytes,
and how many replies come back before the next exchange may go.
"""

import re
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from peers.stage import Figures

Exchange = tuple[bytes, int]
Submit = Sequence[Exchange]
RECEIVE_BYTES: Final = 64 * 1024


class Connection:
    """One connection: what it still has to send, and how many replies it waits for."""

    def __init__(self, port: int, submits: Sequence[Submit], complete: Callable[[bytes], int]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._exchanges = [exchange for submit in submits for exchange in submit]
        self._exchanges.reverse()
        self._complete = complete
        self._unread = b""
        self._owed = 0

    def send_next(self) -> bool:
        """Send the next exchange; False when there is none left."""
        if not self._exchanges:
            return False
        data, self._owed = self._exchanges.pop()
        self.socket.sendall(data)
        return True

    def receive(self) -> bool:
        """Take in what has come; True when the exchange is over."""
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server closed a connection")
        self._unread += data
        while self._owed and (length := self._complete(self._unread)):
            self._unread = self._unread[length:]
            self._owed -= 1
        return not self._owed


def rate(port: int, submits: Sequence[Submit], connections: int, complete: Callable[[bytes], int]) -> Figures:
    """Send all submits over so many connections. `complete` gives the length of the first whole reply, 0 if none is."""
    peers = [Connection(port, submits[place::connections], complete) for place in range(connections)]
    ready = selectors.DefaultSelector()
    for peer in peers:
        ready.register(peer.socket, selectors.EVENT_READ, peer)
    still_open = connections
    begin = time.perf_counter()
    for peer in peers:
        peer.send_next()
    while still_open:
        for key, _ in ready.select():
            if key.data.receive() and not key.data.send_next():
                still_open -= 1
    took_s = time.perf_counter() - begin
    for peer in peers:
        peer.socket.close()
    return {"rate": len(submits) / took_s}


def beanstalk_reply(data: bytes) -> int:
    """Return the length of the first whole reply to a put: one line, and never an error."""
    end = data.find(b"\r\n")
    if end >= 0 and not data.startswith(b"INSERTED"):
        raise ConnectionError(f"the server refused: {data[:end]!r}")
    return end + 2 if end >= 0 else 0


def redis_reply(data: bytes) -> int:
    """Return the length of the first whole reply of Redis, 0 if it is not complete."""
    end = data.find(b"\r\n") + 2
    if end < 2:
        return 0
    kind, rest = data[:1], data[1 : end - 2]
    if kind == b"-":
        raise ConnectionError(f"the server refused: {rest!r}")
    if kind in b"$=" and rest != b"-1":
        end += int(rest) + 2
        return end if len(data) >= end else 0
    if kind in b"*~>%" and rest != b"-1":
        for _ in range(int(rest) * (2 if kind == b"%" else 1)):
            length = redis_reply(data[end:])
            if not length:
                return 0
            end += length
    return end


def redis_commands(data: bytes) -> int:
    """Return how many commands are packed in what was sent to Redis."""
    count = place = 0
    while place < len(data):
        match = re.compile(rb"\*(\d+)\r\n").match(data, place)
        assert match, data[place : place + 40]
        place = match.end()
        for _ in range(int(match[1])):
            end = data.index(b"\r\n", place)
            place = end + 2 + int(data[place + 1 : end]) + 2
        count += 1
    return count


def recorded(submit: Callable[[], object], count: int) -> list[Submit]:
    """Call `submit` for real, `count` times, and return what it sent to Redis each time."""
    from redis.connection import AbstractConnection  # type: ignore[import-not-found]

    send, taken, submits = AbstractConnection.send_packed_command, [], []

    def record(self: Any, command: Any, *arguments: Any, **options: Any) -> Any:
        taken.append(command if isinstance(command, bytes) else b"".join(command))
        return send(self, command, *arguments, **options)

    submit()
    AbstractConnection.send_packed_command = record
    try:
        for _ in range(count):
            taken.clear()
            submit()
            submits.append([(data, redis_commands(data)) for data in taken])
    finally:
        AbstractConnection.send_packed_command = send
    return submits
