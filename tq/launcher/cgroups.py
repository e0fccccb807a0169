"""Cgroups of version 2, where the kernel lets us have some: the level of containment that nothing escapes.

    BASE/tq-DEVICE-INODE/          one worker's, named after its home directory; BASE is the cgroup that it runs in
    BASE/tq-DEVICE-INODE/short/    its launcher, and the attempts that are short
    BASE/tq-DEVICE-INODE/17/       one attempt's own

A process is where its parent was when it forked: so the launcher moves itself into an attempt's cgroup, spawns, and
moves back (attached afterwards, 30 of 200 grandchildren escaped). That costs a third of the rate, so only attempts of
lanes that are not known to be short get one. What `cgroup.kill` then kills has no way out: not a new session, not an
empty environment, not forking without end.

Nothing is killed that is not at or below the cgroup of a home directory whose lock the worker holds: its own, or one
that it takes over. A worker holds a lock on its cgroup as well, and only who has that removes anything of it: what is
removed beside its own is empty, and of a worker that died and that no other followed. What lives on where none follows
is for people to end, who are told of it (`abandoned`). BASE is left as it is (a launcher goes back there at its end, to
leave nothing behind). Memory is accounted for if whoever delegated BASE has enabled that controller for what is below.
"""

import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from os.path import samestat
from pathlib import Path
from typing import Final, NamedTuple

from tq.launcher.containment import LAUNCHER
from tq.store.files import mounts

LEVEL: Final = "cgroup"

_PROC: Final = Path("/proc/self")
_EMPTY_S: Final = 5.0
_SHORT: Final = b"/short"
_NAME: Final = re.compile(r"tq-[0-9a-f]+-[0-9a-f]+")
_AGAIN_S: Final = 0.005  # while another worker looks whether something of ours is left over
_TRIES: Final = 5  # an earlier launcher may remove ours while nothing is in it
_GONE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ENODEV))
_WRITE: Final = os.O_WRONLY | os.O_CLOEXEC


class Unavailable(Exception):
    """There is no cgroup to be had; the text says why."""


class Memory(NamedTuple):
    """What the memory controller says of an attempt: its peak (0 = not known), and whether it ran out of its bound."""

    peak_kib: int
    is_out: bool


# ---------------------------------------------------------------- the worker's part


class Taken:
    """The cgroup of a worker that lives, at `path`: nobody else removes it, or anything below it, before `remove`."""

    def __init__(self, path: bytes, lock: int) -> None:
        self.path: Final = path
        self._lock = lock

    def remove(self) -> None:
        """KILL all that is in it and remove it. Blocking."""
        remove(self.path)
        self.release()

    def release(self) -> None:
        """Leave it to whoever comes."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def find(home: Path, proc: Path = _PROC) -> Taken:
    """Return the cgroup of the worker that lives in `home`, made and empty. Raises Unavailable. Blocking.

    Whatever a worker that is dead has left in it is killed; what is empty beside it is removed.
    """
    base = _own(proc)
    root = _root(base, home)
    taken = _take(base, root)
    why = _flaw(base, root)
    if not why and not clear(taken.path):
        why = "what a dead worker left in it cannot be killed"
    if why:
        with suppress(OSError):
            root.rmdir()
        taken.release()
        raise Unavailable(why)
    with suppress(OSError):  # what is left over there is no reason to have none
        _tidy(base, root)
    return taken


def _take(base: Path, root: Path) -> Taken:
    """Make a cgroup if need be, and lock it. Raises Unavailable."""
    deadline = time.monotonic() + _EMPTY_S
    while True:
        try:
            root.mkdir(mode=0o700, exist_ok=True)  # whoever may open it could keep us from locking it
            if (lock := _lock(os.fsencode(root))) >= 0:
                return Taken(os.fsencode(root), lock)
            why = f"{root} is held by another process"
        except FileNotFoundError as error:  # an earlier launcher, or another worker, has just removed it
            why = f"cannot make a cgroup in {base}: {error.strerror}"
        except OSError as error:
            raise Unavailable(f"cannot make a cgroup in {base}: {error.strerror}") from error
        if not base.exists() or time.monotonic() > deadline:
            raise Unavailable(why)
        time.sleep(_AGAIN_S)


def _lock(root: bytes) -> int:
    """Return the held lock of a cgroup, -1 if somebody else has it or it is gone by now. Raises OSError."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if samestat(os.fstat(fd), os.stat(root)):
            return fd
    except OSError as error:
        if not isinstance(error, BlockingIOError | FileNotFoundError):
            os.close(fd)
            raise
    os.close(fd)
    return -1


@contextmanager
def _locked(root: bytes) -> Iterator[bool]:
    """Hold the lock of a cgroup, if nobody has it: then no worker lives there. Says whether it does."""
    try:
        lock = _lock(root)
    except OSError:
        lock = -1
    try:
        yield lock >= 0
    finally:
        if lock >= 0:
            os.close(lock)


def end(home: Path, proc: Path = _PROC) -> None:
    """KILL what a dead worker, in whose `home` nobody lives, has left in its cgroup; remove that. Blocking."""
    with suppress(Unavailable):
        remove(os.fsencode(_root(_own(proc), home)))


def _root(base: Path, home: Path) -> Path:
    place = home.lstat()
    return base / f"tq-{place.st_dev:x}-{place.st_ino:x}"


def _tidy(base: Path, own: Path) -> None:
    """Remove the cgroups of workers that are dead in which nothing is, at any depth."""
    for path in base.iterdir():
        if path != own and _NAME.fullmatch(path.name):
            root = os.fsencode(path)
            with _locked(root) as nobody_lives_there:
                if nobody_lives_there and not Cgroup(root).may_be_populated():
                    _remove_below(root)
                    with suppress(OSError):
                        path.rmdir()


def abandoned(proc: Path = _PROC) -> dict[Path, list[int]]:
    """Return the cgroups of this user's dead workers in which something lives on, with its processes.

    No worker has one of them locked (which a container's may do unseen), and no launcher is there: it would end them.
    """
    found: dict[Path, list[int]] = {}
    for directory, names, _ in chain.from_iterable(os.walk(mount) for _, mount in _mounts(proc)):
        for path in [Path(directory, name) for name in names if _NAME.fullmatch(name)]:
            names.remove(path.name)
            root = os.fsencode(path)
            with suppress(OSError), _locked(root) as nobody_lives_there:
                if nobody_lives_there and path.stat().st_uid == os.geteuid() and Cgroup(root).may_be_populated():
                    pids = _pids(path)
                    if all(_text(Path(f"/proc/{pid}/comm")) != LAUNCHER for pid in pids):
                        found[path] = pids
    return found


def _pids(path: Path) -> list[int]:
    """Return the processes in a cgroup and below it."""
    return [int(pid) for directory, _, _ in os.walk(path) for pid in _text(Path(directory, "cgroup.procs")).split()]


def _flaw(base: Path, root: Path) -> str:
    """Return why processes of `base` cannot be moved into what is below `root`, or not be killed there."""
    if not (root / "cgroup.kill").exists():
        return f"{root} has no cgroup.kill (Linux 5.14 has)"
    if _text(root / "cgroup.type") != "domain":
        return f"{root} is {_text(root / 'cgroup.type') or 'no cgroup'}, and has no processes of its own"
    if not os.access(base / "cgroup.procs", os.W_OK):
        return f"no process may be moved out of {base}"
    return ""


def _own(proc: Path) -> Path:
    """Return the directory of the cgroup that this process is in."""
    paths = [line.removeprefix("0::") for line in _text(proc / "cgroup").splitlines() if line.startswith("0::")]
    for root, mount in _mounts(proc):
        if paths and Path(paths[0]).is_relative_to(root):
            return Path(mount, Path(paths[0]).relative_to(root))
    raise Unavailable("no cgroup file system of version 2 is mounted, or we are outside of it")


def _mounts(proc: Path) -> Iterator[tuple[str, str]]:
    """Yield which cgroup is mounted where."""
    with suppress(OSError):
        yield from ((mount.root, mount.point) for mount in mounts(proc / "mountinfo") if mount.kind == "cgroup2")


def clear(root: bytes, within_s: float = _EMPTY_S) -> bool:
    """KILL all that is in a cgroup, and remove the cgroups below it. Return whether nothing is left. Blocking."""
    deadline = time.monotonic() + within_s
    while (is_alive := Cgroup(root).kill()) and time.monotonic() < deadline:
        time.sleep(0.001)
    _remove_below(root)
    return not is_alive


def _remove_below(root: bytes) -> None:
    """Remove the cgroups below another, as far as nothing is in them. They have no files or links of anybody's."""
    for directory, _, _ in os.walk(root, topdown=False):
        if directory != root:
            with suppress(OSError):
                os.rmdir(directory)


def remove(root: bytes) -> None:
    """KILL all that is in a cgroup and remove it. Blocking."""
    clear(root)
    with suppress(OSError):
        os.rmdir(root)


# ---------------------------------------------------------------- the launcher's part


class Cgroup:
    """One cgroup, by its directory. `is_shared`: the launcher could not leave it, so it must not be killed."""

    __slots__ = ("is_shared", "path")

    def __init__(self, path: bytes) -> None:
        self.path: Final = path
        self.is_shared = False

    def kill(self) -> bool:
        """KILL all that is in it, and below. Return whether something was, or may have been: then ask again."""
        if self.is_shared or not self.may_be_populated():
            return False
        with suppress(OSError):
            _write(self.path + b"/cgroup.kill", b"1")
        return True

    def may_be_populated(self) -> bool:
        """Whether something may be in it, or below."""
        try:
            return b"populated 1" in _read(self.path + b"/cgroup.events")
        except OSError as error:
            return error.errno not in _GONE  # without a free descriptor nobody knows

    def memory(self) -> Memory:
        """Return what is known of its memory."""
        peak = _bytes(self.path + b"/memory.peak").strip()
        events = _bytes(self.path + b"/memory.events").split()
        kills = events[events.index(b"oom_kill") + 1] if b"oom_kill" in events[:-1] else b"0"
        return Memory(int(peak) // 1024 if peak.isdigit() else 0, kills != b"0")


class Cgroups:
    """The cgroups of one launcher, below its worker's. Making it moves this process in. Raises OSError."""

    def __init__(self, root: bytes) -> None:
        self._short: Final = _enter_short(root)
        if b"memory" in _bytes(root + b"/cgroup.controllers").split():
            with suppress(OSError):
                _write(root + b"/cgroup.subtree_control", b"+memory")
        self._root: Final = root
        self._count = 0
        self._held: Final[dict[bytes, Cgroup]] = {}
        self._busy: list[bytes] = []  # not removed yet, though nothing is in them

    def enter(self) -> Cgroup | None:
        """Move this process into a new cgroup until `leave`. None when there is none to be had: it stays in `short`."""
        self._count += 1
        cgroup = Cgroup(b"%b/%d" % (self._root, self._count))
        try:
            os.mkdir(cgroup.path)
        except OSError:
            return None
        try:
            _write(cgroup.path + b"/cgroup.procs", b"0")
        except OSError:
            self._remove(cgroup.path)
            return None
        self._held[cgroup.path] = cgroup
        return cgroup

    def leave(self, cgroup: Cgroup) -> None:
        """Move this process back."""
        try:
            os.write(self._short, b"0")
        except OSError:
            cgroup.is_shared = True  # the next spawn leaves it

    def forget(self, cgroup: Cgroup) -> None:
        """Remove the cgroup of an attempt of which nothing is left."""
        del self._held[cgroup.path]
        busy, self._busy = [*self._busy, cgroup.path], []
        for path in busy:
            self._remove(path)

    def _remove(self, path: bytes) -> None:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError:
            self._busy.append(path)

    def kill(self) -> None:
        """KILL what is in any attempt's own cgroup: this launcher comes to its end."""
        for cgroup in self._held.values():
            cgroup.kill()

    def close(self) -> None:
        """Go back to where this process was started, and remove what is empty: its worker may be dead."""
        with suppress(OSError):
            _write(os.path.dirname(self._root) + b"/cgroup.procs", b"0")
        os.close(self._short)
        with _locked(self._root) as is_worker_dead:
            if is_worker_dead:
                _remove_below(self._root)
                with suppress(OSError):
                    os.rmdir(self._root)


def _enter_short(root: bytes) -> int:
    """Move this process into `short`, made if need be; return the file by which it comes back. Raises OSError."""
    for tries_left in reversed(range(_TRIES)):
        fd = -1
        try:
            os.makedirs(root + _SHORT, exist_ok=True)
            fd = os.open(root + _SHORT + b"/cgroup.procs", _WRITE)
            os.write(fd, b"0")
        except OSError as error:  # an earlier launcher without a worker may just have removed it, or another worker
            if fd >= 0:
                os.close(fd)
            if not tries_left or error.errno not in _GONE:
                raise
        else:
            return fd
    raise AssertionError("it has tried")


def _write(path: bytes, data: bytes) -> None:
    fd = os.open(path, _WRITE)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _bytes(path: bytes) -> bytes:
    """Return a file's contents, b"" if it cannot be read."""
    try:
        return _read(path)
    except OSError:
        return b""


def _read(path: bytes) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _text(path: Path) -> str:
    return _bytes(os.fsencode(path)).decode(errors="replace").strip()
