"""Where attempts may write beside their streams, and how that is removed again.

    HOME/scratch-INODE/            one launcher's own directory, 0700
    HOME/scratch-INODE/17.json     TQ_RESULT of its 17th attempt: never made here, only looked for at the end
    HOME/scratch-INODE/18.d/       TQ_TMPDIR of an attempt that asked for one (`tq submit --tmpdir`)

Tasks can put anything in place of what is here, with the rights that we have. So nothing is removed that is not known,
by device and inode, as a directory that was made here, and no symbolic link is followed. A tree in which something is
mounted is left alone as a whole. Directories of our own that were shut, as Go shuts those of its modules, are opened to
us: by descriptor, and only if they are on the same file system. What cannot be removed stays, and is said.

A directory of a worker that was killed tells by its name which one it is, and its file system is that of the worker's
home; the next worker there removes it. So it does with one that a launcher made when its own was gone.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tq.errors import ConfigurationError
from tq.store.files import FULL, TABLE, mounts

_MODE: Final = 0o700
_FRESH: Final = "scratch.new"
_NAME: Final = re.compile(r"scratch-([0-9]+)")
_MOUNTS: Final = TABLE


class Made(NamedTuple):
    """A directory that was made here, and which one it is."""

    path: bytes
    device: int
    inode: int


class Space(msgspec.Struct, frozen=True):
    """What one attempt may write to: the path for its result, and its directory if it has one."""

    result: bytes
    directory: Made | None

    def tell(self, environment: dict[bytes, bytes]) -> None:
        """Set the variables that say so to the attempt."""
        environment[b"TQ_RESULT"] = self.result
        if self.directory is not None:
            environment[b"TQ_TMPDIR"] = self.directory.path

    def has_result(self) -> bool:
        """Whether something is where the result may be. Most have none, and an exception costs four times as much."""
        return os.access(self.result, os.F_OK, follow_symlinks=False)

    def clear(self) -> Made | None:
        """Take away the result, if there is one, and the directory if that is empty. Return one that `remove` must see
        to.

        Cheap enough for a launcher's loop: neither looks into anything.
        """
        with suppress(OSError):  # what is not a file goes with the launcher's directory
            os.unlink(self.result)
        if self.directory is not None:
            try:
                os.rmdir(self.directory.path)
            except FileNotFoundError:
                pass
            except OSError:
                return self.directory
        return None


class Scratch:
    """A launcher's directory: gives each attempt a space of its own, never the same twice."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._count = 0
        self._is_only_one = True  # no space is in another directory

    def space(self, *, has_directory: bool) -> Space:
        """Return the space of one more attempt. Raises OSError if a directory was wanted and cannot be made."""
        self._count += 1
        if not os.access(self._path, os.F_OK):  # whoever made room here has removed it, and not only what was old
            self._is_only_one = False
            with suppress(OSError):
                self._path = _make_root(Path(os.fsdecode(self._path)).parent).path
        directory = _make(b"%b/%d.d" % (self._path, self._count)) if has_directory else None
        return Space(b"%b/%d.json" % (self._path, self._count), directory)

    def is_empty(self) -> bool:
        """Whether it is certain that nothing is in any space. A name that never was costs more than this one look."""
        try:
            with os.scandir(self._path) as entries:
                return self._is_only_one and next(entries, None) is None
        except OSError:  # no descriptor is free, or it was removed just now
            return False


def _make(path: bytes) -> Made:
    umask = os.umask(~_MODE & 0o777)  # a launcher has that of the task that it started last
    try:
        os.mkdir(path, _MODE)
    finally:
        os.umask(umask)
    found = os.lstat(path)
    return Made(path, found.st_dev, found.st_ino)


def make_root(home: Path) -> Made:
    """Make the directory of a new launcher. Raises ConfigurationError."""
    try:
        return _make_root(home)
    except OSError as error:
        is_full = error.errno in FULL
        hint = "make some room there" if is_full else "the state directory ($XDG_STATE_HOME/tq) must be writable"
        raise ConfigurationError(f"cannot make {home / _FRESH}: {error.strerror}", hint=hint) from error


def _make_root(home: Path) -> Made:
    fresh = home / _FRESH
    with suppress(FileNotFoundError):
        fresh.rmdir()  # whoever made it was killed before it had a name
    made = _make(os.fsencode(fresh))
    path = home / f"scratch-{made.inode}"
    fresh.rename(path)
    return made._replace(path=os.fsencode(path))


def leftovers(home: Path) -> Iterator[Made]:
    """Yield what launchers that are dead have left below `home`, whose lock is ours."""
    device = home.lstat().st_dev
    for name in os.listdir(home):
        if match := _NAME.fullmatch(name):
            yield Made(os.fsencode(home / name), device, int(match[1]))


def remove(made: Made) -> str:
    """Remove a directory with all that is in it. Return why it, or a part of it, is still there; "" if it is gone.

    Blocking, for as long as a million files take.
    """
    import shutil  # of no use to a launcher, which reads this file too

    try:
        found = os.lstat(made.path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISDIR(found.st_mode) or (found.st_dev, found.st_ino) != (made.device, made.inode):
        return "something else is in its place"
    if not shutil.rmtree.avoids_symlink_attacks:
        return "this Python cannot remove it without following symbolic links"
    if _is_mounted_below(made.path):
        return "something is mounted in it"
    with suppress(RecursionError):  # of a tree that is too deep, the rest stays
        shutil.rmtree(made.path, ignore_errors=True)
        if os.geteuid() and os.path.lexists(made.path):  # no mode keeps root out
            _open_up(made.path, None, made.device, made.inode)
            shutil.rmtree(made.path, ignore_errors=True)
    return "not all that is in it can be removed" if os.path.lexists(made.path) else ""


def _open_up(name: bytes | str, above: int | None, device: int, inode: int = 0) -> None:
    """Let us list and change a directory and all of our own below it; `inode` is the one that it must be, 0 for any.

    Whatever somebody puts in place of a name meanwhile: the mode is set of the directory that was opened and looked at.
    """
    with suppress(OSError):
        shut = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        try:
            found = os.fstat(shut)
            if (found.st_dev, found.st_uid) != (device, os.geteuid()) or found.st_ino != (inode or found.st_ino):
                return
            if found.st_mode & _MODE != _MODE:
                os.chmod(f"/proc/self/fd/{shut}", _MODE)
            directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=shut)
        finally:
            os.close(shut)
        try:
            with os.scandir(directory) as entries:
                inside = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            for one in inside:
                _open_up(one, directory, device)
        finally:
            os.close(directory)


def _is_mounted_below(path: bytes) -> bool:
    """Whether a file system begins somewhere in this directory: what lies there may be anybody's."""
    parent, name = os.path.split(os.fsdecode(path))
    place = os.path.join(os.path.realpath(parent), name)
    return any(mount.point == place or mount.point.startswith(f"{place}/") for mount in mounts(_MOUNTS))
