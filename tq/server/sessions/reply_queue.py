"""Where answers to one client wait until it has read those before them, in order: the counterpart of its inlet.

A link cuts a peer for which too much is queued, since that one does not read. The answers of one turn may be more than
that and their client read all the same; so what goes beyond `answers_bytes_max` waits here, unencoded, as effects for a
worker wait in its session. It decides nothing. How much may come to wait is bounded by whoever asks `is_full` before it
takes a further request.
"""

from collections import deque

import trio

from tq import errors
from tq.core import vocabulary as v
from tq.limits import answers_bytes_max
from tq.net.link import Link
from tq.server.sessions.worker_protocol import reply


class ReplyQueue:
    """The answers to one client."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: deque[tuple[int, v.Answer | errors.TqError, bool]] = deque()
        self._filled = trio.Event()
        self._emptied = trio.Event()

    @property
    def is_full(self) -> bool:
        """Whether the client must read before it is answered anything else."""
        return bool(self._waiting)

    def put(self, number: int, answer: v.Answer | errors.TqError, *, more: bool = False) -> None:
        """Answer a request now, or once the client has read what is queued for it."""
        if self._waiting or self._link.queued_bytes > answers_bytes_max:
            self._waiting.append((number, answer, more))
            self._filled.set()
        else:
            self._send(number, answer, more)

    async def wait_room(self) -> None:
        """Wait until nothing waits here, and the client has read enough of what is queued, or its link has ended."""
        while self._waiting:
            await self._emptied.wait()
        await self._link.wait_read(answers_bytes_max)

    async def run(self) -> None:
        """Send what waits, as the client reads."""
        while True:
            await self._filled.wait()
            self._filled = trio.Event()
            while self._waiting:
                await self._link.wait_read(answers_bytes_max)
                self._send(*self._waiting.popleft())
            self._emptied.set()
            self._emptied = trio.Event()

    def _send(self, number: int, answer: v.Answer | errors.TqError, more: bool) -> None:
        try:
            self._link.answer_nowait(reply(number, answer, more=more))
        except errors.TooLarge as error:
            self._link.answer_nowait(reply(number, error))
