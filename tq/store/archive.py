"""A backup as one file: a plain tar archive, whose last member has the SHA-256 of every other one.

    backup.json   format, versions, lineage, epoch and commit: what it is
    format        as in a data directory
    watermark
    identity/*    the CA and the local admin's token: it is as secret as the data directory
    db/*          a checkpoint of the database
    SHA256SUMS    `tar xf FILE && sha256sum -c SHA256SUMS` without tq says the same as reading it here

Written as a stream of known length, since it goes over a connection. Read with distrust: every name must be one of
these, every byte is compared, and the end must be where it belongs. Nothing here opens a database.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from tq import __version__
from tq.errors import ConfigurationError, StoreDamaged, StoreError
from tq.limits import MIB
from tq.store.directory import FORMAT as STORE_FORMAT
from tq.store.files import sync_directory, write_new

FORMAT: Final = 1
HEAD: Final = "backup.json"
SEAL: Final = "SHA256SUMS"
DATABASE_FILE: Final = re.compile(r"CURRENT|MANIFEST-\d{6,20}|\d{6,20}\.(sst|blob|log)")
_NAME: Final = re.compile(rf"backup\.json|format|watermark|identity/[a-z]+\.[a-z]+|db/(?:{DATABASE_FILE.pattern})")
_NEEDED: Final = (HEAD, "format", "watermark", "db/CURRENT")
_SUM: Final = re.compile(r"([0-9a-f]{64})  (\S+)")
_SEAL_BYTES_MAX: Final = 64 * MIB
_HEAD_BYTES_MAX: Final = 4_096
_BLOCK: Final = tarfile.BLOCKSIZE
_READ_BYTES: Final = 1 * MIB
_END: Final = bytes(2 * _BLOCK)


class Head(msgspec.Struct, frozen=True):
    """What a backup says of itself. `sequence` is the last commit in it; `made_ms` wall time."""

    format: int
    store_format: int
    version: str
    lineage: str
    epoch: int
    sequence: int
    made_ms: int


# ---------------------------------------------------------------- writing


class Archive:
    """An archive to be written: small members as bytes, and the files of a checkpoint, which nobody changes."""

    def __init__(self, head: Head, small: Mapping[str, bytes], checkpoint: Path) -> None:
        self._small = {HEAD: msgspec.json.format(msgspec.json.encode(head)), **small}
        found = sorted(path for path in checkpoint.iterdir() if DATABASE_FILE.fullmatch(path.name))
        self._files = [(f"db/{path.name}", path, path.stat().st_size) for path in found]
        sizes = {name: len(data) for name, data in self._small.items()}
        sizes |= {name: size for name, _, size in self._files}
        seal_bytes = sum(64 + 2 + len(name) + 1 for name in sizes)
        self.size_bytes = sum(_BLOCK + _padded(size) for size in (*sizes.values(), seal_bytes)) + len(_END)

    def blocks(self) -> Iterator[bytes]:
        """Yield the whole archive, `size_bytes` in all, in pieces of at most 1 MiB. Raises StoreError, OSError."""
        sums: list[str] = []
        for name, data in self._small.items():
            yield _member(name, data)
            sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
        for name, path, size in self._files:
            yield _header(name, size)
            digest = hashlib.sha256()
            left = size
            with path.open("rb") as file:
                while left and (block := file.read(min(_READ_BYTES, left))):
                    digest.update(block)
                    left -= len(block)
                    yield block
            if left:
                raise StoreError(f"the file {path} has become shorter while it was read")
            yield bytes(_padded(size) - size)
            sums.append(f"{digest.hexdigest()}  {name}\n")
        yield _member(SEAL, "".join(sums).encode()) + _END


def make_head(*, lineage: int, epoch: int, sequence: int, made_ms: int) -> Head:
    """Return the head of a backup that this version makes."""
    return Head(FORMAT, STORE_FORMAT, __version__, f"{lineage:016x}", epoch, sequence, made_ms)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _member(name: str, data: bytes) -> bytes:
    return _header(name, len(data)) + data + bytes(_padded(len(data)) - len(data))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o600
    return info.tobuf(tarfile.GNU_FORMAT)


# ---------------------------------------------------------------- reading


def check(path: Path) -> Head:
    """Read a whole backup, and return its head.

    Raises StoreDamaged if a byte is missing or wrong, ConfigurationError for another file or a newer format.
    """
    with _opened(path) as file:
        reader = _Reader(path, file)
        for _, blocks in reader.members():
            for _block in blocks:
                pass
    return reader.head


def unpack(path: Path, into: Path) -> Head:
    """Write the members of a backup into the empty directory `into`, durably. Raises as `check` does, and OSError."""
    with _opened(path) as file:
        reader = _Reader(path, file)
        for name, blocks in reader.members():
            target = into / name
            target.parent.mkdir(mode=0o700, exist_ok=True)
            write_new(target, blocks)
    for directory in (*(path for path in into.iterdir() if path.is_dir()), into):
        sync_directory(directory)
    return reader.head


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigurationError(f"the backup {path} cannot be read: {error.strerror}") from error


class _Reader:
    """Reads one archive, once, from the front."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._sums: dict[str, str] = {}
        self.head: Head

    def members(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield each member's name and contents, which must be read to their end before the next one is asked for."""
        self.head = self._read_head()
        self._file.seek(0)
        while True:
            name, size = self._read_header()
            if name == SEAL:
                break
            if not _NAME.fullmatch(name) or name in self._sums:
                raise self._damaged(f"it has a member {name[:100]!r}")
            self._sums[name] = ""
            yield name, self._contents(name, size)
            if not self._sums[name]:
                raise ValueError(f"{name} was not read to its end")
        self._check_seal(b"".join(self._take(size, _SEAL_BYTES_MAX)))
        self._skip_padding(size)
        if self._file.read(len(_END) + 1) != _END:
            raise self._damaged("it does not end where it should")

    def _read_head(self) -> Head:
        """Return what stands in front, before anything is believed."""
        other = ConfigurationError(f"{self._path} is not a backup of tq", hint="name a file that `tq backup` made")
        try:
            info = tarfile.TarInfo.frombuf(self._file.read(_BLOCK), "utf-8", "strict")
            if info.name != HEAD or info.size > _HEAD_BYTES_MAX:
                raise other
            head = msgspec.json.decode(self._file.read(info.size), type=Head)
        except (tarfile.TarError, ValueError):
            raise other from None
        if head.format > FORMAT or head.store_format > STORE_FORMAT:
            raise ConfigurationError(
                f"the backup {self._path} was made by tq {head.version[:40]} (formats {head.format} and "
                f"{head.store_format}); this is tq {__version__}, which knows {FORMAT} and {STORE_FORMAT}",
                hint="restore it with that version or a newer one",
            )
        return head

    def _read_header(self) -> tuple[str, int]:
        raw = self._file.read(_BLOCK)
        try:
            info = tarfile.TarInfo.frombuf(raw, "utf-8", "strict")
        except (tarfile.TarError, ValueError) as error:
            why = "it ends too early" if len(raw) < _BLOCK else f"a header is garbled ({error})"
            raise self._damaged(why) from None
        if not info.isreg() or info.size < 0:
            raise self._damaged(f"its member {info.name[:100]!r} is not a plain file")
        return info.name, info.size

    def _contents(self, name: str, size: int) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for block in self._take(size):
            digest.update(block)
            yield block
        self._skip_padding(size)
        self._sums[name] = digest.hexdigest()

    def _take(self, size: int, bytes_max: int | None = None) -> Iterator[bytes]:
        if bytes_max is not None and size > bytes_max:
            raise self._damaged(f"a member of {size} bytes is too large")
        left = size
        while left:
            block = self._file.read(min(_READ_BYTES, left))
            if not block:
                raise self._damaged("it ends too early")
            left -= len(block)
            yield block

    def _skip_padding(self, size: int) -> None:
        if len(self._file.read(_padded(size) - size)) != _padded(size) - size:
            raise self._damaged("it ends too early")

    def _check_seal(self, seal: bytes) -> None:
        lines = map(_SUM.fullmatch, seal.decode("ascii", "replace").splitlines())
        said = {found[2]: found[1] for found in lines if found}
        wrong = sorted(name for name in {*said, *self._sums} if said.get(name) != self._sums.get(name))
        if wrong:
            raise self._damaged(f"the bytes of {wrong[0][:100]!r} are not those that were written")
        missing = [name for name in _NEEDED if name not in said]
        if missing:
            raise self._damaged(f"{missing[0]} is missing")

    def _damaged(self, why: str) -> StoreDamaged:
        return StoreDamaged(f"the backup {self._path} is damaged: {why}", hint="take another one; nothing was changed")
