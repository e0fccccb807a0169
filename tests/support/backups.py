"""Backups for tests: of a store without a server, and what two stores have in common."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support.store import commit, disk_store, read_store, some_changes
from tq.core.model.job import Meta
from tq.core.model.tables import META
from tq.store.archive import Archive, make_head
from tq.store.disk import DiskStore
from tq.store.keys import FAMILIES, KEYS, TRIMMED_KEY

IDENTITY = {"identity/ca.pem": b"a certificate", "identity/ca.key": b"a key"}


def make_backup(data: Path, target: Path, turns: int = 5) -> None:
    """Make a store of so many turns in `data`, and its backup."""
    with disk_store(data) as store:
        for number in range(1, turns + 1):
            changes = some_changes(number, padding=200)
            commit(store, {**changes, META: {(): Meta(9, epoch=3, sequence=number, steady_ms=5, wall_ms=6)}})
        store.put_output((1, 0, 0), 1, 1, 0, b"printed" * 500)
        pack(store, target)


def pack(store: DiskStore, target: Path, small: Mapping[str, bytes] = IDENTITY) -> int:
    """Write a backup of an open store; return the commit that it stands at."""
    place = store.data / "checkpoint"
    sequence = store.checkpoint(place)
    meta = store.get(META, ())
    head = make_head(lineage=meta.lineage if meta else 0, epoch=3, sequence=sequence, made_ms=1)
    own = {"format": (store.data / "format").read_bytes(), "watermark": sequence.to_bytes(8, "big")}
    packed = Archive(head, {**own, **small}, place)
    with target.open("wb") as sink:
        sink.writelines(packed.blocks())
    assert target.stat().st_size == packed.size_bytes
    shutil.rmtree(place)
    return sequence


def rows(data: Path) -> dict[str, list[tuple[bytes, bytes]]]:
    """Return every row of a store, but turn keys and its counters."""
    meta = KEYS[META].pack()
    with read_store(data) as store:
        return {
            family: [row for row in store.raw_rows(family, TRIMMED_KEY + b"\0", 10_000_000) if row[0] != meta]
            for family in FAMILIES
        }


def tree(place: Path) -> list[str]:
    """Return the names of everything below a directory."""
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))
