"""What a read costs does not grow with the store; and what a list of files made anew has in it."""

from pathlib import Path
from typing import Final

import pytest

from tq.errors import StoreDamaged, StoreError
from tq.store import rocks
from tq.store.keys import FAMILIES

KEYS: Final = 600_000  # the filter of a table of so many is larger than a shard of the cache
READS: Final = 200
READ_BYTES_MAX: Final = 40_000  # a block of records, a piece of the index and one of the filter, and then some


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def one_large_table(database: rocks.Database) -> rocks.Family:
    """Fill a family with keys that overlap in all that is flushed, so that a compaction merges them into one table."""
    tasks = database.families["tasks"]
    for first in range(3):
        batch = rocks.batch()
        batch.set_default_column_family(tasks.handle)
        for number in range(first, KEYS, 3):
            batch.put(key(number), b"record")
        database.write(batch)
        tasks.flush()
    tasks.compact()
    return tasks


def test_a_read_from_a_large_table_reads_a_few_blocks(tmp_path: Path) -> None:
    database = rocks.open_database(tmp_path / "db", read_only=False)
    tasks = one_large_table(database)

    before = bytes_read()
    for number in range(0, KEYS, KEYS // READS):
        assert tasks.get(key(number)) == b"record"
        assert tasks.get(key(number) + b"\0") is None

    assert bytes_read() - before < READS * READ_BYTES_MAX
    database.close()


def test_a_family_of_which_no_file_is_left_is_an_empty_one(tmp_path: Path) -> None:
    database = rocks.open_database(tmp_path / "db", read_only=False)
    state = database.families["state"]
    batch = rocks.batch()
    batch.set_default_column_family(state.handle)
    batch.put(key(1), b"record")
    database.write(batch)
    state.flush()
    del state
    database.close()
    for path in (*tmp_path.glob("db/MANIFEST-*"), *tmp_path.glob("db/*.log")):
        path.unlink()

    rocks.repair(tmp_path / "db")

    repaired = rocks.open_damaged(tmp_path / "db")
    found = {name: family.scan(b"", b"\xff", 10) for name, family in repaired.families.items()}
    assert found == {name: [(key(1), b"record")] if name == "state" else [] for name in FAMILIES}
    repaired.close()


@pytest.mark.parametrize(
    "text, kind",
    [
        (
            "Corruption: block checksum mismatch: stored = 3, computed = 2, type = 4  in db/000017.sst offset 3",
            StoreDamaged,
        ),
        ("IO error: While pread offset 3021395 len 16157: db/000017.sst: Input/output error", StoreDamaged),
        ("IO error: While appending to file: db/000018.sst: Input/output error", StoreError),
        (
            "IO error: No space left on device: While appending to file: db/000018.sst: No space left on device",
            StoreError,
        ),
    ],
)
def test_a_compaction_that_meets_damage_is_told_from_a_disk_that_fails(text: str, kind: type[StoreError]) -> None:
    error = rocks.write_error("write", Exception(text))
    assert type(error) is kind
    assert text in error.message
    assert ("tq store salvage" in error.hint) is (kind is StoreDamaged)
    assert ("start tq again" in error.hint) is (kind is StoreError)


@pytest.mark.parametrize(
    "text",
    [
        "While pread offset 607929 len 53: db/000011.sst: Input/output error",
        "While reading file sequentially: db/000004.log: Input/output error",
    ],
)
def test_a_bad_sector_that_a_start_meets_is_damage_and_a_way_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def fail(*_: object) -> None:
        raise rocks.RocksError(f"IO error: {text}")

    monkeypatch.setattr(rocks, "Rdict", fail)
    with pytest.raises(StoreDamaged) as raised:
        rocks.open_database(tmp_path / "db", read_only=False)
    assert "tq store salvage" in raised.value.hint
