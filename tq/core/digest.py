"""The digest of a submit: what tells a request from every other one under its key, in every release alike.

A release that adds a field must not take a repeated request for another one. So what the first release knew is digested
as it did it, as the msgpack of the whole; a later field counts by its name, and only where it is not at its default,
which is what an older release, that does not know it, has meant.
"""

from functools import cache
from hashlib import blake2b
from typing import Final

import msgspec

from tq.core.job import Demand
from tq.core.vocabulary import Submit

# How many fields are in it whatever they are. Never to be changed: every key of a store would become a conflict.
_FIRST: Final[dict[str, int]] = {Submit.__name__: 25, Demand.__name__: 3}


def digest_of(request: msgspec.Struct) -> bytes:
    """Return the digest of a request."""
    digest = blake2b(msgspec.msgpack.encode([type(request).__name__, *_first(request)]), digest_size=16)
    later = _later(request)
    if later:
        digest.update(msgspec.msgpack.encode(later))
    return digest.digest()


def _first(struct: msgspec.Struct) -> list[object]:
    """Return the values that always count; a demand among them as such a list, too."""
    values = [getattr(struct, name) for name, _ in _fields(type(struct))[0]]
    return [_first(value) if isinstance(value, Demand) else value for value in values]


def _later(struct: msgspec.Struct) -> dict[str, object]:
    """Return by name what was added later and is not at its default; a demand's under `demand.`."""
    first, later = _fields(type(struct))
    found = {name: getattr(struct, name) for name, default in later if getattr(struct, name) != default}
    for name, _ in first:
        value = getattr(struct, name)
        if isinstance(value, Demand):
            found |= {f"{name}.{inner}": one for inner, one in _later(value).items()}
    return found


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[tuple[str, object], ...], tuple[tuple[str, object], ...]]:
    """Return the fields of a struct, with their defaults: those that always count, and the later ones."""
    fields = tuple((field.name, field.default) for field in msgspec.structs.fields(kind))
    return fields[: _FIRST[kind.__name__]], fields[_FIRST[kind.__name__] :]
