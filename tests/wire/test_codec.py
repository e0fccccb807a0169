import cbor2
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from tests.wire.any_message import INT64, KINDS, messages, of_type
from tq import limits
from tq.core import vocabulary as v
from tq.errors import ProtocolError
from tq.wire import codec, flat
from tq.wire.body import Body, Usage, dump, is_beyond, packed
from tq.wire.messages import (
    Acknowledged,
    Ask,
    Assign,
    Beat,
    Ended,
    GetCA,
    Hello,
    Message,
    Output,
    ReconcileAgain,
    Reply,
)

REF = v.AttemptRef(42, 0, 6, 1, 7_000)


@pytest.mark.parametrize(
    "message,there",
    [
        (GetCA(), "8165476574 4341"),
        (ReconcileAgain(), "816e5265636f6e63696c65416761696e"),
        (Beat(2, 258), "856442656174021901020000"),
        (Acknowledged(24), "826c41636b6e6f776c65646765641818"),
        (Ask(1, v.Cancel(("42", "43.7"))), "8363 41736b 01 85 66 43616e63656c 82 62 3432 64 34332e37 f6 f4 00"),
        (
            Ended(3, (v.End(REF, 0, -9, 1_500, b"\x00"),)),
            "83 65 456e646564 03 81 86 85 182a 00 06 01 19 1b58 00 28 19 05dc 41 00 40",
        ),
        (Output(REF, 2, 16_384, b"hi"), "85 66 4f7574707574 85 182a 00 06 01 191b58 02 19 4000 42 6869"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, msgspec.Struct) else "",
)
def test_these_messages_are_these_bytes(message: Message, there: str) -> None:
    body = b"\x81" + bytes.fromhex(there)

    assert codec.encode([message]) == body
    assert codec.decode(body) == [message]


@given(st.lists(messages, min_size=1, max_size=4))
def test_what_is_sent_is_what_arrives(sent: list[Message]) -> None:
    assert codec.decode(codec.encode(sent)) == sent


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_survives_the_way(kind: type[msgspec.Struct]) -> None:
    @settings(max_examples=10)
    @given(of_type(inspect.type_info(kind)))
    def check(message: Message) -> None:
        assert codec.decode(codec.encode([message])) == [message]

    check()


@given(st.lists(messages, min_size=1, max_size=3))
def test_messages_encoded_one_by_one_make_the_same_array_as_together(sent: list[Message]) -> None:
    assert codec.encode(sent) == cbor2.dumps(msgspec.to_builtins(sent, builtin_types=(bytes,)))


@pytest.mark.parametrize("count", [0, 1, 23, 24, 255, 256, 65_535, 65_536])
def test_the_head_of_an_array_is_the_shortest(count: int) -> None:
    assert cbor2.dumps([0] * count).startswith(codec.array_head(count))
    assert len(codec.array_head(count)) == len(cbor2.dumps([0] * count)) - count


@pytest.mark.parametrize("number", [0, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1])
def test_a_natural_number_is_packed_as_any_value(number: int) -> None:
    assert flat.unsigned(number) == codec.pack(number)


HOSTILE = {
    "nothing": b"",
    "a number": b"\x01",
    "a map": b"\xa0",
    "no message": b"\x80",
    "an empty message": b"\x81\x80",
    "a message that is not an array": b"\x81\x01",
    "a message by a map": b"\x81\xa1\x64type\x64Beat",
    "an unknown message": b"\x81\x81\x64Foo!",
    "a name as bytes": b"\x81\x81\x44Beat",
    "an item too few": b"\x82\x81\x64Beat",
    "something after the end": b"\x81\x81\x64Beat\x00",
    "a second frame inside": b"\x81\x81\x64Beat\x81\x81\x64Beat",
    "a cut string": b"\x81\x81\x64Bea",
    "an array of 2^63": b"\x9b" + b"\x7f" + b"\xff" * 7,
    "a map of 2^64": b"\xbb" + b"\xff" * 8,
    "a string of 2^63": b"\x5b" + b"\x7f" + b"\xff" * 7,
    "a text of 2^32": b"\x7a" + b"\xff" * 4,
    "an indefinite array": b"\x9f\x81\x64Beat\xff",
    "an indefinite message": b"\x81\x9f\x64Beat\xff",
    "an indefinite text": b"\x81\x81\x7f\x64Beat\xff",
    "a break": b"\x81\xff",
    "a break for an item": b"\x82\x81\x64Beat\xff",
    "a reserved head": b"\x81\x81\x1c",
    "a self-described frame": b"\xd9\xd9\xf7\x81\x81\x64Beat",
    "a shared array that holds itself": b"\xd8\x1c\x81\xd8\x1d\x00",
    "a regular expression": b"\x81\x82\x64Beat\xd8\x23\x63(a+",
    "a number of 4,000 bytes": b"\x81\x82\x64Beat\xc2\x59\x0f\xa0" + b"\xff" * 4_000,
    "an integer of 2^63": b"\x81\x82\x64Beat\x1b\x80" + b"\x00" * 7,
    "an integer of 2^64 - 1": b"\x81\x82\x64Beat\x1b" + b"\xff" * 8,
    "an integer of -2^63 - 1": b"\x81\x82\x64Beat\x3b\x80" + b"\x00" * 7,
    "a float for an integer": b"\x81\x82\x64Beat\xf9\x3c\x00",
    "a bool for an integer": b"\x81\x82\x64Beat\xf5",
    "null for an integer": b"\x81\x82\x64Beat\xf6",
    "undefined": b"\x81\x82\x64Beat\xf7",
    "a simple value": b"\x81\x82\x64Beat\xf8\xff",
    "text for bytes": b"\x81\x82\x62CA\x61a",
    "bytes for text": b"\x81\x82\x67Goodbye\x41a",
    "text that is not UTF-8": b"\x81\x82\x67Goodbye\x61\xff",
    "half of a surrogate pair": b"\x81\x82\x67Goodbye\x63\xed\xa0\x80",
    "a pair of three": b"\x81\x85\x65Hello\x83\x01\x01\x01\x60\x60\x60",
    "a command that is no client's": b"\x81\x83\x63Ask\x01\x81\x64Tick",
    "nested arrays": b"\x81" * 40 + b"\x00",
    "very deeply nested arrays": b"\x81" * 100_000 + b"\x00",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(body)


@pytest.mark.parametrize(
    "document",
    [
        b"\xa1\x61a\xf7",  # undefined
        b"\xa1\x61a\xe0",  # a simple value
        b"\xa1\x61a\x81\xf9\x7e\x00",  # not a number, deep inside
        b"\xa1\x61a\xf9\x7c\x00",  # infinity
        b"\xa1\x61a\xa1\x41b\x00",  # a key of bytes
        b"\xa2\x61a\x01\x61a\x02",  # a key twice
        b"\xa1\x01\x02",  # a key that is a number
        b"\xa1\xf9\x7e\x00\x02",  # a key that is not even equal to itself
        b"\xa1\x80\x02",  # a key that is an array
        b"\xa1\x61a\x1b" + b"\xff" * 8,
        b"\xa1\x61a\xa1\x61b\x3b" + b"\xff" * 8,
        b"\xa1\x61a\xc1\x00",  # a date
        b"\xa1\x61a" + b"\x81" * 40 + b"\x00",
    ],
    ids=lambda body: body.hex()[:20],
)
def test_a_document_holds_nothing_but_plain_values(document: bytes) -> None:
    head = b"\x81\x83\x65Reply\x01"
    assert codec.decode(head + b"\x82\x68Document\xa1\x61a\x82\xfb\x3f\xf8" + b"\0" * 6 + b"\xf6")

    with pytest.raises(ProtocolError):
        codec.decode(head + b"\x82\x68Document" + document)
    with pytest.raises(ProtocolError):
        codec.decode(head + b"\x82\x64Page\x81" + document)


def test_documents_are_the_only_values_without_a_type() -> None:
    """The codec looks into Document and Page itself, since the schema does not: a third one would pass unseen."""

    def untyped(kind: inspect.Type, path: tuple[str, ...]) -> set[str]:
        match kind:
            case inspect.AnyType():
                return {path[-1]}
            case inspect.StructType(cls=cls, fields=fields):
                return {name for field in fields for name in untyped(field.type, (*path, cls.__name__))}
            case inspect.UnionType(types=types) | inspect.TupleType(item_types=types):
                return {name for one in types for name in untyped(one, path)}
            case inspect.VarTupleType(item_type=item):
                return untyped(item, path)
            case inspect.DictType(key_type=key, value_type=value):
                return untyped(key, path) | untyped(value, path)
            case _:
                return set()

    assert untyped(inspect.type_info(Message), ()) == {"Document", "Page"}


def test_every_tag_is_refused() -> None:
    """Also those that cbor2 decodes by itself without asking `tag_hook`, in this version and in the next."""
    tags = [*range(66_000), 2**32 - 1, 2**63, 2**64 - 1]

    assert [tag for tag in tags if not is_refused(cbor2.dumps(cbor2.CBORTag(tag, 0)))] == []


def is_refused(item: bytes) -> bool:
    try:
        codec.unpack(item)
    except ProtocolError:
        return True
    return False


@given(INT64)
@example(2**63 - 1)
@example(-(2**63))
def test_every_int64_passes(number: int) -> None:
    assert codec.decode(codec.encode([Beat(number)])) == [Beat(number)]


@pytest.mark.parametrize("digits", [b"\x1b\x82", b"\x3b\xff", b"\x1b" * 9 + b"\x80"])
def test_a_string_may_look_like_an_integer_that_is_too_large(digits: bytes) -> None:
    assign = Assign(1, 2, 3, True, "q", "", digits, 0, (v.Assignment(REF, 27),))
    sent: list[Message] = [Output(REF, 1, 0, digits), assign]

    assert codec.decode(codec.encode(sent)) == sent


def test_new_fields_at_the_end_are_ignored() -> None:
    assert codec.decode(b"\x81\x87\x64Beat\x01\x02\x03\x04\x05\xa1\x61x\x80") == [Beat(1, 2, 3, 4)]


def test_the_depth_that_is_allowed_is_the_one_of_the_limits() -> None:
    head = b"\x81\x83\x65Reply\x01\x82\x68Document\xa1\x61a"  # 4 containers deep
    deepest = b"\x81" * (limits.depth_max - 4) + b"\x00"

    assert codec.decode(head + deepest)
    with pytest.raises(ProtocolError, match="depth"):
        codec.decode(head + b"\x81" + deepest)


@pytest.mark.parametrize(
    "body",
    [
        b"\x81\x81\x58\x30tqa_aaaaaaaaaa_sesamesesamesesamesesamesesamesesa",
        b"\x81\x81\x78\x30tqa_aaaaaaaaaa_sesamesesamesesamesesamesesamesesa",
        b"\x81\xa2\x66sesame\x01\x66sesame\x02",
        b"\x81\x82\x67Goodbye\x46sesame",
    ],
)
def test_an_error_does_not_repeat_what_the_peer_sent(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.decode(body)

    assert "sesame" not in str(caught.value)


def test_an_error_names_the_unknown_message() -> None:
    with pytest.raises(ProtocolError, match="'Levitate'"):
        codec.decode(b"\x81\x81\x68Levitate")


@settings(max_examples=500)
@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_a_protocol_error(body: bytes) -> None:
    outcome(body)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid frame with some bytes changed, taken out, put in, or repeated."""
    body = bytearray(codec.encode(draw(st.lists(messages, min_size=1, max_size=3))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        end = draw(st.integers(at, min(len(body), at + 9)))
        body[at:end] = draw(st.binary(max_size=3) | st.sampled_from(HEADS) | st.just(bytes(body[at:end]) * 2))
    return bytes(body)


HEADS = [bytes([head]) for head in (0x1B, 0x3B, 0x5F, 0x7F, 0x9B, 0x9F, 0xBF, 0xC2, 0xD8, 0xF7, 0xF8, 0xF9, 0xFB, 0xFF)]


@settings(max_examples=1_000)
@given(mutated())
def test_a_damaged_frame_is_messages_or_a_protocol_error(body: bytes) -> None:
    outcome(body)


def outcome(body: bytes) -> None:
    """Decode: any exception but ProtocolError fails the test; messages must be sound enough to be sent again."""
    try:
        found = codec.decode(body)
    except ProtocolError:
        return
    assert codec.decode(codec.encode(found)) == found


@given(of_type(inspect.type_info(Body)), of_type(inspect.type_info(Usage)))
def test_opaque_parts_survive_the_way(body: Body, usage: Usage) -> None:
    assert codec.loads(codec.dumps(body), Body) == body
    assert codec.loads(codec.dumps(usage), Usage) == usage


@given(of_type(inspect.type_info(Usage)))
def test_usage_is_packed_as_any_record(usage: Usage) -> None:
    natural = [abs(number) for number in (usage.user_us, usage.system_us, usage.peak_kib)]
    usage = Usage(*natural, *msgspec.structs.astuple(usage)[3:])
    assert packed(usage) == codec.dumps(usage)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x82\x81\x41a\x41/\x00",  # one byte too many
        b"\x82\x81\x61a\x41/",  # text for bytes
        b"\x81\x81\x41a",  # no directory
        b"\x83\x81\x41a\x41/\xa2\x61A\x41b\x61A\x41c",  # one name twice
        b"\x83\x81\x41a\x41/\xa1\x41A\x41b",  # a name of bytes
        b"\x85\x81\x41a\x41/\xa0\x40\x1b" + b"\xff" * 8,
        b"\xc1\x82\x81\x41a\x41/",
    ],
    ids=lambda data: data.hex()[:24],
)
def test_a_hostile_body_is_refused(data: bytes) -> None:
    assert codec.loads(b"\x82\x81\x41a\x41/", Body) == Body((b"a",), b"/")

    with pytest.raises(ProtocolError):
        codec.loads(data, Body)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_body_or_a_protocol_error(data: bytes) -> None:
    try:
        codec.loads(data, Body)
    except ProtocolError:
        return


def test_what_a_client_says_first_fits_the_bound_before_authentication() -> None:
    hello = Hello((1, 1), "tq 0.1.0", "t" * 190, "worker", 2**62, 2**62, 2**62, 2**62, ("a-feature",) * 10)

    assert len(codec.encode([hello])) < limits.frame_hello_bytes_max


def test_a_reply_carries_bytes_as_bytes() -> None:
    chunk = Reply(1, v.Chunk(1, 0, b"\xff\x00"))

    assert b"\x42\xff\x00" in codec.encode([chunk])


@pytest.mark.parametrize(
    "body", [Body((), b""), Body((b"a",), b"/"), Body((b"a",), b"/", {"A": b"1"}, has_tmpdir=True)]
)
def test_a_body_is_as_long_as_what_it_says(body: Body) -> None:
    data = dump(body)
    assert codec.loads(data, Body) == body
    assert not is_beyond(data)
    assert len(codec.unpack(data)) == (15 if body.has_tmpdir else 2)
    assert is_beyond(codec.pack([*codec.unpack(codec.dumps(body)), 1]))
