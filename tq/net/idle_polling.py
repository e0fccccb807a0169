"""Where connections wait from which nothing is expected soon: what comes is read together, some moments later.

A pass of trio's loop costs more than all that a sign of life asks for, and a thousand idle workers send two hundred of
those a second, each alone (docs/adr/0025-idle-workers-are-read-together.md). Here one task waits for all of them: when
the first sends something it pauses, and then lets all go on that have been sent something by then.

It reads nothing itself, and knows no protocol: a stream (secure.py) waits here for its socket instead of in trio.
"""

import select
from contextlib import suppress
from typing import Final

import trio

_WANTED: Final = select.EPOLLIN | select.EPOLLONESHOT
_TOGETHER_MAX: Final = 32  # in one pass of the loop: others have their turns between


class IdlePolling:
    """The waiting room of a server. `run` lets those go on that have waited for something."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._epoll = select.epoll()
        self._waiting: dict[int, trio.lowlevel.Task] = {}  # by socket

    async def run(self) -> None:
        """Let all go on that something has come for, `pause_s` after the first of it."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            await trio.sleep(self._pause_s)
            while self.gather(_TOGETHER_MAX):
                await trio.lowlevel.checkpoint()

    def gather(self, count_max: int = 0) -> bool:
        """Let those go on that something has come for, `count_max` at most (0 = all). Return whether there were any."""
        events = self._epoll.poll(0, count_max or max(len(self._waiting), 1))
        for fd, _ in events:
            task = self._waiting.pop(fd, None)
            if task is not None:
                trio.lowlevel.reschedule(task)
        return bool(events)

    async def wait(self, fd: int) -> None:
        """Wait until something has come for a socket, or somebody wakes it. Raises BusyResourceError if one waits."""
        if fd in self._waiting:
            raise trio.BusyResourceError("another task waits for this socket")
        try:
            self._epoll.modify(fd, _WANTED)
        except FileNotFoundError:
            self._epoll.register(fd, _WANTED)
        self._waiting[fd] = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._leave(fd)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self, fd: int) -> None:
        """Let a socket go on at once, if it waits here; nothing of it is left here in any case."""
        task = self._leave(fd)
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _leave(self, fd: int) -> trio.lowlevel.Task | None:
        with suppress(FileNotFoundError):
            self._epoll.unregister(fd)
        return self._waiting.pop(fd, None)
