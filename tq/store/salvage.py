"""A store that refuses to open, made whole of what can be read of it; the damaged one stays aside.

Offline, under the directory's lock. The new store is made in DATA/salvaging, checked by every rule there is, renamed to
DATA/salvaged, and then moved into its place, `format` last: cut off before the rename, all begins anew; behind it, the
next call goes on with the moves. No server starts on a directory in between (directory.py).
"""

import os
import shutil
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from tq.core.model.job import Meta
from tq.core.model.tables import META
from tq.core.repair import invariants
from tq.core.repair.rebuild import Rebuild
from tq.errors import ConfigurationError, StoreDamaged, StoreError
from tq.store import damaged, rocks
from tq.store.archive import DATABASE_FILE
from tq.store.check import check_bytes
from tq.store.damaged import DamagedStore
from tq.store.directory import SALVAGED, check_format, free_bytes, hold_directory
from tq.store.disk import DiskStore, open_for_reading, open_store
from tq.store.files import move_in, sync_directory, write_new
from tq.store.keys import FAMILIES, OUTPUT
from tq.store.lock import DataLock
from tq.store.output import unpack_slots
from tq.store.rocks import Family
from tq.store.turns import TURNS_MAX, Watermark

SALVAGING: Final = "salvaging"
_REPAIRING: Final = "repairing"
_PARTS: Final = ("db", "watermark", "format")  # the last one says that all are there
_RECORDS: Final = ("state", "tasks", "bodies")  # families that are believed; the others are derived, or output
_KEPT: Final = "kept"  # a file that says where the damaged store goes


class Salvaged(NamedTuple):
    """What came of it: `losses` in words, figures, and where the damaged store is (None = nowhere)."""

    losses: list[str]
    counts: dict[str, int]
    sequence: int
    kept: Path | None = None


class Order(NamedTuple):
    """How a store is to be salvaged: its new lineage, the time now, and what becomes of the damaged one."""

    lineage: int
    wall_ms: int
    is_dry: bool = False
    keeps_original: bool = True


def salvage(data: Path, order: Order) -> Salvaged | None:
    """Make the store in `data` whole; None if nothing is wrong with it. Raises StoreDamaged if nothing can be read."""
    if not any((data / name).exists() for name in ("db", SALVAGED)):
        raise ConfigurationError(f"there is no store in {data}", hint="name the data directory with --data")
    with hold_directory(data, allow_network=True) as lock:
        if not _is_ready(data):
            if not order.is_dry:
                shutil.rmtree(data / SALVAGED, ignore_errors=True)  # emptied, or never filled
            if _is_whole(lock):
                return None
            found = _salvage(data, order)
        else:
            found = Salvaged(["the store was salvaged before, and is only to be moved into its place"], {}, 0)
        if order.is_dry:
            return found
        kept = _swap(data)
        if not order.keeps_original:
            shutil.rmtree(kept)
        return found._replace(kept=kept if order.keeps_original else None)


def _is_whole(lock: DataLock) -> bool:
    """Whether the store opens, and every rule holds."""
    if not all((lock.data / name).exists() for name in _PARTS):
        return False
    try:
        store = open_for_reading(lock)
        try:
            return not (check_bytes(store).problems or invariants.check(store))
        finally:
            store.close()
    except StoreError:
        return False


def _salvage(data: Path, order: Order) -> Salvaged:
    """Make the new store in DATA/salvaged (not for a dry run), and say what is lost."""
    losses: list[str] = []
    mark = _read_mark(data, losses)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, data / _REPAIRING, ignore_errors=True)
        families, doubtful = _families(data, losses, stack)
        source = DamagedStore(families)
        last, lost = source.turns(mark)
        is_sure = "bodies" not in doubtful and not any("bodies" in one.families for one in lost)
        is_old = not doubtful.isdisjoint({"state", "tasks"})
        rebuild = Rebuild(source, Meta(order.lineage, wall_ms=order.wall_ms), is_sure=is_sure, is_old=is_old)
        if order.is_dry:
            for _ in rebuild.changes():
                pass
            slots = sum(1 for _ in _output_of(source, rebuild))
        else:
            _check_room(data)
            slots = _write(data, source, rebuild, last)
    losses += [damaged.words(one) for one in lost]
    losses += dict.fromkeys(map(damaged.hole_words, source.holes))
    losses += [f"{rows} records of table {table} are garbled" for table, rows in sorted(source.garbled.items())]
    return Salvaged(losses + rebuild.losses, {**rebuild.counts, "output_slots": slots}, last)


def _families(data: Path, losses: list[str], stack: ExitStack) -> tuple[dict[str, Family], set[str]]:
    """Open what there is for reading; return the families, and those whose records may be older than they were.

    A table file that cannot be opened hides its whole family. So such a family is read as if there were no such file:
    what it had is gone, or shows as what stood there before.
    """
    try:
        db = rocks.open_damaged(data / "db")
    except StoreError as error:
        losses.append(f"the database cannot be opened as it is, so its list of files is made anew ({error.message})")
        repaired, unread = _repaired(data, stack)
        losses += [f"the table file {name} cannot be read: what it had is gone, or as it was before" for name in unread]
        return repaired.families, set(FAMILIES) if unread else set()
    stack.callback(db.close)
    seen = DamagedStore(db.families)
    blind = {name for name in _RECORDS if seen.is_blind(name)}
    if not blind:
        return db.families, blind
    for name in sorted(blind):
        losses.append(f"a table file of family {name} cannot be read: what it had is gone, or as it was before")
    repaired, _ = _repaired(data, stack)
    return {**db.families, **{name: repaired.families[name] for name in blind}}, blind


def _repaired(data: Path, stack: ExitStack) -> tuple[rocks.Database, list[str]]:
    """Open a copy, of hard links, with a new list of files; return it, and the table files that cannot be read."""
    copy = data / _REPAIRING
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(mode=0o700)
    for path in (data / "db").iterdir():
        if DATABASE_FILE.fullmatch(path.name):
            os.link(path, copy / path.name)
    rocks.repair(copy)
    repaired = rocks.open_damaged(copy)
    stack.callback(repaired.close)
    return repaired, sorted(path.name for path in (copy / "lost").glob("*.sst"))


def _read_mark(data: Path, losses: list[str]) -> int:
    """Return the turn that the watermark tells of, 0 where it is gone. Raises ConfigurationError for a newer store."""
    if not (data / "format").exists():
        losses.append("the file format is gone")
    else:
        try:
            check_format(data)
        except StoreDamaged:
            losses.append("the file format is garbled")
    try:
        watermark = Watermark(data / "watermark")
        try:
            mark = watermark.read()
        finally:
            watermark.close()
    except (OSError, StoreDamaged):
        mark = TURNS_MAX
    if mark < TURNS_MAX:
        return mark
    losses.append("the watermark is lost: whether the last commits are there is no known")
    return 0


def _check_room(data: Path) -> None:
    needed_bytes = sum(path.stat().st_size for path in (data / "db").iterdir())
    if free_bytes(data) < needed_bytes:
        raise ConfigurationError(
            f"the disk has {free_bytes(data)} bytes free; the new store may take {needed_bytes}",
            hint="free some space, or copy the data directory to a larger disk and salvage it there",
        )


def _write(data: Path, source: DamagedStore, rebuild: Rebuild, last: int) -> int:
    """Make DATA/salvaged; return how many slots of output it has."""
    scratch = data / SALVAGING
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        slots, problems = _fill(scratch, source, rebuild, last)
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)  # it may have taken the last room there was
        if isinstance(error, StoreError):
            raise StoreError(
                f"the new store cannot be made: {error.message}",
                hint="see to the disk, or salvage a copy on another one; the damaged store is untouched",
            ) from error
        raise
    if problems:
        raise StoreDamaged(
            f"the salvaged store in {scratch} is not clean: {problems[0]}",
            hint="report this with the output of `tq store check`; the damaged store is untouched",
        )
    number = next(number for number in count(1) if not (data / f"damaged-{number}").exists())
    write_new(scratch / _KEPT, [f"damaged-{number}".encode()])
    scratch.rename(data / SALVAGED)
    sync_directory(data)
    return slots


def _fill(scratch: Path, source: DamagedStore, rebuild: Rebuild, last: int) -> tuple[int, list[str]]:
    """Make the new store in a directory; return how many slots of output it has, and what is wrong with it."""
    with hold_directory(scratch, allow_network=True) as lock:
        store = open_store(lock)
        try:
            store.begin_at(last)
            for changes in rebuild.changes():
                _commit(store, changes)
            slots = _copy_output(store, source, rebuild)
        finally:
            store.close()
        store = open_for_reading(lock)
        try:
            return slots, check_bytes(store).problems or invariants.check(store)
        finally:
            store.close()


def _commit(store: DiskStore, changes: Any) -> None:
    sequence = store.sequence + 1
    meta = changes.get(META, {}).get(())
    if meta is not None:
        changes[META] = {(): replace(meta, sequence=sequence)}
    store.write(changes, sequence=sequence, epoch=meta.epoch if meta is not None else 0, wall_ms=0)


def _output_of(source: DamagedStore, rebuild: Rebuild) -> Any:
    """Yield the rows of output whose jobs are there."""
    for key, value in source.all_rows("output", OUTPUT.low, OUTPUT.high):
        if OUTPUT.unpack(key)[0] in rebuild.jobs:
            yield key, value


def _copy_output(store: DiskStore, source: DamagedStore, rebuild: Rebuild) -> int:
    slots = 0
    for key, value in _output_of(source, rebuild):
        job, part, member, attempt, _, _ = OUTPUT.unpack(key)
        (slot,) = unpack_slots([(key, value)])
        store.put_output((job, part, member), attempt, slot.stream, slot.offset, slot.data)
        slots += 1
    return slots


def _swap(data: Path) -> Path:
    """Move the damaged store aside and the salvaged one into its place. Cut off anywhere, it can be called again."""
    ready = data / SALVAGED
    kept = data / (ready / _KEPT).read_text()
    kept.mkdir(mode=0o700, exist_ok=True)
    for name in reversed(_PARTS):  # `format` first: no server opens what follows
        if (ready / name).exists() and (data / name).exists():
            (data / name).rename(kept / name)
            sync_directory(data)
    sync_directory(kept)
    move_in(ready, data, _PARTS)
    shutil.rmtree(ready)
    return kept


def _is_ready(data: Path) -> bool:
    """Whether a salvaged store waits to be moved into its place; not when only its emptied directory is left."""
    return (data / SALVAGED / "format").exists()
