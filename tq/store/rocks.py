"""RocksDB, by the rules of docs/store-format.md. The only file that imports rocksdict; it knows bytes, no tables.

Raw mode and our own options always (the default mode unpickles what it reads, and takes its options from a file in the
directory). Nothing is ever written with sync: that holds the GIL for the whole fsync; `sync_log` does not. Scans go
through `Family.scan`, which checks their status: the iterators for Python's `for` end silently at a damaged block.

rocksdict raises plain `Exception` for everything. Who calls what is passed through as it is (`get`, `write`,
`sync_log`, `flush`) catches it as `RocksError`, around that call only; nobody else may.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    ColumnFamily,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from tq.errors import ConfigurationError, StoreDamaged, StoreError
from tq.limits import KIB, MIB, wal_bytes_max
from tq.store.keys import FAMILIES
from tq.store.process_limits import allowed, share

Raw = tuple[bytes, bytes]
RocksError: Final = Exception

# Explicit sizes, so that the memory does not grow with the backlog.
manifest_bytes_max: Final = 16 * MIB  # on disk, of a life of weeks; the default is 1 GiB
block_cache_bytes: Final = 32 * MIB
memtable_bytes: Final = {
    "state": 16 * MIB,
    "tasks": 16 * MIB,
    "bodies": 16 * MIB,
    "queues": 4 * MIB,
    "output": 16 * MIB,
}
_BLOB_BYTES_MIN: Final = 1 * KIB
_LOG_FILES: Final = 4
_PAGE: Final = 1_000
_DELETIONS: Final = re.compile(r"# (?:range )?deletions=(\d+)")
_BRING_BACK: Final = "check the disk, then bring back a backup: tq restore; else: tq store salvage --dry-run"

RESTART: Final = "start tq again; unless the disk is broken or full, nothing that was acknowledged is lost"


class Family:
    """One column family: `get(key) -> bytes | None`, checked scans, and the `handle` that a batch needs."""

    __slots__ = ("_rows", "get", "handle", "name")

    def __init__(self, db: Rdict, name: str) -> None:
        self.name = name
        self.handle: ColumnFamily = db.get_column_family_handle(name)
        self._rows = db.get_column_family(name)
        self.get = self._rows.get

    def scan(self, low: bytes, high: bytes, limit: int) -> list[Raw]:
        """Return at most `limit` rows with low <= key < high. Raises StoreDamaged at a damaged block."""
        rows, error = self.scan_whole(low, high, limit)
        if error is not None:
            raise read_error(self.name, error)
        return rows

    def scan_whole(self, low: bytes, high: bytes, limit: int) -> tuple[list[Raw], Exception | None]:
        """Return at most `limit` rows with low <= key < high, and what ended them before their time, if anything."""
        rows: list[Raw] = []
        # Not set_iterate_lower_bound, which would set the upper one.
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
            return rows, error
        finally:
            # A live iterator would keep the database open beyond close().
            del found
        return rows, None

    def scan_keys(self, low: bytes, high: bytes) -> Iterator[bytes]:
        """Yield all keys of [low, high), however many, with bounded memory."""
        while page := self.scan(low, high, _PAGE):
            for key, _ in page:
                yield key
            low = page[-1][0] + b"\0"

    def flush(self) -> None:
        """Write the memtable to a table file, and wait for it."""
        self._rows.flush()

    def compact(self) -> None:
        """Rewrite all table files, without what was deleted. Takes as long as it reads and writes them."""
        self._rows.compact_range(None, None)

    def let_go(self) -> None:
        """Drop what would keep the database open, whoever still holds this object (a traceback does)."""
        del self.handle, self._rows, self.get

    def figure(self, name: str) -> int:
        """Return one of RocksDB's integer properties, by its name without `rocksdb.`."""
        return self._rows.property_int_value(f"rocksdb.{name}") or 0

    def tombstones(self) -> int:
        """Return how many deletions, of keys and of ranges, wait for a compaction to carry them out."""
        tables = self._rows.property_value("rocksdb.aggregated-table-properties") or ""
        in_tables = sum(map(int, _DELETIONS.findall(tables)))
        return in_tables + self.figure("num-deletes-active-mem-table") + self.figure("num-deletes-imm-mem-tables")


class Database:
    """An open database. Handles and iterators must not outlive it: they would keep it open."""

    def __init__(self, db: Rdict, cache: Cache) -> None:
        self._db = db
        self._cache = cache
        self._options = WriteOptions()
        self.families = {name: Family(db, name) for name in FAMILIES}

    def write(self, batch: WriteBatch) -> None:
        """Write a batch, atomically over its families, into log and memtables. Not yet durable."""
        self._db.write(batch, self._options)

    def sync_log(self) -> None:
        """Make everything written so far durable. Other threads may write meanwhile."""
        self._db.flush_wal(True)

    def flush(self) -> None:
        """Flush the memtables of all families: what was written so far needs no log any more."""
        for name in FAMILIES:
            self.families[name].flush()

    def checkpoint(self, place: Path) -> None:
        """Make a database in the new directory `place` that is this one as it stands: hard links, where that can be.

        What is in memtables is flushed first. Holds the GIL: nothing is written meanwhile, nothing else runs either.
        """
        Checkpoint(self._db).create_checkpoint(str(place))

    def cached_bytes(self) -> int:
        """Return the size of the block cache."""
        return self._cache.get_usage()

    def close(self) -> None:
        """Close (RocksDB flushes its memtables, if it still can). No other thread may be in a call."""
        for name in FAMILIES:
            self.families.pop(name).let_go()
        with contextlib.suppress(RocksError):
            self._db.close()


def batch() -> WriteBatch:
    """Return an empty batch. Beware: its `delete_range` does not heed `set_default_column_family`."""
    return WriteBatch(raw_mode=True)


def open_database(path: Path, *, read_only: bool, until_damage: bool = False) -> Database:
    """Open the database in `path`, made when missing. Raises StoreDamaged, StoreError, ConfigurationError.

    Damage inside a log is an error, but with `until_damage`: then everything behind it is dropped, in all logs.
    """
    cache = Cache(block_cache_bytes)
    mode = DBRecoveryMode.point_in_time() if until_damage else DBRecoveryMode.tolerate_corrupted_tail_records()
    access = AccessType.read_only(False) if read_only else AccessType.read_write()
    return _open(path, _database_options(cache, mode), access, cache)


def open_damaged(path: Path) -> Database:
    """Open a database for reading, whatever is wrong: damaged records of logs and missing files are passed over.

    Raises StoreDamaged if even that is impossible.
    """
    cache = Cache(block_cache_bytes)
    options = _database_options(cache, DBRecoveryMode.skip_any_corrupted_record())
    options.set_paranoid_checks(False)
    return _open(path, options, AccessType.read_only(False), cache)


def repair(path: Path) -> None:
    """Make the list of a database's files anew from the files that there are. It does not find values in blob files.

    What it cannot read of them it puts into `path`/lost. Changes the directory: for a copy. Raises StoreDamaged.
    """
    cache = Cache(block_cache_bytes)
    options = _database_options(cache, DBRecoveryMode.skip_any_corrupted_record())
    families = {name: _family_options(name, cache) for name in FAMILIES}
    for family in families.values():
        family.set_disable_auto_compactions(True)
    try:
        Rdict.repair(str(path), options)
        Rdict(str(path), options, families).close()  # a family of which no file was left is there again, empty
    except RocksError as error:
        raise _open_error(path, error) from None


def _open(path: Path, options: Options, access: AccessType, cache: Cache) -> Database:
    families = {name: _family_options(name, cache) for name in FAMILIES}
    try:
        return Database(Rdict(str(path), options, families, access), cache)
    except RocksError as error:
        raise _open_error(path, error) from None


def _options(cache: Cache) -> Options:
    """Return what all families share."""
    blocks = BlockBasedOptions()
    blocks.set_block_cache(cache)
    blocks.set_block_size(16 * KIB)
    blocks.set_bloom_filter(10, block_based=False)
    # Index and filter blocks count as cache: else they grow with the store. In pieces: the filter of a large table as
    # one block is larger than what the cache holds in a shard, and would be read anew for each key (a million jobs
    # queued: half of the rate).
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_index_type(BlockBasedIndexType.two_level_index_search())
    blocks.set_partition_filters(True)
    blocks.set_pin_top_level_index_and_filter(True)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_level_compaction_dynamic_level_bytes(True)
    return options


def _family_options(name: str, cache: Cache) -> Options:
    options = _options(cache)
    options.set_write_buffer_size(memtable_bytes[name])
    if name == "queues":
        # Deleted keys at the head of a queue are slow to pass.
        options.add_compact_on_deletion_collector_factory(1_000, 500, 0.5)
    if name == "output":
        options.set_enable_blob_files(True)
        options.set_min_blob_size(_BLOB_BYTES_MIN)
        options.set_blob_compression_type(DBCompressionType.lz4())
        options.set_enable_blob_gc(True)
    return options


def _database_options(cache: Cache, mode: DBRecoveryMode) -> Options:
    options = _options(cache)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    # RocksDB's default is point_in_time, which drops everything behind one damaged byte, silently.
    options.set_wal_recovery_mode(mode)
    options.set_max_total_wal_size(wal_bytes_max)
    options.set_max_open_files(share(allowed()).tables)
    options.set_max_background_jobs(2)
    options.set_bytes_per_sync(1 * MIB)
    options.set_keep_log_file_num(_LOG_FILES)
    options.set_max_log_file_size(4 * MIB)
    options.set_max_manifest_file_size(manifest_bytes_max)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


def read_error(where: str, error: Exception) -> StoreError:
    """Return the error to raise for a failed read of a family or table."""
    text = str(error)
    if _is_damage(text):
        return StoreDamaged(f"the bytes of {where} on disk are damaged: {text}", hint=_BRING_BACK)
    return StoreError(f"reading {where} failed: {text}", hint=_hint(text))


def write_error(what: str, error: Exception) -> StoreError:
    """Return the error to raise where the store failed to do something; a compaction may have met damage on the way."""
    text = str(error)
    if _is_damage(text):
        return StoreDamaged(
            f"the store failed to {what}, as a compaction has met bytes on disk that are damaged: {text}",
            hint=f"each start would end so; {_BRING_BACK}",
        )
    return StoreError(f"the store failed to {what}: {text}", hint=_hint(text))


def _hint(text: str, otherwise: str = RESTART) -> str:
    """Return what to do about a failure that is no damage: RocksDB opens files at a start, at reads and at writes."""
    return "raise `ulimit -n`, then start tq again" if "Too many open files" in text else otherwise


def _is_damage(text: str) -> bool:
    """Whether an error is about bytes that are there: wrong ones, or a bad sector under them."""
    is_read = "While pread" in text or "While reading file sequentially" in text  # a table file; a log, or their list
    return "Corruption" in text or (is_read and "Input/output error" in text)


def _open_error(path: Path, error: Exception) -> StoreError | ConfigurationError:
    text = str(error)
    if "Column families not opened" in text:
        return ConfigurationError(f"the database in {path} has families that this version does not know: {text}")
    if _is_damage(text) or "No such file" in text:
        return StoreDamaged(f"the database in {path} is damaged: {text}", hint=_BRING_BACK)
    if "While lock file" in text or "lock hold" in text:  # not what merely failed to open it
        return ConfigurationError(f"the database in {path} is open in another process: {text}")
    hint = _hint(text, "see to the disk, then start again")
    return StoreError(f"the database in {path} cannot be opened: {text}", hint=hint)
