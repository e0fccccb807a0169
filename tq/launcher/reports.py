"""What goes up to the worker: frames that wait for the socket, and reports that wait for company.

Reports of ends are collected, because a worker that hears of each by itself does nothing else, and a server neither:
sent at once when nothing runs, else after an interval that is as long as they come quickly, from 5 to 50 ms (at 1,400
`true` a second, 5 ms cost server and worker 400 us a task, 50 ms 120), or when they are 128 (with more of them, at
11,000 functions a second, server and launcher wait for each other) or 256 KiB. They are also completed and encoded only
then: between two starts the processor's caches are cold, and each thing done there costs three times as much.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from tq.launcher.attempt import Attempt
from tq.launcher.protocol import Ended, Output, Up, encode

interval_s_min: Final = 0.005
interval_s_max: Final = 0.050
quick_by_s: Final = 1_000  # ends a second for which the interval is the longest
ends_max: Final = 128
bytes_max: Final = 256 * 1024
unsent_bytes_max: Final = 8 * 1024 * 1024
behind_bytes: Final = 256 * 1024
_output_inline_bytes_max: Final = 32 * 1024
_write_bytes: Final = 256 * 1024
_NEVER: Final = float("inf")


class Reports:
    """The way up. `fd` is the control socket, non-blocking; `complete` takes what ended attempts have returned."""

    def __init__(self, fd: int, complete: Callable[[Sequence[Attempt]], None]) -> None:
        self.unsent_bytes = 0
        self._fd: Final = fd
        self._complete: Final = complete
        self._frames: Final[deque[memoryview]] = deque()
        self._ended: list[Attempt] = []
        self._outputs: list[Output] = []
        self._bytes = 0
        self._interval_s = interval_s_min
        self._due = _NEVER

    @property
    def is_full(self) -> bool:
        """Whether so much is unsent that nothing new may be started."""
        return self.unsent_bytes > unsent_bytes_max

    @property
    def is_behind(self) -> bool:
        """Whether no output is to be pushed now: it would only stand before the ends of others.

        On a slow line to the server the worker takes little. What is pushed later is younger, and less.
        """
        return self.unsent_bytes > behind_bytes

    def send(self, message: Up) -> None:
        """Queue one frame; `write` sends it. What must stay behind the reports so far calls `flush` before."""
        frame = encode(message)
        self._frames.append(memoryview(frame))
        self.unsent_bytes += len(frame)

    def add(self, attempt: Attempt, now: float) -> None:
        """Report an attempt that has ended."""
        if attempt.streams is not None:
            self._add_output(attempt)
        self._ended.append(attempt)
        self._bytes += len(attempt.returned)
        if len(self._ended) >= ends_max or self._bytes >= bytes_max:
            self.flush()
        elif self._due == _NEVER:
            self._due = now + self._interval_s

    def _add_output(self, attempt: Attempt) -> None:
        """Send what was not pushed yet: with the report when it is little, else before it."""
        rest = attempt.take_rest()
        size = sum(len(output.data) for output in rest)
        if size <= _output_inline_bytes_max:
            self._outputs += rest
            self._bytes += size
        else:
            for output in rest:
                self.send(output)

    def due(self) -> float:
        """Return when `tick` has something to do."""
        return self._due

    def tick(self, now: float, is_idle: bool) -> None:
        """Send the reports if it is time."""
        if self._ended and (is_idle or self._due <= now):
            if not is_idle:
                by_s = (len(self._ended) - 1) / self._interval_s  # the first began the interval
                self._interval_s = max(interval_s_min, interval_s_max * min(by_s / quick_by_s, 1.0))
            self.flush()

    def flush(self) -> None:
        """Send the reports now."""
        if self._ended:
            self._complete(self._ended)
            self._send_ends(self._ended, self._outputs)
            self._ended, self._outputs, self._bytes = [], [], 0
            self._due = _NEVER

    def _send_ends(self, ended: Sequence[Attempt], outputs: Sequence[Output]) -> None:
        """Send reports as one frame, or as several when much was returned."""
        if len(ended) > 1 and sum([len(attempt.returned) for attempt in ended]) > bytes_max:
            half = len(ended) // 2
            self._send_ends(ended[:half], outputs)
            self._send_ends(ended[half:], ())
        else:
            self.send(Ended(tuple([attempt.end() for attempt in ended]), tuple(outputs)))

    def write(self) -> bool:
        """Write as much as the socket takes. Return whether all is out; OSError when the worker is gone."""
        frames = self._frames
        while frames:
            view = frames.popleft()
            try:
                written = os.write(self._fd, view[:_write_bytes])
            except BlockingIOError:
                frames.appendleft(view)
                return False
            self.unsent_bytes -= written
            if written < len(view):
                frames.appendleft(view[written:])
        return True
