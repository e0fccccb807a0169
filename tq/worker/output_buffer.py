"""Output of attempts on its way to the server: kept until nothing more is owed for its attempt.

The launcher sends the contents of a slot and then knows nothing of them; a connection may lose them. So the latest
contents of every slot stay here, by their place (the head's slots as they are, later ones in a ring, as at the
server), and go out again on the next connection, before the report of the end. Over the bound the oldest places
that are no head go, of whatever attempt: their bytes are then a gap for the reader, if a connection breaks as well.
Pure: no I/O.
"""

from collections.abc import Iterable
from typing import Final

from tq import limits
from tq.core.vocabulary import AttemptRef
from tq.store.output import place
from tq.wire.messages import Output

kept_bytes_max: Final = 64 * limits.MIB

_Key = tuple[AttemptRef, int, int]  # attempt, stream, place


class OutputBuffer:
    """The latest contents of slots, and which of them this connection has not carried."""

    def __init__(self, bytes_max: int = kept_bytes_max) -> None:
        self._bytes_max = bytes_max
        self._keys: dict[AttemptRef, set[_Key]] = {}
        self._slots: dict[_Key, Output] = {}
        self._unsent: dict[_Key, None] = {}
        self.held_bytes = 0
        self.dropped_bytes = 0

    def has_any_of(self, attempts: Iterable[AttemptRef]) -> bool:
        """Whether one of these attempts has had output, which may still be on its way."""
        keys = self._keys
        return bool(keys) and any(ref in keys for ref in attempts)

    def of(self, attempts: Iterable[AttemptRef]) -> tuple[Output, ...]:
        """Return all that is kept of these attempts."""
        if not self._keys:
            return ()
        return tuple(
            self._slots[key] for ref in attempts for key in sorted(self._keys.get(ref, ())) if key in self._slots
        )

    def put(self, output: Output) -> None:
        """Keep the contents so far of one slot."""
        key = (output.attempt, output.stream, place(output.offset))
        before = self._slots.pop(key, None)  # so that the new one stands last
        if before is not None:
            self.held_bytes -= len(before.data)
        self._slots[key] = output
        self._unsent.pop(key, None)  # as above: who follows sees offsets that grow
        self._unsent[key] = None
        self._keys.setdefault(output.attempt, set()).add(key)
        self.held_bytes += len(output.data)
        if self.held_bytes > self._bytes_max:
            self._shrink()

    def take(self) -> Output | None:
        """Return the next contents that this connection has not carried, and count them as carried."""
        for key in self._unsent:
            del self._unsent[key]
            return self._slots[key]
        return None

    def new_connection(self) -> None:
        """Nothing has been carried by the connection that begins."""
        self._unsent = dict.fromkeys(self._slots)

    def forget(self, attempts: Iterable[AttemptRef]) -> None:
        """Drop what was kept for these: nothing more is owed."""
        for ref in attempts:
            for key in self._keys.pop(ref, ()):
                self._drop(key)

    def _shrink(self) -> None:
        """Drop the oldest places behind the heads; heads as well when nothing else is left."""
        for spare_heads in (True, False):
            for key in list(self._slots):
                if self.held_bytes <= self._bytes_max:
                    return
                if not (spare_heads and key[2] < limits.output_head_slots):
                    self.dropped_bytes += len(self._slots[key].data)
                    self._drop(key)

    def _drop(self, key: _Key) -> None:
        output = self._slots.pop(key, None)
        if output is not None:
            self.held_bytes -= len(output.data)
            self._unsent.pop(key, None)
