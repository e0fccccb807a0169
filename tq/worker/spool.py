"""Results that no server has acknowledged, on the worker's disk: one file for each delivery.

    spool/000000000012            a report: lineage and ends, msgpack
    spool/orphaned/<lineage>-...  results of a lineage that is no more: nobody waits for them, people may look

A file appears whole (written aside, fsync, rename, fsync of the directory) and goes when its delivery is
acknowledged. What a crash left behind is presented again by the next worker on this directory; to present twice is
harmless, since the server knows an accepted report when it comes again. Blocking: called from a thread.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tq.core.vocabulary import End
from tq.errors import ConfigurationError
from tq.store import files

_NUMBER_CHARS: Final = 12


class Report(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The contents of a file: the store that waits for the results, and the results."""

    lineage: int
    ends: tuple[End, ...]


class Left(NamedTuple):
    """What lies in a spool: results by delivery with their lineage, and the names of files that are damaged."""

    reports: dict[int, Report]
    damaged: list[str]


class Spool:
    """The directory `path`, made when it is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._orphaned = path / "orphaned"
        try:
            path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot make {path}: {error.strerror}") from error

    def load(self) -> Left:
        """Return what is here. Damaged files are set aside, half-written ones removed."""
        reports: dict[int, Report] = {}
        damaged: list[str] = []
        for path in sorted(self.path.iterdir()):
            if path.suffix == ".new":
                path.unlink()
            elif path.name.isdecimal():
                try:
                    reports[int(path.name)] = msgspec.msgpack.decode(path.read_bytes(), type=Report)
                except (msgspec.MsgspecError, OSError):
                    damaged.append(path.name)
                    self._aside(path)
        return Left(reports, damaged)

    def keep(self, lineage: int, reports: Sequence[tuple[int, tuple[End, ...]]]) -> None:
        """Write these deliveries; they are on the disk when this returns. Raises OSError."""
        for delivery, ends in reports:
            files.replace(self._file(delivery), msgspec.msgpack.encode(Report(lineage, ends)))
        files.sync_directory(self.path)

    def forget(self, delivery: int) -> None:
        """Remove a delivery."""
        self._file(delivery).unlink(missing_ok=True)

    def orphan(self, lineage: int, ends: tuple[End, ...]) -> Path:
        """Keep results of a lineage that is no more. Return the file."""
        self._orphaned.mkdir(mode=0o700, exist_ok=True)
        number = sum(1 for _ in self._orphaned.iterdir()) + 1
        path = self._orphaned / f"{lineage:016x}-{number}"
        files.replace(path, msgspec.msgpack.encode(Report(lineage, ends)))
        files.sync_directory(self._orphaned)
        return path

    def _file(self, delivery: int) -> Path:
        return self.path / f"{delivery:0{_NUMBER_CHARS}}"

    def _aside(self, path: Path) -> None:
        self._orphaned.mkdir(mode=0o700, exist_ok=True)
        path.rename(self._orphaned / f"damaged-{path.name}")
