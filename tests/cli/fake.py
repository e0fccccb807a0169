"""A server that says what a test tells it to: real TLS on loopback, in a thread, no trio and no store."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from tq.core import vocabulary as v
from tq.errors import ProtocolError, Stopping, TqError
from tq.server.operation.identity import Identity
from tq.wire import messages as m
from tq.wire.connection import Connection

Say = Callable[[Any], Iterable[v.Answer] | v.Answer]
TOKEN = "tqa_test"


class FakeServer:
    """`says[Command]` answers a command: one answer, or several of which the last is final; or it raises a TqError.

    bytes among several answers are said as they are, and `...` is nothing: the connection ends there. None at the end
    is nothing either: more would come. `cuts` counts
    connections that are closed when the next command comes, without an answer; `babbles` what Hellos are answered with
    instead of a welcome.
    """

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.says: dict[type[Any], Say] = {v.Get: lambda asked: v.Document({"id": asked.id, "is_array": False})}
        self.says[v.Queues] = lambda _: v.Page(())
        self.asked: list[Any] = []
        self.hellos: list[m.Hello] = []
        self.beats = 0
        self.cuts = 0
        self.babbles: list[bytes] = []
        self.beat_ms = 5_000
        self.lineage, self.epoch = 7, 1
        self.token = TOKEN
        self.refuses: TqError | None = None
        self.is_mute = False
        self._news = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._streams: list[socket.socket] = []
        self._spawn(self._accept)

    @property
    def url(self) -> str:
        return f"tq://127.0.0.1:{self.port}"

    def write_connection(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "connection.json").write_bytes(
            msgspec.json.encode({"url": self.url, "ca": self.identity.ca_pem, "token": self.token, "pid": 1})
        )

    def waits_for(self, kind: type[Any]) -> None:
        """Wait until a command of this kind was asked."""
        with self._news:
            assert self._news.wait_for(lambda: any(isinstance(asked, kind) for asked in self.asked), 20)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for stream in self._streams:
            with suppress(OSError):
                # Not SSLSocket's own, after which the thread that still reads would get the encrypted bytes.
                socket.socket.shutdown(stream, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _spawn(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self._spawn(self._handshake, plain)

    def _handshake(self, plain: socket.socket) -> None:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._streams.append(plain)
        try:
            stream = self.identity.context.wrap_socket(plain, server_side=True)
        except (OSError, ValueError):
            plain.close()
            return
        self._streams.append(stream)
        with suppress(OSError, ValueError), stream:  # ValueError: `close` was quicker
            self._serve(stream)

    def _serve(self, stream: ssl.SSLSocket) -> None:
        wire = Connection(1 << 20)
        while data := stream.recv(1 << 16):
            for message in wire.receive_data(data):
                if not self._take(stream, wire, message):
                    return

    def _take(self, stream: ssl.SSLSocket, wire: Connection, message: m.Message) -> bool:
        def send(*messages: m.Message) -> None:
            stream.sendall(wire.send(messages))

        match message:
            case m.GetCA():
                send(m.CA(self.identity.ca_pem.encode()))
            case m.Hello():
                self.hellos.append(message)
                if self.babbles:
                    stream.sendall(self.babbles.pop(0))
                    return False
                if message.token != self.token:
                    send(m.Refused("unauthorised", "the token is wrong, missing, expired or revoked"))
                    return False
                if self.refuses is not None:
                    send(m.Refused(self.refuses.code, self.refuses.message, self.refuses.hint))
                    return False
                send(m.Welcome(1, "fake", self.lineage, self.epoch, 1, self.beat_ms, "admin"))
            case m.Beat():
                self.beats += 1
                if not self.is_mute:
                    send(m.Beat())
            case m.Ask():
                return self._answer(stream, send, message)
        return True

    def _answer(self, stream: ssl.SSLSocket, send: Callable[..., None], ask: m.Ask) -> bool:
        self.asked.append(ask.command)
        with self._news:
            self._news.notify_all()
        if self.cuts:
            self.cuts -= 1
            return False
        if self.is_mute:
            return True
        try:
            said = self.says[type(ask.command)](ask.command)
        except ProtocolError as error:  # as a server that cannot read it
            send(m.Refused(error.code, error.message, error.hint))
            return False
        except TqError as error:
            send(m.Failed(ask.request, error.code, error.message, error.hint))
            return not isinstance(error, Stopping)
        answers = [said] if isinstance(said, msgspec.Struct) else list(said)
        for position, answer in enumerate(answers):
            if answer is ... or isinstance(answer, bytes):  # the connection is cut in the middle
                stream.sendall(b"" if answer is ... else answer)
                return False
            if answer is not None:
                send(m.Reply(ask.request, answer, more=position < len(answers) - 1 or self.is_mute))
        return True


def chunks(*parts: tuple[int, int, bytes], state: str = "succeeded", attempt: int = 1) -> list[v.Answer]:
    """Return the answers to a `Logs`: pieces of output, each a stream, an offset and bytes; and their end."""
    return [
        *(v.Chunk(stream, offset, data, attempt) for stream, offset, data in parts),
        v.LogsEnd(attempt, (0, 0), state),
    ]
