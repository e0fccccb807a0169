"""Where the bytes that attempts print go: slots, and the cap that needs no deletes.

A stream is cut into slots of `output_slot_bytes`. The first `output_head_slots` are kept once and for all; every later
slot goes to a place in a ring of `output_ring_slots`, over the slot that stood there. So one attempt's output is
bounded however much it prints, and what is kept is its beginning and its end. A put carries the whole contents so far
of one slot: repeating it changes nothing.
"""

from collections.abc import Iterable
from struct import Struct
from typing import Final

from tq.errors import BadRequest, TooLarge
from tq.limits import output_head_slots, output_ring_slots, output_slot_bytes
from tq.store.keys import OUTPUT
from tq.store.seam import OutputSlot

Attempt = tuple[int, int, int, int]  # job, part, member, attempt

_offset: Final = Struct(">Q")
STREAMS: Final = (1, 2)


def place(offset: int) -> int:
    """Return the place, among those an attempt's stream has, of the slot that begins at byte `offset`."""
    slot = offset // output_slot_bytes
    if slot < output_head_slots:
        return slot
    return output_head_slots + (slot - output_head_slots) % output_ring_slots


def pack_slot(task: tuple[int, int, int], attempt: int, stream: int, offset: int, data: bytes) -> tuple[bytes, bytes]:
    """Return key and value of one slot's contents.

    Raises TooLarge past `output_slot_bytes`, BadRequest for an offset that begins no slot or an unknown stream.
    """
    if len(data) > output_slot_bytes:
        raise TooLarge(f"{len(data)} bytes of output in one slot exceed output_slot_bytes = {output_slot_bytes}")
    if offset % output_slot_bytes or not 0 <= offset < 1 << 63:
        raise BadRequest(f"output offset {offset} begins no slot of {output_slot_bytes} bytes")
    if stream not in STREAMS:
        raise BadRequest(f"output stream {stream} is neither 1 nor 2")
    return OUTPUT.pack(*task, attempt, stream, place(offset)), _offset.pack(offset) + data


Where = tuple[int, int]  # stream and offset of a slot


def slot_bounds(task: tuple[int, int, int], attempt: int, only: Where | None) -> tuple[bytes, bytes]:
    """Return the bounds (low, exclusive high) of the keys of an attempt's slots, or of the place of one of them."""
    if only is None:
        return OUTPUT.bound((*task, attempt)), OUTPUT.bound((*task, attempt + 1))
    stream, at = only[0], place(only[1])
    return OUTPUT.bound((*task, attempt, stream, at)), OUTPUT.bound((*task, attempt, stream, at + 1))


def unpack_slots(rows: Iterable[tuple[bytes, bytes]], only: Where | None = None) -> list[OutputSlot]:
    """Return the slots of these rows, ordered by stream and offset; of one that is sought, not what took its place."""
    slots = [
        OutputSlot(OUTPUT.unpack(key)[4], _offset.unpack_from(value)[0], value[_offset.size :]) for key, value in rows
    ]
    slots.sort()
    return slots if only is None else [slot for slot in slots if slot.offset == only[1]]
