"""A worker's own directory in the state directory: its lock, who lived here before, and what that one left.

    STATE/worker/worker.lock    held while a worker lives here; a second one takes STATE/worker-2, and so on
    STATE/worker/last.json      {"worker", "lineage", "epoch", "adopted"}: who spoke last to a server from here
    STATE/worker/spool/         what no server has acknowledged (spool.py)

Whoever starts here names its predecessor to the server, which then need not wait for three missed beats. It also takes
over what lies in the directories beside its own in which nobody lives any more: of two workers on a machine that died,
the first to come back presents the results of both.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from os.path import samestat
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from tq import limits
from tq.core.model import ids
from tq.errors import ConfigurationError, StoreError, TqError
from tq.launcher import cgroups
from tq.net.log import log
from tq.store import files, trust
from tq.worker.spool import Spool

SPOOL: Final = "spool"
_LAST: Final = "last.json"
_LOCK: Final = "worker.lock"
_HOMES_MAX: Final = 64
_TRIES: Final = 5
_OTHERS: Final = 0o077
_GONE: Final = frozenset((errno.ENOENT, errno.ENOTDIR))


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


class StateDirectory:
    """The directory that this worker holds, and who lived there before (`last`).

    `path` is what people call it, `directory` is that one, whatever its name leads to by now: all that is kept here is
    written there, so that nothing of it ever comes between the files of another worker.
    """

    def __init__(self, path: Path, directory: int, lock: int) -> None:
        self.path = path
        self.directory = Path(f"/proc/self/fd/{directory}")
        self.last = Last()
        self._speaker: Last | None = None
        self._lock = lock
        self._directory = directory  # kept open also so that no new one gets its inode (launcher/cgroups.py)

    def lock(self) -> bool:
        """Take it, unless somebody else has it."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.last = _read_last(self.directory / _LAST)
        return True

    @property
    def is_ours(self) -> bool:
        """Whether who looks for a free directory still finds this one held, as far as can be seen now."""
        try:
            return samestat((self.path / _LOCK).stat(), os.fstat(self._lock))
        except OSError as error:  # a disk that fails, or another mode, makes it nobody else's
            return error.errno not in _GONE

    def remember(self, last: Last) -> None:
        """Write down who speaks from here now, if that is news; it is on the disk when this returns. Raises OSError."""
        path = self.directory / _LAST
        if _read_last(path) != last:
            files.replace(path, msgspec.json.encode(last))
            files.sync_directory(self.directory)

    def speak(self, last: Last) -> None:
        """Note who speaks from here from now on: `catch_up` writes it down."""
        self._speaker = last

    @property
    def is_behind(self) -> bool:
        """Whether that is not written yet."""
        return self._speaker is not None

    def catch_up(self) -> None:
        """Write down who speaks from here. Raises OSError: try again. Blocking."""
        speaker = self._speaker
        if speaker is not None:
            self.remember(speaker)
            if self._speaker is speaker:
                self._speaker = None

    def close(self) -> None:
        """Give it free."""
        os.close(self._lock)
        os.close(self._directory)


@contextmanager
def settle(state: Path) -> Iterator[StateDirectory]:
    """Take the first free directory under the state directory, for the length of the block."""
    for number in range(1, _HOMES_MAX + 1):
        home = _hold(state / ("worker" if number == 1 else f"worker-{number}"))
        if home is not None:
            with closing(home):
                _take_heritage(state, home)
                yield home
            return
    raise ConfigurationError(
        f"{_HOMES_MAX} workers share the state directory {state} already", hint="give this one another XDG_STATE_HOME"
    )


def _take_heritage(state: Path, home: StateDirectory) -> None:
    """Take over what is in the other directories, where nobody lives any more; what fails there stays there.

    Only where both served the same store: what was meant for another one is no business of this worker's.
    """
    for path in sorted(state.glob("worker*")):
        if path == home.path or not _serves_the_same(home, _read_last(path / _LAST)):
            continue
        try:
            other = _hold(path)
            if other is not None:
                with closing(other):
                    if _serves_the_same(home, other.last):  # who was quicker may have been there meanwhile
                        _take_over(home, other)
        except (OSError, TqError) as error:
            log("cannot_take_over", level="error", path=path, error=error)


def _serves_the_same(home: StateDirectory, last: Last) -> bool:
    return last.worker != 0 and last.lineage == home.last.lineage


def _take_over(home: StateDirectory, other: StateDirectory) -> None:
    """Take over one directory: first who lived there, so that a crash in between leaves nobody without an heir."""
    cgroups.end(other.path)  # first of all: what was leased there is given to others as soon as we say who it was
    adopted = tuple(dict.fromkeys((*home.last.adopted, *other.last.workers)))[-limits.predecessors_max + 1 :]
    last = replace(home.last, adopted=adopted)
    home.remember(last)
    home.last = last
    try:
        moved = Spool(home.directory / SPOOL).take_over(Spool(other.directory / SPOOL))
        (other.directory / _LAST).unlink(missing_ok=True)
    except OSError as error:  # what is left there waits for the next one; what came is presented
        log("cannot_take_over", level="error", path=other.path, error=error.strerror)
    else:
        log("taken_over", path=other.path, worker=ids.worker_id(other.last.worker), results=moved)


def _hold(path: Path) -> StateDirectory | None:
    """Return a directory, made if need be, that is ours from now on; None if somebody else has it. Raises TqError."""
    for _ in range(_TRIES):
        try:
            home = StateDirectory(path, *_open(path))
        except OSError as error:
            raise _unusable(path, error) from error
        is_free = home.lock()
        if is_free and home.is_ours:  # else it was removed just before
            return home
        home.close()
        if not is_free:
            return None
    raise ConfigurationError(f"cannot use {path}: it is removed again and again", hint="who removes it?")


def _open(path: Path) -> tuple[int, int]:
    """Return descriptors of a directory and of its lock, both made if need be. What lies there is sent as ours."""
    trust.check(path)
    files.make_directory(path)
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        trust.check_opened(directory, path)
        if os.fstat(directory).st_mode & _OTHERS:
            os.fchmod(directory, 0o700)
        return directory, os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except BaseException:
        os.close(directory)
        raise


def _unusable(path: Path, error: OSError) -> TqError:
    """Return what to say of a directory that cannot be held."""
    what = f"cannot use {path}: {error.strerror}"
    if error.errno in files.MAY_PASS:
        return StoreError(what, hint="a worker needs room for one small file there, its lock; make some, then start it")
    return ConfigurationError(what, hint="the state directory ($XDG_STATE_HOME/tq) must be writable")


def _read_last(path: Path) -> Last:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Last)
    except (OSError, msgspec.MsgspecError):
        return Last()
