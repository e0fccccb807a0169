"""The data directory: whose it is, what format is in it, how much room is left.

    server.lock   who has it (lock.py)
    format        number of the store's format, and the version of tq that wrote it
    watermark     the last durable turn (turns.py)
    db/           RocksDB, opened by rocks.py only

Checked before anything in it is opened. What else lies there (identity/, connection.json) has other owners.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Final

from tq import __version__
from tq.errors import ConfigurationError, StoreDamaged, StoreError
from tq.limits import free_bytes_min, wal_bytes_max
from tq.store import trust
from tq.store.files import MAY_PASS, TABLE, make_directory, mounts, replace, sync_directory
from tq.store.lock import DataLock, lock_directory
from tq.store.turns import BRING_BACK, Watermark

FORMAT: Final = 1
SALVAGED: Final = "salvaged"  # a salvaged store that is not in its place yet (salvage.py)
RESTORING: Final = "restoring"  # a directory in which a restore is under way, or was cut off (restore.py)

# Recovery writes tables as large as the logs: without that room even a restart fails (measured).
low_water_bytes: Final = max(free_bytes_min, 2 * wal_bytes_max)

_NETWORK: Final = re.compile(
    r"(nfs|nfs4|cifs|smb\w*|afs|ncpfs|ceph|lustre|glusterfs|gpfs|beegfs\w*|orangefs|pvfs2|9p|davfs|"
    r"fuse\.(sshfs|glusterfs|ceph\S*|s3fs|rclone|goofys|juicefs|\w*nfs\S*))"
)
_FORMAT_TEXT: Final = re.compile(r"format (\d+)\nwritten by tq (\S+)\n")
_MOUNTS: Final = TABLE


class Room(Enum):
    """How much room the disk has. LOW: no new work is accepted; CRITICAL: nothing is leased either."""

    NORMAL = "normal"
    LOW = "low"
    CRITICAL = "critical"


def room(free_bytes: int) -> Room:
    """Return what `free_bytes` on the store's disk allow."""
    if free_bytes >= low_water_bytes:
        return Room.NORMAL
    return Room.LOW if free_bytes >= low_water_bytes // 2 else Room.CRITICAL


def free_bytes(data: Path) -> int:
    """Return the bytes that an ordinary user may still write on the disk of `data`."""
    found = os.statvfs(data)
    return found.f_bavail * found.f_frsize


def sizes(place: Path, pattern: str) -> Iterator[int]:
    """Yield the bytes of each file that matches; one that goes meanwhile, as the logs of RocksDB do, is not there."""
    for path in place.glob(pattern):
        with suppress(FileNotFoundError):
            yield path.stat().st_size


def hold_directory(data: Path, *, allow_network: bool = False, create: bool = True) -> DataLock:
    """Check the directory (made 0700 when missing) and take its lock: the first act of who uses a store.

    Raises ConfigurationError when it is somebody else's or open to others, or lies where they could put another in its
    place; when it is on a network file system, or held.
    """
    check_path(data)
    if create:
        try:
            trust.check(data)
            make_directory(data)
        except OSError as error:
            what = f"the data directory {data} cannot be made: {error.strerror}"
            if error.errno in MAY_PASS:
                raise StoreError(what, hint="see to the disk, then start again") from error
            raise ConfigurationError(what, hint="choose another one with --data") from error
    elif not (data / "format").exists():
        check_format(data)  # which says it where a store is there, but for this file
        raise ConfigurationError(f"there is no store in {data}", hint="name the data directory with --data")
    check_place(data, allow_network=allow_network)
    lock = lock_directory(data)
    try:
        check_readable(data)
    except BaseException:
        lock.release()
        raise
    return lock


def check_path(data: Path) -> None:
    """Raise ConfigurationError where RocksDB cannot be told the path: what it takes is UTF-8."""
    try:
        str(data).encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"the path of the data directory is not UTF-8: {os.fsencode(data)!r}",
            hint="choose another one with --data; a symbolic link to this one will do",
        ) from None


def check_readable(data: Path) -> None:
    """Raise ConfigurationError where a file of the store may not be read: that is no damage, and nothing to salvage."""
    own = [path for path in (data / "format", data / "watermark", data / "db") if path.exists()]
    for path in chain(own, (data / "db").glob("*")):
        if not os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK):
            raise ConfigurationError(
                f"this user may not read {path}",
                hint=f"give all of it to this user, as root: chown -R {os.geteuid()} {data}; and read and write to it",
            )


def check_place(data: Path, *, allow_network: bool, may_close: bool = True) -> None:
    """Raise ConfigurationError where no store may lie: somebody else's, open to others, on a network file system.

    An empty directory of ours that is open is closed, if it `may_close` it.
    """
    if not data.is_dir():
        raise ConfigurationError(f"the data directory {data} is not a directory", hint="choose another one with --data")
    check_owner(data, may_close=may_close)
    kind = file_system(data)
    if _NETWORK.fullmatch(kind) and not allow_network:
        raise ConfigurationError(
            f"the data directory {data} is on a network file system ({kind}), where locks and fsync may lie",
            hint="choose a local directory with --data, or insist with --data-on-network",
        )


def check_owner(data: Path, *, may_close: bool) -> None:
    """Raise ConfigurationError unless the directory is ours and closed to others. An empty one is closed, if it may."""
    trust.check(data)
    found = data.stat()
    if found.st_uid == os.geteuid() and found.st_mode & 0o077 and not any(data.iterdir()):
        if not may_close:
            return
        data.chmod(0o700)
    trust.check_private(data, "data directory")


def file_system(data: Path) -> str:
    """Return the type of the file system that `data` is on (`ext4`), '' when the kernel does not say."""
    where, best, kind = data.resolve(), -1, ""
    with suppress(OSError):
        for mount in mounts(_MOUNTS):
            point = Path(mount.point)
            if where.is_relative_to(point) and len(point.parts) >= best:
                best, kind = len(point.parts), mount.kind
    return kind


def written_by(data: Path) -> str:
    """Return the version of tq that served the store last, '' where that is not known."""
    try:
        found = _FORMAT_TEXT.fullmatch((data / "format").read_text(errors="replace"))
    except OSError:
        return ""
    return found[2] if found else ""


def check_format(data: Path) -> None:
    """Raise ConfigurationError if the store in `data` is newer than this program, or if `db` is none of ours."""
    path = data / "format"
    if not path.exists():
        if (data / RESTORING).exists():
            raise ConfigurationError(f"a restore into {data} was cut off", hint="run `tq restore` again")
        if (data / SALVAGED).exists():
            raise ConfigurationError(f"a salvage of {data} was cut off", hint="run `tq store salvage` again")
        if (data / "db").exists():
            raise ConfigurationError(
                f"{data} holds a database that tq did not make (no file `format`)",
                hint="if tq made it, bring back that file, or a backup: tq restore",
            )
        return
    text = path.read_text(errors="replace")
    found = _FORMAT_TEXT.fullmatch(text)
    if found is None:
        raise StoreDamaged(f"the file {path} says {text[:80]!r}, which is not a format", hint=BRING_BACK)
    newer = "start it with that version or a newer one"
    if int(found[1]) > FORMAT:
        raise ConfigurationError(
            f"the store in {data} was written by tq {found[2]} (format {found[1]}); "
            f"this is tq {__version__}, which knows formats up to {FORMAT}",
            hint=newer,
        )
    if _release(found[2]) > _release(__version__):
        raise ConfigurationError(
            f"the store in {data} was written by tq {found[2]}; what that has added there, this tq {__version__} "
            "would leave behind or drop",
            hint=f"{newer}, or restore a backup of before",
        )


def _release(version: str) -> list[int]:
    """Return the numbers of a version without what says that it is none yet: `0.2.0rc1` is 0.2.0."""
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def prepare(data: Path) -> None:
    """Make what is missing of a new store's own files, and note this version. The lock must be held."""
    check_format(data)
    path, text = data / "format", f"format {FORMAT}\nwritten by tq {__version__}\n"
    if not path.exists() or path.read_text() != text:
        replace(path, text.encode())
    shutil.rmtree(data / RESTORING, ignore_errors=True)  # of a restore that was cut off when all was there
    check_watermark(data)
    if not (data / "watermark").exists():
        Watermark.create(data / "watermark")
    sync_directory(data)


def check_watermark(data: Path) -> None:
    """Raise StoreDamaged where a database has lost its watermark."""
    if (data / "db").exists() and not (data / "watermark").exists():
        raise StoreDamaged(f"the file {data / 'watermark'} is missing, but there is a database", hint=BRING_BACK)
