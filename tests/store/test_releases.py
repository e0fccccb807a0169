"""A store that any release wrote is opened, and says today what it said then."""

import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.store.make_store import DATA, OUTPUT, a_key, make
from tests.store.test_records import example
from tests.support.store import disk_store, read_store
from tq.core.model.tables import TABLES
from tq.core.model.view import Table
from tq.store.check import check_bytes
from tq.store.disk import DiskStore
from tq.store.keys import KEYS

STORES = sorted(DATA.glob("*.tar.gz"))


def unpack(packed: Path, place: Path) -> Path:
    with tarfile.open(packed) as tar:
        tar.extractall(place, filter="data")
    (place / "data").chmod(0o700)
    return place / "data"


def raw_row(store: DiskStore, table: Table[Any]) -> bytes:
    """Return the record of a table's one row as it is on disk; nothing for what is no msgpack."""
    codec = KEYS[table]
    ((_, raw),) = store.raw_rows(codec.family, codec.pack(*a_key(table)), 1)
    return raw if table.record not in (bool, bytes) else b""


def assert_same(raw: Any, row: Any, wanted: Any) -> None:
    """Assert that a record says what it said; fields that came later have their defaults."""
    if not isinstance(row, msgspec.Struct):
        assert row == wanted
        return
    known = raw[1:] if row.__struct_config__.tag is not None else raw
    for place, field in enumerate(msgspec.structs.fields(row)):
        found = getattr(row, field.name)
        if place < len(known):
            assert_same(known[place], found, getattr(wanted, field.name))
        else:
            factory = field.default_factory
            assert found == (field.default if factory is msgspec.NODEFAULT else factory()), field.name


def assert_says_what_it_said(data: Path) -> None:
    with read_store(data) as store:
        assert check_bytes(store).problems == []
    with disk_store(data) as store:
        for table in TABLES:
            row = store.get(table, a_key(table))
            if row is not None:
                assert_same(msgspec.msgpack.decode(raw_row(store, table) or b"\xc3"), row, example(table.record))
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
