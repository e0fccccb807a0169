"""Small files that must be whole: made new, replaced in one step, and their names made durable.

Owns nothing; raises OSError. Private to the user (0600), since some of them are keys and tokens. And what is mounted.
"""

import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

TABLE: Final = Path("/proc/self/mountinfo")
_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# What may be over at the next start. Everything else (read-only, not permitted) is there until somebody changes it.
MAY_PASS: Final = FULL | {errno.EIO, errno.EMFILE, errno.ENFILE}


def write_new(path: Path, blocks: Iterable[bytes]) -> None:
    """Write a file that does not exist yet; its contents are on the disk when this returns."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as sink:
        sink.writelines(blocks)
        sink.flush()
        os.fsync(sink.fileno())


def replace(path: Path, data: bytes, *, is_shared: bool = False) -> None:
    """Make `path` hold this, whole or not at all. `is_shared`: other processes may replace it at the same time."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}" if is_shared else f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        write_new(fresh, [data])
        fresh.rename(path)
    except BaseException:  # half a file takes room, where there may be none
        with suppress(OSError):
            fresh.unlink()
        raise


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Make a directory that only we may enter, and those above it, unless they are there; their names are durable."""
    missing = list(takewhile(lambda place: not place.exists(), (path, *path.parents)))
    for place in reversed(missing):  # each by itself: `parents` would leave those above to the umask
        place.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)  # what is there may be no directory
    for made in missing:
        sync_directory(made.parent)


def move_in(source: Path, target: Path, names: Sequence[str]) -> None:
    """Move what there is of these from one directory to another; the last one is never durable without the others."""
    *others, last = names
    for some in (others, [last]):
        for name in some:
            if (source / name).exists():
                (source / name).rename(target / name)
        sync_directory(target)


class Mount(NamedTuple):
    """A mount: what of the file system (`root`) is seen where (`point`), its type, and the options of the whole."""

    root: str
    point: str
    kind: str
    options: str


def mounts(table: Path = TABLE) -> Iterator[Mount]:
    """Yield all mounts; of two on one point the later hides the earlier. A name is as `os.fsdecode` has it.

    Raises OSError.
    """
    for line in table.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        place, what = before.split(), after.split()
        if len(place) > 4 and what:
            yield Mount(_name(place[3]), _name(place[4]), _name(what[0]), _name(what[-1]))


def _name(word: bytes) -> str:
    r"""Return a word with what stands for its blanks, \040, made blanks again."""
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), word))
