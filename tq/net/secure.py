"""TLS over a TCP connection, for trio: what `trio.SSLStream` does, at a third of its cost for each small frame.

A round trip of one small frame is the hot path of every single submit. SSLStream goes through the scheduler several
times for each call and retries through a generic machine; here the bytes go through two memory BIOs, a send that the
kernel takes at once needs no scheduling at all, and a read waits first and asks then (bench/ measures both ends).

One reader and one writer at a time. It does what tq needs and no more: no renegotiation exists in TLS 1.3, and a
connection that ends without close_notify has simply ended: frames carry their length, so a cut is seen.
"""

import socket
import ssl
from typing import ClassVar, Final

import trio

from tq.net.idle_polling import IdlePolling

_READ_BYTES: Final = 64 * 1024


class SecureStream(trio.abc.HalfCloseableStream):
    """A TLS stream over `raw`, which it takes over: socket and all. `do_handshake` comes first."""

    # Shared: what is received lies here only until the same call has copied it on.
    _buffer: ClassVar[memoryview] = memoryview(bytearray(_READ_BYTES))

    _idle_polling: IdlePolling | None = None  # where it waits for what comes, together with others

    def __init__(
        self,
        raw: trio.SocketStream,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        family, kind, proto = raw.socket.family, raw.socket.type, raw.socket.proto
        self._socket = socket.socket(family, kind, proto, fileno=raw.socket.detach())
        self._socket.setblocking(False)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        self._has_ciphertext = False  # that OpenSSL has not been asked for
        self._unsent = b""  # ciphertext that the kernel has not taken yet

    def selected_alpn_protocol(self) -> str | None:
        """Return what both ends agreed on."""
        return self._tls.selected_alpn_protocol()

    async def do_handshake(self) -> None:
        """Shake hands. Raises BrokenResourceError, with the ssl.SSLError as its cause."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await trio.lowlevel.wait_readable(self._fd())
                if not self._feed():
                    raise trio.BrokenResourceError from ssl.SSLEOFError("the peer closed during the handshake")
            except (ssl.SSLError, ssl.CertificateError) as error:
                await self._say_alert()
                raise trio.BrokenResourceError from error
            else:
                await self._flush()
                return

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return all that is there, at least a byte; b'' at the end. Raises BrokenResourceError."""
        while True:
            # An empty BIO has nothing: asking OpenSSL would only cost an exception.
            data = self._read_ready(max_bytes or _READ_BYTES) if self._has_ciphertext else None
            if data is not None:
                if data:
                    return data
                await trio.lowlevel.checkpoint()
                return b""
            if self._outgoing.pending and not self._unsent:
                self.send_now(b"")  # an answer of the TLS layer, such as a new key
            while not self._has_ciphertext:
                if self._idle_polling is None:
                    await trio.lowlevel.wait_readable(self._fd())
                else:
                    await self._idle_polling.wait(self._fd())
                if not self._feed():
                    return b""

    def rest(self, idle_polling: IdlePolling | None) -> None:
        """Wait there for what comes, from the next time on; with None by itself again, at once."""
        older, self._idle_polling = self._idle_polling, idle_polling
        if older is not None and idle_polling is None:
            older.wake(self._socket.fileno())

    def send_now(self, data: bytes) -> bool:
        """Encrypt and send as much as the kernel takes at once. Return whether that was all; else call `flush`.

        Raises BrokenResourceError. Never waits.
        """
        try:
            if data:
                self._tls.write(data)
        except (ssl.SSLError, ValueError) as error:
            raise trio.BrokenResourceError from error
        self._unsent += self._outgoing.read()
        return self._push()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it. Raises BrokenResourceError."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self.send_now(bytes(data)):
            await self.flush()

    async def flush(self) -> None:
        """Send what `send_now` left over. If cancelled, what is left goes out before whatever is sent next."""
        while not self._push():
            await trio.lowlevel.wait_writable(self._fd())

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending might not block."""
        await trio.lowlevel.wait_writable(self._fd())

    async def send_eof(self) -> None:
        """Say that no more comes: close_notify, and the end of the TCP stream."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._say_close()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise trio.BrokenResourceError from error

    def close(self) -> None:
        """Close at once; what the kernel does not take is lost. Whoever waits gets ClosedResourceError."""
        if self._socket.fileno() >= 0:
            self.rest(None)
            self._say_close()
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    async def aclose(self) -> None:
        """Close as `close` does."""
        self.close()
        await trio.lowlevel.checkpoint()

    # ------------------------------------------------------------ between TLS and the socket

    def _read_ready(self, max_bytes: int) -> bytes | None:
        """Return what the TLS layer has ready, b'' at the end of the stream, None if it needs more."""
        records: list[bytes] = []
        size = 0
        try:
            while size < max_bytes:
                wanted = max_bytes - size
                record = self._tls.read(wanted)
                if not record:
                    break
                records.append(record)
                size += len(record)
                if len(record) < wanted and not self._incoming.pending:  # the record is whole, and it was the last
                    self._has_ciphertext = False
                    break
        except ssl.SSLWantReadError:
            self._has_ciphertext = False
            return b"".join(records) if records else None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass
        except (ssl.SSLError, ValueError) as error:
            if not records:
                raise trio.BrokenResourceError from error
        return b"".join(records)

    def _feed(self) -> bool:
        """Feed in what ciphertext lies in the socket, if any; return False at its end. Raises BrokenResourceError."""
        try:
            size = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return True
        except OSError as error:
            raise trio.BrokenResourceError from error
        if size:
            self._incoming.write(self._buffer[:size])
            self._has_ciphertext = True
        return size > 0

    def _push(self) -> bool:
        if self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except BlockingIOError:
                return False
            except OSError as error:
                raise trio.BrokenResourceError from error
            self._unsent = self._unsent[sent:]
        return not self._unsent

    async def _flush(self) -> None:
        self._unsent += self._outgoing.read()
        await self.flush()

    async def _say_alert(self) -> None:
        try:
            await self._flush()
        except trio.BrokenResourceError:
            return

    def _say_close(self) -> None:
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # the peer's own close_notify has not come, or there was no handshake
        try:
            self._unsent += self._outgoing.read()
            self._push()
        except trio.BrokenResourceError:
            return

    def _fd(self) -> int:
        """Return the number of the socket, to wait for. Raises ClosedResourceError."""
        fd = self._socket.fileno()
        if fd < 0:
            raise trio.ClosedResourceError
        return fd
