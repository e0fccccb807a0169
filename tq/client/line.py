"""A trio connection to a server: many questions at once, each with its answer, over a link that is re-made silently.

A question is asked again over the next connection until it is answered: every one is safe to repeat (blocking.py). A
lost connection is re-made for `patience_s` from its loss; then what was asked raises what is known of it, and the next
question begins a new attempt. A server that lets us in no more is not asked again: that is raised at once. One that
ends the connection over what it cannot read does not say which question that was: all that it had said nothing to yet
raise its refusal, and none of them is repeated.
"""

import ssl
from collections.abc import Callable
from contextlib import suppress
from math import inf
from random import uniform
from typing import Final

import trio

from tq import __version__, limits
from tq.client.blocking import READS, closed, found, given_up, turned_away
from tq.client.target import Target
from tq.core import vocabulary as v
from tq.errors import (
    ConfigurationError,
    NotDone,
    ProtocolError,
    TimedOut,
    TooLarge,
    TqError,
    Unknown,
    Unreachable,
    from_code,
)
from tq.net import pinning, tls
from tq.net.address import Address
from tq.net.dial import dial, fetch_ca
from tq.net.link import Link, open_link
from tq.wire import messages as m
from tq.wire.connection import Connection

_PAUSE_S_MIN: Final = 0.05
_PAUSE_S_MAX: Final = 2.0


class _Question:
    """A command that waits for its answer; of several the last one counts (Wait).

    `was_sent`: some server may have got it. `is_heard`: the server has said something to it over this connection.
    `scope` is that of who waits, which ends at `until_s` once the server has said how things stand.
    """

    def __init__(self, command: v.ClientCommand, scope: trio.CancelScope, until_s: float) -> None:
        self.command = command
        self.scope = scope
        self.until_s = until_s
        self.answer: v.Answer | None = None
        self.error: TqError | None = None
        self.was_sent = False
        self.is_heard = False
        self.is_answered = trio.Event()

    def hear(self, answer: v.Answer, *, more: bool) -> None:
        self.answer = answer
        self.is_heard = True
        self.scope.deadline = self.until_s
        if not more:
            self.is_answered.set()

    def fail(self, error: TqError) -> None:
        self.error = error
        self.is_answered.set()


class Line:
    """Made with `find`, which is called before each connection; `run` is its loop, a child of somebody's nursery."""

    def __init__(self, find: Callable[[], Target], *, patience_s: float) -> None:
        self._find = find
        self._patience_s = patience_s
        self._questions: dict[int, _Question] = {}
        self._count = 0
        self._asked = trio.Event()
        self._waits: Final = trio.Semaphore(limits.waits_max)
        self._is_closed = False
        self._link: Link | None = None
        self._lineage = 0
        self._epoch = 0

    async def ask(self, command: v.ClientCommand, timeout_s: float = inf) -> v.Answer:
        """Ask, and return the last answer. A refusal raises its error; Unreachable or Unknown after the patience.

        More waits than a connection may have wait for their turn. `timeout_s` later it raises TimedOut; but how things
        stand is always looked at.
        *Cancellation*: the server is told that nobody listens any more; what it was asked may have been done.
        """
        until_s = trio.current_time() + timeout_s
        with trio.CancelScope(deadline=trio.current_time() + max(timeout_s, limits.look_s)) as scope:
            if not isinstance(command, v.Wait):
                return await self._ask(_Question(command, scope, until_s))
            async with self._waits:
                return await self._ask(_Question(command, scope, until_s))
        raise TimedOut("the answer did not come in time")

    async def _ask(self, question: _Question) -> v.Answer:
        if self._is_closed:
            raise closed()
        self._count += 1
        number = self._count
        self._questions[number] = question
        self._asked.set()
        try:
            self._send(number, question)
            await question.is_answered.wait()
        finally:
            self._questions.pop(number, None)
            if self._link is not None and not question.is_answered.is_set():
                self._link.send_nowait(m.Unsubscribe(number))
        if question.error is not None:
            raise question.error
        if question.answer is None:
            raise ProtocolError("the server gave no answer")
        return question.answer

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
                await trio.lowlevel.checkpoint()  # whatever fails at once below
                await self._wait_asked()
                await self._come_back()
        finally:
            self._is_closed = True
            self._fail(closed(), given_up)

    async def _wait_asked(self) -> None:
        while not self._questions:
            self._asked = trio.Event()
            await self._asked.wait()

    async def _come_back(self) -> None:
        """Connect again until a connection has served, or the patience has run out."""
        pause_s, begin_s = _PAUSE_S_MIN, trio.current_time()
        while self._questions:
            served = False

            def serves() -> None:
                nonlocal served
                served = True

            error: TqError = Unreachable("the connection broke")
            try:
                await self._connect(serves)
            except (Unreachable, NotDone) as failure:
                error = failure
            except TqError as refusal:
                self._fail(refusal, turned_away)
                return
            if served:
                return
            if trio.current_time() - begin_s >= self._patience_s:
                self._fail(error, given_up)
                return
            await trio.sleep(uniform(0, pause_s))
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)

    def _fail(self, error: TqError, known: Callable[[v.ClientCommand, TqError], TqError]) -> None:
        """Fail all questions: with the error, or with what is known of those that a server may have got."""
        for question in self._questions.values():
            question.fail(known(question.command, error) if question.was_sent else error)
        self._questions.clear()

    # ------------------------------------------------------------ one connection

    async def _connect(self, connected: Callable[[], None]) -> None:
        """Connect, call `connected`, and serve until the connection ends. Raises what comes before."""
        target = found(self._find, is_first=self._lineage == 0)
        stream = await dial(Address(target.host, target.port), await _context(target))
        async with open_link(stream, Connection(), goodbye=m.Goodbye("done")) as link:
            welcome, rest = await self._greet(link, target.token)
            self._know(welcome)
            link.connection.frame_bytes_max = limits.frame_bytes_max
            self._link = link
            for number, question in list(self._questions.items()):
                question.is_heard = False
                try:
                    self._send(number, question)
                except TooLarge as error:
                    self._questions.pop(number).fail(error)
            connected()
            with suppress(ProtocolError):  # the link has ended; the next one may do better
                await self._serve(link, welcome.beat_ms / 1_000, rest)

    async def _greet(self, link: Link, token: str) -> tuple[m.Welcome, list[m.Message]]:
        software = f"tq {__version__}"
        hello = m.Hello(m.VERSIONS, software, token, "client", lineage=self._lineage, epoch=self._epoch)
        link.send_nowait(hello)
        with trio.move_on_after(limits.hello_s):
            async for first, *rest in link:
                if isinstance(first, m.Refused):
                    raise from_code(first.code, first.message, first.hint)
                if not isinstance(first, m.Welcome):
                    raise ProtocolError(f"the server answered Hello with {type(first).__name__}")
                return first, rest
            raise Unreachable(f"the server closed the connection: {link.ended_because}")
        raise Unreachable("the server accepted the connection, but does not answer")

    def _know(self, welcome: m.Welcome) -> None:
        """Note whose store answers. What was asked of another one, and changes something, has an unknown outcome: this
        one must not get it, since its ids are other jobs.
        """
        if welcome.lineage == self._lineage and welcome.epoch < self._epoch:
            raise ConfigurationError(
                f"the server is at epoch {welcome.epoch} and was at {self._epoch}: an old copy of its store runs",
                hint="do not submit there: look at the server's directory first",
            )
        if self._lineage not in (0, welcome.lineage):
            why = "the server came back with another store: it is not known what became of the request"
            for number, question in list(self._questions.items()):
                if question.was_sent and not isinstance(question.command, (*READS, v.AddEntries)):
                    self._questions.pop(number).fail(Unknown(why))
        self._lineage, self._epoch = welcome.lineage, welcome.epoch

    async def _serve(self, link: Link, beat_s: float, rest: list[m.Message]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_beat, link, beat_s)
            try:
                self._take(rest)
                async for messages in link:
                    self._take(messages)
            finally:
                self._link = None
                nursery.cancel_scope.cancel()

    def _take(self, messages: list[m.Message]) -> None:
        for message in messages:
            if isinstance(message, m.Reply) and (question := self._questions.get(message.request)):
                question.hear(message.answer, more=message.more)
            elif isinstance(message, m.Failed) and (question := self._questions.get(message.request)):
                question.fail(from_code(message.code, message.message, message.hint))
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
    link.close()


async def _context(target: Target) -> ssl.SSLContext:
    """Return what verifies the server; at a first contact its CA is fetched and compared with the known hash."""
    pem = target.ca_pem or pinning.load(target.state_directory, target.ca_sha256)
    if not pem:
        pem = await fetch_ca(Address(target.host, target.port), target.ca_sha256)
        pinning.keep(target.state_directory, target.ca_sha256, pem)
    return tls.client_context(pem)
