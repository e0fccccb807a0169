"""A worker's end of its launcher: the process, its socket, and the look-out for one that is stuck.

    async with open_launcher(home) as launcher:
        launcher.send(frames.Slots(2))
        async for messages in launcher:      # all that one read brought; ends when the launcher is gone
            ...

The launcher is started below a sentry (launcher/sentry.py), in its own session (a terminal's Ctrl-C must not reach it),
with nothing inherited but its socket. The sentry holds the other end of our leash: when that is let go, because we die
or want it so, the launcher is killed if it does not end, and all that it ran. A launcher that is stuck inside a spawn
hears no signal but KILL: one that answers no Ping for `_deaf_ticks` ticks is killed. Ticks are counted, times are not
subtracted: a frozen machine's launcher is not deaf. What attempts leave in their directories is removed here, since
that may take longer than a launcher may be silent (launcher/scratch.py).
"""

import os
import socket
import subprocess
from collections import deque
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from math import inf
from pathlib import Path
from typing import Final

import trio

from tq.errors import ConfigurationError, Upgraded
from tq.launcher import cgroups, installed, protocol, scratch
from tq.launcher.containment import kill_all_children
from tq.launcher.sentry import command
from tq.net.log import log
from tq.net.thread import in_thread, is_lack

_READ_BYTES: Final = 256 * 1024
_TICK_S: Final = 5.0
_deaf_ticks: Final = 6
_END_S: Final = 5.0  # for a launcher to kill what it has, once its socket is closed
_SWEEP_S: Final = 10.0
_TIDY_S: Final = 5.0  # for what its attempts left; the next worker goes on with the rest


class LauncherLink:
    """One launcher. Made by `open_launcher`. Frames that are sent after its end are dropped.

    `process` is its sentry, which ends after it, as it did.
    """

    def __init__(self, process: subprocess.Popen[bytes], stream: trio.SocketStream, leash: int) -> None:
        self.process = process
        self._leash = leash
        self.pong = protocol.Pong(0, 0, 0, 0)
        self._stream = stream
        self._unread = bytearray()
        self._queue: deque[bytes] = deque()
        self._work = trio.Event()
        self._is_heard = True
        self._has_spoken = False
        self._is_reading = False  # else silence is our own doing
        self._is_writing = False
        self._leave, self._left = trio.open_memory_channel[scratch.Made](inf)

    def send(self, message: protocol.Down) -> None:
        """Write a frame, or queue what the socket does not take: it leaves as soon as the launcher reads."""
        frame = protocol.encode(message)
        if not (self._queue or self._is_writing):
            frame = frame[self._write_now(frame) :]
        if frame:
            self._queue.append(frame)
            self._work.set()

    def _write_now(self, frame: bytes) -> int:
        """Return how much of it the socket has taken. What else is wrong with it the writer finds out."""
        try:
            return os.write(self._stream.socket.fileno(), frame)
        except OSError:
            return 0

    def kill(self) -> None:
        """Let the launcher be killed, and all that it runs. What even that leaves becomes ours (`sweep`)."""
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1

    def remove(self, directory: scratch.Made) -> None:
        """Remove a directory, behind those that wait already."""
        self._leave.send_nowait(directory)

    def __aiter__(self) -> "LauncherLink":
        return self

    async def __anext__(self) -> list[protocol.Up]:
        """Return what came, never an empty list, without what is for this class."""
        while (messages := await self._receive()) is not None:
            if messages:
                return messages
        raise StopAsyncIteration

    async def until_ready(self) -> bool:
        """Wait for its first word; return False if it ended before that: then it has started nothing."""
        while not self._has_spoken:
            if await self._receive() is None:
                return False
        return True

    async def _receive(self) -> list[protocol.Up] | None:
        """Read once; return what came and is not for this class, None at the end."""
        self._is_reading = True
        try:
            data = await self._stream.receive_some(_READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        finally:
            self._is_reading = False
        if not data:
            return None
        self._is_heard = True
        messages: list[protocol.Up] = []
        self._unread += data
        for message in protocol.ups(self._unread):
            self._has_spoken = True
            if isinstance(message, protocol.Pong):
                if message.degraded != self.pong.degraded:
                    log("cannot_be_killed", level="error", attempts=message.degraded)
                self.pong = message
            elif isinstance(message, protocol.Left):
                self.remove(message.directory)
            else:
                messages.append(message)
        return messages

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self._queue:
                batch = b"".join(self._queue)
                self._queue.clear()
                self._is_writing = True
                try:
                    await self._stream.send_all(batch)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                self._is_writing = False

    async def _tidy(self) -> None:
        async for directory in self._left:
            await _remove(directory)

    async def _watch(self) -> None:
        """Ping at each tick, and KILL a launcher that was silent for too many although we listened."""
        silent = 0
        while True:
            self._is_heard = False
            self.send(protocol.Ping())
            before_s = trio.current_time()
            await trio.sleep(_TICK_S)
            was_late = trio.current_time() - before_s > 2 * _TICK_S
            if self._is_heard or not self._is_reading or was_late:
                silent = 0
                continue
            silent += 1
            if silent >= _deaf_ticks:
                log("launcher_silent", level="error", silent_s=_deaf_ticks * _TICK_S, sentry=self.process.pid)
                self.kill()
                return


@asynccontextmanager
async def open_launcher(home: Path, cgroup: bytes = b"") -> AsyncIterator[LauncherLink]:
    """Run a launcher while the block lasts. Afterwards it is gone, and all that it had (`sweep`).

    *Resource handling*: closing the socket makes the launcher kill everything and exit; one that does not is killed.
    Its attempts write below `home`, where what earlier launchers left is removed first, and run in `cgroup`, if that
    is not b"". What the block raises comes out as it is. Raises ConfigurationError when there is no launcher to be had,
    Upgraded when there is only one of another version.
    """
    if another := installed.another():
        raise Upgraded(another, hint="start the worker again; what it could not report is kept for its successor")
    left, place, process, ours, leash = _start(home, cgroup)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    link = LauncherLink(process, stream, leash)
    for directory in left:
        link.remove(directory)
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link._write)  # noqa: SLF001 - the other parts of the class
            nursery.start_soon(link._watch)  # noqa: SLF001
            nursery.start_soon(link._tidy)  # noqa: SLF001
            try:
                yield link
            except Exception as error:  # noqa: BLE001 - passed on below: a nursery would wrap it in a group
                failure = error
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
            await _wait_for_end(process)
            link.kill()
            if cgroup:
                await in_thread(cgroups.clear, cgroup)
            with trio.move_on_after(_TIDY_S):
                await _remove(place)
    if failure is not None:
        raise failure


def _start(
    home: Path, cgroup: bytes
) -> tuple[list[scratch.Made], scratch.Made, subprocess.Popen[bytes], socket.socket, int]:
    """Return what earlier launchers left, the directory of a new one, its sentry, our end of its socket, the leash."""
    try:
        left = list(scratch.leftovers(home))
        with ExitStack() as undo:
            place = scratch.make_root(home)
            undo.callback(os.rmdir, place.path)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            undo.enter_context(ours)
            with theirs, ExitStack() as passed:
                held, leash = os.pipe2(os.O_CLOEXEC)
                passed.callback(os.close, held)
                undo.callback(os.close, leash)
                process = subprocess.Popen(  # a vfork; trio's way waits for grandchildren that hold a pipe
                    command(theirs.fileno(), held, place.path, cgroup),
                    stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno(), held], start_new_session=True,
                )  # fmt: skip
            undo.pop_all()
    except OSError as error:
        hint = "is there memory, and room for one more process and its descriptors?"
        raise ConfigurationError(f"cannot start a launcher: {error.strerror}", hint=hint) from error
    return left, place, process, ours, leash


async def _wait_for_end(process: subprocess.Popen[bytes]) -> None:
    """Wait until the launcher has ended, KILL it if it takes too long, and leave nothing of its children."""
    with suppress(OSError), trio.move_on_after(_END_S):
        await _wait_pidfd(process.pid)
    process.kill()
    await in_thread(process.wait)
    await sweep()


async def _remove(directory: scratch.Made) -> None:
    """Remove a directory, in a thread that nobody waits for after a cancellation. Without one the next worker does."""
    try:
        why = await trio.to_thread.run_sync(scratch.remove, directory, abandon_on_cancel=True)
    except RuntimeError as error:
        if not is_lack(error):
            raise
        why = str(error)
    if why:
        log("not_removed", level="warning", path=os.fsdecode(directory.path), error=why)


async def sweep() -> bool:
    """KILL and reap every child of this process: without a launcher they are what its attempts left.

    Returns whether nothing is left (a process that KILL does not reach may take longer than anybody waits).
    """
    return await in_thread(kill_all_children, _SWEEP_S)


async def _wait_pidfd(pid: int) -> None:
    fd = os.pidfd_open(pid)
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        trio.lowlevel.notify_closing(fd)
        os.close(fd)
