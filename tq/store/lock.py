"""The lock of a data directory: one process at a time, from before the first look at it to the end.

`flock` on a file of our own, whose text tells people who holds it. RocksDB's own LOCK is not enough (any open and
close of that file in the same process drops it), and nothing of ours ever opens that one. The lock's file is never
removed: a second process could hold a lock on the removed one.
"""

import fcntl
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tq import __version__
from tq.errors import ConfigurationError, StoreError
from tq.store import files

NAME: Final = "server.lock"

# Between taking the lock and writing who has it lies a moment; the loser of a race waits for the text.
_WAIT_FOR_TEXT_S: Final = 1.0


class DataLock:
    """The held lock of the data directory `data`. A context manager; `release` may be called twice."""

    def __init__(self, data: Path, fd: int) -> None:
        self.data = data
        self._fd = fd

    @property
    def is_held(self) -> bool:
        """Whether the lock is still held."""
        return self._fd >= 0

    def release(self) -> None:
        """Give the directory free. Everything in it must be closed."""
        if self._fd >= 0:
            with suppress(OSError):  # on a disk that fails the text stays, of a process that is gone
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def lock_directory(data: Path) -> DataLock:
    """Take the lock of an existing directory, or raise ConfigurationError that names the holder.

    Raises it too where nothing can be written, which no later start changes; StoreError where the disk fails.
    """
    try:
        fd = os.open(data / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(data, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = f"pid {os.getpid()} on {socket.gethostname()} since {started}, tq {__version__}\n"
        os.ftruncate(fd, 0)
        os.pwrite(fd, text.encode(), 0)
    except BlockingIOError:
        holder = _holder(fd)
        os.close(fd)
        raise ConfigurationError(
            f"the data directory {data} is held by {holder}",
            hint="stop that process first, or choose another directory with --data",
        ) from None
    except OSError as error:
        os.close(fd)
        raise _unwritable(data, error) from error
    return DataLock(data, fd)


def _unwritable(data: Path, error: OSError) -> ConfigurationError | StoreError:
    """Return what to say of a directory whose lock cannot be written."""
    what = f"the data directory {data} cannot be written: {error.strerror}"
    if error.errno in files.MAY_PASS:
        return StoreError(what, hint="see to the disk, then start again")
    return ConfigurationError(what, hint="make it writable for this user, or choose another one with --data")


def is_held(data: Path) -> bool:
    """Whether some process holds the directory now. Not for a loop: a server that starts just then would fail."""
    try:
        fd = os.open(data / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):  # or a path that is none: it may come from a file
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _holder(fd: int) -> str:
    """Return who holds the lock, from the text of the file."""
    give_up_s = time.monotonic() + _WAIT_FOR_TEXT_S
    while True:
        text = os.pread(fd, 512, 0).decode(errors="replace").strip()
        if text and _is_alive(text):
            return text
        if time.monotonic() > give_up_s:
            return "another process"
        time.sleep(0.01)


def _is_alive(text: str) -> bool:
    """Whether the process that the text names may live: a text left by a dead one is not the holder's."""
    words = text.split()
    if len(words) < 4 or not words[1].isdecimal() or words[3] != socket.gethostname():
        return True
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    return True
