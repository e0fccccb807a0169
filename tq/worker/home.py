"""A worker's own directory in the state directory: its lock, who lived here before, and what that one left.

    STATE/worker/worker.lock    held while a worker lives here; a second one takes STATE/worker-2, and so on
    STATE/worker/last.json      {"worker", "lineage", "epoch", "adopted"}: who spoke last to a server from here
    STATE/worker/spool/         what no server has acknowledged (spool.py)

Whoever starts here names its predecessor to the server, which then need not wait for three missed beats. It also takes
over what lies in the directories beside its own in which nobody lives any more: of two workers on a machine that died,
the first to come back presents the results of both.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from tq import limits
from tq.errors import ConfigurationError
from tq.net.log import log
from tq.store import files
from tq.worker import cgroups
from tq.worker.spool import Spool

_PLACES_MAX: Final = 64
_MINE: Final = 0o077


class Last(msgspec.Struct, frozen=True):
    """Who spoke last from here, and to which store; all 0 = nobody yet. `adopted` lived in directories taken over."""

    worker: int = 0
    lineage: int = 0
    epoch: int = 0
    adopted: tuple[int, ...] = ()

    @property
    def workers(self) -> tuple[int, ...]:
        """The ids for which whoever lives here now speaks, too."""
        return tuple(worker for worker in (self.worker, *self.adopted) if worker)


class Home(NamedTuple):
    """The directory that this worker holds, and who lived there before."""

    path: Path
    last: Last

    def remember(self, last: Last) -> None:
        """Write down who speaks from here now, if that is news; it is on the disk when this returns. Raises OSError."""
        path = self.path / "last.json"
        if _read_last(path) != last:
            files.replace(path, msgspec.json.encode(last))
            files.sync_directory(self.path)


@contextmanager
def settle(state: Path) -> Iterator[Home]:
    """Take the first free directory under the state directory, for the length of the block."""
    for number in range(1, _PLACES_MAX + 1):
        path = state / ("worker" if number == 1 else f"worker-{number}")
        lock = _lock(path)
        if lock is not None:
            try:
                yield _with_heritage(state, Home(path, _read_last(path / "last.json")))
            finally:
                os.close(lock)
            return
    raise ConfigurationError(
        f"{_PLACES_MAX} workers share the state directory {state} already", hint="give this one another XDG_STATE_HOME"
    )


def _with_heritage(state: Path, home: Home) -> Home:
    """Take over what is in the other directories, where nobody lives any more; what fails there stays there.

    Only where both served the same store: what was meant for another one is no business of this worker's.
    """
    for path in sorted(state.glob("worker*")):
        if path == home.path or not _serves_the_same(home, path):
            continue
        lock = None
        try:
            lock = _lock(path)
            if lock is not None and _serves_the_same(home, path):  # who was quicker may have been there meanwhile
                home = _take_over(home, path)
        except (OSError, ConfigurationError) as error:
            log("cannot_take_over", level="error", path=path, error=error)
        finally:
            if lock is not None:
                os.close(lock)
    return home


def _serves_the_same(home: Home, other: Path) -> bool:
    last = _read_last(other / "last.json")
    return last.worker != 0 and last.lineage == home.last.lineage


def _take_over(home: Home, other: Path) -> Home:
    """Take over one directory: first who lived there, so that a crash in between leaves nobody without an heir."""
    cgroups.end(other)  # first of all: what was leased there is given to others as soon as we say who it was
    last = _read_last(other / "last.json")
    adopted = tuple(dict.fromkeys((*home.last.adopted, *last.workers)))[-limits.predecessors_max + 1 :]
    heir = Home(home.path, replace(home.last, adopted=adopted))
    heir.remember(heir.last)
    try:
        moved = Spool(home.path / "spool").take_over(Spool(other / "spool").path)
        (other / "last.json").unlink(missing_ok=True)
    except OSError as error:  # what is left there waits for the next one; what came is presented
        log("cannot_take_over", level="error", path=other, error=error)
    else:
        log("taken_over", path=other, worker=f"w{last.worker:016x}", results=moved)
    return heir


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
