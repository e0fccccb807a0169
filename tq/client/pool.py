"""Blocking connections of one program to a server: each thread that asks has one to itself for as long as it does.

A connection that nobody uses is kept for whoever asks next; its server ends it when it was silent for long, and it is
made again then. A list is appended to and popped from in one step, so there is no lock that a fork could leave held.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Final, TypeVar

from tq import limits
from tq.client import flows
from tq.client.blocking import Client
from tq.client.losses import closed
from tq.client.reading import Output, Reading
from tq.core import vocabulary as v
from tq.errors import ProtocolError, TqError

_T = TypeVar("_T")
_IDLE_MAX: Final = 8


class Pool:
    """Made with a first client; the others are as that one."""

    def __init__(self, first: Client) -> None:
        self.is_closed = False
        self._latest = first
        self._idle = [first]

    def close(self) -> None:
        """Close what nobody uses, and all else when it has been used."""
        self.is_closed = True
        while self._idle:
            self._idle.pop().close()

    def follow(self, flow: flows.Flow[_T], timeout_s: float = inf) -> _T:
        """Ask what a flow asks, until it returns. It is told of an answer that takes longer (TimedOut)."""
        with self._lent() as client:
            try:
                command = next(flow)
                while True:
                    try:
                        answer = _ask(client, command, timeout_s)
                    except TqError as error:
                        command = flow.throw(error)
                    else:
                        command = flow.send(answer)
            except StopIteration as end:
                result: _T = end.value
                return result

    def each(self, pages: flows.Pages[_T]) -> Iterator[_T]:
        """Yield what is on all pages, each asked for when the one before it was taken."""
        page: str | None = ""
        while page is not None:
            found, following = self.follow(pages(page))
            yield from found
            page = following or None

    def read(self, reading: Reading) -> Iterator[Output]:
        """Yield the output of a task, over a connection of its own as long as it is read."""
        pause_s: float | None = 0.0
        with self._lent() as client:
            while pause_s is not None:
                time.sleep(pause_s)
                pause_s = 0.0
                for answer in client.subscribe(reading.command):
                    if isinstance(answer, v.LogsEnd):
                        pause_s = reading.end(answer)
                    elif isinstance(answer, v.Chunk) and (new := reading.take(answer)) is not None:
                        yield new

    @contextmanager
    def _lent(self) -> Iterator[Client]:
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


def _ask(client: Client, command: v.ClientCommand, timeout_s: float) -> v.Answer:
    """Return the last answer to a command. How things stand is looked at however short the time is."""
    last: v.Answer | None = None
    begin_s = time.monotonic()
    client.deadline_s = begin_s + max(timeout_s, limits.look_s)
    try:
        for answer in client.subscribe(lambda: command):
            last = answer
            client.deadline_s = begin_s + timeout_s
    finally:
        client.deadline_s = None
    if last is None:
        raise ProtocolError("the server gave no answer")
    return last
