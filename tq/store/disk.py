"""The store on disk: tables and output in RocksDB, each turn one batch, and the proof that none is missing.

After the first failed write or flush it refuses to write for ever: what a failed fsync left behind is unknown, and
repeating it lies. The only way on is to start again.

Threads: `write`, `put_output` and reads belong to one thread; `flush` may run in another one at the same time, one
flush at a time; nobody may be in `flush` when `close` is called.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tq.core.model.tables import FORGOTTEN, TASK
from tq.core.model.view import Changes, Key, Table
from tq.errors import ConfigurationError, StoreDamaged, StoreError
from tq.limits import wal_bytes_max
from tq.store import directory, rocks
from tq.store.files import make_directory
from tq.store.keys import KEYS, TRIMMED_KEY, turn_key, turn_sequence
from tq.store.lock import DataLock
from tq.store.output import pack_slot, slot_bounds, unpack_slots
from tq.store.ranges import ranges
from tq.store.recent import UNKNOWN, Recent
from tq.store.records import RECORDS, damaged_record
from tq.store.rocks import Database, Family, Raw, RocksError
from tq.store.seam import OutputSlot
from tq.store.turns import BRING_BACK, Run, Trimmer, Watermark, check_runs, pack_trimmed, pack_turn, read_run

R = TypeVar("R")


class DiskStore:
    """Implements `tq.store.seam.Store` on the database in a locked data directory.

    Made by `open_store` and `open_for_reading`. `sequence` is the last turn written, `flushed` the last made durable;
    `note` is what opening it has to tell, if anything, for the log.
    """

    def __init__(self, lock: DataLock, db: Database, watermark: Watermark, *, read_only: bool, note: str = "") -> None:
        """Raises StoreDamaged if turns are missing."""
        runs = _turn_runs(db)
        self.sequence = self.flushed = check_runs(runs, watermark.read())
        self.is_flushing = False  # maybe in another thread, and for ever: then nothing else may be called
        self.data = lock.data
        self.read_only = read_only
        self.note = note
        self._lock = lock  # held on to: nobody else may have the directory
        self._db = db
        self._watermark = watermark
        self._families = db.families
        self._tables = {
            table: (db.families[keys.family], keys.pack, RECORDS[table].encode, RECORDS[table].decode)
            for table, keys in KEYS.items()
        }
        self._recent = Recent()
        self._failure: StoreError | None = None
        self._trimmer = Trimmer(self.flush_memtables, runs["state"].trimmed)

    # ---------------------------------------------------------------- reads

    def get(self, table: Table[R], key: Key) -> R | None:
        """Return the record at `key`, or None."""
        if table is TASK and (recent := self._recent.get(key)) is not UNKNOWN:
            return recent  # type: ignore[no-any-return]
        family, pack, _, decode = self._tables[table]
        packed = pack(*key)
        try:
            raw = family.get(packed)
        except RocksError as error:
            raise rocks.read_error(table.name, error) from None
        if raw is None:
            return None
        try:
            record: R = decode(raw)
        except ValueError as error:
            raise damaged_record(table, key, error) from error
        return record

    def scan(self, table: Table[R], low: Key, high: Key, limit: int) -> Sequence[tuple[Key, R]]:
        """Return at most `limit` rows with low <= key < high, in key order. A key may be a prefix."""
        family, _, _, decode = self._tables[table]
        codec = KEYS[table]
        unpack = codec.unpack
        rows = family.scan(codec.bound(low), codec.bound(high), limit)
        try:
            return [(unpack(key), decode(raw)) for key, raw in rows]
        except ValueError as error:
            raise damaged_record(table, f"{low} to {high}", error) from error

    def output(
        self, task: tuple[int, int, int], attempt: int, only: tuple[int, int] | None = None
    ) -> Sequence[OutputSlot]:
        """Return the stored slots of an attempt, ordered by stream and offset."""
        return unpack_slots(self._families["output"].scan(*slot_bounds(task, attempt, only), 1_000), only)

    def raw_rows(self, family: str, low: bytes, limit: int) -> list[Raw]:
        """Return at most `limit` rows of a family from `low` on, as they are on disk (for checks)."""
        return self._families[family].scan(low, b"\xff" * 256, limit)

    # ---------------------------------------------------------------- writes

    def write(self, changes: Changes, *, sequence: int, epoch: int, wall_ms: int) -> None:
        """Write one turn's changes as one batch, with its turn key in every family. Not yet durable.

        `sequence` must follow on the last one: a start takes a gap for damage.
        """
        self._check_usable()
        if sequence != self.sequence + 1:
            raise ValueError(f"turn {sequence} does not follow on turn {self.sequence}")
        batch = rocks.batch()
        for table, rows in changes.items():
            if table is FORGOTTEN:
                continue
            family, pack, encode, _ = self._tables[table]
            batch.set_default_column_family(family.handle)
            last, raw = None, b""
            for key, record in rows.items():
                if record is None:
                    del batch[pack(*key)]
                    continue
                if record is not last:  # what was leased together shares one
                    last, raw = record, encode(record)
                batch[pack(*key)] = raw
        for gone in ranges(changes.get(FORGOTTEN, {}).items()):  # last: whatever else the turn wrote there goes, too
            batch.delete_range(gone.low, gone.high, self._families[gone.family].handle)
        turn, value = turn_key(sequence), pack_turn(epoch, wall_ms)
        for family in self._families.values():
            batch.put(turn, value, family.handle)
        if trimmed := self._trimmer.take():
            _add_trim(batch, self._families, trimmed)
        self._write(batch, batch.size_in_bytes())
        self.sequence = sequence
        self._recent.wrote(changes)

    def _write(self, batch: Any, size_bytes: int) -> None:
        self._trimmer.wrote(size_bytes)
        try:
            self._db.write(batch)
        except RocksError as error:
            raise self._fail("write", error) from None

    def begin_at(self, sequence: int) -> None:
        """Number the turns of an empty store as if those up to `sequence` had been written and trimmed."""
        if self.sequence:
            raise ValueError("the store has turns already")
        batch = rocks.batch()
        _add_trim(batch, self._families, sequence)
        self._write(batch, batch.size_in_bytes())
        self.sequence = sequence

    def put_output(self, task: tuple[int, int, int], attempt: int, stream: int, offset: int, data: bytes) -> None:
        """Write one slot's contents (bounds of limits.py enforced here). Durable with the next flush."""
        self._check_usable()
        key, value = pack_slot(task, attempt, stream, offset, data)
        batch = rocks.batch()
        batch.put(key, value, self._families["output"].handle)
        self._write(batch, len(value))

    def flush(self, sequence: int) -> None:
        """Make everything written so far durable, then move the watermark to `sequence`."""
        self._check_usable()
        if sequence > self.sequence:
            raise ValueError(f"turn {sequence} is not written yet")
        self.is_flushing = True
        try:
            self._db.sync_log()
            self._watermark.move(sequence)
        except RocksError as error:
            raise self._fail("flush", error) from None
        finally:
            self.is_flushing = False
        self.flushed = sequence
        self._trimmer.flushed(sequence)

    def flush_memtables(self) -> bool:
        """Flush the memtables, in any thread; a failure shows at the next write or flush."""
        try:
            self._db.flush()
        except RocksError as error:
            self._fail("flush its memtables", error)
        return not self._failure

    def checkpoint(self, place: Path) -> int:
        """Make a copy of the database in the new directory `place`; return the turn that it stands at.

        For the thread that writes. It holds that up, so `flush_memtables` in another thread comes first.
        """
        self._check_usable()
        try:
            self._db.checkpoint(place)
        except RocksError as error:  # if the disk is to blame, the next write says so
            raise StoreError(f"no copy of the database could be made: {error}") from None
        return self.sequence

    def compact(self) -> None:
        """Write everything into tables and rewrite them without what was deleted or forgotten. Blocks until done."""
        self._check_usable()
        try:
            self._db.flush()
            for family in self._families.values():
                family.compact()
        except RocksError as error:
            raise self._fail("compact", error) from None

    # ---------------------------------------------------------------- the end, and figures

    def close(self) -> None:
        """Close; after a clean close no log is left to trust. May be called twice."""
        self._trimmer.join()
        try:
            if not self.read_only and not self._failure:
                self._leave_no_log()
        except RocksError as error:
            raise self._fail("close", error) from None
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without trimming the turn keys: the store is opened by its logs again. May be called twice."""
        self._trimmer.join()
        self._failure = self._failure or StoreError("the store is closed", hint=rocks.RESTART)
        if self._tables:
            # Live handles would keep the database open.
            self._tables.clear()
            self._db.close()
            self._watermark.close()

    def _leave_no_log(self) -> None:
        """Flush everything, delete the turn keys, flush again; the watermark says the rest."""
        self._db.sync_log()
        self._db.flush()
        batch = rocks.batch()
        _add_trim(batch, self._families, self.sequence)
        self._db.write(batch)
        self._db.sync_log()
        self._db.flush()
        self._watermark.move(self.sequence)
        self._watermark.sync()

    def free_bytes(self) -> int:
        """Return the room left on the disk.

        Raises StoreError, and is of no use any more, if its files were removed or replaced: what is written is nowhere.
        """
        if not self._watermark.is_in_place or not (self.data / "db" / "CURRENT").exists():
            raise self._fail("find itself", FileNotFoundError(f"somebody removed or replaced files in {self.data}"))
        return directory.free_bytes(self.data)

    def statistics(self) -> dict[str, Any]:
        """Return plain figures: sizes in bytes, by family where they differ, and the settings that bound them."""
        logs = list(directory.sizes(self.data / "db", "*.log"))
        free_bytes = directory.free_bytes(self.data)
        return {
            "kind": "rocksdb",
            "format": directory.FORMAT,
            "sequence": self.sequence,
            "flushed": self.flushed,
            "free_bytes": free_bytes,
            "room": directory.room(free_bytes).value,
            "log_files": len(logs),
            "log_bytes": sum(logs),
            "block_cache_bytes": self._db.cached_bytes(),
            "families": {name: _family_figures(family) for name, family in self._families.items()},
            "settings": {
                "log_bytes_max": wal_bytes_max,
                "block_cache_bytes_max": rocks.block_cache_bytes,
                "memtable_bytes_max": dict(rocks.memtable_bytes),
                "low_water_bytes": directory.low_water_bytes,
            },
        }

    def _check_usable(self) -> None:
        if self._failure:
            raise self._failure.with_traceback(None)

    def _fail(self, what: str, error: Exception) -> StoreError:
        """Remember the first failure: nothing may be acknowledged any more."""
        self._failure = self._failure or rocks.write_error(what, error)
        return self._failure.with_traceback(None)


def _add_trim(batch: Any, families: Mapping[str, Family], sequence: int) -> None:
    """Delete the turn keys up to `sequence`, and say so, in every family."""
    for family in families.values():
        batch.delete_range(turn_key(0), turn_key(sequence + 1), family.handle)
        batch.put(TRIMMED_KEY, pack_trimmed(sequence), family.handle)


def _turn_runs(db: Database) -> dict[str, Run]:
    return {name: _turn_run(family) for name, family in db.families.items()}


def _turn_run(family: Family) -> Run:
    keys = family.scan_keys(turn_key(0), TRIMMED_KEY)
    trimmed = next((value for _, value in family.scan(TRIMMED_KEY, TRIMMED_KEY + b"\0", 1)), None)
    return read_run(trimmed, (turn_sequence(key)[0] for key in keys))


def _family_figures(family: Family) -> dict[str, int]:
    return {
        "rows_about": family.figure("estimate-num-keys"),
        "tombstones": family.tombstones(),
        "table_bytes": family.figure("total-sst-files-size"),
        "blob_bytes": family.figure("total-blob-file-size"),
        "memtable_bytes": family.figure("size-all-mem-tables"),
        "compaction_pending_bytes": family.figure("estimate-pending-compaction-bytes"),
    }


def open_store(lock: DataLock) -> DiskStore:
    """Open (or make) the store of a locked data directory, and prove that nothing acknowledged is missing.

    Raises StoreDamaged that names what is missing, ConfigurationError for a store that is newer than this program.
    """
    directory.prepare(lock.data)
    return _open(lock, read_only=False)


def open_for_reading(lock: DataLock) -> DiskStore:
    """Open a store that nobody serves, without changing it. Raises as `open_store` does."""
    directory.check_format(lock.data)
    directory.check_watermark(lock.data)
    if not (lock.data / "db").exists() or not (lock.data / "watermark").exists():
        raise _no_store(lock.data)
    return _open(lock, read_only=True)


def _open(lock: DataLock, *, read_only: bool) -> DiskStore:
    if not lock.is_held:
        raise ValueError("the data directory is not locked")
    path = lock.data / "db"
    watermark = Watermark(lock.data / "watermark")
    try:
        mark = watermark.read()
        _check_present(path, mark, read_only=read_only)
        try:
            db, note = rocks.open_database(path, read_only=read_only), ""
        except StoreDamaged as damage:
            db, note = _open_garbled(path, mark, damage, read_only=read_only)
        try:
            return DiskStore(lock, db, watermark, read_only=read_only, note=note)
        except BaseException:
            db.close()
            raise
    except BaseException:
        watermark.close()
        raise


def _open_garbled(path: Path, mark: int, damage: StoreDamaged, *, read_only: bool) -> tuple[Database, str]:
    """Open a database with damage inside a log, if nothing behind the damage was acknowledged; else raise.

    A power cut may leave bytes of the last, never acknowledged turns on the disk in any order. It is tried for reading
    first, since opening it for writing would remove the logs.
    """
    try:
        probe = rocks.open_database(path, read_only=True, until_damage=True)
    except StoreDamaged:
        raise damage from None
    try:
        last = check_runs(_turn_runs(probe), mark)
    finally:
        probe.close()
    note = f"the log's end was garbled and is dropped; every acknowledged turn is there, up to {last} ({damage})"
    return rocks.open_database(path, read_only=read_only, until_damage=True), note


def _check_present(path: Path, mark: int, *, read_only: bool) -> None:
    """Refuse to make an empty database in the place of one that is gone, and to read one that is not yet there."""
    if (path / "CURRENT").exists():
        return
    if mark:
        raise StoreDamaged(f"the database in {path} is gone, but turn {mark} was acknowledged", hint=BRING_BACK)
    if read_only and not any(path.glob("*.sst")):  # the very first start was killed: the next one makes it
        raise _no_store(path.parent)
    make_directory(path)


def _no_store(data: Path) -> ConfigurationError:
    return ConfigurationError(f"there is no store in {data}", hint="name the data directory with --data")
