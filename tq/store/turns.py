"""The proof that no acknowledged turn is missing: turn keys in every family, and the watermark file.

RocksDB opens silently, in every recovery mode, when an *older* write-ahead log was deleted or cut at the end of a
record; several are alive at once, since the families' memtables differ in size. So each turn writes one small key into
every family, and a start demands the same run without a gap in all of them, up to the watermark at least. Once all
families were flushed at turn S, the keys up to S prove nothing any more: `Trimmer` has them deleted, `trimmed` says S.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from tq.errors import StoreDamaged
from tq.limits import wal_bytes_max
from tq.store import files

_TURNS: Final = 100_000
_EVERY_S: Final = 3_600.0


class Trimmer:
    """Says up to which turn the keys may be deleted. `flush` flushes all memtables and must not raise but return False.

    `wrote` and `take` belong to the thread that writes, `flushed` to the one that flushes the log.
    """

    def __init__(self, flush: Callable[[], bool], trimmed: int) -> None:
        self._flush = flush
        self._thread: threading.Thread | None = None
        self._ready = 0
        self._bytes = 0
        self._turn = trimmed
        self._at_s = time.monotonic()

    def wrote(self, size_bytes: int) -> None:
        """Note that so much went into the log."""
        self._bytes += size_bytes

    def flushed(self, sequence: int) -> None:
        """Begin to flush the memtables if it is time. Every turn up to `sequence` is written."""
        if not self._is_busy() and self._is_due(sequence):
            # A daemon like the committer's: a disk that never answers must not keep a failed server from exiting.
            thread = threading.Thread(target=self._run, args=(sequence,), name="tq-trim", daemon=True)
            with suppress(RuntimeError):  # too many processes here: the next turn asks again
                thread.start()
                self._thread = thread

    def take(self) -> int:
        """Return the turn up to which keys are to be deleted now, 0 for none; once."""
        turn, self._ready = self._ready, 0
        return turn

    def join(self) -> None:
        """Wait for a flush that is under way."""
        if self._thread is not None:
            self._thread.join()

    def _is_busy(self) -> bool:
        return self._ready > 0 or (self._thread is not None and self._thread.is_alive())

    def _is_due(self, sequence: int) -> bool:
        return (
            sequence - self._turn >= _TURNS
            or self._bytes >= wal_bytes_max
            or (sequence > self._turn and time.monotonic() - self._at_s >= _EVERY_S)
        )

    def _run(self, sequence: int) -> None:
        self._bytes, self._turn, self._at_s = 0, sequence, time.monotonic()
        if self._flush():
            self._ready = sequence


_mark: Final = Struct(">Q")
pack_turn: Final = Struct(">QQ").pack  # epoch, wall_ms
pack_trimmed: Final = _mark.pack

_SYNC_EVERY_S: Final = 1.0
TURNS_MAX: Final = 1 << 48  # one each microsecond, for nine years
BRING_BACK: Final = "bring back what was taken from the data directory, or a backup: tq restore; else: tq store salvage"


class Run(NamedTuple):
    """The turn keys of one family: all from `trimmed` + 1 to `last`, but the turns `gap` (first, last), if any."""

    trimmed: int
    last: int
    gap: tuple[int, int] | None = None


def read_run(trimmed: bytes | None, sequences: Iterable[int]) -> Run:
    """Return the run of a family from its trimmed mark and its turn keys in order. Stops at the first gap."""
    base: int = _mark.unpack(trimmed)[0] if trimmed else 0
    last = base
    for sequence in sequences:
        if sequence != last + 1:
            return Run(base, last, (last + 1, sequence - 1))
        last = sequence
    return Run(base, last)


def check_runs(runs: Mapping[str, Run], watermark: int) -> int:
    """Return the last turn of the store, or raise StoreDamaged that names what is missing, and where.

    Cut at the end of the newest log, all families end at the same turn, at or above the watermark: no damage.
    """
    last = max(run.last for run in runs.values())
    for family, run in runs.items():
        if run.gap is not None:
            raise _missing(*run.gap, f"family {family}")
        if run.last != last:
            raise _missing(run.last + 1, last, f"family {family}")
    if len({run.trimmed for run in runs.values()}) > 1:
        marks = ", ".join(f"{family} {run.trimmed}" for family, run in runs.items())
        raise StoreDamaged(f"the families begin their turns at different places: {marks}", hint=BRING_BACK)
    if last < watermark:
        raise _missing(last + 1, watermark, "all families")
    return last


def _missing(first: int, last: int, where: str) -> StoreDamaged:
    count = last - first + 1
    turns = f"turn {first} is" if count == 1 else f"{count} turns, {first} to {last}, are"
    return StoreDamaged(f"acknowledged work is missing: {turns} not in {where}", hint=BRING_BACK)


class Watermark:
    """The file that remembers the last durable turn, beside the database.

    Written by one `pwrite` after each flush (exact after the death of the process), synced once a second (at most a
    second old after a power cut). Not safe for two threads at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._synced_s = time.monotonic()
        self._dirty = False

    @staticmethod
    def create(path: Path) -> None:
        """Make the file, at turn 0, so that it is there whole or not at all."""
        files.replace(path, _mark.pack(0))

    def read(self) -> int:
        """Return the turn in the file. Raises StoreDamaged when it is not a whole number of 8 bytes."""
        raw = os.pread(self._fd, _mark.size + 1, 0)
        if len(raw) != _mark.size:
            raise StoreDamaged(f"the watermark file has {len(raw)} bytes instead of {_mark.size}", hint=BRING_BACK)
        sequence: int = _mark.unpack(raw)[0]
        return sequence

    def move(self, sequence: int) -> None:
        """Write the turn; sync if the last sync was a second ago. Raises OSError."""
        os.pwrite(self._fd, _mark.pack(sequence), 0)
        self._dirty = True
        if time.monotonic() - self._synced_s >= _SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Make the last move durable. Raises OSError."""
        if self._dirty:
            os.fdatasync(self._fd)
            self._dirty = False
        self._synced_s = time.monotonic()

    @property
    def is_in_place(self) -> bool:
        """Whether the file is still where it was opened: one that was removed can be written, and is lost."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._fd))
        except OSError:
            return False

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
