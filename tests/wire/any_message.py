"""Strategies for messages: any message that the types in tq/wire/messages.py allow, derived from those types."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from tq.wire.messages import Message

INT64 = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def of_type(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.IntType():
            return INT64
        case inspect.StrType():
            return st.text(max_size=20)
        case inspect.BytesType():
            return st.binary(max_size=40)
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.AnyType():
            return JSON
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(of_type, items))
        case inspect.VarTupleType(item_type=item):
            return st.lists(of_type(item), max_size=4).map(tuple)
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(of_type(key), of_type(value), max_size=3)
        case inspect.UnionType(types=types):
            return st.one_of(*map(of_type, types))
        case inspect.StructType(cls=made, fields=fields):
            return st.tuples(*(of_type(field.type) for field in fields)).map(lambda values: made(*values))
        case _:
            raise AssertionError(f"no strategy for {kind}: the wire has a new kind of value")


KINDS: list[type[msgspec.Struct]] = [kind.cls for kind in inspect.type_info(Message).types]  # type: ignore[union-attr]
messages = of_type(inspect.type_info(Message))
