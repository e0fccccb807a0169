"""Where the output of tasks goes: this program's own stdout and stderr, perhaps by lines, or the last ones alone.

What goes to a terminal is escaped, what goes elsewhere are the task's own bytes. Memory is bounded.
"""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final, Protocol

from tq.cli.frame.context import is_terminal, writing_stdout
from tq.cli.showing.escape import Scrubber

_LINE_BYTES_MAX: Final = 1 << 16


class Sink(Protocol):
    """Where bytes of a stream go."""

    def write(self, data: bytes) -> None:
        """Write bytes; what they mean is the sink's business."""
        ...

    def finish(self) -> None:
        """Write what was kept back."""
        ...


class StreamSink:
    """Writes to stdout or stderr of this program: escaped on a terminal, else as it is."""

    def __init__(self, stream: int, *, is_raw: bool = False) -> None:
        self._file = sys.stdout if stream == 1 else sys.stderr
        self._writing = writing_stdout if stream == 1 else nullcontext
        self._scrubber = None if is_raw or not is_terminal(self._file) else Scrubber()

    def write(self, data: bytes) -> None:
        """Write and flush, so that a reader at the other end sees it at once."""
        with self._writing():
            if self._scrubber is None:
                self._file.buffer.write(data)
            else:
                self._file.write(self._scrubber.feed(data))
            self._file.flush()

    def finish(self) -> None:
        """Write what the scrubber kept back."""
        with self._writing():
            if self._scrubber is not None:
                self._file.write(self._scrubber.feed(b"", final=True))
            self._file.flush()


class LineSink:
    """Writes whole lines, each in the form that it is to have."""

    def __init__(self, sink: Sink, form: Callable[[bytes], bytes]) -> None:
        self._sink = sink
        self._form = form
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Write the lines that are whole now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES_MAX:  # what has no end is broken: memory is bounded
            lines, self._rest = [*lines, self._rest], b""
        if lines:
            self._sink.write(b"".join(map(self._form, lines)))

    def finish(self) -> None:
        """Write the last line, though it has no end."""
        if self._rest:
            self._sink.write(self._form(self._rest))
            self._rest = b""
        self._sink.finish()


def prefixed(prefix: bytes, line: bytes) -> bytes:
    """Return a line of output behind a prefix."""
    return prefix + line + b"\n"


def json_line(task: str, attempt: int, stream: str, line: bytes) -> bytes:
    """Return a line of output as an object of JSON; bytes that are no UTF-8 as those in the names of files."""
    from tq.cli.showing import escape, output

    text = line.decode("utf-8", "surrogateescape")
    said = output.json_text({"v": output.VERSION, "id": task, "attempt": attempt, "stream": stream, "text": text})
    return (escape.json(said) if is_terminal(sys.stdout) else said).encode() + b"\n"


class TailSink:
    """Keeps the last lines and writes them when the stream ends."""

    def __init__(self, sink: Sink, lines: int) -> None:
        self._sink = sink
        self._lines = lines
        self._kept = bytearray()

    def write(self, data: bytes) -> None:
        """Keep; what is stored of a stream is bounded, so this is too."""
        self._kept += data

    def finish(self) -> None:
        """Write the last lines."""
        lines = bytes(self._kept).splitlines(keepends=True)
        if self._lines:
            self._sink.write(b"".join(lines[-self._lines :]))
        self._sink.finish()
