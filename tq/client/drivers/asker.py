"""What the API with trio asks, over a line: flows, pages, output, ends. It decides nothing, and knows no connection."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from math import inf
from typing import TypeVar

import trio

from tq.client.drivers.connection import Line
from tq.client.sansio import dialogues
from tq.client.sansio.as_completed import Ends
from tq.client.sansio.documents import expect
from tq.client.sansio.reading import Output, Reading
from tq.client.sansio.requests import Asked
from tq.core import vocabulary as v
from tq.errors import TimedOut, TqError

_T = TypeVar("_T")


class Asker:
    """Asks over a line. With a `lineage` it asks that store alone, and raises where another has taken its place."""

    def __init__(self, line: Line, lineage: int = 0) -> None:
        self._line = line
        self.lineage = lineage

    def of(self, lineage: int) -> "Asker":
        """Return one that asks this store alone."""
        return Asker(self._line, lineage)

    def here(self) -> "Asker":
        """Return one that asks the store which is there now alone."""
        return self.of(self._line.lineage)

    async def submit(self, asked: Asked) -> tuple[v.Submitted, "Asker"]:
        """Submit a request, and return with the answer who asks the store that gave it."""
        return await self.follow(dialogues.submitting(asked)), self.here()

    async def follow(self, flow: dialogues.Flow[_T], timeout_s: float = inf) -> _T:
        """Ask what a flow asks, until it returns. After `timeout_s` it gets the last answer, or TimedOut."""
        try:
            asking = next(flow)
            while True:
                try:
                    answer = await self._line.ask(asking, timeout_s, lineage=self.lineage)
                except TqError as error:
                    asking = flow.throw(error)
                else:
                    asking = flow.send(answer)
        except StopIteration as end:
            result: _T = end.value
            return result

    async def each(self, pages: dialogues.Pages[_T]) -> AsyncGenerator[_T, None]:
        """Yield what is on all pages, each asked for when the one before it was taken."""
        page: str | None = ""
        while page is not None:
            found, following = await self.follow(pages(page))
            for one in found:
                yield one
            page = following or None

    async def read(self, reading: Reading) -> AsyncGenerator[Output, None]:
        """Yield the output of a task. More readings than a connection may have wait for their turn."""
        pause_s: float | None = 0.0
        while pause_s is not None:
            await trio.sleep(pause_s)
            pause_s = 0.0
            async with aclosing(self._line.listen(reading.command, lineage=self.lineage)) as answers:
                async for answer in answers:
                    if isinstance(answer, v.LogsEnd):
                        pause_s = reading.end(answer)
                    elif isinstance(answer, v.Chunk) and (new := reading.take(answer)) is not None:
                        yield new

    async def watch(self, ends: Ends[_T], timeout_s: float) -> AsyncGenerator[_T, None]:
        """Yield what ends as it does, until all has. Raises TimedOut, `timeout_s` later."""
        until_s, looks = trio.current_time() + timeout_s, 0
        while not ends.is_over():
            if trio.current_time() >= until_s and looks:
                raise ends.late(timeout_s)
            looks += 1
            with suppress(TimedOut):
                async with aclosing(self._line.listen(ends.wait, until_s, lineage=self.lineage)) as answers:
                    async for answer in answers:
                        async with aclosing(self.each(ends.look(expect(v.Waited, answer)))) as found:
                            async for one in found:
                                yield one
                        if ends.is_over() or trio.current_time() >= until_s:
                            break
