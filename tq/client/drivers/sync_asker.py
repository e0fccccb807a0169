"""What the API without trio asks, over a pool of connections: as asker.py does over one, call for call."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import Final, NoReturn, TypeVar

from tq import limits
from tq.client.drivers.blocking import Client
from tq.client.drivers.reconnect import closed
from tq.client.sansio import dialogues
from tq.client.sansio.as_completed import Ends
from tq.client.sansio.documents import expect
from tq.client.sansio.reading import Output, Reading
from tq.client.sansio.requests import Asked
from tq.core import vocabulary as v
from tq.errors import ProtocolError, TimedOut, TqError

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


_T = TypeVar("_T")


class DirectAsker:
    """Asks over a pool. With a `lineage` it asks that store alone, and raises where another has taken its place."""

    def __init__(self, pool: Pool, lineage: int = 0) -> None:
        self._pool = pool
        self.lineage = lineage

    def of(self, lineage: int) -> "DirectAsker":
        """Return one that asks this store alone."""
        return DirectAsker(self._pool, lineage)

    def here(self) -> "DirectAsker":
        """Return one that asks the store which is there now alone."""
        return self.of(self._pool.lineage)

    def submit(self, asked: Asked) -> tuple[v.Submitted, "DirectAsker"]:
        """Submit a request, and return with the answer who asks the store that gave it."""
        with self._pool.lent() as client:
            submitted = self._follow(client, dialogues.submitting(asked), inf)
            return submitted, DirectAsker(self._pool, client.lineage)

    def follow(self, flow: dialogues.Flow[_T], timeout_s: float = inf) -> _T:
        """Ask what a flow asks, until it returns. After `timeout_s` it gets the last answer, or TimedOut."""
        with self._pool.lent() as client:
            return self._follow(client, flow, timeout_s)

    def _follow(self, client: Client, flow: dialogues.Flow[_T], timeout_s: float) -> _T:
        try:
            asking = next(flow)
            while True:
                try:
                    answer = self._ask(client, asking, timeout_s)
                except TqError as error:
                    asking = flow.throw(error)
                else:
                    asking = flow.send(answer)
        except StopIteration as end:
            result: _T = end.value
            return result

    def _ask(self, client: Client, asking: dialogues.Asking, timeout_s: float) -> v.Answer:
        is_glance = isinstance(asking, dialogues.Glance)
        command = asking.wait if isinstance(asking, dialogues.Glance) else asking
        last: v.Answer | None = None
        try:
            for answer in self._answers(client, lambda: command, timeout_s):
                last = answer
                if is_glance:
                    break
        except TimedOut:
            if last is None:
                raise
        if last is None:
            raise ProtocolError("the server gave no answer")
        return last

    def _answers(self, client: Client, make: Callable[[], v.ClientCommand], timeout_s: float) -> Iterator[v.Answer]:
        """Yield all answers until the last. How things stand is looked at however short the time is (TimedOut)."""
        begin_s = time.monotonic()
        client.deadline_s = begin_s + max(timeout_s, limits.look_s)
        try:
            for answer in client.subscribe(make, lineage=self.lineage):
                client.deadline_s = begin_s + timeout_s
                yield answer
        finally:
            client.deadline_s = None

    def each(self, pages: dialogues.Pages[_T]) -> Iterator[_T]:
        """Yield what is on all pages, each asked for when the one before it was taken."""
        page: str | None = ""
        while page is not None:
            found, following = self.follow(pages(page))
            yield from found
            page = following or None

    def read(self, reading: Reading) -> Iterator[Output]:
        """Yield the output of a task, over a connection of its own as long as it is read."""
        pause_s: float | None = 0.0
        with self._pool.lent() as client:
            while pause_s is not None:
                time.sleep(pause_s)
                pause_s = 0.0
                for answer in client.subscribe(reading.command, lineage=self.lineage):
                    if isinstance(answer, v.LogsEnd):
                        pause_s = reading.end(answer)
                    elif isinstance(answer, v.Chunk) and (new := reading.take(answer)) is not None:
                        yield new

    def watch(self, ends: Ends[_T], timeout_s: float) -> Iterator[_T]:
        """Yield what ends as it does, over a connection of its own. Raises TimedOut `timeout_s` later."""
        begin_s, looks = time.monotonic(), 0
        while not ends.is_over():
            rest_s = begin_s + timeout_s - time.monotonic()
            if rest_s <= 0 and looks:
                raise ends.late(timeout_s)
            looks += 1
            with suppress(TimedOut), self._pool.lent() as client:
                for answer in self._answers(client, ends.wait, rest_s):
                    yield from self.each(ends.look(expect(v.Waited, answer)))
                    if ends.is_over() or time.monotonic() >= begin_s + timeout_s:
                        break
