"""From a backup to a data directory: only into a fresh one, whole or not at all, and under a new name.

The backup is read to its end before anything is written. Its parts are then made in DIR/restoring and moved into their
places, `format` last. A directory with `restoring` and without `format` was cut off in the middle: no server starts on
it (directory.py), and another restore begins anew.

The restored store gets a new lineage. Workers that hold attempts of the old one stop them and keep their results aside,
and no lease of the one can be taken for one of the other.
"""

import shutil
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from tq.core.model.tables import META
from tq.errors import ConfigurationError, StoreDamaged
from tq.store import archive
from tq.store.directory import RESTORING, free_bytes, hold_directory, low_water_bytes
from tq.store.disk import open_store
from tq.store.files import move_in
from tq.store.lock import NAME as LOCK

_PARTS: Final = ("identity", "db", "watermark", "format")  # the last one says that all are there
_MADE: Final = (RESTORING, *_PARTS)


def restore(backup: Path, data: Path, lineage: int, *, allow_network: bool = False) -> archive.Head:
    """Make the data directory `data` of a backup, under the name `lineage`; return the backup's head.

    Raises ConfigurationError for a directory that is not fresh, or has too little room, and what `archive.check` does:
    then nothing was written.
    """
    check_fresh(data)
    head = archive.check(backup)
    with hold_directory(data, allow_network=allow_network):
        check_fresh(data)
        needed_bytes = backup.stat().st_size + low_water_bytes
        if free_bytes(data) < needed_bytes:
            raise ConfigurationError(
                f"the disk of {data} has {free_bytes(data)} bytes free; a restore needs {needed_bytes}",
                hint="free some space there, or choose another directory with --data",
            )
        _clear(data)
        try:
            _fill(data, backup, head, lineage)
        except BaseException:
            _clear(data)
            raise
    return head


def _fill(data: Path, backup: Path, head: archive.Head, lineage: int) -> None:
    scratch = data / RESTORING
    scratch.mkdir(mode=0o700)
    archive.unpack(backup, scratch)
    if rename(scratch, lineage) != head.sequence + 1:
        raise StoreDamaged(f"the store in {backup} does not stand at commit {head.sequence}, as it says")
    move_in(scratch, data, _PARTS)
    shutil.rmtree(scratch)


def check_fresh(data: Path) -> None:
    """Raise ConfigurationError unless the directory is missing, empty, or left by a restore that was cut off."""
    if not data.exists():
        return
    if not data.is_dir():
        raise ConfigurationError(f"{data} is not a directory", hint="choose another one with --data")
    is_cut_off = (data / RESTORING).exists() and not (data / "format").exists()
    ours = {LOCK, *(_MADE if is_cut_off else ())}
    found = sorted(path.name for path in data.iterdir() if path.name not in ours)
    if found:
        raise ConfigurationError(
            f"the directory {data} is not empty (it has {found[0]})",
            hint="restore into a fresh directory with --data; an existing store is never overwritten",
        )


def rename(data: Path, lineage: int) -> int:
    """Give the store in `data` another lineage, in a commit of its own; return that."""
    with hold_directory(data, allow_network=True) as lock:
        store = open_store(lock)
        try:
            meta = store.get(META, ())
            if meta is None:
                raise StoreDamaged(f"the store in {data} has no counters")
            sequence = store.sequence + 1
            named = replace(meta, lineage=lineage, sequence=sequence)
            store.write({META: {(): named}}, sequence=sequence, epoch=meta.epoch, wall_ms=meta.wall_ms)
            store.flush(sequence)
        finally:
            store.close()
    return sequence


def _clear(data: Path) -> None:
    """Remove what a restore that was cut off has left, and nothing that it could not have made."""
    for path in (data / name for name in _MADE):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
