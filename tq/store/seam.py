"""The seam between the server and whatever remembers: RocksDB (rocks.py) or a sorted dict (memory.py).

One contract suite runs against both (tests/store). Nothing of rocksdict appears here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from tq.core.model.view import Changes, View


class OutputSlot(NamedTuple):
    """The contents of one slot of one stream: `data` begins at byte `offset` of the stream."""

    stream: int
    offset: int
    data: bytes


class Store(View, Protocol):
    """A durable, ordered map of typed tables. Raises StoreError once, and then for ever (docs/store-format.md)."""

    def write(self, changes: Changes, *, sequence: int, epoch: int, wall_ms: int) -> None:
        """Write one turn's changes as one batch, with its turn key in every family. Not yet durable."""
        ...

    def flush(self, sequence: int) -> None:
        """Make everything written so far durable (called in the committer thread), then move the watermark."""
        ...

    def put_output(self, task: tuple[int, int, int], attempt: int, stream: int, offset: int, data: bytes) -> None:
        """Write one slot's contents (bounds of limits.py enforced here). Durable with the next flush."""
        ...

    def output(
        self, task: tuple[int, int, int], attempt: int, only: tuple[int, int] | None = None
    ) -> Sequence[OutputSlot]:
        """Return the stored slots of an attempt, ordered by stream and offset; or `only` the one at (stream, offset).

        One whose place a later slot has taken is not there any more.
        """
        ...

    def statistics(self) -> dict[str, Any]:
        """Return plain figures about sizes, memory and settings."""
        ...

    def close(self) -> None:
        """Close; after a clean close no WAL is left to trust. The committer must have ended before."""
        ...
