"""The session of a client: requests in, answers out, subscriptions (`wait`) and streams (`logs`, `backup`).

The role is checked here before a request goes anywhere, then the bounds of what the core does not look into
(admission.py). All requests but the streams go through the commit loop, reads among them: it takes from everybody in
turn, and stops where a turn has lasted long enough.

A client may ask ahead as far as it likes; what it is sent goes by how it reads. While answers wait for it
(reply_queue.py) nothing more is taken from it, and of reads, whose answers may fill a frame each, few are being
answered at a time. So whoever reads gets every answer, and whoever does not is cut by its link.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, get_args

import trio
from msgspec.structs import replace

from tq import errors, limits
from tq.core import vocabulary as v
from tq.errors import BadRequest, NotDone, ProtocolError
from tq.net.link import Link
from tq.server.commit.intake import Look, Reply, Request
from tq.server.sessions import admission, watch
from tq.server.sessions.log_reader import read_logs
from tq.server.sessions.present import present, present_page, present_tasks, present_worker
from tq.server.sessions.receive import receive_all
from tq.server.sessions.reply_queue import ReplyQueue
from tq.server.sessions.roles import check_allowed, sees_secrets
from tq.server.sessions.session_context import Send, SessionContext
from tq.server.sessions.worker_protocol import reply
from tq.wire import messages as m

list_items_max: Final = 250  # so that a page of ordinary jobs fits a frame
_NEWS_S: Final = 0.1  # intermediate answers of one `wait` are at least so far apart
_READS: Final = frozenset(get_args(v.Read))


class _Wait:
    """A `wait` of a client: its subscription, when its last intermediate answer left, and what was not told since."""

    __slots__ = ("news", "told_s", "waiting")

    def __init__(self, waiting: watch.Waiting) -> None:
        self.waiting = waiting
        self.told_s = float("-inf")
        self.news: dict[str, v.Outcome] = {}


class ClientSession:
    """One connection of one client."""

    def __init__(self, context: SessionContext, link: Link, role: str, submitter: str, token: str = "") -> None:
        self._context = context
        self._link = link
        self._role = role
        self._submitter = submitter
        self._token = token
        self._room = trio.Event()
        self._inlet = context.intake.inlet(lambda: self._room.set())  # noqa: PLW0108 - each time another event
        self._replies = ReplyQueue(link)
        self._reads = 0  # that are not answered yet
        self._waits: dict[int, _Wait] = {}  # by request
        self._streams: dict[int, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, rest: Sequence[m.Message]) -> None:
        """Serve the client until its connection ends. Raises ProtocolError for what it may not send."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._replies.run)
                try:
                    failure = await receive_all(self._link, rest, self._receive)
                finally:  # before the nursery closes: a change that is told after that could start nothing in it
                    for request in tuple(self._waits):
                        self._unsubscribe(request)
                nursery.cancel_scope.cancel()
        finally:
            self._inlet.leave()
        if failure is not None:
            raise failure

    def beat(self) -> None:
        """Send a sign of life."""
        self._link.send_nowait(m.Beat())

    def close(self, reason: str) -> None:
        """Say goodbye and close."""
        self._link.close(m.Goodbye(reason))

    # ------------------------------------------------------------ receiving

    async def _receive(self, messages: Sequence[m.Message]) -> bool:
        """Take one frame; return False after a goodbye."""
        requests: list[Request] = []
        for message in messages:
            match message:
                case m.Ask():
                    self._ask(message, requests)
                    if self._is_full:
                        self._inlet.put(requests)
                        requests = []
                        await self._wait_room()
                case m.Unsubscribe():
                    self._unsubscribe(message.request)
                case m.Beat():
                    pass
                case m.Goodbye():
                    return False
                case _:
                    raise ProtocolError(f"a client may not send {type(message).__name__}")
        self._inlet.put(requests)
        await self._wait_room()
        return True

    async def _wait_room(self) -> None:
        """Wait until the commit loop has taken enough, and the client has read enough of its answers."""
        while self._inlet.is_full or self._reads >= limits.reads_max:
            self._room = trio.Event()
            await self._room.wait()
        await self._replies.wait_room()

    @property
    def _is_full(self) -> bool:
        """Whether the client must be answered before it is asked what else it wants."""
        return self._reads >= limits.reads_max or self._replies.is_full

    def _ask(self, ask: m.Ask, requests: list[Request]) -> None:
        command = ask.command
        try:
            check_allowed(self._role, type(command))
            admission.check(command)
            self._context.gate.check(command)
            request = self._request(ask.request, command)
        except errors.Refused as refusal:
            self._replies.put(ask.request, refusal)
            return
        if request is not None:
            requests.append(request)

    def _request(self, number: int, command: v.ClientCommand) -> Request | None:
        """Return what goes to the commit loop for this; None for what is answered here."""
        match command:
            case v.Wait():
                return self._wait(number, command)
            case v.Logs():
                self._stream(number, partial(read_logs, self._context, command))
                return None
            case v.Backup():
                self._stream(number, self._context.back_up)
                return None
            case v.List() | v.DeadLetters():
                command = replace(command, limit=min(command.limit, list_items_max))
        what: v.ClientCommand | Look = command
        if isinstance(command, v.StoreStatistics):
            what = Look(lambda _: v.Document(self._context.store.statistics()))
        answer: Reply = partial(self._replies.put, number)
        if type(command) in _READS:
            self._reads += 1
            answer = partial(self._answer_read, number, command)
        return Request(what, self._submitter, answer, _bulk_bytes(command))

    # ------------------------------------------------------------ answering

    def _answer_read(self, number: int, command: v.ClientCommand, answer: v.Answer | errors.TqError) -> None:
        self._replies.put(number, self._shown(command, answer))
        self._reads -= 1  # only now: where this fails, the commit loop answers once more
        self._room.set()

    def _shown(self, command: v.ClientCommand, answer: v.Answer | errors.TqError) -> v.Answer | errors.TqError:
        """Return an answer as this client may see it, with what is known at the edge alone."""
        match command, answer:
            case v.Get(), v.Document():
                return present(answer, with_secrets=sees_secrets(self._role))
            case v.Status(), v.Document():
                return v.Document({**answer.value, "server": self._context.story()})
            case (v.List(), v.Page()) if command.job:
                return present_tasks(answer)
            case ((v.List() | v.DeadLetters()), v.Page()):
                return present_page(answer)
            case v.Workers(), v.Page():
                return v.Page(tuple(map(self._shown_worker, answer.items)), answer.next)
        return answer

    def _shown_worker(self, item: dict[str, Any]) -> dict[str, Any]:
        """Add what only those know who listen to the workers: who has missed a beat, who cannot kill what it runs."""
        worker = int(str(item["id"])[1:], 16)
        session = self._context.registry.worker(worker)
        return present_worker(item, self._context.lease_clock.missed(worker), session.stuck if session else 0)

    # ------------------------------------------------------------ subscriptions

    def _wait(self, number: int, wait: v.Wait) -> Request:
        if len(self._waits) >= limits.waits_max:
            raise NotDone(f"{limits.waits_max} waits on one connection are enough", hint="wait for several ids at once")
        ids = len(wait.ids) + sum(len(one.waiting.wait.ids) for one in self._waits.values())
        if ids > limits.wait_ids_max:
            raise NotDone(f"a connection waits for {limits.wait_ids_max} ids at most (wait_ids_max)")
        if number in self._waits:
            raise BadRequest(f"request {number} waits already")
        wait = replace(wait, ids=tuple(dict.fromkeys(wait.ids)))  # who repeats one learns no more of it

        def read(asked: v.Wait) -> Request:
            waited = self._first_waited if asked is wait else self._waited
            return Request(asked, self._submitter, partial(waited, number, wait, asked))

        waiting = watch.Waiting(wait, self._inlet, read, self._token)
        self._context.registry.watch.subscribe(waiting)
        self._waits[number] = _Wait(waiting)
        self._reads += 1
        return read(wait)

    def _first_waited(self, number: int, wait: v.Wait, asked: v.Wait, answer: v.Answer | errors.TqError) -> None:
        """Take the answer to a read that its client has asked for, and who has unsubscribed meanwhile has, too."""
        self._waited(number, wait, asked, answer)
        self._reads -= 1
        self._room.set()

    def _waited(self, number: int, wait: v.Wait, asked: v.Wait, answer: v.Answer | errors.TqError) -> None:
        one = self._waits.get(number)
        if one is None or one.waiting.wait is not wait:
            return  # unsubscribed meanwhile, and another wait may bear its number
        if not isinstance(answer, v.Waited):
            self._unsubscribe(number)
            self._replies.put(number, answer)
            return
        done, outcomes = one.waiting.read(asked, answer)
        if number not in self._waits:
            return  # it asked for more of a server that is stopping, and that has refused it
        if done:
            self._unsubscribe(number)
            for part, more in watch.replies(True, outcomes):
                self._replies.put(number, part, more=more)
        elif outcomes:
            is_first = not one.news
            one.news.update((outcome.id, outcome) for outcome in outcomes)
            if is_first:
                self._tell_news(number, one)

    def _tell_news(self, number: int, one: _Wait) -> None:
        """Tell what is new: now, or as soon as it is not too often. Nothing new is ever left out."""
        wait_s = one.told_s + _NEWS_S - trio.current_time()
        if wait_s > 0 and self._nursery is not None:
            self._nursery.start_soon(self._tell_news_later, number, one, wait_s)
            return
        one.told_s = trio.current_time()
        news, one.news = one.news, {}
        for part, more in watch.replies(False, news.values()):
            self._replies.put(number, part, more=more)

    async def _tell_news_later(self, number: int, one: _Wait, wait_s: float) -> None:
        await trio.sleep(wait_s)
        if self._waits.get(number) is one:  # else it ended meanwhile, and another wait may bear its number
            self._tell_news(number, one)

    def _unsubscribe(self, number: int) -> None:
        one = self._waits.pop(number, None)
        if one is not None:
            self._context.registry.watch.unsubscribe(one.waiting)
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.cancel()

    # ------------------------------------------------------------ streams

    def _stream(self, number: int, run: Callable[[Send], Awaitable[None]]) -> None:
        """Let `run` send the answers to a request one after the other, as fast as the client reads."""
        if len(self._streams) >= limits.streams_max:
            raise NotDone(f"{limits.streams_max} streams on one connection are enough", hint="open another one")
        if number in self._streams:
            raise BadRequest(f"request {number} is being answered already")
        if self._nursery is None:
            raise RuntimeError("the session does not run")
        self._context.registry.streams.take(self._token)
        scope = self._streams[number] = trio.CancelScope()
        self._nursery.start_soon(self._stream_loop, number, run, scope)

    async def _stream_loop(self, number: int, run: Callable[[Send], Awaitable[None]], scope: trio.CancelScope) -> None:
        async def send(answer: v.Answer, *, more: bool) -> None:
            await self._link.send(reply(number, answer, more=more))

        try:
            with scope:
                await run(send)
        except (errors.Refused, errors.StoreDamaged) as refusal:
            if not scope.cancel_called:  # else nobody wants to know any more
                self._replies.put(number, refusal)
        finally:
            self._context.registry.streams.give(self._token)
        if self._streams.get(number) is scope:  # else it was unsubscribed, and another stream may bear its number
            del self._streams[number]


def _bulk_bytes(command: v.ClientCommand) -> int:
    """Return the size of a part of an upload; 0 for what somebody waits for."""
    if isinstance(command, v.AddEntries):
        return sum(map(len, command.items)) + len(command.items)
    return len(command.data) if isinstance(command, v.Upload) else 0
