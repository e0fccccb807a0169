"""One TLS connection to a server, blocking: bytes out, messages in, beats answered.

It knows nothing of requests and never reconnects: whatever goes wrong on the way is `ConnectionLost`, and blocking.py
decides. No thread and no trio: a plain socket costs a start of `tq` 20 ms less.
"""

import socket
import ssl
import time
from collections import deque
from collections.abc import Sequence

from tq import __version__, limits
from tq.client.target import Target
from tq.errors import ProtocolError, TimedOut, Unreachable, from_code
from tq.net import tls
from tq.net.address import hint_of
from tq.wire import messages as m
from tq.wire.connection import Connection

_RECEIVE_BYTES = 256 * limits.KIB
_TICK_S = 0.001
_OURS = frozenset({__name__, "socket", "ssl"})


class ConnectionLost(Exception):
    """The connection was cut, the server fell silent, or said what nobody can read.

    The outcome of what was asked is not known.
    """


class Transport:
    """A connection after its Hello and Welcome."""

    def __init__(self, stream: ssl.SSLSocket) -> None:
        self._stream = stream
        self._wire = Connection()
        self._inbox: deque[m.Message] = deque()
        self._beat_s = limits.heartbeat_s
        self._sent_s = time.monotonic()

    def greet(self, token: str, lineage: int, epoch: int) -> m.Welcome:
        """Say Hello and return the server's Welcome; a refusal raises its error."""
        self.send([m.Hello(m.VERSIONS, f"tq {__version__}", token, "client", lineage=lineage, epoch=epoch)])
        self._stream.settimeout(limits.hello_s)
        answer = self._first()
        if isinstance(answer, m.Refused):
            raise from_code(answer.code, answer.message, answer.hint)
        if not isinstance(answer, m.Welcome):
            raise ProtocolError(f"the server answered Hello with {type(answer).__name__}")
        self._wire.frame_bytes_max = limits.frame_bytes_max
        self._beat_s = answer.beat_ms / 1_000
        return answer

    def send(self, messages: Sequence[m.Message]) -> None:
        """Send messages in one frame, or a few."""
        try:
            self._stream.settimeout(limits.delivery_s_max)
            self._stream.sendall(self._wire.send(messages))
        except OSError as error:
            self._stream.close()
            _pass_on(error)
            raise ConnectionLost(str(error)) from None
        except BaseException:
            self._stream.close()  # a part of it may be on its way, and nothing else can follow that
            raise
        self._sent_s = time.monotonic()

    def receive(self, deadline_s: float | None = None) -> m.Message:
        """Wait for the next message that is no beat; ConnectionLost after `missed_beats_max` silent beats.

        Raises TimedOut at `deadline_s` (on time.monotonic()).
        """
        while True:
            while self._inbox:
                message = self._inbox.popleft()
                if isinstance(message, m.Goodbye):
                    raise ConnectionLost(message.reason or "the server said goodbye")
                if isinstance(message, m.Refused):
                    raise from_code(message.code, message.message, message.hint)
                if not isinstance(message, m.Beat):
                    return message
            data = self._read(deadline_s)
            try:
                self._inbox.extend(self._wire.receive_data(data))
            except ProtocolError as error:
                raise ConnectionLost(str(error)) from None  # nothing that follows can be read, either
            if time.monotonic() - self._sent_s >= self._beat_s:
                self.send([m.Beat()])

    def close(self, *, politely: bool = True) -> None:
        """Close, with a goodbye if the connection still carries one."""
        try:
            if politely:
                self._stream.settimeout(1.0)
                self._stream.sendall(self._wire.send([m.Goodbye("done")]))
        except OSError as error:
            _pass_on(error)  # else: it is going away anyway
        finally:
            self._stream.close()

    def _first(self) -> m.Message:
        while not self._inbox:
            try:
                data = self._stream.recv(_RECEIVE_BYTES)
            except OSError as error:
                _pass_on(error)
                raise ConnectionLost(str(error) or "no answer to Hello") from None
            if not data:
                raise ConnectionLost("the server closed the connection")
            self._inbox.extend(self._wire.receive_data(data))
        return self._inbox.popleft()

    def _read(self, deadline_s: float | None) -> bytes:
        silent_until_s = time.monotonic() + self._beat_s * limits.missed_beats_max
        while True:
            now_s = time.monotonic()
            if deadline_s is not None and now_s >= deadline_s:
                raise TimedOut("the answer did not come in time")
            if now_s >= silent_until_s:
                raise ConnectionLost(f"no sign of life for {limits.missed_beats_max} beats")
            patience_s = max(_TICK_S, min(self._beat_s, (deadline_s or silent_until_s) - now_s))
            self._stream.settimeout(patience_s)
            try:
                data = self._stream.recv(_RECEIVE_BYTES)
            except OSError as error:
                _pass_on(error)
                if not isinstance(error, TimeoutError):
                    raise ConnectionLost(str(error)) from None
                self.send([m.Beat()])
                continue
            if not data:
                raise ConnectionLost("the server closed the connection")
            return data


def _pass_on(error: OSError) -> None:
    """Raise an error that a signal handler of the program's has raised: those run inside of what waits for a socket."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") not in _OURS:
            raise error
        trace = trace.tb_next


def dial(target: Target) -> Transport:
    """Connect to `target` and verify its certificate. Nothing secret is sent here.

    Raises Unreachable when nobody listens, Unauthorised when the certificate is not of the expected CA.
    """
    ca_pem = target.ca_pem or _pinned_ca(target)
    return Transport(_handshake(target, tls.client_context(ca_pem)))


def _pinned_ca(target: Target) -> str:
    """Return the CA with the known hash: the kept one, else what the server sends, once it was compared."""
    from tq.net import tls
    from tq.net.join import Pinning

    kept = tls.load(target.state_directory, target.ca_sha256)
    if kept:
        return kept
    exchange = Pinning(target.ca_sha256)
    try:
        with _handshake(target, tls.pinning_context()) as stream:
            stream.sendall(exchange.question)
            ca_pem = None
            while ca_pem is None:
                ca_pem = exchange.receive_data(stream.recv(_RECEIVE_BYTES))
    except OSError as error:
        _pass_on(error)
        raise Unreachable(f"{target.url} did not send its CA: {error}", hint="try again") from None
    tls.keep(target.state_directory, target.ca_sha256, ca_pem)
    return ca_pem


def _plain(host: str) -> str:
    """Return an ASCII name as bytes, which `socket` takes as they are: a str costs an import of the IDNA codec."""
    return host.encode() if host.isascii() else host  # type: ignore[return-value]  # typeshed knows str only


def _handshake(target: Target, context: ssl.SSLContext) -> ssl.SSLSocket:
    try:
        plain = socket.create_connection((_plain(target.host), target.port), timeout=limits.handshake_s)
    except OSError as error:
        _pass_on(error)
        raise Unreachable(
            f"no server answers at {target.url}: {error.strerror or error}", hint=hint_of(target.host)
        ) from None
    # Without this each exchange waits 43 ms for a delayed acknowledgement (measured).
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        stream = context.wrap_socket(plain, server_hostname=tls.SERVER_NAME.encode(), do_handshake_on_connect=False)
    except OSError as error:  # it has closed already
        plain.close()
        _pass_on(error)
        raise tls.explained(error, target.url) from None
    try:
        stream.do_handshake()
    except OSError as error:
        chosen = stream.selected_alpn_protocol()
        stream.close()
        _pass_on(error)
        raise tls.explained(error, target.url, chosen) from None
    try:
        tls.check_alpn(stream.selected_alpn_protocol(), target.url)
    except Unreachable:
        stream.close()
        raise
    return stream
