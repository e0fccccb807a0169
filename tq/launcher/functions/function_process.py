"""The launcher's end of one process that calls functions: its channel, its pipes, and the calls that it was given.

The channel is a stream socket that the process has as its standard input until it knows better; calls.py says what goes
over it. Nothing here decides: pool.py says which calls a process is given and what its answers mean, reaper.py how it
ends.
"""

import os
import select
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

from tq.core.model.task import Cause
from tq.launcher.attempt import Attempt, as_text
from tq.launcher.functions import calls
from tq.launcher.protocol import FrameError

_READ_BYTES: Final = 32 * 1024
_order: Final = attrgetter("order")


class FunctionProcess:
    """One process, with `queue`, the calls that it was given and has not answered: the first one runs.

    `is_ready`: it has started; `is_gone`: it was reaped, and its pid may be somebody else's; `is_held`: it is being
    asked which call runs, and goes on only when that is known. `answer` is that to a call that was asked to stop
    meanwhile.
    `pipes` are the reading ends of its stdout and stderr, -1 once closed: an attempt has them as its own meanwhile.
    `channel` is the launcher's end, and becomes the caller's to close; `callers` are all that there are, by channel.
    """

    def __init__(self, poll: select.epoll, callers: "dict[int, FunctionProcess]", channel: int, pid: int) -> None:
        self.pid: Final = pid
        self.pipes = [-1, -1]
        self.queue: Final[deque[tuple[int, Attempt]]] = deque()
        self.is_ready = False
        self.is_gone = False
        self.is_held = False
        self.is_untaken = False  # it ended without having read to its end the one call that it was given
        self.found: Final[set[str]] = set()  # the functions that it has called, whose modules are there
        self.idle_at = 0.0
        self.answer: calls.Returned | None = None
        self._count = 0  # the number of the last call
        self._is_alone = False  # the last that it was told is one call, with none before or behind
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

    # ------------------------------------------------------------ the calls

    def lend(self, attempt: Attempt) -> None:
        """Be the process of the attempt that runs next: its pid and its pipes are that one's."""
        attempt.caller = self
        attempt.pid, attempt.fds = self.pid, self.pipes

    def give(self, attempts: Sequence[Attempt]) -> None:
        """Send calls, to be made one after the other; if the process is gone already, its end will tell."""
        queue = self.queue
        was_idle = not queue
        frames = _frames(self._count + 1, attempts)
        for attempt in attempts:
            self._count += 1
            queue.append((self._count, attempt))
        self._is_alone = len(queue) == 1
        if not self.send(frames) and was_idle:
            self.is_untaken = True

    def hold(self) -> None:
        """Let it begin no further call. What it has said when this was sent says which one runs."""
        self.is_held = True
        self.send(calls.encode(calls.Hold()))  # who is gone, or has closed its end, begins nothing more either

    def take_back(self, kept: int) -> list[Attempt]:
        """Return the calls behind the first so many, which it has not begun: it holds, or is gone."""
        back = [self.queue.pop()[1] for _ in range(len(self.queue) - kept)]
        return back[::-1]

    def go_on(self) -> None:
        """Let one that holds make the calls that it still has, and forget those that were taken back."""
        self.is_held = False
        self.send(calls.encode(calls.Keep(self.queue[-1][0] if self.queue else self._count)))

    def cut_short(self, attempt: Attempt) -> None:
        """Its process has ended, which is the end of the attempt that it serves, too, unless it has left an answer."""
        attempt.caller = None
        attempt.user_us = attempt.system_us = 0  # of all its calls
        if self.answer is not None:
            take_answer(attempt, self.answer)
        elif attempt.cause:
            pass
        elif not self.is_ready or self.is_untaken:
            attempt.cause = Cause.WORKER_TROUBLE
            attempt.error = f"the process that calls functions ended before it took the call ({attempt.code})"
        elif attempt.code == 0:
            attempt.cause = Cause.BAD_RESULT
            attempt.error = "its process ended before the function returned"

    # ------------------------------------------------------------ the channel

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
            self.is_untaken = self._is_alone
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
            self.is_untaken = self._is_alone
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

    def close_pipes(self) -> None:
        """Close the pipes, unless an attempt has them or they are closed."""
        pipes, self.pipes = self.pipes, [-1, -1]
        for pipe in pipes:
            if pipe >= 0:
                os.close(pipe)


def take_answer(attempt: Attempt, answer: calls.Returned) -> None:
    """The call of its function has come to an end. Why it was asked to stop before, if it was, stays."""
    attempt.run_us = answer.run_us
    attempt.cause = attempt.cause or answer.cause
    attempt.code = answer.code
    attempt.returned = answer.value
    attempt.error = answer.error and as_text(answer.error)
    attempt.user_us = answer.user_us
    attempt.system_us = answer.system_us
    attempt.peak_kib = answer.peak_kib


def _frames(first: int, attempts: Iterable[Attempt]) -> bytes:
    """Return the frames that give a process these calls, numbered from `first` on: one for those of one order."""
    frames = []
    for order, group in groupby(attempts, key=_order):
        each = tuple([(one.ref.job, one.value, one.ref.attempt, one.ref.lease, one.entry) for one in group])
        program, names = order.program, order.names
        fixed = program.function, program.packed_arguments, names.common, names.is_array, program.has_plain_entries
        frames.append(calls.encode(calls.Calls(first, *fixed, each)))
        first += len(each)
    return b"".join(frames)
