"""What no server has acknowledged, on the worker's disk: one file for each delivery.

    spool/000000000012            a report or a handback with its lineage, and what its attempts have written; msgpack
    spool/orphaned/<lineage>-...  those of a lineage that is no more: nobody waits for them, people may look

A file appears whole (written aside, fsync, rename, fsync of the directory) and goes when its delivery is acknowledged.
What should go to `orphaned` and cannot, since the disk has no room for that either, stays under its number.
What a crash left behind is presented again by the next worker on this directory; to present twice is harmless, since
the server knows an accepted report when it comes again. Results are as many as a worker may hold; output is bounded by
`spool_output_bytes_max`: beyond it a result is kept without. Blocking: called from a thread.
"""

from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tq.core.vocabulary import AttemptRef, End
from tq.errors import ConfigurationError
from tq.limits import spool_output_bytes_max
from tq.net.log import log
from tq.store import files
from tq.wire.messages import Ended, HandedBack, Output
from tq.worker.instructions import Aside, Delivery, Keep

_NUMBER_CHARS: Final = 12


class Kept(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The contents of a file: the store that waits for it, and a report (`ends`) or a handback (`attempts`)."""

    lineage: int
    ends: tuple[End, ...] = ()
    attempts: tuple[AttemptRef, ...] = ()
    cause: int = 0
    outputs: tuple[Output, ...] = ()

    def message(self, delivery: int) -> Delivery:
        """Return it as it is said to the server."""
        return HandedBack(delivery, self.attempts, self.cause) if self.attempts else Ended(delivery, self.ends)


class Left(NamedTuple):
    """What lies in a spool, by delivery, and the names of files that are damaged."""

    kept: dict[int, Kept]
    damaged: list[str]


class Spool:
    """The directory `path`, made when it is missing. `number_last` is the highest number that `load` found taken."""

    def __init__(self, path: Path, output_bytes_max: int = spool_output_bytes_max) -> None:
        self.path = path
        self._orphaned = path / "orphaned"
        self._output_bytes_max = output_bytes_max
        self._output_bytes: dict[int, int] = {}  # by delivery
        self.number_last = 0
        try:
            path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot make {path}: {error.strerror}") from error

    def load(self) -> Left:
        """Return what is here. Damaged files are set aside, half-written ones removed, as far as the disk lets us."""
        kept: dict[int, Kept] = {}
        damaged: list[str] = []
        for path in self._listed():
            if path.suffix == ".new":
                with suppress(OSError):
                    path.unlink()
            elif path.name.isdecimal():
                number = int(path.name)
                self.number_last = max(self.number_last, number)
                try:
                    kept[number] = msgspec.msgpack.decode(path.read_bytes(), type=Kept)
                except (msgspec.MsgspecError, OSError):
                    damaged.append(path.name)
                    with suppress(OSError):
                        path.rename(self._free_place(f"damaged-{path.name}"))
        self._output_bytes = {number: _size(one.outputs) for number, one in kept.items()}
        return Left(kept, damaged)

    def keep(self, lineage: int, deliveries: Sequence[Keep]) -> None:
        """Write these; they are on the disk when this returns. Raises OSError, once all that can be written are.

        Where there is no room for output, the disk's or the bound's, the result is kept alone.
        """
        failure: OSError | None = None
        for message, outputs in deliveries:
            if isinstance(message, Ended):
                kept = Kept(lineage, message.ends, outputs=outputs)
            else:
                kept = Kept(lineage, (), message.attempts, message.cause, outputs)
            try:
                self._output_bytes[message.delivery] = self._keep(message.delivery, kept)
            except OSError as error:
                failure = error
        files.sync_directory(self.path)
        if failure is not None:
            raise failure

    def _keep(self, delivery: int, kept: Kept) -> int:
        """Write one, without its output if need be; return how much of that was written."""
        size = _size(kept.outputs)
        if size and not self._has_room(size):
            kept, size = self._without_output(kept, "spool_output_bytes_max"), 0
        try:
            self._write(delivery, kept)
        except OSError as error:
            if not size:
                raise
            size = 0
            self._write(delivery, self._without_output(kept, str(error.strerror)))
        return size

    def forget(self, delivery: int) -> None:
        """Remove a delivery."""
        self._output_bytes.pop(delivery, None)
        self._file(delivery).unlink(missing_ok=True)

    def orphan(self, lineage: int, aside: Aside) -> Path:
        """Keep results of a lineage that is no more, if there is room with their output. Return the file."""
        if aside.delivery and self._file(aside.delivery).exists():  # else it found no room there
            return self.set_aside(aside.delivery, lineage)
        path = self._free_place(f"{lineage:016x}")
        kept = Kept(lineage, aside.ends, outputs=aside.outputs)
        try:
            files.replace(path, msgspec.msgpack.encode(kept))
        except OSError as error:
            if not kept.outputs:
                raise
            files.replace(path, msgspec.msgpack.encode(self._without_output(kept, str(error.strerror))))
        files.sync_directory(self._orphaned)
        return path

    def set_aside(self, delivery: int, lineage: int) -> Path:
        """Keep a file whose lineage is no more, with its output. Return where it is. Raises OSError: it stays here."""
        path = self._free_place(f"{lineage:016x}", delivery)  # mostly free: thousands may go aside at once
        self._file(delivery).rename(path)
        self._output_bytes.pop(delivery, None)
        return path

    def take_over(self, other: Path) -> int:
        """Move all that lies in another spool here, under numbers that are free; return how many. Raises OSError."""
        numbers = [int(path.name) for path in self.path.iterdir() if path.name.isdecimal()]
        found = sorted(path for path in other.iterdir() if path.name.isdecimal())
        for number, path in enumerate(found, max(numbers, default=0) + 1):
            path.rename(self._file(number))
        for directory in (self.path, other):
            files.sync_directory(directory)
        return len(found)

    def _listed(self) -> list[Path]:
        try:
            return sorted(self.path.iterdir())
        except OSError as error:
            raise ConfigurationError(f"cannot read {self.path}: {error.strerror}") from error

    def _has_room(self, size: int) -> bool:
        return sum(self._output_bytes.values()) + size <= self._output_bytes_max

    def _without_output(self, kept: Kept, why: str) -> Kept:
        log("spool_output_dropped", level="warning", bytes=_size(kept.outputs), why=why)
        return Kept(kept.lineage, kept.ends, kept.attempts, kept.cause)

    def _write(self, delivery: int, kept: Kept) -> None:
        files.replace(self._file(delivery), msgspec.msgpack.encode(kept))

    def _file(self, delivery: int) -> Path:
        return self.path / f"{delivery:0{_NUMBER_CHARS}}"

    def _free_place(self, stem: str, first: int = 1) -> Path:
        self._orphaned.mkdir(mode=0o700, exist_ok=True)
        places = (self._orphaned / f"{stem}-{number}" for number in count(first))  # people take some of them away
        return next(place for place in places if not place.exists())


def _size(outputs: Sequence[Output]) -> int:
    return sum(len(output.data) for output in outputs)
