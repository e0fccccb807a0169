import datetime as dt
import errno
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tq import limits
from tq.errors import ConfigurationError, Unauthorised, Unreachable
from tq.net import dial, tls
from tq.net.address import Address
from tq.net.link import Link, open_link
from tq.net.listen import Arrival, SeatBounds, open_listeners, serve
from tq.net.secure import SecureStream
from tq.server.operation.identity import Identity, open_identity
from tq.wire.connection import Connection
from tq.wire.messages import CA, Beat, GetCA, Hello, Refused, Welcome

HELLO = Hello((1, 1), "a test", "a token", "client")
WELCOME = Welcome(1, "a test", 1, 1, 1, 5_000, "admin")
SHORT = SeatBounds(handshake_s=0.5, hello_s=0.5)

# What is sent on a fresh TCP connection, and a word of the reason that the log must give.
HOSTILE = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: tq\r\n\r\n", "HTTP"),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", "else than TLS"),
    "zeros": (bytes(1_000), "else than TLS"),
    "a frame in the clear": (Connection().send([HELLO]), "else than TLS"),
    "noise": (bytes(range(256)) * 300, "else than TLS"),
    "an alert": (b"\x15\x03\x03\x00\x02\x02\x28", "TLS handshake"),
    "half a hello and the end": (b"\x16\x03\x01\x02\x00\x01\x00", "closed"),
    "nothing and the end": (b"", "closed"),
}


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return open_identity(Path(tmp_path_factory.mktemp("server")) / "identity", dt.datetime.now(dt.UTC))


async def echo(arrival: Arrival, identity: Identity) -> None:
    """A small session: says its CA, welcomes everybody, then sends back what comes."""
    async with open_link(arrival.stream, Connection()) as link:
        async for messages in link:
            for message in messages:
                match message:
                    case GetCA():
                        link.send_nowait(CA(identity.ca_pem.encode()))
                    case Hello():
                        arrival.admit()
                        link.connection.frame_bytes_max = limits.frame_bytes_max
                        link.send_nowait(WELCOME)
                    case _:
                        link.send_nowait(message)


class Served:
    """A listener on a free port of this machine, and ways to reach it."""

    def __init__(self, identity: Identity, port: int) -> None:
        self.address = Address("127.0.0.1", port)
        self.identity = identity
        self.context = tls.client_context(identity.ca_pem)

    async def raw(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.address.port)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Link]:
        stream = await dial.dial(self.address, self.context)
        async with open_link(stream, Connection(limits.frame_bytes_max)) as link:
            yield link

    async def check_that_it_serves(self) -> None:
        async with self.client() as link:
            link.send_nowait(HELLO)
            assert await anext(link) == [WELCOME]
            link.send_nowait(Beat(7))
            assert await anext(link) == [Beat(7)]


@asynccontextmanager
async def serving(
    identity: Identity, attend: Callable[[Arrival], Awaitable[None]] | None = None, bounds: SeatBounds | None = None
) -> AsyncIterator[Served]:
    attend = attend or partial(echo, identity=identity)
    async with trio.open_nursery() as nursery:
        listeners = await open_listeners("127.0.0.1", 0)
        (bound,) = await nursery.start(partial(serve, listeners, identity.context, attend, bounds=bounds))
        yield Served(identity, bound[1])
        nursery.cancel_scope.cancel()


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the warnings since the last call, one line each."""
    return [line for line in capsys.readouterr().err.splitlines() if " warning " in line]


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    try:
        return b"".join([bytes(piece) async for piece in stream])
    except trio.BrokenResourceError:
        return b""


async def test_a_peer_is_served(identity: Identity) -> None:
    async with serving(identity) as served:
        await served.check_that_it_serves()


@pytest.mark.parametrize("sent,why", HOSTILE.values(), ids=HOSTILE)
async def test_what_is_no_tls_is_closed_with_a_reason_and_the_server_goes_on(
    identity: Identity, capsys: pytest.CaptureFixture[str], sent: bytes, why: str
) -> None:
    async with serving(identity) as served:
        async with await served.raw() as stream:
            await stream.send_all(sent)
            if why == "closed":
                await stream.send_eof()
            await read_to_end(stream)
        await served.check_that_it_serves()

    assert [why in line for line in said(capsys)] == [True]


@pytest.mark.parametrize(
    "error,why",
    [
        (ssl.SSLError(), "something else than TLS"),  # what OpenSSL says of random bytes
        (ssl.SSLEOFError(), "it closed"),
        (ConnectionResetError(), "it closed"),
        (None, "it closed"),
    ],
)
def test_every_failed_handshake_has_a_reason(error: Exception | None, why: str) -> None:
    assert why in tls.refusal(error)


async def test_tls_before_1_3_is_refused(identity: Identity, capsys: pytest.CaptureFixture[str]) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    async with serving(identity) as served:
        async with await served.raw() as raw:
            with pytest.raises(trio.BrokenResourceError):
                await trio.SSLStream(raw, old, server_hostname="tq").do_handshake()
        await served.check_that_it_serves()

    assert "a TLS version before 1.3" in capsys.readouterr().err


@pytest.mark.parametrize("protocols", [[], ["h2", "http/1.1"]])
async def test_tls_for_another_protocol_is_refused(
    identity: Identity, capsys: pytest.CaptureFixture[str], protocols: list[str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=identity.ca_pem)
    if protocols:
        context.set_alpn_protocols(protocols)
    async with serving(identity) as served:
        async with await served.raw() as raw:
            stream = trio.SSLStream(raw, context, server_hostname="tq", https_compatible=True)
            await stream.do_handshake()
            await read_to_end(stream)
        await served.check_that_it_serves()

    assert "ALPN" in capsys.readouterr().err


async def test_a_client_says_so_when_the_other_end_speaks_tls_for_something_else(identity: Identity) -> None:
    with pytest.raises(Unreachable, match="not the protocol of tq"):
        tls.check_alpn("h2", "tq://queue:1")
    with pytest.raises(Unreachable):
        tls.check_alpn(None, "tq://queue:1")


async def test_a_handshake_that_does_not_go_on_is_closed(
    identity: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(identity, bounds=SHORT) as served, await served.raw() as idle, await served.raw() as half:
        await half.send_all(b"\x16\x03\x01\x02\x00\x01")
        await read_to_end(idle)
        await read_to_end(half)
        await served.check_that_it_serves()

    assert ["no TLS handshake in time" in line for line in said(capsys)] == [True]  # said once for both


async def test_a_peer_that_says_no_hello_is_closed(identity: Identity, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(identity, bounds=SHORT) as served, served.client() as link:
        assert [messages async for messages in link] == []

    assert "no hello in time" in capsys.readouterr().err


async def test_a_place_is_given_up_only_if_somebody_waits_for_it(
    identity: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    bounds = SeatBounds(unauthenticated_max=1, yield_seat_s=0.0)
    async with serving(identity, bounds=bounds) as served, served.client() as link:
        link.send_nowait(GetCA())
        assert await anext(link)
        assert said(capsys) == []

        await served.check_that_it_serves()
        assert [messages async for messages in link] == []

    assert "gave up its seat" in capsys.readouterr().err


async def test_a_peer_that_only_asks_for_the_ca_is_closed_too(identity: Identity) -> None:
    async with serving(identity, bounds=SHORT) as served, served.client() as link:
        link.send_nowait(GetCA())
        assert [messages async for messages in link] == [[CA(identity.ca_pem.encode())]]


async def test_an_authenticated_peer_may_be_silent(identity: Identity) -> None:
    bounds = SHORT._replace(unauthenticated_max=1, yield_seat_s=1e9)
    async with serving(identity, bounds=bounds) as served, served.client() as link:
        link.send_nowait(HELLO)
        assert await anext(link) == [WELCOME]

        async with await served.raw() as other:  # is closed for its silence, later than the first would have been
            await read_to_end(other)

        link.send_nowait(Beat())
        assert await anext(link) == [Beat()]


async def test_hundreds_of_idle_sockets_do_not_keep_anybody_out(identity: Identity) -> None:
    bounds = SeatBounds(handshake_s=60.0, yield_seat_s=0.05)
    async with serving(identity, bounds=bounds) as served:
        idle = [await served.raw() for _ in range(300)]
        assert len(idle) > bounds.unauthenticated_max

        await served.check_that_it_serves()

        for stream in idle:
            await stream.aclose()


async def test_what_ended_leaves_nothing_behind(identity: Identity) -> None:
    async with serving(identity) as served:
        await served.check_that_it_serves()
        await wait_all_tasks_blocked(0.01)
        before = trio.lowlevel.current_statistics().tasks_living
        for sent, _ in [*HOSTILE.values()] * 5:
            async with await served.raw() as stream:
                await stream.send_all(sent)
                with suppress(trio.BrokenResourceError):  # it may have been refused by now
                    await stream.send_eof()
                await read_to_end(stream)
            await served.check_that_it_serves()
        await wait_all_tasks_blocked(0.01)

        assert trio.lowlevel.current_statistics().tasks_living == before
        gc.collect()
        assert [one for one in gc.get_objects() if type(one) is Arrival] == []


async def test_trouble_of_one_kind_is_said_once_not_a_thousand_times(
    identity: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(identity) as served:
        for _ in range(40):
            async with await served.raw() as stream:
                await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
                await read_to_end(stream)

    assert len(said(capsys)) == 1


def nested() -> BaseExceptionGroup[BaseException]:
    return ExceptionGroup("several", [ValueError("one"), ExceptionGroup("more", [KeyError("two")])])


@pytest.mark.parametrize(
    "kind",  # made anew: what was raised keeps the connection that it was raised in
    [ZeroDivisionError, nested, RecursionError, MemoryError, trio.BrokenResourceError, trio.TooSlowError],
)
async def test_no_error_of_a_session_stops_the_server(
    identity: Identity, capsys: pytest.CaptureFixture[str], kind: Callable[[], Exception]
) -> None:
    sessions, error = 0, kind()

    async def attend(arrival: Arrival) -> None:
        nonlocal sessions
        sessions += 1
        if sessions == 1:
            raise error
        await echo(arrival, identity)

    async with serving(identity, attend) as served:
        async with served.client() as link:
            assert [messages async for messages in link] == []
        await served.check_that_it_serves()

    (line,) = said(capsys)
    assert type(error).__name__ in line or "broke" in line


async def test_an_error_beside_the_end_of_the_deadline_does_not_stop_the_server(
    identity: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    """A group of Cancelled and of an error is no Exception: the scope takes one out and lets the other go."""

    async def attend(arrival: Arrival) -> None:
        async def fail_when_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise LookupError("while closing")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            await echo(arrival, identity)

    async with serving(identity, attend, bounds=SHORT) as served:
        async with served.client() as link:
            assert [messages async for messages in link] == []
        async with served.client() as link:
            link.send_nowait(HELLO)
            assert await anext(link) == [WELCOME]

    assert "while closing" in capsys.readouterr().err


async def test_what_a_session_refuses_is_named_by_its_reason_without_the_peers_control_characters(
    identity: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    async def attend(arrival: Arrival) -> None:
        raise Unauthorised("no such token \x1b[31m\n")

    async with serving(identity, attend) as served, served.client() as link:
        assert [messages async for messages in link] == []

    (line,) = said(capsys)
    assert "no such token" in line
    assert line.isprintable()
    assert "Traceback" not in line


async def test_a_refusal_arrives_although_the_peer_had_more_to_say(identity: Identity) -> None:
    """A socket that is closed with unread bytes in it resets, and a reset destroys what was sent before."""
    refused = Refused("unauthorised", "the token is unknown")

    async def attend(arrival: Arrival) -> None:
        async with open_link(arrival.stream, Connection()) as link:
            await anext(link)
            await received_more.wait()
            link.send_nowait(refused)

    received_more = trio.Event()
    async with serving(identity, attend) as served, served.client() as link:
        link.send_nowait(HELLO)
        await wait_all_tasks_blocked()
        link.send_nowait(Beat())
        await wait_all_tasks_blocked()
        received_more.set()
        for _ in range(10):  # the writes that follow must not destroy what is on its way here
            await wait_all_tasks_blocked()
            link.send_nowait(Beat())

        assert [messages async for messages in link] == [[refused]]


async def test_a_lack_of_file_descriptors_passes(
    identity: Identity, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, failures = trio.SocketListener.accept, [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EPERM]

    async def accept_at_last(listener: trio.SocketListener) -> trio.SocketStream:
        if failures:
            raise OSError(failures.pop(), "out of something")
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", accept_at_last)
    monkeypatch.setattr("tq.net.listen._PAUSE_S", 0)
    async with serving(identity) as served:
        await served.check_that_it_serves()

    assert not failures
    assert ["cannot_accept" in line for line in said(capsys)] == [True]


async def test_a_port_in_use_is_a_configuration_error_with_a_hint(identity: Identity) -> None:
    async with serving(identity) as served:
        with pytest.raises(ConfigurationError, match=str(served.address.port)) as caught:
            await open_listeners("127.0.0.1", served.address.port)

    assert "--listen" in caught.value.hint


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
async def test_an_address_of_another_machine_is_a_configuration_error(host: str) -> None:
    with pytest.raises(ConfigurationError, match=host) as caught:
        await open_listeners(host, 0)

    assert "--listen" in caught.value.hint


async def test_stopping_closes_every_connection_and_the_listener(identity: Identity) -> None:
    async with serving(identity) as served:
        client = await dial.dial(served.address, served.context)
        await client.send_all(Connection().send([HELLO]))
        assert await client.receive_some()

    await read_to_end(client)
    await client.aclose()
    with pytest.raises(Unreachable, match=f"(?m)^no server answers at {served.address}: Connection refused$"):
        await dial.dial(served.address, served.context)


# ---------------------------------------------------------------- the other end: dialling


async def test_nobody_at_the_address_is_said_in_words() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="refused") as caught:
            await dial.dial(Address("127.0.0.1", reserved.getsockname()[1]), tls.pinning_context())

    assert "tq up" in caught.value.hint


async def test_a_host_without_an_address_is_said_in_words() -> None:
    with pytest.raises(Unreachable, match=r"no\.such\.host\.invalid"):
        await dial.dial(Address("no.such.host.invalid", 1), tls.pinning_context())


async def test_a_server_of_another_ca_is_not_believed(identity: Identity, tmp_path: Path) -> None:
    other = open_identity(tmp_path / "identity", dt.datetime.now(dt.UTC))
    async with serving(identity) as served:
        with pytest.raises(Unauthorised, match="not the one that is expected"):
            await dial.dial(served.address, tls.client_context(other.ca_pem))


@pytest.mark.parametrize("answer,error", [(b"HTTP/1.1 400\r\n\r\n", "TLS"), (b"", "closed")])
async def test_another_program_at_the_address_is_said_in_words(answer: bytes, error: str) -> None:
    async def other(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, other, 0, host="127.0.0.1"))
        with pytest.raises(Unreachable, match=error):
            await dial.dial(Address("127.0.0.1", listener.socket.getsockname()[1]), tls.pinning_context())
        nursery.cancel_scope.cancel()


async def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "handshake_s", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(Unreachable, match="does not answer"):
            await dial.dial(Address("127.0.0.1", silent.getsockname()[1]), tls.pinning_context())


async def test_the_ca_is_fetched_once_and_its_hash_compared(identity: Identity) -> None:
    async with serving(identity) as served:
        assert await dial.fetch_ca(served.address, identity.ca_sha256) == identity.ca_pem
        with pytest.raises(Unauthorised, match="join string"):
            await dial.fetch_ca(served.address, "0" * 64)


async def test_small_frames_leave_at_once_and_a_dead_peer_is_noticed(identity: Identity) -> None:
    options: list[int] = []

    def look(stream: SecureStream) -> None:
        options.append(stream._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        options.append(stream._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    async def attend(arrival: Arrival) -> None:
        look(arrival.stream)

    async with serving(identity, attend) as served, served.client() as link:
        look(link.stream)  # type: ignore[arg-type]
        assert [messages async for messages in link] == []

    assert len(options) == 4
    assert all(options)


async def test_no_session_ticket_is_sent(identity: Identity) -> None:
    """A ticket that nobody reads turns a clean close into a reset, or into a deadlock (python-trio/trio#819)."""
    assert identity.context.num_tickets == 0
    async with serving(identity) as served, served.client() as link:
        link.send_nowait(HELLO)
        assert await anext(link)
        assert not getattr(link.stream._tls.session, "has_ticket", False)  # type: ignore[attr-defined]
