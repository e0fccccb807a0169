"""Blocking connections of one program to a server: each thread that asks has one to itself for as long as it does.

A connection that nobody uses is kept for whoever asks next; its server ends it when it was silent for long, and it is
made again then. A list is appended to and popped from in one step, so there is no lock that a fork could leave held.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from tq.client.drivers.blocking import Client
from tq.client.drivers.reconnect import closed

_IDLE_MAX: Final = 8


class Pool:
    """Made with a first client; the others are as that one."""

    def __init__(self, first: Client) -> None:
        self.is_closed = False
        self._latest = first
        self._idle = [first]

    def __reduce__(self) -> NoReturn:
        """Say what to do: a pool of processes pickles what it is given, and clients and jobs have this one."""
        raise TypeError("a client is not for another process: connect there, and give it the ids of jobs")

    @property
    def lineage(self) -> int:
        """That of the store that was met last."""
        return self._latest.lineage

    def close(self) -> None:
        """Close what nobody uses, and all else when it has been used."""
        self.is_closed = True
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def lent(self) -> Iterator[Client]:
        """Lend a connection for the length of a block. Raises Unreachable when the pool is closed."""
        if self.is_closed:
            raise closed()
        try:
            client = self._idle.pop()
        except IndexError:
            client = self._latest.another()
        try:
            yield client
        finally:
            self._take_back(client)

    def _take_back(self, client: Client) -> None:
        self._latest = client
        if self.is_closed or len(self._idle) >= _IDLE_MAX:
            client.close()
        else:
            self._idle.append(client)
