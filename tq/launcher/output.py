"""What is kept of one stream of an attempt's output: its head, and a ring of the last slots.

A stream is cut into slots of `output_slot_bytes`. The first `output_head_slots` stay; of the later ones only the last
`output_ring_slots`, so a child that writes for ever costs bounded memory. What falls out between the two is the
*dropped middle*; its size follows from the bytes written alone (`dropped_bytes`), so launcher, server and reader
agree on it without telling each other. No I/O here.
"""

from collections.abc import Iterator
from typing import Final

from tq import limits

SLOT: Final = limits.output_slot_bytes
HEAD: Final = limits.output_head_slots
RING: Final = limits.output_ring_slots
_KEPT: Final = (HEAD + RING) * SLOT


def dropped_bytes(written: int) -> int:
    """Return how many of `written` bytes are in no slot any more. Always whole slots, after the head."""
    if written <= _KEPT:
        return 0
    slots = -(-written // SLOT)
    return (slots - HEAD - RING) * SLOT


class Stream:
    """One stream. `written` counts all bytes, `pushed` those up to which everything kept has been sent."""

    __slots__ = ("_last", "_slots", "pushed", "written")

    def __init__(self) -> None:
        self.written = 0
        self.pushed = 0
        self._slots: dict[int, bytearray] = {}
        self._last = bytearray()

    @property
    def unpushed_bytes(self) -> int:
        """Bytes that came since the last push, the dropped ones among them included."""
        return self.written - self.pushed

    def add(self, data: bytes) -> None:
        """Append what was read."""
        begin, size = 0, len(data)
        while begin < size:
            used = self.written % SLOT
            if used == 0:
                self._open(self.written // SLOT)
            end = min(size, begin + SLOT - used)
            self._last += data if end - begin == size else data[begin:end]
            self.written += end - begin
            begin = end

    def _open(self, slot: int) -> None:
        self._last = bytearray()
        self._slots[slot] = self._last
        if slot - RING >= HEAD:
            del self._slots[slot - RING]

    def fresh(self) -> Iterator[tuple[int, bytes]]:
        """Take (offset, contents) of every kept slot with news, oldest first; each counts as pushed once taken.

        Stop taking, and the rest stays for the next time.
        """
        while self.pushed < self.written:
            slot = self._first_kept(self.pushed // SLOT)
            offset = slot * SLOT
            contents = bytes(self._slots[slot])
            self.pushed = offset + len(contents)
            yield offset, contents

    def _first_kept(self, slot: int) -> int:
        """Return `slot`, or the first slot of the ring if it was dropped already."""
        if slot in self._slots:
            return slot
        return (self.written - 1) // SLOT - RING + 1
