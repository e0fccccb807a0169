"""What no server has acknowledged, on the worker's disk: one file for each delivery.

    spool/000000000012            a report or a handback with its lineage, and what its attempts have written: msgpack,
                                  then its CRC-32, so that a flipped bit is no other result. Files of before there
                                  was one begin otherwise, and are read, too
    spool/orphaned/<lineage>-...  those of a lineage that is no more: nobody waits for them, people may look

A file appears whole (written aside, fsync, rename, fsync of the directory) and goes when its delivery is acknowledged.
Where there is no room for the directory it is made with the first of them: a worker starts on a full disk, too.
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
from zlib import crc32

import msgspec
from msgspec.structs import replace

from tq.core.vocabulary import AttemptRef, End
from tq.errors import ConfigurationError
from tq.limits import spool_output_bytes_max
from tq.net.log import log
from tq.store import files
from tq.wire.messages import Ended, HandedBack, Output
from tq.worker.instructions import Aside, Delivery, Keep

_NUMBER_CHARS: Final = 12
_SUM_BYTES: Final = 4
_WITHOUT_SUM: Final = (b"\x93", b"\x96")  # arrays of three or six; whoever writes a sum writes `worker`, too


class Kept(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The contents of a file: the store that waits for it, and a report (`ends`) or a handback (`attempts`).

    `worker` is who kept it, for whom its heir must speak: 0 = not said.
    """

    lineage: int
    ends: tuple[End, ...] = ()
    attempts: tuple[AttemptRef, ...] = ()
    cause: int = 0
    outputs: tuple[Output, ...] = ()
    worker: int = 0
    error: str = ""  # of a handback

    def message(self, delivery: int) -> Delivery:
        """Return it as it is said to the server."""
        if not self.attempts:
            return Ended(delivery, self.ends)
        return HandedBack(delivery, self.attempts, self.cause, self.error)


class Damaged(Exception):
    """A file is not what was written."""


def packed(kept: Kept) -> bytes:
    """Return the contents of a file."""
    data = msgspec.msgpack.encode(kept)
    return data + crc32(data).to_bytes(_SUM_BYTES, "big")


def unpacked(raw: bytes) -> Kept:
    """Return what a file says. Raises Damaged."""
    data, found = raw[:-_SUM_BYTES], raw[-_SUM_BYTES:]
    if crc32(data).to_bytes(_SUM_BYTES, "big") != found:
        if not raw.startswith(_WITHOUT_SUM):
            raise Damaged("its checksum is another one")
        data = raw
    try:
        return msgspec.msgpack.decode(data, type=Kept)
    except msgspec.MsgspecError as error:
        raise Damaged(str(error)) from error


class Left(NamedTuple):
    """What lies in a spool, by delivery, and the names of files that are damaged, or cannot be read now."""

    kept: dict[int, Kept]
    damaged: list[str]
    unread: list[str]


class Spool:
    """The directory `path`, used by `worker`. `number_last` is the highest number that `load` found taken."""

    def __init__(self, path: Path, worker: int = 0, *, output_bytes_max: int = spool_output_bytes_max) -> None:
        self.path = path
        self._worker = worker
        self._orphaned = path / "orphaned"
        self._output_bytes_max = output_bytes_max
        self._output_bytes: dict[int, int] = {}  # by delivery
        self._unwritten: dict[int, tuple[int, Keep]] = {}  # what there was no room for, with its lineage
        self.number_last = 0
        with suppress(OSError):
            self._make()

    @property
    def behind(self) -> int:
        """How many could not be written: `catch_up` tries again."""
        return len(self._unwritten)

    def load(self) -> Left:
        """Return what is here. Damaged files are set aside, half-written ones removed, as far as the disk lets us.

        What cannot be read now stays: the next start may read it. Raises TqError.
        """
        left = Left({}, [], [])
        try:
            listed = self.listed()
        except OSError as error:
            raise ConfigurationError(f"cannot read {self.path.resolve()}: {error.strerror}") from error
        for path in listed:
            if path.suffix == ".new":
                with suppress(OSError):
                    path.unlink()
            elif path.name.isdecimal():
                self._load(path, left)
        self._output_bytes = {number: _size(one.outputs) for number, one in left.kept.items()}
        return left

    def _load(self, path: Path, left: Left) -> None:
        number = int(path.name)
        self.number_last = max(self.number_last, number)
        try:
            left.kept[number] = unpacked(path.read_bytes())
        except OSError:
            left.unread.append(path.name)
        except Damaged:
            left.damaged.append(path.name)
            with suppress(OSError):
                path.rename(self._free_place(f"damaged-{path.name}"))

    def keep(self, lineage: int, deliveries: Sequence[Keep]) -> None:
        """Write these; they are on the disk when this returns. Raises OSError, once all that can be written are.

        Where there is no room for output, the disk's or the bound's, the result is kept alone.
        """
        self._write_all([(lineage, one) for one in deliveries])

    def catch_up(self) -> int:
        """Write what could not be written; return how many that were. Raises as `keep` does."""
        late = list(self._unwritten.values())
        self._write_all(late)
        return len(late)

    def _write_all(self, deliveries: Sequence[tuple[int, Keep]]) -> None:
        self._unwritten.update((one.message.delivery, (lineage, one)) for lineage, one in deliveries)
        failure: OSError | None = None
        written: list[int] = []
        self._make()
        for lineage, one in deliveries:
            delivery = one.message.delivery
            try:
                self._output_bytes[delivery] = self._keep(delivery, _kept(lineage, one, self._worker))
            except OSError as error:
                failure = error
            else:
                written.append(delivery)
        files.sync_directory(self.path)
        for delivery in written:
            del self._unwritten[delivery]
        if failure is not None:
            raise failure

    def _keep(self, delivery: int, kept: Kept) -> int:
        """Write one, without its output if need be; return how much of that was written."""
        size, why = _size(kept.outputs), ""
        if size and not self._has_room(size):
            why = "spool_output_bytes_max"
        else:
            try:
                self._write(delivery, kept)
            except OSError as error:
                if not size:
                    raise
                why = str(error.strerror)
        if not why:
            return size
        self._write(delivery, _alone(kept))
        _say_dropped(size, why)
        return 0

    def forget(self, delivery: int) -> None:
        """Remove a delivery."""
        self._output_bytes.pop(delivery, None)
        self._unwritten.pop(delivery, None)
        self._file(delivery).unlink(missing_ok=True)

    def orphan(self, lineage: int, aside: Aside) -> Path:
        """Keep results of a lineage that is no more, if there is room with their output. Return the file."""
        if aside.delivery and self._file(aside.delivery).exists():  # else it found no room there
            return self.set_aside(aside.delivery, lineage)
        self._unwritten.pop(aside.delivery, None)
        path = self._free_place(f"{lineage:016x}")
        kept = Kept(lineage, aside.ends, outputs=aside.outputs)
        try:
            files.replace(path, packed(kept))
        except OSError as error:
            if not kept.outputs:
                raise
            files.replace(path, packed(_alone(kept)))
            _say_dropped(_size(kept.outputs), str(error.strerror))
        files.sync_directory(self._orphaned)
        return path

    def set_aside(self, delivery: int, lineage: int) -> Path:
        """Keep a file whose lineage is no more, with its output. Return where it is. Raises OSError: it stays here."""
        path = self._free_place(f"{lineage:016x}", delivery)  # mostly free: thousands may go aside at once
        self._file(delivery).rename(path)
        self._output_bytes.pop(delivery, None)
        self._unwritten.pop(delivery, None)
        return path

    def take_over(self, other: "Spool") -> int:
        """Move all that lies in another spool here, under numbers that are free; return how many. Raises OSError."""
        found = [path for path in other.listed() if path.name.isdecimal()]
        if found:
            self._make()
            numbers = [int(path.name) for path in self.listed() if path.name.isdecimal()]
            for number, path in enumerate(found, max(numbers, default=0) + 1):
                path.rename(self._file(number))
            for spool in (self, other):
                files.sync_directory(spool.path)
        return len(found)

    def listed(self) -> list[Path]:
        """Return what lies here, in order. Raises OSError."""
        try:
            return sorted(self.path.iterdir())
        except FileNotFoundError:
            return []

    def _make(self) -> None:
        files.make_directory(self.path)

    def _has_room(self, size: int) -> bool:
        return sum(self._output_bytes.values()) + size <= self._output_bytes_max

    def _write(self, delivery: int, kept: Kept) -> None:
        files.replace(self._file(delivery), packed(kept))

    def _file(self, delivery: int) -> Path:
        return self.path / f"{delivery:0{_NUMBER_CHARS}}"

    def _free_place(self, stem: str, first: int = 1) -> Path:
        files.make_directory(self._orphaned)
        places = (self._orphaned / f"{stem}-{number}" for number in count(first))  # people take some of them away
        return next(place for place in places if not place.exists())


def _size(outputs: Sequence[Output]) -> int:
    return sum(len(output.data) for output in outputs)


def _kept(lineage: int, keep: Keep, worker: int) -> Kept:
    message, outputs = keep
    if isinstance(message, Ended):
        return Kept(lineage, message.ends, outputs=outputs, worker=worker)
    return Kept(lineage, (), message.attempts, message.cause, outputs, worker, message.error)


def _alone(kept: Kept) -> Kept:
    return replace(kept, outputs=())


def _say_dropped(size: int, why: str) -> None:
    log("spool_output_dropped", level="warning", bytes=size, why=why)
