"""Ask a server, one question at a time, over one blocking connection that is re-made silently.

A lost connection is re-made for `patience_s` (None: for ever) and the question asked again: every question is safe to
repeat (reads change nothing, a submit carries its key, cancel and drain say how it shall be). Only the very first
connection is not retried: nobody listening is said at once. So is, at any connection, that the server lets us in no
more: a token that is revoked, a version that it does not speak, an old copy of its store.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Self, TypeVar

from tq import limits
from tq.client.target import Target
from tq.client.transport import ConnectionLost, Transport, dial
from tq.core import vocabulary as v
from tq.errors import ConfigurationError, NotDone, ProtocolError, TimedOut, TqError, Unknown, Unreachable, from_code
from tq.wire import messages as m

READS = (
    v.Get, v.GetRequest, v.GetResults, v.List, v.Wait, v.Workers, v.Tokens, v.Status, v.StoreStatistics, v.Logs,
    v.Queues, v.Backup,
)  # fmt: skip
_T = TypeVar("_T")
_FIRST_PAUSE_S = 0.02
_LONG_S = 60.0


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
        self._lineage = 0
        self._epoch = 0
        self.role = ""  # of the token, known once connected
        self.has_repeated = False  # whether the latest question was asked again, so that its first answer may be lost
        self.deadline_s: float | None = None  # on time.monotonic(): answers are waited for until then (TimedOut)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect now, unless connected. Raises Unreachable, ConfigurationError, Unauthorised or NotDone."""
        if self._transport is not None:
            if self._pid == os.getpid():
                return
            self._drop()
        try:
            self._open()
        except ConnectionLost as lost:
            raise Unreachable(f"the server went away before it said welcome: {lost}", hint="try again") from None

    def ask(self, command: v.ClientCommand) -> v.Answer:
        """Ask, and return the one answer. A refusal raises its error (tq.errors)."""
        for answer in self.subscribe(lambda: command):
            return answer
        raise ProtocolError("the server gave no answer")

    def subscribe(self, make: Callable[[], v.ClientCommand], *, patience_s: float | None = -1.0) -> Iterator[v.Answer]:
        """Ask and yield every answer until the last. `make` gives the command, anew after each reconnection.

        `patience_s` None: a lost connection is re-made without end; -1: as this client does.
        """
        patience_s = _patience(self.patience_s, patience_s)
        self.connect()
        self.has_repeated = False
        losses = _Losses(patience_s)
        command = make()
        while True:
            try:
                for answer in self._exchange(command):
                    losses = _Losses(patience_s)
                    yield answer
                return
            except (ConnectionLost, NotDone) as lost:
                if isinstance(lost, NotDone) and patience_s is not None:
                    raise  # nothing happened, and the person decides
                self._reopen(command, losses, lost)
                self.has_repeated = True
                command = make()

    def persist(
        self, command: v.ClientCommand, once: Callable[[Callable[[], None]], _T], *, patience_s: float | None = -1.0
    ) -> _T:
        """Call `once` until it comes through without losing its connection, and return what it returns.

        It may use `ask_once`, `post`, `collect`, `hear` and `linger`, and calls what it is given at each sign of
        progress. `command` stands for all that it asks when the patience runs out; `patience_s` is as in `subscribe`.
        """
        patience_s = _patience(self.patience_s, patience_s)
        self.connect()
        losses = _Losses(patience_s)

        def alive() -> None:
            nonlocal losses
            losses = _Losses(patience_s)

        while True:
            try:
                return once(alive)
            except ConnectionLost as lost:
                self._reopen(command, losses, lost)

    def ask_once(self, command: v.ClientCommand) -> v.Answer:
        """Ask over the connection that there is. Raises ConnectionLost."""
        for answer in self._exchange(command):
            return answer
        raise ProtocolError("the server gave no answer")

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

    def linger(self, time_s: float) -> None:
        """Raise ConnectionLost if the connection ends within so long; throw away what comes meanwhile."""
        until_s = time.monotonic() + time_s
        try:
            while True:
                self._connected().receive(until_s)
        except TimedOut:
            return

    def close(self) -> None:
        """Close the connection politely. The client may be used again."""
        if self._transport is not None:
            self._transport.close(politely=self._pid == os.getpid())
            self._transport = None

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
        """Say that nobody listens any more; without a connection there is nobody to tell."""
        try:
            if self._transport is not None:
                self._transport.send([m.Unsubscribe(number)])
        except ConnectionLost:
            self._drop()

    def _open(self) -> None:
        transport = dial(self._find_target())
        try:
            welcome = transport.greet(self._target.token, self._lineage, self._epoch)
        except BaseException:
            transport.close(politely=False)
            raise
        if welcome.lineage == self._lineage and welcome.epoch < self._epoch:
            transport.close()
            raise ConfigurationError(
                f"the server is at epoch {welcome.epoch} and was at {self._epoch}: an old copy of its store runs",
                hint="do not submit there: look at the server's directory first",
            )
        self._lineage, self._epoch, self.role = welcome.lineage, welcome.epoch, welcome.role
        self._transport, self._pid = transport, os.getpid()

    def _find_target(self) -> Target:
        self._target = found(self._find, is_first=self._lineage == 0)
        return self._target

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.close(politely=False)
            self._transport = None

    def _reopen(self, command: v.ClientCommand, losses: "_Losses", error: Exception) -> None:
        """Connect again, or say after the patience's end what is known of the command."""
        self._drop()
        lineage = self._lineage
        while True:
            if losses.is_over():
                raise given_up(command, error) from None
            if self.deadline_s is not None and time.monotonic() >= self.deadline_s:
                raise TimedOut("the server did not come back in time") from None
            if losses.is_long():
                self._notice("the server does not answer; still trying (Ctrl-C to leave)")
            losses.pause(self.deadline_s)
            try:
                self._open()
            except (ConnectionLost, Unreachable, NotDone) as again:
                error = again
                continue
            except TqError as refusal:
                raise turned_away(command, refusal) from None
            if lineage not in (0, self._lineage) and not isinstance(command, (*READS, v.AddEntries)):
                raise Unknown("the server came back with another store: it is not known what became of the request")
            return


class _Losses:
    """Connections lost one after the other without an answer: how long that may go on, and how long to pause."""

    def __init__(self, patience_s: float | None) -> None:
        self._patience_s = patience_s
        self._until_s: float | None = None
        self._pause_s = 0.0
        self._long_s: float | None = None

    def is_over(self) -> bool:
        """Whether the patience has run out; it begins with the first call."""
        if self._patience_s is None:
            return False
        now_s = time.monotonic()
        if self._until_s is None:
            self._until_s = now_s + self._patience_s
        return now_s >= self._until_s and self._pause_s > 0

    def is_long(self) -> bool:
        """Whether it has gone on for a minute without end in sight; true once."""
        now_s = time.monotonic()
        if self._long_s is None:
            self._long_s = now_s + _LONG_S
        if self._patience_s is not None or now_s < self._long_s:
            return False
        self._long_s = float("inf")
        return True

    def pause(self, until_s: float | None) -> None:
        """Sleep, with full jitter, and no longer than until then; not at all before the first attempt."""
        if self._pause_s:
            import random  # only who lost a connection needs dice

            rest_s = inf if until_s is None else max(0.0, until_s - time.monotonic())
            time.sleep(min(random.uniform(0, self._pause_s), rest_s))
        self._pause_s = min(max(self._pause_s * 2, _FIRST_PAUSE_S), limits.reconnect_holding_s_max)


def _patience(usual_s: float | None, asked_s: float | None) -> float | None:
    if asked_s is None:
        gc.enable()  # off since the start of the program (cli/app.py); this may go on for days
    return usual_s if asked_s is not None and asked_s < 0 else asked_s


def found(find: Callable[[], Target], *, is_first: bool) -> Target:
    """Return where the server is. Later than at first, what keeps it from being found may pass: that is Unreachable.

    Its connection file, which may have the token, is away while it is.
    """
    try:
        return find()
    except TqError as error:
        if is_first:
            raise
        raise Unreachable(error.message, hint=error.hint) from None


def turned_away(command: v.ClientCommand, refusal: TqError) -> TqError:
    """Return what is known of a command whose connection was lost, when the server lets us in no more."""
    if isinstance(command, READS):
        return refusal
    known = given_up(command, refusal)
    what = "it is not known whether the request was done" if isinstance(known, Unknown) else "nothing was submitted"
    hint = "; ".join(filter(None, (refusal.hint, known.hint)))
    return type(refusal)(f"{refusal.message}; {what}", hint=hint)


def given_up(command: v.ClientCommand, error: Exception) -> TqError:
    """Return what is known of a command whose connection was lost for good."""
    if isinstance(command, READS):
        return Unreachable(f"the connection was lost and could not be made again: {error}")
    if isinstance(command, v.AddEntries):
        return Unreachable(
            f"the connection was lost and could not be made again; nothing was submitted: {error}",
            hint=f"repeat it with --key {command.key}: it goes on where it was",
        )
    hint = f"repeat it with --key {command.key}: it will not be done twice" if isinstance(command, v.Submit) else ""
    return Unknown(f"the connection was lost and it is not known whether the request was done: {error}", hint=hint)


def closed() -> Unreachable:
    """Return what is said to who asks a client behind the end of its block."""
    return Unreachable("the client is closed: the block of its `connect` has ended", hint="ask within the block")
