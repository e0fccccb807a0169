"""Connecting to a server, with trio: TCP, TLS, the hello, and the first contact of who has only a join string."""

import os
import socket
import ssl
from pathlib import Path

import trio

from tq import limits
from tq.errors import ProtocolError, Unreachable, from_code
from tq.net import tls
from tq.net.address import Address, hint_of
from tq.net.join import Pinning
from tq.net.link import Link
from tq.net.secure import SecureStream
from tq.net.thread import is_lack
from tq.wire import messages as m

_CONNECT_S = 10.0
_KEEPALIVE_IDLE_S = 15
_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_PROBES = 3


async def dial(address: Address, context: ssl.SSLContext) -> SecureStream:
    """Return a verified TLS stream to the server. Raises Unreachable, or Unauthorised for a certificate of others.

    *Resource handling*: whoever calls owns the stream; on any error nothing is left open.
    """
    raw = await _connect(address)
    set_socket_options(raw)
    stream = SecureStream(raw, context, server_hostname=tls.SERVER_NAME)
    try:
        with trio.fail_after(limits.handshake_s):
            await stream.do_handshake()
        tls.check_alpn(stream.selected_alpn_protocol(), str(address))
    except trio.TooSlowError:
        stream.close()
        raise tls.explained(TimeoutError(), str(address)) from None
    except (trio.BrokenResourceError, ssl.CertificateError) as error:
        chosen = stream.selected_alpn_protocol()
        stream.close()
        raise tls.explained(error.__cause__ or error, str(address), chosen) from error
    except BaseException:
        stream.close()
        raise
    return stream


async def greet(link: Link, hello: m.Hello) -> tuple[m.Welcome, list[m.Message]]:
    """Say hello; return the server's welcome, and what came behind it. Raises what it refuses with, or Unreachable."""
    link.send_nowait(hello)
    with trio.move_on_after(limits.hello_s):
        async for first, *rest in link:
            if isinstance(first, m.Refused):
                raise from_code(first.code, first.message, first.hint)
            if not isinstance(first, m.Welcome):
                raise ProtocolError(f"the server answered Hello with {type(first).__name__}")
            link.connection.frame_bytes_max = limits.frame_bytes_max
            return first, rest
        raise Unreachable(f"the server closed the connection: {link.ended_because}")
    raise Unreachable("the server accepted the connection, but does not answer")


async def known_ca(address: Address, ca_sha256: str, state: Path) -> str:
    """Return the PEM of the CA with this hash: the one kept in the state directory, else what the server sends."""
    pem = tls.load(state, ca_sha256)
    if not pem:
        pem = await fetch_ca(address, ca_sha256)
        tls.keep(state, ca_sha256, pem)
    return pem


async def fetch_ca(address: Address, ca_sha256: str) -> str:
    """Return the PEM of the server's CA, after its hash was compared with the one in the join string."""
    exchange = Pinning(ca_sha256)
    stream = await dial(address, tls.pinning_context())
    try:
        with trio.fail_after(limits.handshake_s):
            await stream.send_all(exchange.question)
            while True:
                pem = exchange.receive_data(bytes(await stream.receive_some()))
                if pem is not None:
                    return pem
    except trio.TooSlowError:
        raise Unreachable(f"{address} does not say its CA", hint="is a tq server at this address?") from None
    except trio.BrokenResourceError as error:
        raise Unreachable(f"the connection to {address} broke before its CA came") from error
    finally:
        await trio.aclose_forcefully(stream)


def set_socket_options(stream: trio.SocketStream) -> None:
    """Make small frames leave at once (trio's default, kept explicit), and let the kernel notice a dead peer."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)


async def _connect(address: Address) -> trio.SocketStream:
    try:
        with trio.fail_after(_CONNECT_S):
            return await trio.open_tcp_stream(address.host, address.port)
    except trio.TooSlowError:
        raise Unreachable(f"no server answers at {address}: timed out", hint=hint_of(address.host)) from None
    except OSError as error:
        why = error.strerror or _first_reason(error) or str(error)
        raise Unreachable(f"no server answers at {address}: {why}", hint=hint_of(address.host)) from error
    except RuntimeError as error:  # names are looked up in a thread
        if not is_lack(error):
            raise
        raise Unreachable(f"{address} cannot be looked up: {error}", hint="are there too many processes?") from error


def _first_reason(error: OSError) -> str:
    """Return why the first of several addresses of a host failed; not in trio's words, which repeat the address."""
    cause = error.__cause__
    first = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
    return os.strerror(first.errno) if isinstance(first, OSError) and first.errno else ""
