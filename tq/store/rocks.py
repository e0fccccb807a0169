"""The store on disk: RocksDB by the rules of docs/store-format.md. The only file that imports rocksdict.

Raw mode and our own options always (the default mode unpickles what it reads, and takes its options from a file in the
directory). One batch a turn, written without sync; `flush` then syncs the log once. `sync=True` is never used: it
holds the GIL for the whole fsync. Reads go through `_Family`, which checks the status of every scan: the iterators for
Python's `for` end silently at a damaged block. After the first failed write or flush the store refuses to write for
ever: what a failed fsync left behind is unknown, and repeating it lies.

rocksdict raises plain `Exception` for everything, so this file catches that (as `RocksError`, around calls of the
database only), and nobody else may.

Threads: `write`, `put_output` and reads belong to one thread; `flush` may run in another one at the same time. Flushes
of the memtables run in a thread of the store's own, one at a time; `close` waits for it.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from tq.core.view import Changes, Key, Table
from tq.errors import ConfigurationError, StoreDamaged, StoreError
from tq.limits import KIB, MIB, wal_bytes_max
from tq.store import directory
from tq.store.keys import FAMILIES, KEYS, TRIMMED_KEY, turn_key, turn_sequence
from tq.store.lock import DataLock
from tq.store.output import pack_slot, slot_bounds, unpack_slots
from tq.store.records import RECORDS, damaged_record
from tq.store.seam import OutputSlot
from tq.store.turns import Run, Watermark, check_runs, pack_trimmed, pack_turn, read_run

R = TypeVar("R")
Raw = tuple[bytes, bytes]
RocksError: Final = Exception

# Explicit sizes, so that the memory does not grow with the backlog.
_BLOCK_CACHE_BYTES: Final = 32 * MIB
_MEMTABLE_BYTES: Final = {
    "state": 16 * MIB,
    "tasks": 16 * MIB,
    "bodies": 16 * MIB,
    "queues": 4 * MIB,
    "output": 16 * MIB,
}
_OPEN_FILES_MAX: Final = 512
_BLOB_BYTES_MIN: Final = 1 * KIB
_LOG_FILES: Final = 4

# When the turn keys are trimmed. The number of turns bounds how many a start has to read.
_TRIM_TURNS: Final = 100_000
_TRIM_S: Final = 3_600.0

_RESTART: Final = "start tq again; unless the disk is broken or full, nothing that was acknowledged is lost"


class _Family:
    """One column family: its reads, each checked, and the handle that writes need."""

    __slots__ = ("_rows", "get", "handle", "name")

    def __init__(self, db: Rdict, name: str) -> None:
        self.name = name
        self.handle = db.get_column_family_handle(name)
        self._rows = db.get_column_family(name)
        self.get = self._rows.get

    def scan(self, low: bytes, high: bytes, limit: int) -> list[Raw]:
        """Return at most `limit` rows with low <= key < high. Raises StoreDamaged at a damaged block."""
        rows: list[Raw] = []
        # Not set_iterate_lower_bound: in rocksdict it sets the upper one.
        options = ReadOptions()
        options.set_iterate_upper_bound(high)
        found = self._rows.iter(options)
        try:
            found.seek(low)
            valid, key, value, move, add = found.valid, found.key, found.value, found.next, rows.append
            while limit > 0 and valid():
                add((key(), value()))
                move()
                limit -= 1
            found.status()
        except RocksError as error:
            raise _read_error(self.name, error) from None
        finally:
            # A live iterator would keep the database open beyond close().
            del found
        return rows

    def keys(self, low: bytes, high: bytes) -> Iterator[bytes]:
        """Yield the keys of [low, high), with bounded memory, for whole scans."""
        while page := self.scan(low, high, 1_000):
            for key, _ in page:
                yield key
            low = page[-1][0] + b"\0"

    def flush(self) -> None:
        self._rows.flush()

    def figure(self, name: str) -> int:
        return self._rows.property_int_value(f"rocksdb.{name}") or 0


class RocksStore:
    """Implements `tq.store.seam.Store` on the database in a locked data directory.

    Made by `open_store` and `open_for_reading`. `sequence` is the last turn written, `flushed` the last made durable.
    """

    def __init__(self, lock: DataLock, db: Rdict, cache: Cache, watermark: Watermark, *, read_only: bool) -> None:
        self.data = lock.data
        self.read_only = read_only
        self._lock = lock  # kept so that nobody releases it by dropping it
        self._db = db
        self._cache = cache
        self._watermark = watermark
        self._families = {name: _Family(db, name) for name in FAMILIES}
        self._output = self._families["output"]
        self._tables = {
            table: (self._families[keys.family], keys.pack, RECORDS[table].encode, RECORDS[table].decode)
            for table, keys in KEYS.items()
        }
        self._write_options = WriteOptions()
        self._failure = ""
        self._trimmer: threading.Thread | None = None
        self._trim_to = 0  # set by the trimmer: the next write deletes the turn keys up to here
        self._wal_bytes = 0
        self._trim_turn = 0
        self._trim_s = time.monotonic()
        self.sequence = 0
        self.flushed = 0

    # ---------------------------------------------------------------- reads

    def get(self, table: Table[R], key: Key) -> R | None:
        """Return the record at `key`, or None."""
        family, pack, _, decode = self._tables[table]
        packed = pack(*key)
        try:
            raw = family.get(packed)
        except RocksError as error:
            raise _read_error(table.name, error) from None
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

    def output(self, task: tuple[int, int, int], attempt: int) -> Sequence[OutputSlot]:
        """Return the stored slots of an attempt, ordered by stream and offset."""
        return unpack_slots(self._output.scan(*slot_bounds(task, attempt), 1_000))

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
        batch = WriteBatch(raw_mode=True)
        for table, rows in changes.items():
            family, pack, encode, _ = self._tables[table]
            batch.set_default_column_family(family.handle)
            for key, record in rows.items():
                if record is None:
                    del batch[pack(*key)]
                else:
                    batch[pack(*key)] = encode(record)
        self._add_turn(batch, sequence, epoch, wall_ms)
        size = batch.size_in_bytes()
        try:
            self._db.write(batch, self._write_options)
        except RocksError as error:
            raise self._fail("write", error) from None
        self.sequence = sequence
        self._wal_bytes += size

    def _add_turn(self, batch: WriteBatch, sequence: int, epoch: int, wall_ms: int) -> None:
        """Add the turn key to every family, and take out those that prove nothing any more."""
        key, value = turn_key(sequence), pack_turn(epoch, wall_ms)
        trim_to, self._trim_to = self._trim_to, 0
        for family in self._families.values():
            batch.set_default_column_family(family.handle)
            if trim_to:
                # delete_range does not heed the batch's default family.
                batch.delete_range(turn_key(0), turn_key(trim_to + 1), family.handle)
                batch[TRIMMED_KEY] = pack_trimmed(trim_to)
            batch[key] = value

    def put_output(self, task: tuple[int, int, int], attempt: int, stream: int, offset: int, data: bytes) -> None:
        """Write one slot's contents (bounds of limits.py enforced here). Durable with the next flush."""
        self._check_usable()
        key, value = pack_slot(task, attempt, stream, offset, data)
        batch = WriteBatch(raw_mode=True)
        batch.put(key, value, self._output.handle)
        try:
            self._db.write(batch, self._write_options)
        except RocksError as error:
            raise self._fail("write", error) from None
        self._wal_bytes += len(value)

    def flush(self, sequence: int) -> None:
        """Make everything written so far durable, then move the watermark to `sequence`."""
        self._check_usable()
        if sequence > self.sequence:
            raise ValueError(f"turn {sequence} is not written yet")
        try:
            self._db.flush_wal(True)
            self._watermark.move(sequence)
        except RocksError as error:
            raise self._fail("flush", error) from None
        self.flushed = sequence
        if self._should_trim(sequence):
            self._trimmer = threading.Thread(target=self._flush_families, args=(sequence,), name="tq-trim")
            self._trimmer.start()

    def _should_trim(self, sequence: int) -> bool:
        if self._trimmer is not None and (self._trimmer.is_alive() or self._trim_to):
            return False
        return (
            sequence - self._trim_turn >= _TRIM_TURNS
            or self._wal_bytes >= wal_bytes_max
            or time.monotonic() - self._trim_s >= _TRIM_S
        )

    def _flush_families(self, sequence: int) -> None:
        """Flush all memtables; then the turn keys up to `sequence` need no log any more."""
        self._wal_bytes, self._trim_turn, self._trim_s = 0, sequence, time.monotonic()
        try:
            for family in self._families.values():
                family.flush()
        except RocksError as error:  # the next write or flush tells it
            self._fail("flush of memtables", error)
        else:
            self._trim_to = sequence

    # ---------------------------------------------------------------- the end, and figures

    def close(self) -> None:
        """Close; after a clean close no log is left to trust. Nobody may be in `flush`. May be called twice."""
        if self._trimmer is not None:
            self._trimmer.join()
        try:
            if self._families and not self.read_only and not self._failure:
                self._leave_no_log()
        except RocksError as error:
            raise self._fail("close", error) from None
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of all files as they are, and write nothing more. Nobody may be in `flush`."""
        self._failure = self._failure or "the store is closed"
        if self._families:
            # Live handles would keep the database open.
            self._tables.clear()
            self._families.clear()
            del self._output
            with contextlib.suppress(RocksError):
                self._db.close()
            self._watermark.close()

    def _leave_no_log(self) -> None:
        """Flush everything, trim the turn keys, flush again; the watermark says the rest."""
        families = list(self._families.values())
        self._db.flush_wal(True)
        for family in families:
            family.flush()
        batch = WriteBatch(raw_mode=True)
        for family in families:
            batch.delete_range(turn_key(0), turn_key(self.sequence + 1), family.handle)
            batch.put(TRIMMED_KEY, pack_trimmed(self.sequence), family.handle)
        self._db.write(batch, self._write_options)
        self._db.flush_wal(True)
        for family in families:
            family.flush()
        self._watermark.move(self.sequence)
        self._watermark.sync()

    def free_bytes(self) -> int:
        """Return the room left on the disk."""
        return directory.free_bytes(self.data)

    def room(self) -> directory.Room:
        """Return what the room left on the disk allows."""
        return directory.room(self.free_bytes())

    def statistics(self) -> dict[str, Any]:
        """Return plain figures: sizes in bytes, by family where they differ, and the settings that bound them."""
        files = list((self.data / "db").iterdir())
        return {
            "kind": "rocksdb",
            "format": directory.FORMAT,
            "sequence": self.sequence,
            "flushed": self.flushed,
            "free_bytes": self.free_bytes(),
            "room": self.room().value,
            "log_files": sum(path.suffix == ".log" for path in files),
            "log_bytes": sum(path.stat().st_size for path in files if path.suffix == ".log"),
            "block_cache_bytes": self._cache.get_usage(),
            "families": {
                name: {
                    "rows_about": family.figure("estimate-num-keys"),
                    "table_bytes": family.figure("total-sst-files-size"),
                    "blob_bytes": family.figure("total-blob-file-size"),
                    "memtable_bytes": family.figure("size-all-mem-tables"),
                    "compaction_pending_bytes": family.figure("estimate-pending-compaction-bytes"),
                }
                for name, family in self._families.items()
            },
            "settings": {
                "log_bytes_max": wal_bytes_max,
                "block_cache_bytes_max": _BLOCK_CACHE_BYTES,
                "memtable_bytes_max": dict(_MEMTABLE_BYTES),
                "low_water_bytes": directory.low_water_bytes,
            },
        }

    def check_turns(self) -> int:
        """Return the last turn, or raise StoreDamaged that names the turns that are missing."""
        runs = {name: _family_run(family) for name, family in self._families.items()}
        last = check_runs(runs, self._watermark.read())
        self.sequence = self.flushed = last
        self._trim_turn = runs["state"].trimmed
        return last

    def _check_usable(self) -> None:
        if self._failure:
            raise StoreError(self._failure, hint=_RESTART)

    def _fail(self, what: str, error: Exception) -> StoreError:
        """Remember the first failure: nothing may be acknowledged any more."""
        self._failure = self._failure or f"the store failed to {what}: {error}"
        return StoreError(self._failure, hint=_RESTART)


def _family_run(family: _Family) -> Run:
    keys = family.keys(turn_key(0), TRIMMED_KEY)
    return read_run(family.get(TRIMMED_KEY), (turn_sequence(key)[0] for key in keys))


def open_store(lock: DataLock) -> RocksStore:
    """Open (or make) the store of a locked data directory, and prove that nothing acknowledged is missing.

    Raises StoreDamaged that names what is missing, ConfigurationError for a store that is newer than this program.
    """
    directory.prepare(lock.data)
    return _open(lock, read_only=False)


def open_for_reading(lock: DataLock) -> RocksStore:
    """Open a store that nobody serves, without changing it. Raises as `open_store` does."""
    if not (lock.data / "db").exists():
        raise ConfigurationError(f"there is no store in {lock.data}", hint="name the data directory with --data")
    directory.check_format(lock.data)
    return _open(lock, read_only=True)


def _open(lock: DataLock, *, read_only: bool) -> RocksStore:
    if not lock.is_held:
        raise ValueError("the data directory is not locked")
    path = lock.data / "db"
    watermark = Watermark(lock.data / "watermark")
    try:
        _check_present(path, watermark.read())
        cache = Cache(_BLOCK_CACHE_BYTES)
        db = _open_database(path, cache, read_only=read_only)
    except BaseException:
        watermark.close()
        raise
    store = RocksStore(lock, db, cache, watermark, read_only=read_only)
    try:
        store.check_turns()
    except BaseException:
        store.abandon()
        raise
    return store


def _check_present(path: Path, mark: int) -> None:
    """Refuse to make an empty database in the place of one that is gone."""
    if mark and not (path / "CURRENT").exists():
        raise StoreDamaged(f"the database is missing in {path}, but turn {mark} was acknowledged")
    path.mkdir(mode=0o700, exist_ok=True)


def _open_database(path: Path, cache: Cache, *, read_only: bool) -> Rdict:
    families = {name: _family_options(name, cache) for name in FAMILIES}
    access = AccessType.read_only(False) if read_only else AccessType.read_write()
    try:
        return Rdict(str(path), _database_options(cache), families, access)
    except RocksError as error:
        raise _open_error(str(path), error) from None


def _options(cache: Cache) -> Options:
    """Return what all families share."""
    blocks = BlockBasedOptions()
    blocks.set_block_cache(cache)
    blocks.set_block_size(16 * KIB)
    blocks.set_bloom_filter(10, block_based=False)
    # Index and filter blocks count as cache: else they grow with the store.
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_level_compaction_dynamic_level_bytes(True)
    return options


def _family_options(name: str, cache: Cache) -> Options:
    options = _options(cache)
    options.set_write_buffer_size(_MEMTABLE_BYTES[name])
    if name == "queues":
        # Deleted keys at the head of a queue are slow to pass.
        options.add_compact_on_deletion_collector_factory(1_000, 500, 0.5)
    if name == "output":
        options.set_enable_blob_files(True)
        options.set_min_blob_size(_BLOB_BYTES_MIN)
        options.set_blob_compression_type(DBCompressionType.lz4())
        options.set_enable_blob_gc(True)
    return options


def _database_options(cache: Cache) -> Options:
    options = _options(cache)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_max_total_wal_size(wal_bytes_max)
    options.set_max_open_files(_OPEN_FILES_MAX)
    options.set_max_background_jobs(2)
    options.set_bytes_per_sync(1 * MIB)
    options.set_keep_log_file_num(_LOG_FILES)
    options.set_max_log_file_size(4 * MIB)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


def _read_error(where: str, error: Exception) -> StoreError:
    text = str(error)
    if "Corruption" in text:
        return StoreDamaged(
            f"the bytes of {where} on disk are damaged: {text}",
            hint="check the disk, then restore a backup",
        )
    return StoreError(f"reading {where} failed: {text}", hint=_RESTART)


def _open_error(path: str, error: Exception) -> Exception:
    text = str(error)
    if "Column families not opened" in text:
        return ConfigurationError(f"the database in {path} has families that this version does not know: {text}")
    if "Corruption" in text:
        return StoreDamaged(f"the database in {path} is damaged: {text}", hint="restore a backup")
    if "lock" in text.lower():
        return ConfigurationError(f"the database in {path} is open in another process: {text}")
    return StoreError(f"the database in {path} cannot be opened: {text}", hint="see to the disk, then start again")
