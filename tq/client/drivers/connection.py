"""A trio connection to a server: many questions at once, each with its answer, over a link that is re-made silently.

A question is asked again over the next connection until it is answered: every one is safe to repeat (blocking.py). A
lost connection is re-made as reconnect.py says; then what was asked raises what is known of it, and the next question
begins a new attempt. A server that ends the connection over what it cannot read does not say which question that was:
all that it had said nothing to yet raise its refusal, and none of them is repeated.
"""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from math import inf
from typing import Any, Final

import trio

from tq import __version__, limits
from tq.client.drivers.reconnect import (
    MAY_PASS,
    Losses,
    check_store,
    closed,
    found,
    given_up,
    is_elsewhere,
    old_copy,
    other_store,
    turned_away,
)
from tq.client.sansio.dialogues import Asking, Glance
from tq.client.target import Target
from tq.core import vocabulary as v
from tq.errors import ProtocolError, Stopping, TimedOut, TooLarge, TqError, Unreachable, from_code
from tq.net import tls
from tq.net.address import Address
from tq.net.dial import dial, greet, known_ca
from tq.net.link import Link, open_link
from tq.wire import messages as m
from tq.wire.connection import Connection

# Of what comes faster than it is taken. More than is stored of an attempt: what is passed over must fit.
_AHEAD_BYTES_MAX: Final = 4 * limits.MIB
_NEWS_BYTES: Final = 4 * limits.KIB  # that an answer counts which is no output


class _Question:
    """A command that waits for its answer; of several the last one counts (Wait).

    `was_sent`: some server may have got it. `is_heard`: the server has said something to it over this connection.
    `is_over`: it says no more. `lineage` is that of the store that is meant. `scope` is that of who waits, which ends
    at `until_s` once the server has said how things stand.
    """

    def __init__(self, asking: Asking, lineage: int, scope: trio.CancelScope, until_s: float) -> None:
        self._is_glance = isinstance(asking, Glance)
        self.command: v.ClientCommand = asking.wait if isinstance(asking, Glance) else asking
        self.lineage = lineage
        self.scope = scope
        self.until_s = until_s
        self.is_over = False
        self.answer: v.Answer | None = None
        self.error: TqError | None = None
        self.was_sent = False
        self.is_heard = False
        self.is_answered = trio.Event()

    def hear(self, answer: v.Answer, *, more: bool) -> None:
        self.answer = answer
        self.is_heard = True
        self.scope.deadline = self.until_s
        self.is_over = not more
        if self.is_over or self._is_glance:
            self.is_answered.set()

    def fail(self, error: TqError) -> None:
        self.error = error
        self.is_over = True
        self.is_answered.set()

    def renew(self) -> None:
        """Make ready to be asked over a new connection."""
        self.is_heard = False


class _Stream(_Question):
    """A question whose answers are all wanted, in order. `make` gives the command, anew after each reconnection.

    `is_full`: more has come than is kept; the rest is to be asked for when that has been taken.
    """

    def __init__(self, make: Callable[[], v.ClientCommand], lineage: int) -> None:
        super().__init__(make(), lineage, trio.CancelScope(), inf)
        self.is_full = False
        self._make = make
        self._answers: deque[v.Answer] = deque()
        self._bytes = 0
        self._news = trio.Event()

    def hear(self, answer: v.Answer, *, more: bool) -> None:
        super().hear(answer, more=more)
        if self.is_full:
            return
        self._answers.append(answer)
        self._bytes += len(answer.data) if isinstance(answer, v.Chunk) else _NEWS_BYTES
        self.is_full = self._bytes > _AHEAD_BYTES_MAX and more
        self._news.set()

    def fail(self, error: TqError) -> None:
        super().fail(error)
        self._news.set()

    def renew(self) -> None:
        super().renew()
        self._answers.clear()  # they are asked for again
        self._bytes, self.is_full = 0, False
        self.command = self._make()

    async def next(self, until_s: float) -> v.Answer | None:
        """Return the next answer, None behind the last that is kept. Raises what the question raises, and TimedOut."""
        while not self._answers:
            if self.error is not None:
                raise self.error
            if self.is_full or self.is_answered.is_set():
                return None
            self._news = trio.Event()
            with trio.move_on_at(until_s) as scope:
                await self._news.wait()
            if scope.cancelled_caught:
                raise TimedOut("the answer did not come in time")
        return self._answers.popleft()


class Line:
    """Made with `find`, which is called before each connection; `run` is its loop, a child of somebody's nursery."""

    def __init__(self, find: Callable[[], Target], *, patience_s: float) -> None:
        self._find = find
        self._patience_s = patience_s
        self._losses = self._no_losses()
        self._questions: dict[int, _Question] = {}
        self._count = 0
        self._asked = trio.Event()
        self._turns: Final[Mapping[type[Any], trio.Semaphore]] = {
            v.Wait: trio.Semaphore(limits.waits_max - 1),
            Glance: trio.Semaphore(1),  # of its own: who waits while others wait, too, may need one
            v.Logs: trio.Semaphore(limits.streams_max),
        }
        self._is_closed = False
        self._link: Link | None = None
        self.lineage = 0  # of the store that was met last
        self._epoch = 0

    async def ask(self, asking: Asking, timeout_s: float = inf, *, lineage: int = 0) -> v.Answer:
        """Ask, and return the last answer. A refusal raises its error; Unreachable or Unknown after the patience.

        `lineage` is that of the store that is meant, 0 the one that was met last: what names ids is asked of no other.
        More waits than a connection may have wait for their turn. `timeout_s` later it returns the last answer that has
        come, or raises TimedOut; but how things stand is always looked at.
        *Cancellation*: the server is told that nobody listens any more; what it was asked may have been done.
        """
        until_s = trio.current_time() + timeout_s
        with trio.CancelScope(deadline=trio.current_time() + max(timeout_s, limits.look_s)) as scope:
            question = _Question(asking, lineage, scope, until_s)
            turn = self._turns.get(type(asking))
            if turn is None:
                return await self._ask(question)
            async with turn:
                return await self._ask(question)
        if question.answer is None:
            raise TimedOut("the answer did not come in time")
        return question.answer

    async def listen(
        self, make: Callable[[], v.ClientCommand], until_s: float = inf, *, lineage: int = 0
    ) -> AsyncGenerator[v.Answer, None]:
        """Yield all answers to what `make` asks, anew after each reconnection, until the last.

        Where they come faster than they are taken, it is asked anew for what was not kept. Raises as `ask` does, and
        TimedOut at `until_s` (trio's time).
        """
        look_until_s = max(until_s, trio.current_time() + limits.look_s)
        turn = self._turns[type(make())]
        with trio.move_on_at(look_until_s) as scope:
            await turn.acquire()
        if scope.cancelled_caught:
            raise TimedOut("its turn did not come in time")
        try:
            is_full = True
            while is_full:
                stream = _Stream(make, lineage)
                number = self._begin(stream)
                try:
                    while (answer := await stream.next(look_until_s)) is not None:
                        look_until_s = until_s
                        yield answer
                finally:
                    self._end(number, stream)
                is_full = stream.is_full
        finally:
            turn.release()

    async def _ask(self, question: _Question) -> v.Answer:
        number = self._begin(question)
        try:
            await question.is_answered.wait()
        finally:
            self._end(number, question)
        if question.error is not None:
            raise question.error
        if question.answer is None:
            raise ProtocolError("the server gave no answer")
        return question.answer

    def _begin(self, question: _Question) -> int:
        """Ask, and return the number of the question."""
        if self._is_closed:
            raise closed()
        question.lineage = question.lineage or self.lineage
        check_store(question.command, question.lineage, self.lineage)
        self._count += 1
        self._questions[self._count] = question
        self._asked.set()
        try:
            self._send(self._count, question)
        except BaseException:
            del self._questions[self._count]
            raise
        return self._count

    def _end(self, number: int, question: _Question) -> None:
        """Listen no more, and say so unless all was said."""
        self._questions.pop(number, None)
        if self._link is not None and not question.is_over:
            self._link.send_nowait(m.Unsubscribe(number))

    def _send(self, number: int, question: _Question) -> None:
        if self._link is not None:
            question.was_sent = self._link.send_nowait(m.Ask(number, question.command)) or question.was_sent

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold one connection after the other; the first one is not tried twice. Ends by cancellation alone.

        Raises what the first connection raises: Unreachable, Unauthorised, ConfigurationError, VersionMismatch.
        """
        try:
            await self._connect(task_status.started)
            while True:
                await self._wait_asked()
                await self._come_back()
        finally:
            self._is_closed = True
            self._fail(closed(), given_up)

    async def _wait_asked(self) -> None:
        while not self._questions:
            self._asked = trio.Event()
            await self._asked.wait()

    def _no_losses(self) -> Losses:
        return Losses(self._patience_s, trio.current_time)

    async def _come_back(self) -> None:
        """Connect again until nothing is asked any more, or the patience has run out without an answer."""
        self._losses = self._no_losses()
        error: TqError = Unreachable("the connection broke")
        while self._questions:
            if self._losses.is_over():
                self._fail(error, given_up)
                return
            await trio.sleep(self._losses.pause_s())
            try:
                error = Unreachable(await self._connect())
            except MAY_PASS as failure:
                error = failure
            except TqError as refusal:
                self._fail(refusal, turned_away)
                return

    def _fail(self, error: TqError, known: Callable[[v.ClientCommand, TqError], TqError]) -> None:
        """Fail all questions: with the error, or with what is known of those that a server may have got."""
        for question in self._questions.values():
            question.fail(known(question.command, error) if question.was_sent else error)
        self._questions.clear()

    # ------------------------------------------------------------ one connection

    async def _connect(self, connected: Callable[[], None] = lambda: None) -> str:
        """Connect, call `connected`, and serve until the connection ends; return why. Raises what comes before."""
        target = found(self._find, is_first=self.lineage == 0)
        address = Address(target.host, target.port)
        pem = target.ca_pem or await known_ca(address, target.ca_sha256, target.state_directory)
        stream = await dial(address, tls.client_context(pem))
        async with open_link(stream, Connection(), goodbye=m.Goodbye("done")) as link:
            software, known = f"tq {__version__}", (self.lineage, self._epoch)
            welcome, rest = await greet(link, m.Hello(m.VERSIONS, software, target.token, "client", 0, (), *known))
            self._know(welcome)
            self._link = link
            for number, question in list(self._questions.items()):
                question.renew()
                try:
                    self._send(number, question)
                except TooLarge as error:
                    self._questions.pop(number).fail(error)
            connected()
            await self._serve(link, welcome.beat_ms / 1_000, rest)
            return link.ended_because

    def _know(self, welcome: m.Welcome) -> None:
        """Note whose store answers. What names ids of another one, or was asked of it and changes something, this one
        must not get: its ids are other jobs.
        """
        if welcome.lineage == self.lineage and welcome.epoch < self._epoch:
            raise old_copy(welcome.epoch, self._epoch)
        for number, question in list(self._questions.items()):
            is_other = question.lineage not in (0, welcome.lineage)
            if is_other and is_elsewhere(question.command, was_sent=question.was_sent):
                self._questions.pop(number).fail(other_store(question.command, was_sent=question.was_sent))
            question.lineage = welcome.lineage
        self.lineage, self._epoch = welcome.lineage, welcome.epoch

    async def _serve(self, link: Link, beat_s: float, rest: list[m.Message]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_beat, link, beat_s)
            try:
                self._take(rest)
                async for messages in link:
                    self._take(messages)
            except ProtocolError:
                pass  # the link has ended over it, and says so
            finally:
                self._link = None
                nursery.cancel_scope.cancel()

    def _take(self, messages: list[m.Message]) -> None:
        for message in messages:
            if isinstance(message, m.Reply | m.Failed):
                self._losses = self._no_losses()
            if isinstance(message, m.Reply) and (question := self._questions.get(message.request)):
                question.hear(message.answer, more=message.more)
            elif isinstance(message, m.Failed) and (question := self._questions.get(message.request)):
                error = from_code(message.code, message.message, message.hint)
                if isinstance(error, Stopping):
                    question.is_heard = True  # and it is asked again when this connection has ended
                else:
                    question.fail(error)
            elif isinstance(message, m.Refused):
                for question in self._questions.values():
                    if not (question.is_heard or question.is_answered.is_set()):
                        question.fail(from_code(message.code, message.message, message.hint))


async def _beat(link: Link, beat_s: float) -> None:
    """Say at each beat that we live, and end a connection on which nothing comes for `missed_beats_max` beats."""
    silent = 0
    is_heard = False

    def hear() -> None:
        nonlocal is_heard
        is_heard = True

    link.on_bytes = hear
    while silent < limits.missed_beats_max:
        await trio.sleep(beat_s)
        link.send_nowait(m.Beat())
        silent = 0 if is_heard else silent + 1
        is_heard = False
    link.ended_because = f"no sign of life for {limits.missed_beats_max} beats"
    link.close()
