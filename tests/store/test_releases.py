"""A store that any release wrote is opened, and says today what it said then."""

import tarfile
from pathlib import Path

import pytest

from tests.store.make_store import DATA, OUTPUT, a_key, make
from tests.store.test_records import example
from tests.support.store import disk_store, read_store
from tq.core.tables import TABLES
from tq.store.check import check_bytes

STORES = sorted(DATA.glob("*.tar.gz"))


def unpack(packed: Path, place: Path) -> Path:
    with tarfile.open(packed) as tar:
        tar.extractall(place, filter="data")
    (place / "data").chmod(0o700)
    return place / "data"


def assert_says_what_it_said(data: Path) -> None:
    with read_store(data) as store:
        assert check_bytes(store).problems == []
    with disk_store(data) as store:
        for table in TABLES:
            row = store.get(table, a_key(table))
            assert row is None or row == example(table.record), table
        assert store.output((1, 2, 3), 1) == [(1, 0, OUTPUT)]


@pytest.mark.parametrize("packed", STORES, ids=lambda path: path.name)
def test_a_store_of_every_release_opens(packed: Path, tmp_path: Path) -> None:
    assert_says_what_it_said(unpack(packed, tmp_path))


def test_there_is_a_store_of_the_first_format() -> None:
    assert "format-1.tar.gz" in [path.name for path in STORES]


def test_the_store_of_this_release_has_a_row_in_every_table(tmp_path: Path) -> None:
    data = unpack(make(tmp_path), tmp_path / "unpacked")
    assert_says_what_it_said(data)
    with disk_store(data) as store:
        assert all(store.get(table, a_key(table)) is not None for table in TABLES)
