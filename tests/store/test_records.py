"""Records come back as they went in, say their format first, and are read in every format there ever was."""

from typing import Any

import msgspec
import pytest

from tq.core.model.job import Demand, Entries, Job, KeyUse, Lane, Meta, Progress, Queue, Sweep, Token, Upload
from tq.core.model.tables import TABLES, TOKEN
from tq.core.model.task import Cause, Ending, Phase, State, Task
from tq.core.model.view import Table
from tq.store.records import RECORDS, RecordCodec

EXAMPLES: dict[type[Any], Any] = {
    bool: True,
    int: 2**63,
    bytes: bytes(range(256)),
    Demand: Demand(1_500, 2**40),
    KeyUse: KeyUse(b"\0" * 32, 42, 5_000),
    Lane: Lane("default", Demand(1_000, 0), ready=3, floor_rank=100, floor_job=7),
    Meta: Meta(lineage=2**63 - 1, epoch=4, sequence=2**40),
    Entries: Entries((b"a", b"", b"\xff")),
    Queue: Queue(paused=True, max=7, retries=5),
    Sweep: Sweep(b"\x90", 42, 99, 17, 3, 5_000),
    Task: Task(
        State.RUNNING, Phase.STOPPING, attempt=2, lease=99, worker=2**63 - 1, host="grün", cause=Cause.TIME_LIMIT,
        code=-9, result=b"\xa1", history=(Ending(1, 5, "host", 1, 1, 10, 20),), run_clipped=True,
    ),
    Token: Token(b"d" * 32, "admin", "laptop", 5),
    Upload: Upload("laptop", 3, 131_072, 9),
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_record_comes_back_as_it_went_in(table: Table[Any]) -> None:
    record = example(table.record)
    codec = RECORDS[table]
    found = codec.decode(codec.encode(record))
    assert found == record
    assert type(found) is type(record)


def example(kind: type[Any]) -> Any:
    """Return an example of a record; of those that grow most, made from their fields."""
    if kind is Job:
        fields = {field.name: _plain(field) for field in msgspec.structs.fields(Job)}
        return Job(**{**fields, "demand": Demand(500, 1), "tags": ("a", "b")})
    if kind is Progress:
        return Progress(lane=1, rank=100, size=10**8, first=State.BLOCKED, counts=list(range(11)))
    return EXAMPLES[kind]


def _plain(field: Any) -> Any:
    values = {str: "text", int: 7, bool: True, bytes: b"\xff\0"}
    return values.get(field.type, field.default if field.default is not msgspec.NODEFAULT else None)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_format_number_comes_first(table: Table[Any]) -> None:
    if issubclass(table.record, msgspec.Struct):
        raw = RECORDS[table].encode(example(table.record))
        assert msgspec.msgpack.decode(raw)[0] == table.record.__struct_config__.tag == 1


def test_an_index_without_a_record_takes_no_bytes() -> None:
    codec = RecordCodec(bool)
    assert codec.encode(True) == b""
    assert codec.decode(b"") is True


class V1(msgspec.Struct, array_like=True, tag=1):
    seconds: int


class V2(msgspec.Struct, array_like=True, tag=2):
    millis: int


class V3(msgspec.Struct, array_like=True, tag=3):
    millis: int
    name: str = "none"


class V3Longer(msgspec.Struct, array_like=True, tag=3):
    millis: int
    name: str = "none"
    extra: int = 7


def test_older_formats_are_read_and_turned_into_the_newest() -> None:
    older = ((V1, lambda old: V2(old.seconds * 1_000)), (V2, lambda old: V3(old.millis, "old")))
    codec = RecordCodec(V3, older)
    assert codec.decode(RecordCodec(V1).encode(V1(5))) == V3(5_000, "old")
    assert codec.decode(RecordCodec(V2).encode(V2(6))) == V3(6, "old")
    assert codec.decode(codec.encode(V3(7, "new"))) == V3(7, "new")


def test_a_field_added_at_the_end_needs_no_new_format() -> None:
    raw = RecordCodec(V3).encode(V3(1, "a"))
    assert RecordCodec(V3Longer).decode(raw) == V3Longer(1, "a", 7)


def test_a_token_of_an_older_release_is_read() -> None:
    raw = msgspec.msgpack.encode([1, b"d" * 32, "admin", "laptop", 5, 9, 0])
    assert RECORDS[TOKEN].decode(raw) == Token(b"d" * 32, "admin", "laptop", 5, 9)


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x91\x05", b"\x92\x01\x01\x01"])
def test_bytes_that_are_no_record_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        RecordCodec(V1, ((V2, V1),)).decode(raw)
