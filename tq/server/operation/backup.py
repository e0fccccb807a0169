"""Backups of a running server: a checkpoint of the store, sent to the client that asked, and gone afterwards.

DATA/backup holds the checkpoint meanwhile: hard links to table files, which cost no room until the database has
rewritten them. One backup at a time. What a killed server leaves there is removed at the next start.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from tq.core.model import tables
from tq.core.vocabulary import BackupPart, Times
from tq.errors import NotDone, StoreError
from tq.limits import KIB, output_frame_bytes_max
from tq.net.thread import in_thread, is_lack
from tq.server.sessions.session_context import Send
from tq.store.archive import Archive, make_head
from tq.store.directory import Room
from tq.store.disk import DiskStore

NAME: Final = "backup"
_PART_BYTES: Final = output_frame_bytes_max - 1 * KIB
_IDENTITY: Final = ("ca.pem", "ca.key", "admin.token")


class Backups:
    """The backups of one store. `times` dates them; `room` says how much the disk has left."""

    def __init__(self, store: DiskStore, times: Callable[[], Times], room: Callable[[], Room]) -> None:
        self._store = store
        self._times = times
        self._room = room
        self._place = store.data / NAME
        self._is_busy = False

    async def run(self, send: Send) -> None:
        """Make one and send it, part after part; the last one with `more` False. Raises NotDone."""
        if self._is_busy:
            raise NotDone("another backup is being made", hint="try again when it is done")
        if self._room() is Room.CRITICAL:
            raise NotDone("the server's disk is too full for a backup", hint="free some space there and try again")
        self._is_busy = True
        try:
            await self._run(send)
        except (StoreError, OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_lack(error):
                raise
            raise NotDone(f"the backup was not made: {error}", hint="see to the server's disk") from error
        finally:
            with trio.CancelScope(shield=True):
                await in_thread(clear, self._store.data)
            self._is_busy = False

    async def _run(self, send: Send) -> None:
        await in_thread(clear, self._store.data)
        # What the checkpoint finds in memory it writes on this thread, while everybody waits.
        await trio.to_thread.run_sync(self._store.flush_memtables)
        sequence = self._store.checkpoint(self._place)
        archive = self._archive(sequence)
        offset = 0
        parts = _parts(archive.blocks())
        while (part := await trio.to_thread.run_sync(next, parts, None)) is not None:
            for at in range(0, len(part), _PART_BYTES):
                data = part[at : at + _PART_BYTES]
                more = offset + len(data) < archive.size_bytes
                await send(BackupPart(offset, data, archive.size_bytes, sequence), more=more)
                offset += len(data)

    def _archive(self, sequence: int) -> Archive:
        """Describe what is sent; on the loop's thread, right behind the checkpoint: the counters are those in it."""
        data, meta = self._store.data, self._store.get(tables.META, ())
        lineage, epoch = (meta.lineage, meta.epoch) if meta is not None else (0, 0)
        head = make_head(lineage=lineage, epoch=epoch, sequence=sequence, made_ms=self._times().wall_ms)
        small = {"format": (data / "format").read_bytes(), "watermark": sequence.to_bytes(8, "big")}
        for name in _IDENTITY:  # an administrator's own certificate (--cert) is not ours to pack
            with suppress(FileNotFoundError):
                small[f"identity/{name}"] = (data / "identity" / name).read_bytes()
        return Archive(head, small, self._place)


def _parts(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield blocks without the empty ones: many small members would else cost a change of threads each."""
    pending: list[bytes] = []
    size = 0
    for block in blocks:
        pending.append(block)
        size += len(block)
        if size >= 16 * _PART_BYTES:
            yield b"".join(pending)
            pending.clear()
            size = 0
    if size:
        yield b"".join(pending)


def clear(data: Path) -> None:
    """Remove the checkpoint of a backup that is over, or of a server that was killed in one."""
    for name in (NAME, f"{NAME}.tmp"):  # RocksDB fills the second, then renames it
        shutil.rmtree(data / name, ignore_errors=True)
