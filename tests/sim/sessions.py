"""The simulated edge of the server: one connection of a worker or a client, as the server's session does it.

Identity and numbers are the real `WorkerPeer`'s, subscriptions the real `Watch`'s; only the sockets are not.
"""

from collections import deque
from typing import TYPE_CHECKING

from tests.sim.network import End
from tests.sim.world import MS, SECOND
from tq import errors
from tq.core import vocabulary as v
from tq.core.model import tables
from tq.server.commit.intake import Request
from tq.server.sessions.session_context import LOW_DISK
from tq.server.sessions.watch import Waiting, replies
from tq.server.sessions.worker_protocol import WorkerPeer, reply
from tq.server.sessions.worker_session import Inputs
from tq.wire import messages as m

if TYPE_CHECKING:
    from tests.sim.server import Server


class WorkerSession:
    """One connection of a worker."""

    def __init__(self, server: "Server", end: End, hello: m.Hello) -> None:
        self.server = server
        self.end = end
        self.peer = WorkerPeer(hello.worker, hello.predecessors, server.registry.next_session)
        self.inlet = server.intake.inlet()
        self._inputs = Inputs(server.engine, server.disk, hello.worker)
        self._waiting: deque[m.Message] = deque()
        self._is_joining = False
        self._listed: tuple[v.Held, ...] = ()
        server.registry.worker_enters(hello.worker, self)

    def receive(self, messages: list[m.Message]) -> None:
        """Take a frame of the worker; while its list is not answered, nothing else is taken."""
        server, peer = self.server, self.peer
        if server.beats.heard(peer.worker, peer.session):
            self.say_silent(on=False)
        self._waiting.extend(messages)
        self._take()

    def _take(self) -> None:
        server, peer = self.server, self.peer
        requests: list[Request] = []
        while self._waiting and not self._is_joining and self.end.is_open:
            message = self._waiting.popleft()
            match message:
                case m.Beat():
                    answers = peer.beat(message)
                    server.world.count("lists asked for again", len(answers))
                    self.end.send([m.Beat(number=message.number), *answers])
                case m.Output():
                    self._output(message)
                case m.GetBlob() if self._inputs.may_read(message.blob):
                    data = server.disk.get(tables.BODY, (message.blob, message.piece))
                    self.end.send([m.Blob(message.blob, message.piece, data or b"")])
                case m.GetBlob():
                    server.world.count("inputs refused")
                case m.Goodbye():
                    if peer.is_joined:
                        server.beats.clock.left(peer.worker, peer.session)
                        requests.append(Request(v.WorkerLost(peer.worker, peer.session), "sim"))
                    self.end.close()
                    self.ended()
                case _:
                    self._command(peer.receive(message), requests)
        self.inlet.put(requests)

    def _command(self, command: v.WorkerCommand | None, requests: list[Request]) -> None:
        if isinstance(command, v.Join):
            self._is_joining = True
            self._listed = command.held
            self.server.beats.clock.joined(self.peer.worker, self.peer.session)
            requests.append(Request(command, "sim", self._joined))
        elif command is not None:
            requests.append(Request(command, "sim"))

    def _output(self, message: m.Output) -> None:
        server, ref = self.server, message.attempt
        if not (self.peer.knows(ref) and server.engine.live.holds(self.peer.worker, ref)):
            server.world.count("output dropped")
            return
        try:
            server.disk.put_output(ref.task, ref.attempt, message.stream, message.offset, message.data)
        except errors.StoreError as error:
            server.pipeline.fail(error)

    def _joined(self, answer: v.Answer | errors.TqError) -> None:
        self._is_joining = False
        if not isinstance(answer, v.Joined):
            self.end.close()
            self.ended()
            return
        self.server.check_durable("the answer to a list")
        self.server.ledger.answered(self._listed, answer)
        self.end.send(self.peer.joined(answer))
        self.server.after(0, self._take)

    def say_silent(self, *, on: bool) -> None:
        """Say that nothing is heard of the worker, or something again."""
        self.inlet.put([Request(v.WorkerSilent(self.peer.worker, self.peer.session, on), "sim")])

    def push(self) -> None:
        """What it was told has left already."""

    def carry_out(self, effect: v.Effect) -> None:
        """Tell the worker what the core decided."""
        messages = self.peer.carry_out(effect, self.server.world.now_us / SECOND)
        if not messages:
            self.server.world.count("effects for an old session")
        self.end.send(messages)

    def check_deliveries(self, now_s: float) -> None:
        """Close if something that was sent is not acknowledged in time."""
        if self.peer.is_overdue(now_s):
            self.server.world.count("overdue deliveries")
            self.close("an assignment was not acknowledged in time")

    def close_session(self, session: int, reason: str) -> None:
        """Close if this is still its session's number."""
        if self.peer.session == session:
            self.close(reason)

    def close(self, reason: str) -> None:
        """Say goodbye and close."""
        self.server.note(f"closes {self.end.peer.process.name}, session {self.peer.session}: {reason}")
        self.end.send([m.Goodbye(reason)])
        self.end.close()
        self.ended()

    def ended(self) -> None:
        """The connection is gone: the lease clock goes on, the worker may come back."""
        self.server.registry.worker_leaves(self.peer.worker, self)
        self.say_silent(on=True)


class ClientSession:
    """One connection of a client."""

    def __init__(self, server: "Server", end: End) -> None:
        self.server = server
        self.end = end
        self.inlet = server.intake.inlet()
        self.waits: dict[int, Waiting] = {}

    def receive(self, messages: list[m.Message]) -> None:
        """Take a frame of the client."""
        for message in messages:
            if isinstance(message, m.Unsubscribe) and message.request in self.waits:
                self.server.registry.watch.unsubscribe(self.waits.pop(message.request))
        requests = [self._request(message) for message in messages if isinstance(message, m.Ask)]
        self.inlet.put([request for request in requests if request is not None])

    def _request(self, ask: m.Ask) -> Request | None:
        if self.server.is_disk_low and isinstance(ask.command, v.Submit | v.Upload):
            self.end.send([reply(ask.request, LOW_DISK)])
            return None
        if isinstance(ask.command, v.Wait):
            return self._wait(ask.request, ask.command)

        def answer(what: v.Answer | errors.TqError) -> None:
            if not isinstance(what, errors.Unknown | errors.NotDone):
                self.server.check_durable(f"the answer to {type(ask.command).__name__}")
            self.end.send([reply(ask.request, what)])

        return Request(ask.command, "sim", answer)

    def _wait(self, number: int, command: v.Wait) -> Request:
        def read(asked: v.Wait) -> Request:
            return Request(asked, "sim", lambda what: answer(asked, what))

        def answer(asked: v.Wait, what: v.Answer | errors.TqError) -> None:
            if not self.end.is_open or self.waits.get(number) is not waiting:
                return  # nobody waits any more
            if not isinstance(what, v.Waited):
                self.server.registry.watch.unsubscribe(self.waits.pop(number))
                self.end.send([reply(number, what)])
                return
            self.server.check_durable("the answer to a wait")
            done, news = waiting.read(asked, what)
            if done:
                self.server.registry.watch.unsubscribe(waiting)
                del self.waits[number]
            if news or done:
                self.end.send([reply(number, piece, more=more) for piece, more in replies(done, news)])

        waiting = self.waits[number] = Waiting(command, self.inlet, read)
        self.server.registry.watch.subscribe(waiting)
        return read(command)

    def close(self, reason: str) -> None:
        """Close."""
        self.end.close()
        self.ended()

    def ended(self) -> None:
        """The connection is gone: so are its subscriptions."""
        for waiting in self.waits.values():
            self.server.registry.watch.unsubscribe(waiting)
        self.waits.clear()


def welcome(server: "Server", end: End, messages: list[m.Message]) -> None:
    """Take the first message of a connection, and begin a session."""
    hello, *rest = messages
    if not isinstance(hello, m.Hello):
        raise server.world.violated(f"the first message is {hello}")
    session: ClientSession | WorkerSession
    session = WorkerSession(server, end, hello) if hello.role == "worker" else ClientSession(server, end)
    end.on_messages = session.receive
    end.on_end = session.ended
    number = session.peer.session if isinstance(session, WorkerSession) else 0
    role = "worker" if hello.role == "worker" else "admin"
    server.guests = [*(one for one in server.guests if one.is_open), end]
    end.send([m.Welcome(1, "sim", server.lineage, server.epoch, number, server.beat_us // MS, role)])
    if rest:
        session.receive(rest)
