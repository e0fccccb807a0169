"""Keys sort as bytes the way they sort as tuples, and come back whole."""

import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tq.core.model.tables import META, TABLES, TASK
from tq.core.model.view import Key, Table
from tq.store.keys import FAMILIES, KEYS, LAYOUT, OUTPUT, WIDTHS, KeyCodec, key_codec

BITS = {"B": 8, "I": 32, "Q": 64}
MIXED = KeyCodec(99, "state", ("job", "rank", "name"))  # a string behind integers: no table has it yet


def integers(field: str) -> st.SearchStrategy[int]:
    top = (1 << BITS[WIDTHS[field]]) - 1
    return st.integers(0, top) | st.sampled_from([0, 1, 255, 256, top]).map(lambda value: min(value, top))


def keys(fields: tuple[str, ...]) -> st.SearchStrategy[Key]:
    return st.tuples(*(st.text() if field == "name" else integers(field) for field in fields))


def prefixes(fields: tuple[str, ...]) -> st.SearchStrategy[Key]:
    return st.integers(0, len(fields)).flatmap(lambda count: keys(fields[:count]))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@settings(max_examples=30)  # of each table: what packs is the same for all
@given(data=st.data())
def test_bytes_sort_as_tuples_and_come_back(table: Table[Any], data: st.DataObject) -> None:
    codec = KEYS[table]
    left, right = data.draw(keys(table.fields)), data.draw(keys(table.fields))
    assert codec.unpack(codec.pack(*left)) == left
    assert (codec.pack(*left) < codec.pack(*right)) == (left < right)
    assert codec.low <= codec.pack(*left) < codec.high


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@settings(max_examples=30)  # of each table: what packs is the same for all
@given(data=st.data())
def test_a_bound_splits_the_keys_where_the_tuple_does(table: Table[Any], data: st.DataObject) -> None:
    codec = KEYS[table]
    key, bound = data.draw(keys(table.fields)), data.draw(prefixes(table.fields))
    assert (codec.pack(*key) < codec.bound(bound)) == (key < bound)


@given(data=st.data())
def test_a_string_may_stand_behind_integers(data: st.DataObject) -> None:
    fields = ("job", "rank", "name")
    left, right, bound = data.draw(keys(fields)), data.draw(keys(fields)), data.draw(prefixes(fields))
    assert MIXED.unpack(MIXED.pack(*left)) == left
    assert (MIXED.pack(*left) < MIXED.pack(*right)) == (left < right)
    assert (MIXED.pack(*left) < MIXED.bound(bound)) == (left < bound)


@given(
    key=keys(TASK.fields),
    bound=st.lists(st.integers(-1, 1 << 65) | st.sampled_from([1 << 32, 1 << 64]), max_size=4).map(tuple),
)
def test_a_bound_may_lie_outside_the_width_of_its_fields(key: Key, bound: Key) -> None:
    assert (KEYS[TASK].pack(*key) < KEYS[TASK].bound(bound)) == (key < bound)


def test_a_bound_behind_a_whole_key_is_just_behind_it() -> None:
    codec = KEYS[TASK]
    assert codec.pack(1, 2, 3) < codec.bound((1, 2, 3, 0)) < codec.pack(1, 2, 4)
    assert KEYS[META].pack() < KEYS[META].bound((0,)) < KEYS[META].high


@pytest.mark.parametrize("key", [(1, 2), (1, 2, 3, 4), (-1, 0, 0), (0, 1 << 32, 0), ("1", 0, 0), (1.0, 0, 0)])
def test_what_is_no_key_is_not_packed(key: Key) -> None:
    with pytest.raises(struct.error):
        KEYS[TASK].pack(*key)


def test_every_table_has_a_tag_of_its_own_and_a_family() -> None:
    tags = [tag for tag, _ in LAYOUT.values()]
    assert len({*tags, OUTPUT.tag}) == len(tags) + 1
    assert min(tags) >= 16
    assert {family for _, family in LAYOUT.values()} <= set(FAMILIES)
    with pytest.raises(KeyError):
        key_codec(Table("nothing", bool, "job"))


def test_the_bytes_of_a_key_are_the_format_of_the_disk() -> None:
    assert KEYS[TASK].pack(0x0102, 3, 4).hex() == "13" + "0000000000000102" + "00000003" + "00000004"
    assert {name: tag for name, (tag, _) in LAYOUT.items()} == {
        "meta": 16, "job": 17, "progress": 18, "task": 19, "running": 20, "again": 21, "ready": 22, "lane": 23,
        "lane_name": 24, "timer": 25, "key": 26, "dead": 27, "ended": 28, "upload": 29, "body": 30, "sweep": 31,
        "token": 32, "entries": 33, "entry_at": 34, "key_end": 35, "queue": 36, "blob_user": 37, "result": 38,
        "named": 39,
    }  # fmt: skip


def test_the_page_on_the_format_says_what_the_code_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "store-format.md").read_text()
    told = {row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \| (\d+) \| (\w+) \| ([^|]+) \|", page, re.MULTILINE)}
    assert told == {
        table.name: (
            str(KEYS[table].tag),
            KEYS[table].family,
            ", ".join(f"{field} {WIDTHS[field]}" if field in WIDTHS else field for field in table.fields) or "-",
        )
        for table in TABLES
    }
