"""Plain data: what goes in comes out, and everything else is refused with the reason."""

import enum
from collections import OrderedDict, namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tq import limits
from tq.errors import ProtocolError
from tq.wire import plain

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def dumps(value: object, bytes_max: int = 100_000) -> bytes:
    return plain.dumps(value, bytes_max, "some_max")


@given(VALUES)
def test_what_goes_in_comes_out(value):
    assert plain.loads(dumps(value)) == value


@given(st.binary(max_size=200))
def test_whatever_bytes_come_in_the_outcome_is_a_value_or_a_protocol_error(data):
    try:
        plain.loads(data)
    except ProtocolError:
        return


def test_kinds_of_plain_values_become_plain_values():
    class Colour(enum.IntEnum):
        RED = 1

    class Name(str):
        __slots__ = ()

    pair = namedtuple("pair", "a b")(1, 2)  # noqa: PYI024
    given_ = [Colour.RED, Name("n"), pair, OrderedDict(k=(1,))]

    assert plain.loads(dumps(given_)) == [1, "n", [1, 2], {"k": [1]}]


def cyclic() -> object:
    items: list[object] = []
    items.append(items)
    return items


def wide() -> object:
    items: list[object] = []
    for _ in range(30):
        items = [items] * 9
    return items


def deep(levels: int) -> object:
    items: list[object] = []
    for _ in range(levels - 1):
        items = [items]
    return items


@pytest.mark.parametrize(
    "value, why",
    [
        (2**63, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        ({1: 2}, "a key of a dict is int"),
        ({(): 2}, "tuple"),
        ({1, 2}, "set is not plain data"),
        (bytearray(b"x"), "bytearray"),
        (1j, "complex"),
        (object, "type is not plain data"),
        (["\udc80"], "no Unicode"),
        (cyclic(), "depth_max"),
        (deep(limits.depth_max), "depth_max"),
        (wide(), "too many"),
        ("x" * 200_000, "some_max is 100000"),
        (b"x" * 100_000, "some_max is 100000"),
    ],
)
def test_everything_else_says_what_is_wrong(value, why):
    with pytest.raises(plain.NotPlain, match=why):
        dumps([value] if not isinstance(value, list) else value)


def test_the_deepest_value_that_goes_in_comes_out():
    value = deep(limits.depth_max - 1)

    assert plain.loads(dumps(value)) == value
