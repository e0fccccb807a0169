"""The digest of a submit: what tells a request from every other one under its key, in every release alike.

A release that adds a field must not take a repeated request for another one. So what the first release knew is digested
as it did it, as the msgpack of the whole; a later field counts by its name, and only where it is not at its default,
which is what an older release, that does not know it, has meant.

Every submit passes here: whole tuples are cut, no field is looked at by itself, and as long as there are no later ones
the whole is encoded as it stands (a third of the cost).

Who asks again does so later, and so in another trace: that is no part of what is asked for.
"""

from functools import cache
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec.structs import astuple

from tq.core.model.job import Demand

# How many fields are in it whatever they are. Never to be changed: every key of a store would become a conflict.
_FIRST: Final[dict[str, int]] = {"Submit": 25, "Demand": 3}


def digest_of(request: msgspec.Struct) -> bytes:
    """Return the digest of a request."""
    if getattr(request, "trace", ""):
        request = msgspec.structs.replace(request, trace="")
    later: dict[str, object] = {}
    first = request if _is_first(type(request)) else [type(request).__name__, *_first(request, later)]
    digest = blake2b(msgspec.msgpack.encode(first), digest_size=16)
    if later:
        digest.update(msgspec.msgpack.encode(later))
    return digest.digest()


@cache
def _is_first(kind: type[msgspec.Struct]) -> bool:
    """Whether such a request has nothing that the first release did not know."""
    kinds: list[type[msgspec.Struct]] = [kind]
    if any(field.type is Demand for field in msgspec.structs.fields(kind)):
        kinds.append(Demand)
    return all(len(one.__struct_fields__) == _FIRST[one.__name__] for one in kinds)


def _first(struct: msgspec.Struct, later: dict[str, object], within: str = "") -> list[object]:
    """Return the values that always count, with those of a demand among them; the others that are set go to `later`."""
    values = astuple(struct)
    count = _FIRST[type(struct).__name__]
    first = [_first(one, later, "demand.") if isinstance(one, msgspec.Struct) else one for one in values[:count]]
    defaults = struct.__struct_defaults__[count - len(values) :] if count < len(values) else ()
    if values[count:] != defaults:
        names = struct.__struct_fields__[count:]
        later |= {within + name: value for name, value, default in zip(names, values[count:], defaults, strict=True)
                  if value != default}  # fmt: skip
    return first
