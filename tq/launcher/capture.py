"""Reads the pipes of attempts, and pushes what came up to the worker.

A pipe is watched by epoll only once its attempt is a moment old: most have ended by then, and their output is read
when they end. Watched at once are attempts that are followed, and those of a program that has been loud before: it
would fill the pipe and stand still. What a push sends are whole slots (output.py), so a repeat is harmless. Pushed is,
at most every `push_s`, what is followed, as long as there is credit; and of everything else what is more than
`unfollowed_bytes` new, at intervals that double, since a task that writes for hours must not fill the wire. What is
less waits longer, since most of it can go with the end: a second at first, then twice as long each time, up to
`little_s_max`, so that what a worker that is killed has not sent is little and young. While the worker has not taken
what was pushed, since its line to the server is slow, nothing is: reports of ends would come behind it.

Closing a pipe does not take it out of epoll while a child that has just been started still has a copy: posix_spawn
returns a little before the exec has closed it. On a busy machine the loop then spun on the hang-up of a pipe that it
no longer had (0.8 turns a task became 2.5), so what is watched is taken out by hand.
"""

import heapq
import select
from collections import deque
from os import close, read
from typing import Final

from tq.launcher.attempt import Attempt, Stage
from tq.launcher.output import Stream
from tq.launcher.protocol import Started
from tq.launcher.reports import Reports

moment_s: Final = 0.020
loud_bytes: Final = 32 * 1024  # half a pipe
push_s: Final = 0.1
unfollowed_bytes: Final = 64 * 1024
push_pause_s_max: Final = 8.0
little_s_min: Final = 1.0
little_s_max: Final = 30.0
_read_bytes: Final = 64 * 1024
_reads_at_end_max: Final = 16
_NEVER: Final = float("inf")
_RUNNING, _ENDED = Stage.RUNNING, Stage.ENDED


class Capture:
    """All pipes. `poll` is the launcher's epoll; `reports` takes what goes up."""

    def __init__(self, poll: select.epoll, reports: Reports) -> None:
        self._poll: Final = poll
        self._reports: Final = reports
        self._by_fd: Final[dict[int, tuple[Attempt, int]]] = {}
        self._young: Final[deque[Attempt]] = deque()  # less than a moment old, in order of their start
        self._noisy: Final[set[Attempt]] = set()  # with something to push
        self._pushed_at = 0.0
        self._stirred: Final[list[Attempt]] = []  # little news came in this turn, and no push is planned
        self._planned: Final[list[tuple[float, int, Attempt]]] = []  # a heap: when little news are to be pushed
        self._plans = 0

    def add(self, attempt: Attempt) -> None:
        """An attempt has just started."""
        self._young.append(attempt)
        if attempt.order.program.is_loud or attempt.credit is not None:
            self._watch(attempt)

    def due(self) -> float:
        """Return when `tick` has something to do."""
        young = self._young
        while young and young[0].stage is not _RUNNING:
            young.popleft()
        due = young[0].begin + moment_s if young else _NEVER
        planned = self._planned
        while planned and planned[0][2].stage is _ENDED:
            heapq.heappop(planned)
        if planned and not self._reports.is_behind:
            due = min(due, planned[0][0])
        return min(due, self._pushed_at + push_s) if self._noisy else due

    def tick(self, now: float) -> None:
        """Watch and name who has been running for a moment, push what is to be pushed."""
        young = self._young
        if young and young[0].begin + moment_s <= now:
            self._grow_old(now)
        if self._stirred or self._planned:
            self._tick_little(now)
        if self._noisy and self._pushed_at + push_s <= now:
            self._pushed_at = now
            for attempt in sorted(self._noisy, key=_turn):
                if self._reports.is_behind:
                    break
                self._push(attempt, now)

    def _tick_little(self, now: float) -> None:
        """Plan when little news are pushed, and push those for which the time has come."""
        for attempt in self._stirred:
            self._plans += 1
            due = max(attempt.begin, attempt.pushed_at) + (attempt.little_pause or little_s_min)
            heapq.heappush(self._planned, (due, self._plans, attempt))
        self._stirred.clear()
        while self._planned and self._planned[0][0] <= now and not self._reports.is_behind:
            attempt = heapq.heappop(self._planned)[2]
            attempt.is_planned = False
            if attempt.stage is not _ENDED and attempt.credit is None:
                attempt.pushed_at = now
                attempt.little_pause = min(2 * (attempt.little_pause or little_s_min), little_s_max)
                for output in attempt.fresh_output():
                    self._reports.send(output)

    def _grow_old(self, now: float) -> None:
        young = self._young
        named = []
        while young and (young[0].stage is not _RUNNING or young[0].begin + moment_s <= now):
            attempt = young.popleft()
            if attempt.stage is _RUNNING:
                self._watch(attempt)
                named.append(attempt.ref)
        if named:
            self._reports.send(Started(tuple(named)))

    def _watch(self, attempt: Attempt) -> None:
        if not attempt.is_watched:
            attempt.is_watched = True
            for index, fd in enumerate(attempt.fds):
                if fd >= 0:
                    self._by_fd[fd] = attempt, index
                    self._poll.register(fd, select.EPOLLIN)

    def ready(self, fd: int) -> Attempt | None:
        """Epoll says that `fd` can be read. Return the attempt if this closed its last pipe."""
        found = self._by_fd.get(fd)
        if found is None:
            return None  # closed earlier in this turn
        attempt, index = found
        self._read(attempt, index)
        return attempt if attempt.fds == [-1, -1] else None

    def _read(self, attempt: Attempt, index: int) -> bool:
        """Read once. Return whether there may be more."""
        try:
            data = read(attempt.fds[index], _read_bytes)
        except BlockingIOError:
            return False
        if not data:
            self._close(attempt, index)
            return False
        stream = attempt.stream(index)
        stream.add(data)
        if stream.written > loud_bytes:
            attempt.order.program.is_loud = True
        self._has_news(attempt, stream)
        return True

    def _has_news(self, attempt: Attempt, stream: Stream) -> None:
        """See to it that what is new of this stream is pushed when it is time."""
        if attempt.credit is not None or stream.unpushed_bytes > unfollowed_bytes:
            self._noisy.add(attempt)
        elif attempt.is_watched and not attempt.is_planned:
            attempt.is_planned = True
            self._stirred.append(attempt)

    def _close(self, attempt: Attempt, index: int) -> None:
        fd = attempt.fds[index]
        attempt.fds[index] = -1
        if attempt.is_watched:
            self._unwatch(fd)
        close(fd)

    def _unwatch(self, fd: int) -> None:
        del self._by_fd[fd]
        self._poll.unregister(fd)

    def drain(self, attempt: Attempt) -> bool:
        """The main process has ended: read what is there. Return whether both pipes are at their end."""
        self._read_rest(attempt)
        if attempt.fds == [-1, -1]:
            return True
        self._watch(attempt)  # somebody else holds them
        return False

    def release(self, attempt: Attempt, *, is_read: bool) -> bool:
        """The attempt leaves its pipes to another, and what it wrote is taken (`is_read`: there may be something).

        Return whether both are still open.
        """
        if is_read:
            self._read_rest(attempt)
        is_whole = -1 not in attempt.fds
        if attempt.is_watched:
            for fd in attempt.fds:
                if fd >= 0:
                    self._unwatch(fd)
        attempt.fds = [-1, -1]
        return is_whole

    def _read_rest(self, attempt: Attempt) -> None:
        for index in (0, 1):
            if attempt.fds[index] >= 0:
                reads = 1  # which is all that most need
                while self._read(attempt, index) and reads < _reads_at_end_max:
                    reads += 1

    def cut(self, attempt: Attempt) -> None:
        """Close the pipes that are still open, whoever holds their other ends."""
        for index in (0, 1):
            if attempt.fds[index] >= 0:
                attempt.output_held = True
                self._close(attempt, index)

    def forget(self, attempt: Attempt) -> None:
        """It has ended: the rest of its output goes with its report."""
        self._noisy.discard(attempt)

    def follow(self, attempt: Attempt, credit: int) -> None:
        """Somebody watches: `credit` more bytes; 0 = nobody does any more."""
        if credit > 0:
            attempt.credit = (attempt.credit or 0) + credit
            if attempt.stage is _RUNNING:
                self._watch(attempt)
        else:
            attempt.credit = None
        for stream in attempt.streams or ():
            if stream.unpushed_bytes:  # maybe more than the credit was
                self._has_news(attempt, stream)

    def _push(self, attempt: Attempt, now: float) -> None:
        """Send the news of one attempt, as far as it may."""
        if attempt.credit is None:
            if now < attempt.pushed_at + attempt.push_pause:
                return
            attempt.pushed_at = now
            attempt.push_pause = min(max(2 * attempt.push_pause, push_s), push_pause_s_max)
            for output in attempt.fresh_output():
                self._reports.send(output)
        else:
            news = attempt.fresh_output()
            while attempt.credit > 0 and (slot := next(news, None)) is not None:
                self._reports.send(slot)
                attempt.credit -= len(slot.data)
        self._noisy.discard(attempt)  # new bytes, or new credit, put it back


def _turn(attempt: Attempt) -> tuple[bool, float]:
    """Who is watched comes first, then who has waited longest."""
    return attempt.credit is None, attempt.pushed_at
