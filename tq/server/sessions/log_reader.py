"""One `logs`: stored output, then with `follow` what comes, until the task has ended; then LogsEnd.

How the task stands is read through the commit loop like everything else, so that nobody hears of an end before it is
on disk; and whatever an attempt printed was written before its report, so after the end the store has all of it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import trio

from tq.core import vocabulary as v
from tq.core.model.task import TaskKey
from tq.core.model.view import View
from tq.errors import BadRequest, StoreDamaged, TaskNotFound
from tq.server.commit.commit_loop import damaged
from tq.server.commit.committer import ask
from tq.server.commit.intake import Look, Request
from tq.server.sessions.follow import Reader, Sight, find, look
from tq.server.sessions.session_context import Send, SessionContext
from tq.store.seam import OutputSlot


async def read_logs(context: SessionContext, logs: v.Logs, send: Send) -> None:
    """Send everything that was asked for. Raises Refused, or StoreDamaged, where that ends it."""
    await LogReader(context, logs, send).run()


class LogReader:
    """Reads the output of one task for one client."""

    def __init__(self, context: SessionContext, logs: v.Logs, send: Send) -> None:
        if logs.attempt < 0 or min(logs.position) < 0 or logs.tail_bytes < 0:
            raise BadRequest("attempt, position and tail are not negative")
        self._context = context
        self._logs = logs
        self._send = send
        self._inlet = context.intake.inlet()
        self._news = trio.Event()
        self._has_changed = False

    async def run(self) -> None:
        """Send everything. Raises Refused, or StoreDamaged, where that ends it."""
        task = await self._find()
        job = task[0]
        self._context.registry.follow.on_change(job, self._changed)
        try:
            sight = await self._look(task)
            if self._logs.attempt > sight.attempt:
                says = f"task {self._logs.id} has had no attempt {self._logs.attempt}"
                raise TaskNotFound(says, hint=f"tq show {self._logs.id}")
            await self._read(sight)
        finally:
            self._context.registry.follow.off_change(job, self._changed)

    async def _read(self, sight: Sight) -> None:
        attempt = self._logs.attempt or (min(sight.attempt, 1) if self._logs.every else sight.attempt)
        reader = Reader(attempt, self._logs.position, self._wake)
        if self._logs.tail_bytes and attempt:
            reader.skip_to_tail(self._stored(sight.task, attempt), self._logs.tail_bytes)
        while True:
            if attempt:
                sight = await self._read_attempt(sight, reader)
            is_one = not self._logs.follow or (self._logs.attempt > 0 and not self._logs.every)
            while not is_one and sight.attempt == attempt and not sight.state.is_terminal:
                await self._wait_change()
                sight = await self._look(sight.task)
            if is_one or sight.attempt == attempt:
                await self._send(reader.end(sight), more=False)
                return
            attempt += 1  # what comes after the one that was asked about is shown whole, also if it is over by now
            reader = Reader(attempt, (0, 0), self._wake)

    async def _read_attempt(self, sight: Sight, reader: Reader) -> Sight:
        """Send one attempt's output, with `follow` until it is over; return how the task stands then."""
        follow = self._context.registry.follow
        if not (self._logs.follow and _is_out(sight, reader)):
            await self._send_stored(sight.task, reader)
            return sight
        if follow.add(sight.task, reader):
            self._tell_worker(sight, on=True)
        try:
            await self._send_stored(sight.task, reader)
            while _is_out(sight, reader):
                await self._news.wait()
                self._news = trio.Event()
                if reader.is_behind:
                    reader.take_live()
                    await self._send_stored(sight.task, reader)
                await self._send_chunks(reader.take_live())
                if self._has_changed:
                    self._has_changed = False
                    sight = await self._look(sight.task)
        finally:
            if follow.remove(sight.task, reader):
                self._tell_worker(sight, on=False)
        await self._send_stored(sight.task, reader)
        return sight

    async def _send_stored(self, task: TaskKey, reader: Reader) -> None:
        """Send what is stored, slot after slot: nobody who reads slowly has all of it kept in memory meanwhile."""
        places = [(slot.stream, slot.offset) for slot in self._stored(task, reader.attempt)]
        for place in places:
            await self._send_chunks(reader.take(self._stored(task, reader.attempt, place)))

    def _stored(self, task: TaskKey, attempt: int, only: tuple[int, int] | None = None) -> Sequence[OutputSlot]:
        try:
            return self._context.store.output(task, attempt, only)
        except StoreDamaged as damage:  # nothing is decided by what a task printed
            self._context.pipeline.note(self._logs, damage)
            raise damaged() from None

    async def _send_chunks(self, chunks: list[v.Chunk]) -> None:
        for chunk in chunks:
            await self._send(chunk, more=True)

    def _tell_worker(self, sight: Sight, *, on: bool) -> None:
        session = self._context.registry.worker(sight.worker) if sight.worker else None
        if session is not None:
            session.follow_output(sight.ref, on=on)

    # ------------------------------------------------------------ how the task stands

    async def _find(self) -> TaskKey:
        answer = await self._ask(lambda view: v.Document({"task": find(view, self._logs.id)}))
        task: TaskKey = answer["task"]
        return task

    async def _look(self, task: TaskKey) -> Sight:
        answer = await self._ask(lambda view: v.Document({"sight": look(view, task)}))
        sight: Sight = answer["sight"]
        return sight

    async def _ask(self, read: Callable[[View], v.Answer]) -> dict[str, Any]:
        """Read in a turn, and return what was read once everything that it could have seen is on disk."""
        answer = await ask(self._inlet, Request(Look(read)))
        if not isinstance(answer, v.Document):
            raise TypeError("a look answers with a document")
        return answer.value

    async def _wait_change(self) -> None:
        while not self._has_changed:
            await self._news.wait()
            self._news = trio.Event()
        self._has_changed = False

    def _changed(self) -> None:
        self._has_changed = True
        self._news.set()

    def _wake(self) -> None:
        self._news.set()


def _is_out(sight: Sight, reader: Reader) -> bool:
    """Whether the reader's attempt may still print."""
    return sight.is_out and sight.attempt == reader.attempt
