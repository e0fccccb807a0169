"""What a worker says of what listens where it looks for its server; clients say the same of it."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from tests.support.fake_server import FakeServer, running_worker
from tq import limits
from tq.client.drivers import transport
from tq.client.target import Target
from tq.errors import TqError, Unauthorised, Unreachable
from tq.net import tls
from tq.net.address import Address
from tq.net.dial import dial
from tq.server.operation.identity import Identity, open_identity
from tq.worker import connect
from tq.worker.connect import Connecting

Talk = Callable[[socket.socket], None]
JUNK = b"HTTP/1.1 400 Bad Request\r\n\r\n"


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Identity, Identity, Path]:
    """Return the identity of our server, another one, and where ours stands."""
    here = tmp_path_factory.mktemp("ours") / "identity"
    other = tmp_path_factory.mktemp("other") / "identity"
    return open_identity(here, datetime.now(UTC)), open_identity(other, datetime.now(UTC)), here


@contextmanager
def program(talk: Talk) -> Iterator[int]:
    """Run another program on a port while the block lasts: it has this talk with all who come."""

    def attend() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(10)
                try:
                    talk(peer)
                except OSError:
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=attend)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def says(words: bytes) -> Talk:
    def talk(peer: socket.socket) -> None:
        peer.recv(1 << 16)
        peer.sendall(words)
        peer.recv(1 << 16)

    return talk


def speaks_tls(place: Path, newest: ssl.TLSVersion, *protocols: str) -> Talk:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = newest
    context.load_cert_chain(place / "cert.pem", place / "cert.key")
    if protocols:
        context.set_alpn_protocols(list(protocols))

    def talk(peer: socket.socket) -> None:
        with context.wrap_socket(peer, server_side=True) as stream:
            stream.recv(1)

    return talk


async def found(port: int, ca_pem: str) -> TqError:
    """Return what a worker finds at a port, after it was compared with what a client finds there."""
    with pytest.raises(TqError) as by_worker:
        await dial(Address("127.0.0.1", port), tls.client_context(ca_pem))
    target = Target("127.0.0.1", port, "t", ca_pem, "", Path("/nowhere"), {})
    with pytest.raises(TqError) as by_client:
        await trio.to_thread.run_sync(transport.dial, target)
    assert (type(by_client.value), str(by_client.value)) == (type(by_worker.value), str(by_worker.value))
    assert by_client.value.hint == by_worker.value.hint
    assert f"tq://127.0.0.1:{port}" in str(by_worker.value)
    return by_worker.value


NO_TLS = "is not a tq server: it does not speak TLS"
OLD_TLS = "is not a tq server: it speaks a TLS version before 1.3"
OTHER = "is not a tq server: it speaks TLS, but not the protocol of tq"


@pytest.mark.parametrize("words", [JUNK, b"SSH-2.0-OpenSSH_9.2\r\n", bytes(64), b"\xff" * 64])
async def test_what_does_not_speak_tls_is_said_to_be_no_tq_server(identities, words):
    with program(says(words)) as port:
        assert NO_TLS in str(await found(port, identities[0].ca_pem))


@pytest.mark.parametrize("trusted", [0, 1])
async def test_tls_before_1_3_is_said_to_be_no_tq_server(identities, trusted):
    with program(speaks_tls(identities[2], ssl.TLSVersion.TLSv1_2, tls.ALPN)) as port:
        assert OLD_TLS in str(await found(port, identities[trusted].ca_pem))


@pytest.mark.parametrize("protocols", [(), ("h2",)])
@pytest.mark.parametrize("trusted", [0, 1])
async def test_tls_for_something_else_is_no_tq_server_whatever_its_certificate(identities, trusted, protocols):
    with program(speaks_tls(identities[2], ssl.TLSVersion.TLSv1_3, *protocols)) as port:
        error = await found(port, identities[trusted].ca_pem)
    assert (type(error), OTHER in str(error)) == (Unreachable, True)


async def test_a_tq_server_with_another_ca_is_refused(identities):
    with program(speaks_tls(identities[2], ssl.TLSVersion.TLSv1_3, tls.ALPN)) as port:
        error = await found(port, identities[1].ca_pem)
    assert isinstance(error, Unauthorised)
    assert "is not the one that is expected" in str(error)


async def test_what_closes_at_once_and_what_refuses_are_told_apart(identities):
    with program(lambda _: None) as port:
        assert "closed the connection during the TLS handshake" in str(await found(port, identities[0].ca_pem))
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        error = await found(reserved.getsockname()[1], identities[0].ca_pem)
    assert str(error).startswith("no server answers at tq://127.0.0.1:")
    assert "Connection refused" in str(error)


async def test_what_accepts_and_says_nothing_is_said(identities, monkeypatch):
    monkeypatch.setattr(limits, "handshake_s", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = await found(silent.getsockname()[1], identities[0].ca_pem)
    assert "accepts connections, but does not answer" in str(error)


async def test_a_worker_says_what_is_there_and_that_it_goes_on(server: FakeServer, tmp_path: Path) -> None:
    with program(says(JUNK)) as port, running_worker(server, tmp_path, address=("127.0.0.1", port)) as worker:
        await worker.logged("cannot_connect")
        (line,) = [line for line in worker.log().splitlines() if "cannot_connect" in line]
    assert f"url=tq://127.0.0.1:{port} " in line
    assert f'error="what listens at tq://127.0.0.1:{port} {NO_TLS}"' in line
    assert line.endswith('next="tries again until it succeeds"')


class Scripted(Connecting):
    """A worker's loop that meets these findings one after the other, and nothing else."""

    def __init__(self, findings: Iterator[str]) -> None:
        self.context: Any = SimpleNamespace(is_over=False, slots=SimpleNamespace(held=()))
        where: Any = SimpleNamespace(look=lambda: False, server=SimpleNamespace(address="tq://queue:1"))
        super().__init__(self.context, where)
        self._findings = findings
        self.met: list[float] = []

    async def _one_session(self) -> None:
        self.met.append(trio.current_time())
        finding = next(self._findings, "")
        self.context.is_over = not finding
        raise Unreachable(finding or "the end")


def said(err: str) -> list[str]:
    return [line.partition("error=")[2].split()[0] for line in err.splitlines()]


async def test_the_same_cause_is_said_at_most_once_a_minute(autojump_clock, capsys, monkeypatch):
    monkeypatch.setattr(connect, "pause_s", lambda _tries, *, is_holding: 10.0)
    await Scripted(iter(["junk"] * 13)).run()

    assert said(capsys.readouterr().err) == ["junk"] * 3 + ['"the']  # at 0, 60 and 120 s


async def test_a_different_cause_is_said_at_once_and_two_in_turn_no_more_often(autojump_clock, capsys, monkeypatch):
    monkeypatch.setattr(connect, "pause_s", lambda _tries, *, is_holding: 1.0)
    await Scripted(iter(["junk", "silent"] * 30)).run()

    assert said(capsys.readouterr().err) == ["junk", "silent", '"the']
    many = [f"reason-{number}" for number in range(100)]
    await Scripted(iter(many)).run()
    assert said(capsys.readouterr().err)[:-1] == many
