"""Ask a server, one question at a time, over one blocking connection that is re-made silently.

A lost connection is re-made for `patience_s` (None: for ever) and the question asked again: every question is safe to
repeat (reads change nothing, a submit carries its key, cancel and drain say how it shall be). Only the very first
connection is not retried: nobody listening is said at once. What else may pass, and what is final: reconnect.py.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Self, TypeVar

from tq.client.drivers.reconnect import (
    MAY_PASS,
    Losses,
    check_store,
    found,
    given_up,
    is_elsewhere,
    old_copy,
    other_store,
    turned_away,
)
from tq.client.drivers.transport import ConnectionLost, Transport, dial
from tq.client.target import Target
from tq.core import vocabulary as v
from tq.errors import NotDone, ProtocolError, Stopping, TimedOut, TqError, Unreachable, from_code
from tq.wire import messages as m

_T = TypeVar("_T")


class Client:
    """A server to ask. Not for several threads. `find` is called again before each connection.

    After a restart the server may listen elsewhere, so an address is never remembered for longer than a connection.
    """

    def __init__(
        self,
        find: Callable[[], Target],
        *,
        patience_s: float | None = 60.0,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._find = find
        self._notice = notice  # told, once, when a server stays away while somebody waits without end
        self.patience_s = patience_s
        self._transport: Transport | None = None
        self._pid = 0  # of the process that made the connection: a fork has it, too, and may not speak on it
        self._requests = 0
        self.lineage = 0  # of the store that was met last
        self._epoch = 0
        self.role = ""  # of the token, known once connected
        self.has_repeated = False  # whether the latest question was asked again, so that its first answer may be lost
        self.deadline_s: float | None = None  # on time.monotonic(): answers are waited for until then (TimedOut)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def another(self) -> "Client":
        """Return a client for another connection to the same store, which is made when it is asked."""
        other = Client(self._find, patience_s=self.patience_s, notice=self._notice)
        other.lineage, other._epoch = self.lineage, self._epoch
        return other

    def connect(self) -> None:
        """Connect now, unless connected; after the first connection with patience, as one that is lost.

        Raises Unreachable, ConfigurationError, Unauthorised, NotDone or ProtocolError.
        """
        if self._transport is not None:
            if self._pid == os.getpid():
                return
            self._drop()
        if self.lineage:
            self._reopen(None, Losses(self.patience_s, time.monotonic), ConnectionLost("not connected"))
            return
        try:
            self._open()
        except ConnectionLost as lost:
            raise _went_away(lost) from None

    def ask(self, command: v.ClientCommand) -> v.Answer:
        """Ask, and return the one answer. A refusal raises its error (tq.errors)."""
        return _first(self.subscribe(lambda: command))

    def subscribe(
        self, make: Callable[[], v.ClientCommand], *, patience_s: float | None = -1.0, lineage: int = 0
    ) -> Iterator[v.Answer]:
        """Ask and yield every answer until the last. `make` gives the command, anew after each reconnection.

        `patience_s` None: a lost connection is re-made without end; -1: as this client does. `lineage` is that of the
        store that is meant, 0 the one that is met now: what names ids is asked of no other (TaskNotFound, Unknown).
        """
        patience_s = _patience(self.patience_s, patience_s)
        if lineage not in (0, self.lineage):
            self._drop()  # it may be the one that does not know yet which store is there now
        self.connect()
        self.has_repeated = False
        losses = Losses(patience_s, time.monotonic)
        command = make()
        check_store(command, lineage, self.lineage)
        while True:
            try:
                for answer in self._exchange(command):
                    losses = Losses(patience_s, time.monotonic)
                    yield answer
                return
            except (ConnectionLost, NotDone) as lost:
                if not (isinstance(lost, ConnectionLost | Stopping) or patience_s is None):
                    raise  # nothing happened, and the person decides
                self._reopen(command, losses, lost)
                self.has_repeated = True
                command = make()

    def persist(
        self, command: v.ClientCommand, once: Callable[[Callable[[], None]], _T], *, patience_s: float | None = -1.0
    ) -> _T:
        """Call `once` until it comes through without losing its connection, and return what it returns.

        It may use `ask_once`, `post`, `collect` and `hear`, and calls what it is given at each sign of
        progress. `command` stands for all that it asks when the patience runs out; `patience_s` is as in `subscribe`.
        """
        patience_s = _patience(self.patience_s, patience_s)
        self.connect()
        losses = Losses(patience_s, time.monotonic)

        def alive() -> None:
            nonlocal losses
            losses = Losses(patience_s, time.monotonic)

        while True:
            try:
                return once(alive)
            except ConnectionLost as lost:
                self._reopen(command, losses, lost)

    def ask_once(self, command: v.ClientCommand) -> v.Answer:
        """Ask over the connection that there is. Raises ConnectionLost."""
        return _first(self._exchange(command))

    def post(self, command: v.ClientCommand) -> int:
        """Ask without waiting, and return the request's number. Raises ConnectionLost.

        `collect` returns the answers in order, `hear` as they come.
        """
        self._requests += 1
        self._connected().send([m.Ask(self._requests, command)])
        return self._requests

    def collect(self) -> v.Answer:
        """Wait for the next answer to what was posted; a refusal raises its error. Raises ConnectionLost."""
        message = self.hear(self.deadline_s)
        if isinstance(message, m.Failed):
            raise from_code(message.code, message.message, message.hint)
        return message.answer

    def hear(self, until_s: float | None) -> m.Reply | m.Failed:
        """Wait for the next word on anything that was posted. Raises ConnectionLost, or TimedOut at `until_s`."""
        while True:
            message = self._connected().receive(until_s)
            if isinstance(message, m.Reply | m.Failed):
                return message

    def close(self) -> None:
        """Close the connection politely. The client may be used again."""
        self._drop(politely=self._pid == os.getpid())

    def _exchange(self, command: v.ClientCommand) -> Iterator[v.Answer]:
        transport = self._connected()
        self._requests += 1
        number = self._requests
        is_finished = False
        transport.send([m.Ask(number, command)])
        try:
            while True:
                message = transport.receive(self.deadline_s)
                if isinstance(message, m.Failed) and message.request == number:
                    is_finished = True
                    raise from_code(message.code, message.message, message.hint)
                if isinstance(message, m.Reply) and message.request == number:
                    is_finished = not message.more
                    yield message.answer
                    if is_finished:
                        return
        finally:
            if not is_finished:
                self._unsubscribe(number)

    def _connected(self) -> Transport:
        if self._transport is None:
            raise ConnectionLost("not connected")
        return self._transport

    def _unsubscribe(self, number: int) -> None:
        """Say that nobody listens any more; without a connection of this process there is nobody to tell."""
        try:
            if self._transport is not None and self._pid == os.getpid():
                self._transport.send([m.Unsubscribe(number)])
        except ConnectionLost:
            self._drop()

    def _open(self) -> None:
        target = found(self._find, is_first=self.lineage == 0)
        transport = dial(target)
        try:
            welcome = transport.greet(target.token, self.lineage, self._epoch)
        except BaseException:
            transport.close(politely=False)
            raise
        if welcome.lineage == self.lineage and welcome.epoch < self._epoch:
            transport.close()
            raise old_copy(welcome.epoch, self._epoch)
        self.lineage, self._epoch, self.role = welcome.lineage, welcome.epoch, welcome.role
        self._transport, self._pid = transport, os.getpid()

    def _drop(self, *, politely: bool = False) -> None:
        if self._transport is not None:
            self._transport.close(politely=politely)
            self._transport = None

    def _reopen(self, command: v.ClientCommand | None, losses: Losses, error: Exception) -> None:
        """Connect again, or say after the patience's end what is known of the command; None: nothing was asked yet."""
        self._drop()
        lineage = self.lineage
        while True:
            if losses.is_over():
                raise (given_up(command, error) if command is not None else error) from None
            if self.deadline_s is not None and time.monotonic() >= self.deadline_s:
                raise TimedOut("the server did not come back in time") from None
            if losses.is_long():
                self._notice("the server does not answer; still trying (Ctrl-C to leave)")
            rest_s = inf if self.deadline_s is None else max(0.0, self.deadline_s - time.monotonic())
            time.sleep(min(losses.pause_s(), rest_s))
            try:
                self._open()
            except ConnectionLost as again:
                error = _went_away(again)
                continue
            except MAY_PASS as again:
                error = again
                continue
            except TqError as refusal:
                raise (turned_away(command, refusal) if command is not None else refusal) from None
            if lineage not in (0, self.lineage) and command is not None and is_elsewhere(command):
                raise other_store(command)
            return


def _first(answers: Iterator[v.Answer]) -> v.Answer:
    for answer in answers:
        return answer
    raise ProtocolError("the server gave no answer")


def _went_away(lost: ConnectionLost) -> Unreachable:
    return Unreachable(f"the server went away before it said welcome: {lost}", hint="try again")


def _patience(usual_s: float | None, asked_s: float | None) -> float | None:
    if asked_s is None:
        gc.enable()  # off since the start of the program (cli/app.py); this may go on for days
    return usual_s if asked_s is not None and asked_s < 0 else asked_s
