"""A stream that notes each sign of life: any byte that comes in counts, also of a frame that is not complete."""

from collections.abc import Callable

import trio


class HeardStream(trio.abc.Stream):
    """Passes everything on to `stream`, and calls `on_bytes` when something was received."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.on_bytes: Callable[[], None] | None = None

    @property
    def transport_stream(self) -> trio.abc.Stream:
        """What carries the stream: a link half-closes it at the end, below TLS."""
        carrier: trio.abc.Stream = getattr(self._stream, "transport_stream", self._stream)
        return carrier

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive, and note that something came."""
        data = await self._stream.receive_some(max_bytes)
        if data and self.on_bytes is not None:
            self.on_bytes()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending might not block."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close."""
        await self._stream.aclose()
