"""The launcher's end of one process that calls functions: its channel, its pipes, and the attempt that it serves.

The channel is a stream socket that the process has as its standard input until it knows better. Nothing here decides;
pool.py lends callers to attempts, lives.py ends attempts.
"""

import os
import select
from collections import deque
from typing import Final

from tq.worker import calls
from tq.worker.attempt import Attempt
from tq.worker.frames import FrameError

_READ_BYTES: Final = 32 * 1024


class Caller:
    """One process. `is_ready`: it has started; `is_gone`: it was reaped, and its pid may be somebody else's;
    `is_held`: it is being asked which call runs, and goes on only when that is known.

    `queue` has the calls that it was given and has not answered, with their numbers: the first one runs. `count` is the
    number of the last call, `answer` that to a call that was asked to stop meanwhile. `is_alone`: the last that it was
    told is one call, with none before or behind; `is_untaken`: it ended without having read that to its end.
    `found` are the functions that it has called, whose modules are there.
    `pipes` are the reading ends of its stdout and stderr, -1 once closed: an attempt has them as its own meanwhile.
    `channel` is the launcher's end, and becomes the caller's to close; `callers` are all that there are, by channel.
    """

    def __init__(self, poll: select.epoll, callers: "dict[int, Caller]", channel: int, pid: int) -> None:
        self.pid: Final = pid
        self.pipes = [-1, -1]
        self.queue: Final[deque[tuple[int, Attempt]]] = deque()
        self.count = 0
        self.is_ready = False
        self.is_gone = False
        self.is_held = False
        self.is_alone = False
        self.is_untaken = False
        self.found: Final[set[str]] = set()
        self.idle_at = 0.0
        self.answer: calls.Returned | None = None
        self._poll: Final = poll
        self._callers: Final = callers
        self._fd = channel
        self._unread: Final = bytearray()
        self._unsent = b""
        callers[self._fd] = self
        poll.register(self._fd, select.EPOLLIN)

    @property
    def attempt(self) -> Attempt | None:
        """The one that runs, None while it is idle."""
        return self.queue[0][1] if self.queue else None

    @property
    def is_importing(self) -> bool:
        """Whether it has not said yet that the function of its attempt is there."""
        attempt = self.attempt
        return attempt is not None and attempt.order.program.function not in self.found

    @property
    def is_open(self) -> bool:
        """Whether there is a channel to speak over."""
        return self._fd >= 0

    def send(self, frame: bytes = b"") -> bool:
        """Send what waits, then `frame`; what the socket does not take waits. Return whether somebody is there."""
        waited = bool(self._unsent)
        rest = self._unsent + frame if waited else frame
        if self._fd < 0:
            return False
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except BlockingIOError:
            pass
        except OSError:
            self.is_untaken = self.is_alone
            return False
        self._unsent = rest
        if bool(rest) != waited:
            self._poll.modify(self._fd, select.EPOLLIN | (select.EPOLLOUT if rest else 0))
        return True

    def receive(self) -> list[calls.Up] | None:
        """Return what it has said; None once it says no more, or talks nonsense."""
        if self._fd < 0:
            return None
        data = b""
        try:
            while data := os.read(self._fd, _READ_BYTES):
                self._unread.extend(data)
                if len(data) < _READ_BYTES:
                    break
        except BlockingIOError:
            data = b"-"
        except ConnectionResetError:  # there is something that it has not read
            self.is_untaken = self.is_alone
        except OSError:
            pass
        try:
            answers = calls.answers(self._unread)
        except FrameError:
            return None
        self.is_ready = self.is_ready or bool(answers)
        return answers if answers or data else None

    def close(self) -> None:
        """Close the channel."""
        if self._fd >= 0:
            del self._callers[self._fd]
            self._poll.unregister(self._fd)
            os.close(self._fd)
            self._fd = -1
