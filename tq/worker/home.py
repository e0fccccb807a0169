"""A worker's own directory in the state directory: its lock, who lived here before, and what that one left.

    STATE/worker/worker.lock    held while a worker lives here; a second one takes STATE/worker-2, and so on
    STATE/worker/last.json      {"worker", "lineage", "epoch"}: the last worker that spoke to a server from here
    STATE/worker/spool/         results that no server has acknowledged (spool.py)

Whoever starts here names its predecessor to the server, which then need not wait for three missed beats.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tq.errors import ConfigurationError

_PLACES_MAX: Final = 64
_MINE: Final = 0o077


class Last(msgspec.Struct, frozen=True):
    """Who spoke last from here, and to which store. All 0 = nobody yet."""

    worker: int = 0
    lineage: int = 0
    epoch: int = 0

    @property
    def workers(self) -> tuple[int, ...]:
        """The ids for which whoever lives here now speaks, too."""
        return (self.worker,) if self.worker else ()


class Home(NamedTuple):
    """The directory that this worker holds, and who lived there before."""

    path: Path
    last: Last

    def remember(self, last: Last) -> None:
        """Write down who speaks from here now; it replaces the old text in one step."""
        fresh = self.path / "last.json.new"
        fresh.write_bytes(msgspec.json.encode(last))
        fresh.replace(self.path / "last.json")


@contextmanager
def settle(state: Path) -> Iterator[Home]:
    """Take the first free directory under the state directory, for the length of the block."""
    for number in range(1, _PLACES_MAX + 1):
        path = state / ("worker" if number == 1 else f"worker-{number}")
        lock = _lock(path)
        if lock is not None:
            try:
                yield Home(path, _read_last(path / "last.json"))
            finally:
                os.close(lock)
            return
    raise ConfigurationError(
        f"{_PLACES_MAX} workers share the state directory {state} already", hint="give this one another XDG_STATE_HOME"
    )


def _lock(path: Path) -> int | None:
    """Return the held lock of a directory, None if somebody else has it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & _MINE:
            path.chmod(0o700)
        fd = os.open(path / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"cannot use {path}: {error.strerror}", hint="the state directory ($XDG_STATE_HOME/tq) must be writable"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _read_last(path: Path) -> Last:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Last)
    except (OSError, msgspec.MsgspecError):
        return Last()
