"""What a call of a function sends: its arguments, checked before that; and what its worker says of a failure. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tq import limits
from tq.errors import BadRequest, ProtocolError
from tq.wire import codec, plain
from tq.wire.body import Usage

_HINT = "send text, numbers, lists and maps; of everything else the name of a file"


def pack(positional: Sequence[Any], named: Mapping[str, Any] | None) -> bytes:
    """Return the arguments of a call as a body has them. Raises BadRequest unless they are plain data."""
    try:
        by_name = dict(() if named is None else named)
    except (TypeError, ValueError):
        raise BadRequest(
            f"kwargs is a map by name, and not {type(named).__name__}", hint='as in kwargs={"b": 2}'
        ) from None
    try:
        return plain.dumps([list(positional), by_name], limits.body_bytes_max, "body_bytes_max")
    except plain.NotPlain as error:
        raise BadRequest(f"the arguments cannot be sent: {error}", hint=_HINT) from None


def pack_entry(item: Any, bytes_max: int = limits.entry_bytes_max) -> bytes:
    """Return one member's own argument, of at most so many bytes. Raises BadRequest unless it is plain data."""
    bound = "entry_bytes_max" if bytes_max == limits.entry_bytes_max else "the room beside the other arguments"
    try:
        return plain.dumps(item, bytes_max, bound)
    except plain.NotPlain as error:
        raise BadRequest(f"an item cannot be sent: {error}", hint=_HINT) from None


def reason(usage: bytes) -> str:
    """Return what a worker said about an attempt that did not end as it should, "" for nothing."""
    try:
        return codec.loads(usage, Usage).error if usage else ""
    except ProtocolError:
        return ""
