"""The hostile network of the fault tests does what it says: it loses nothing while it may, and is cruel when asked."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import processes
from tests.support.proxy import Proxy, Way, proxied

LARGE = bytes(range(256)) * 4096
QUIET_S = 0.2  # how long nothing comes where nothing may


def echo(listener: socket.socket) -> None:
    """Give everybody back what they say, one after the other, until they end."""
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=give_back, args=(peer,)).start()


def give_back(peer: socket.socket) -> None:
    with peer:
        try:
            while data := peer.recv(65536):
                peer.sendall(data)
        except OSError:
            return


@contextmanager
def line() -> Iterator[Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=echo, args=(listener,))
        thread.start()
        try:
            with proxied(listener.getsockname()[1]) as proxy:
                yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def read(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += peer.recv(65536)
    return data


def is_quiet(peer: socket.socket) -> bool:
    peer.settimeout(QUIET_S)
    try:
        peer.recv(1)
    except TimeoutError:
        return True
    finally:
        peer.settimeout(10)
    return False


def test_it_carries_everything_and_the_end_of_the_stream() -> None:
    with line() as proxy, connect(proxy) as peer:
        threading.Thread(target=lambda: (peer.sendall(LARGE), peer.shutdown(socket.SHUT_WR))).start()
        assert read(peer, len(LARGE)) == LARGE
        assert peer.recv(1) == b""
        assert (proxy.accepted, proxy.carried[Way.UP]) == (1, len(LARGE))


def test_a_black_hole_is_silent_and_what_waited_arrives_when_it_heals() -> None:
    with line() as proxy, connect(proxy) as peer:
        peer.sendall(b"one")
        assert read(peer, 3) == b"one"
        proxy.black_hole()
        peer.sendall(b"two")
        with connect(proxy) as stranger:
            stranger.sendall(b"hello?")
            assert is_quiet(peer)
            assert is_quiet(stranger)
            proxy.heal()
            assert read(peer, 3) == b"two"
            assert read(stranger, 6) == b"hello?"


def test_half_open_the_server_hears_and_is_not_heard() -> None:
    with line() as proxy, connect(proxy) as peer:
        peer.sendall(b"a")
        assert read(peer, 1) == b"a"
        proxy.black_hole(Way.DOWN)
        peer.sendall(b"bcd")
        processes.until(lambda: proxy.carried[Way.UP] == 4, "it has arrived")
        assert is_quiet(peer)
        assert proxy.carried[Way.DOWN] == 1
        proxy.heal()
        assert read(peer, 3) == b"bcd"


def test_a_reset_kills_what_is_there_and_refusing_kills_what_comes() -> None:
    with line() as proxy:
        with connect(proxy) as peer:
            peer.sendall(b"a")
            assert read(peer, 1) == b"a"
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
        proxy.refuse()
        with pytest.raises(ConnectionResetError), connect(proxy) as peer:  # maybe before the connection is made
            peer.recv(1)
        proxy.heal()
        with connect(proxy) as peer:
            peer.sendall(b"again")
            assert read(peer, 5) == b"again"


def test_delay_keeps_the_order() -> None:
    with line() as proxy, connect(proxy) as peer:
        proxy.delay(0.02)
        for piece in (b"a", b"b", b"c"):
            peer.sendall(piece)
        assert read(peer, 3) == b"abc"


def test_where_nobody_listens_it_resets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with proxied(port) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as peer:
        peer.recv(1)
