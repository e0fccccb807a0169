import random
from itertools import product

import cbor2
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.wire.any_message import messages
from tq.core.vocabulary import AttemptRef
from tq.errors import ProtocolError
from tq.wire import codec, flat
from tq.wire.held import HeldSet, mix, tally
from tq.wire.messages import Acknowledged, Beat, Goodbye, Message

EDGES = [0, 23, 24, 255, 256, 2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**63 - 1]
INTEGERS = st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1)


def the_general_way(message: Message) -> bytes:
    return cbor2.dumps(msgspec.to_builtins(message, builtin_types=(bytes,)))


@given(messages)
def test_what_is_encoded_here_is_what_the_general_way_makes(message: Message) -> None:
    assert flat.encoded(message) in (None, the_general_way(message))


@given(st.builds(Beat, INTEGERS, INTEGERS, INTEGERS, INTEGERS))
@example(Beat(-1, -24, -25, -(2**63)))
def test_a_beat_is_one_of_them(beat: Beat) -> None:
    body = b"\x81" + the_general_way(beat)

    assert flat.encoded(beat) == body[1:]
    assert codec.decode(body) == [beat]
    assert flat.decoded(body) == (beat if min(msgspec.structs.astuple(beat)) >= 0 else None)


def test_others_are_left_to_the_general_way() -> None:
    assert flat.encoded(Goodbye("x")) is None
    assert flat.decoded(codec.encode([Goodbye("x")])) is None
    assert flat.decoded(codec.encode([Beat(), Beat()])) is None
    assert flat.decoded(b"\x81\x81\x64Beat") is None  # what is left out has its default
    assert flat.decoded(b"\x81\x86\x64Beat\x00\x00\x00\x00\x00") is None  # of a newer peer


@given(st.sampled_from([Beat(3, 2**40, 70_000, 300), Acknowledged(5)]).map(lambda m: codec.encode([m])), st.data())
def test_whatever_comes_is_taken_as_the_general_way_takes_it(body: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(body)))
    body = data.draw(st.sampled_from([body[:place], body + b"\x00", body[:place] + b"\x1b\xff" + body[place + 2 :]]))
    found = flat.decoded(body)
    try:
        items = cbor2.loads(body)
        general = codec.decode(codec.pack([[*items[0], 0]]))  # an item too many: never flat
    except (ProtocolError, cbor2.CBORError, TypeError, IndexError):
        general = []

    if found is not None:
        assert general == [found]


@pytest.mark.parametrize(
    "rest",
    [b"", b"\x18", b"\x1b" + b"\xff" * 8, b"\x1b\x80" + b"\x00" * 7, b"\x1c", b"\x20", b"\xf5", b"\x00\x00", b"\x41a"],
    ids=bytes.hex,
)
def test_what_is_no_integer_from_0_on_is_not_read_here(rest: bytes) -> None:
    assert flat.decoded(b"\x81\x82\x6cAcknowledged" + rest) is None


def test_integers_need_not_be_short() -> None:
    assert flat.decoded(b"\x81\x82\x6cAcknowledged\x1b" + b"\x00" * 7 + b"\x05") == Acknowledged(5)


def test_order_plays_no_part() -> None:
    refs = [AttemptRef(job, 0, member, 1, 7) for job, member in product(range(5), range(9))]
    shuffled = refs[:]
    random.Random(3).shuffle(shuffled)
    assert tally(refs) == tally(shuffled)
    assert tally([]) == (0, 0)


def test_each_field_counts() -> None:
    fields = list(product(range(3), repeat=5))
    assert len({mix(AttemptRef(*five)) for five in fields}) == len(fields)


def test_two_sets_of_one_size_differ() -> None:
    left = [AttemptRef(1, 0, member, 1, 7) for member in (0, 3)]
    right = [AttemptRef(1, 0, member, 1, 7) for member in (1, 2)]
    assert tally(left) != tally(right)


def test_the_formula_is_part_of_the_protocol() -> None:
    assert mix(AttemptRef(42, 0, 6, 1, 1000)) == 17394727907420720668


def test_the_wire_takes_the_digest() -> None:
    digests = [tally([AttemptRef(job, 1, 10**8, 3, 2**50)])[1] for job in range(64)]
    assert max(digests) < 2**63 < 2 * max(digests)


def test_a_set_keeps_its_tally_whatever_comes_and_goes() -> None:
    dice = random.Random(5)
    kept, plain = HeldSet(), set[AttemptRef]()
    for _ in range(300):
        refs = [AttemptRef(1, 0, dice.randrange(40), 1, 7) for _ in range(dice.randrange(6))]
        if dice.random() < 0.5:
            kept.update(refs)
            plain.update(refs)
        else:
            kept.difference_update(refs)
            plain.difference_update(refs)
        assert kept.tally == tally(plain)
        assert set(kept) == plain
