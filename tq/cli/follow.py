"""Output of a task to this program's own stdout and stderr, each stream on its own; as it comes, if asked to.

A cut connection goes on where it was: `Logs.position` says what has been seen. What goes to a terminal is escaped, what
goes elsewhere are the task's own bytes.
"""

import sys
import time
from typing import TYPE_CHECKING, Protocol

from tq.cli.context import is_terminal, say
from tq.cli.escape import Scrubber
from tq.core import vocabulary as v

if TYPE_CHECKING:
    from tq.client.blocking import Client

_LINE_BYTES_MAX = 1 << 16
_PAUSE_S = 0.2  # before an ended attempt's task is asked for its next one
_NAMES = {1: "stdout", 2: "stderr"}
_ENDED = frozenset({"succeeded", "dead", "cancelled", "skipped", "expired"})


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
        self._scrubber = None if is_raw or not is_terminal(self._file) else Scrubber()

    def write(self, data: bytes) -> None:
        """Write and flush, so that a reader at the other end sees it at once."""
        if self._scrubber is None:
            self._file.buffer.write(data)
        else:
            self._file.write(self._scrubber.feed(data))
        self._file.flush()

    def finish(self) -> None:
        """Write what the scrubber kept back."""
        if self._scrubber is not None:
            self._file.write(self._scrubber.feed(b"", final=True))
        self._file.flush()


class PrefixSink:
    """Writes whole lines, each after a prefix that names task and stream."""

    def __init__(self, sink: Sink, prefix: str) -> None:
        self._sink = sink
        self._prefix = prefix.encode()
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Write the lines that are whole now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES_MAX:  # what has no end is broken: memory is bounded
            lines, self._rest = [*lines, self._rest], b""
        if lines:
            self._sink.write(b"".join(self._prefix + line + b"\n" for line in lines))

    def finish(self) -> None:
        """Write the last line, though it has no end."""
        if self._rest:
            self._sink.write(self._prefix + self._rest + b"\n")
            self._rest = b""
        self._sink.finish()


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


class Follower:
    """Reads the output of one task and remembers how far it is.

    `attempt` 0 follows the latest attempt, and the next one when there is a retry.
    """

    def __init__(
        self,
        client: "Client",
        task: str,
        sinks: dict[int, Sink],
        *,
        attempt: int = 0,
        is_following: bool = False,
        position: tuple[int, int] = (0, 0),
    ) -> None:
        self._client = client
        self._task = task
        self._sinks = sinks
        self._wanted = attempt
        self._attempt = attempt
        self._finished = 0  # attempts up to this one are over, and were shown
        self._position = {1: position[0], 2: position[1]}
        self._is_following = is_following

    def run(self) -> v.LogsEnd:
        """Write everything there is; when following, until the task has ended. Returns the last LogsEnd."""
        while True:
            end = self._one_attempt()
            is_over = not self._is_following or self._wanted or end.state in _ENDED or not end.state
            if is_over:
                for sink in self._sinks.values():
                    sink.finish()
                return end
            # It will run again: what comes next is another attempt's, and this one's output is not shown twice.
            self._finished = max(self._finished, end.attempt)
            self._attempt, self._position = 0, {1: 0, 2: 0}
            time.sleep(_PAUSE_S)

    def _one_attempt(self) -> v.LogsEnd:
        patience_s = None if self._is_following else -1.0
        for answer in self._client.subscribe(self._command, patience_s=patience_s):
            if isinstance(answer, v.Chunk):
                self._take(answer)
            elif isinstance(answer, v.LogsEnd):
                return answer
        return v.LogsEnd(self._attempt, (0, 0))

    def _command(self) -> v.Logs:
        return v.Logs(self._task, self._attempt, self._is_following, (self._position[1], self._position[2]))

    def _take(self, chunk: v.Chunk) -> None:
        if not self._wanted and 0 < chunk.attempt <= self._finished:
            return
        if chunk.attempt and chunk.attempt != self._attempt:
            if chunk.attempt > 1 and not self._wanted and self._is_following:
                say(f"tq: attempt {chunk.attempt} of {self._task} begins")
            if self._attempt:
                self._position = {1: 0, 2: 0}
            self._attempt = chunk.attempt
        seen = self._position.get(chunk.stream, 0)
        data = chunk.data[max(0, seen - chunk.offset) :] if chunk.offset < seen else chunk.data
        if chunk.offset > seen:
            name = _NAMES.get(chunk.stream, "output")
            say(f"tq: {chunk.offset - seen} bytes in the middle of {name} of {self._task} were not kept")
        self._position[chunk.stream] = max(seen, chunk.offset + len(chunk.data))
        sink = self._sinks.get(chunk.stream)
        if data and sink is not None:
            sink.write(data)
