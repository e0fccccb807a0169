"""The listener: accepts connections, does the TLS handshake, and gives each to `attend`. It never dies of one.

    async def attend(arrival: Arrival) -> None: ...     # a session, from hello to goodbye

    listeners = await open_listeners(host, port)
    await nursery.start(partial(serve, listeners, context, attend))

An exception that leaves a child of a nursery cancels the whole nursery: one bad certificate alert would stop the
server. So each connection runs inside `_attend`, which lets nothing out but the server's own cancellation. The
handshake runs there too, never in the accept loop: a few idle sockets would stall it (pueue before 4.0.5 had that).

Until `Arrival.admit()` a connection is unauthenticated: it has `handshake_s` and then `hello_s`, and counts against
two bounds, in all and by address (loopback counts in all only). When all seats are taken the loop stops accepting,
and whoever comes waits in the kernel's queue: a fleet that reconnects gets in as fast as handshakes go. Only an
unauthenticated connection that is older than a second then gives up its seat, so that idle sockets cannot keep
everybody out.
"""

import errno
import ssl
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NoReturn

import trio

from tq.errors import ConfigurationError, ProtocolError, TqError, Unreachable
from tq.net import tls
from tq.net.address import joined
from tq.net.connection_quota import ConnectionQuota, Seat, SeatBounds, within_open_files
from tq.net.dial import set_socket_options
from tq.net.log import log
from tq.net.secure import SecureStream

_PAUSE_S: Final = 0.1  # before the next accept when the system is out of something
_SAY_AGAIN_S: Final = 60.0
_TEXT_CHARS_MAX: Final = 300
_BACKLOG: Final = 4_096


class HandshakeRefused(ProtocolError):
    """The peer speaks no TLS, or not as tq does. The text says so without a word of the peer's."""


class Arrival:
    """A connection after its TLS handshake. `admit()` says that the peer is authenticated."""

    def __init__(self, stream: SecureStream, host: str, port: int, seats: ConnectionQuota, seat: Seat) -> None:
        self.stream = stream
        self.host = host
        self.peer = joined(host, port)
        self._seats = seats
        self._seat = seat

    @property
    def share_max(self) -> int:
        """How many connections one token may have."""
        return self._seats.bounds.share_max

    async def hold_back(self) -> None:
        """Wait for as long as the wrong tokens of its address ask for."""
        pause_s = self._seats.failures.pause_s(self._seat.origin, trio.current_time())
        if pause_s:
            self._seat.extend("no hello in time", pause_s + self._seats.bounds.hello_s)
            await trio.sleep(pause_s)

    def strike(self) -> None:
        """Note that its token was wrong."""
        self._seats.failures.add(self._seat.origin, trio.current_time())

    def admit(self) -> None:
        """Take away the deadline of the hello and the bounds on unauthenticated connections."""
        self._seats.admit(self._seat)


Attend = Callable[[Arrival], Awaitable[None]]


class _Complaints:
    """Says each kind of trouble at once, then at most once a minute with the number of repeats.

    Whoever can connect can make trouble as fast as the line goes: the log must not be their way to fill the disk, so
    a kind is never made of what a peer sent.
    """

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, int]] = {}

    def say(self, event: str, reason: str, kind: str = "", **fields: object) -> None:
        """Log `reason` unless something of this kind was said a moment ago; `kind` if the reason itself is none."""
        now = trio.current_time()
        key = f"{event} {kind or reason}"
        last, silent = self._said.get(key, (-_SAY_AGAIN_S, 0))
        if now - last < _SAY_AGAIN_S:
            self._said[key] = (last, silent + 1)
            return
        self._said[key] = (now, 0)
        if silent:
            fields["more_before"] = silent
        log(event, level="warning", reason=reason[:_TEXT_CHARS_MAX], **fields)


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Return listening sockets; port 0 = any free one. ConfigurationError says what to do if that fails."""
    where = joined(host, port)
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
    except OSError as error:
        hints = {
            errno.EADDRINUSE: "another server listens there: stop it, or choose another with --listen",
            errno.EACCES: "ports below 1024 are for root: choose another with --listen",
            errno.EADDRNOTAVAIL: "this machine has no such address: choose another with --listen",
        }
        why = error.strerror or str(error)
        raise ConfigurationError(
            f"cannot listen on {where}: {why}", hint=hints.get(error.errno or 0, "check --listen")
        ) from error


async def serve(
    listeners: Sequence[trio.SocketListener],
    context: ssl.SSLContext,
    attend: Attend,
    *,
    bounds: SeatBounds | None = None,
    task_status: "trio.TaskStatus[list[tuple[str, int]]]" = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Attend to everybody who connects, until cancelled.

    Reports the bound addresses through `task_status` once connections are accepted.
    *Resource handling*: owns the listeners, and every connection while `attend` runs; closes all of them.
    *Error handling*: whatever `attend` raises is logged and ends that connection alone.
    """
    seats = ConnectionQuota(within_open_files(bounds or SeatBounds()))
    complaints = _Complaints()
    try:
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                start = partial(_attend, context=context, attend=attend, seats=seats, complaints=complaints)
                nursery.start_soon(_accept_loop, listener, nursery, start, seats, complaints)
            task_status.started([listener.socket.getsockname()[:2] for listener in listeners])
    finally:
        for listener in listeners:
            listener.socket.close()
    raise AssertionError("the accept loops do not end")


async def _accept_loop(
    listener: trio.SocketListener,
    nursery: trio.Nursery,
    start: Callable[..., Awaitable[None]],
    seats: ConnectionQuota,
    complaints: _Complaints,
) -> None:
    while True:
        await trio.lowlevel.wait_readable(listener.socket)  # somebody is there: only then need a seat be free
        await seats.wait_free()
        try:
            raw = await listener.accept()
        except OSError as error:
            # Out of file descriptors or memory, or a network in trouble: what waits in the kernel's queue stays
            # there. Only time helps, and those who close.
            complaints.say("cannot_accept", error.strerror or str(error), "accept")
            await trio.sleep(_PAUSE_S)
            continue
        host, port = _peer_of(raw)
        seat = seats.take(host)
        if seat is None:
            complaints.say("connection_closed", "too many from its address without a hello", peer=joined(host, port))
            raw.socket.close()
            continue
        nursery.start_soon(start, raw, host, port, seat)


async def _attend(
    raw: trio.SocketStream,
    host: str,
    port: int,
    seat: Seat,
    *,
    context: ssl.SSLContext,
    attend: Attend,
    seats: ConnectionQuota,
    complaints: _Complaints,
) -> None:
    """Handshake and session of one connection. Lets nothing out but the cancellation of the whole server."""
    peer = joined(host, port)
    stream: SecureStream | None = None
    try:
        with suppress(OSError):  # a peer that is gone already
            set_socket_options(raw)
        stream = SecureStream(raw, context, server_side=True)
        with seat.scope:
            await _shake_hands(stream, seat, seats.bounds)
            await attend(Arrival(stream, host, port, seats, seat))
        if seat.scope.cancelled_caught:
            complaints.say("connection_closed", seat.why, peer=peer)
    except* HandshakeRefused as refused:
        complaints.say("connection_closed", str(refused.exceptions[0]), peer=peer)
    except* TqError as group:
        for error in leaves(group):
            complaints.say("connection_closed", str(error), type(error).__name__, peer=peer)
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        complaints.say("connection_closed", "the connection broke", peer=peer)
    except* Exception as group:  # noqa: BLE001 - a connection's edge: a bug in its session must not stop the server
        kinds = ", ".join(type(error).__name__ for error in leaves(group))
        complaints.say("session_failed", kinds, peer=peer, traceback="".join(traceback.format_exception(group)))
    finally:
        seats.leave(seat)
        raw.socket.close()
        if stream is not None:
            stream.close()


async def _shake_hands(stream: SecureStream, seat: Seat, bounds: SeatBounds) -> None:
    try:
        await stream.do_handshake()
        tls.check_alpn(stream.selected_alpn_protocol(), "the other end")
    except trio.BrokenResourceError as error:
        raise HandshakeRefused(tls.refusal(error.__cause__)) from error
    except Unreachable:
        raise HandshakeRefused("TLS, but not the protocol of tq (no ALPN tq/1)") from None
    seat.extend("no hello in time", bounds.hello_s)


def leaves(group: BaseExceptionGroup[Any]) -> list[Any]:
    """Return the exceptions in a group and in its groups."""
    found: list[Any] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _peer_of(raw: trio.SocketStream) -> tuple[str, int]:
    try:
        host, port = raw.socket.getpeername()[:2]
    except OSError:  # it is gone again
        return "somebody", 0
    return str(host), int(port)
