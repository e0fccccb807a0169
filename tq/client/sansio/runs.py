"""Entries of an array as they go over the wire: in runs within the bounds, and as what a digest is made of. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from tq import limits
from tq.core.model.digest import digest_of
from tq.errors import KeyConflict, TooLarge

if TYPE_CHECKING:
    from tq.core.vocabulary import Submit

Runs = Iterator[tuple[bytes, ...]]


def cut(batches: Iterable[list[bytes]]) -> Runs:
    """Cut entries into runs of at most entries_items_max entries and entries_bytes_max bytes, each as full as it goes.

    An empty batch becomes an empty run. Raises TooLarge for more entries than an array may have.
    """
    waiting: list[bytes] = []
    size = 0
    for batch in batches:
        size += len(batch)
        if size > limits.array_size_max:
            raise TooLarge(
                f"more than {limits.array_size_max} entries (array_size_max)", hint="submit them in several arrays"
            )
        if not batch:
            yield ()
            continue
        waiting += batch
        at = 0
        while len(waiting) - at >= limits.entries_items_max:
            run = _first_run(waiting, at)
            yield run
            at += len(run)
        del waiting[:at]
        while sum(map(len, waiting)) > limits.entries_bytes_max:
            run = _first_run(waiting, 0)
            yield run
            del waiting[: len(run)]
    while waiting:
        run = _first_run(waiting, 0)
        yield run
        del waiting[: len(run)]


def _first_run(entries: list[bytes], at: int) -> tuple[bytes, ...]:
    run = tuple(entries[at : at + limits.entries_items_max])
    if sum(map(len, run)) <= limits.entries_bytes_max:
        return run
    size = 0
    for count, entry in enumerate(run):
        size += len(entry)
        if size > limits.entries_bytes_max:
            return run[:count]
    return run


def begun(request: "Submit") -> blake2b:
    """Return the digest that entries are added to: it begins with their request, since its key binds both.

    So entries that were begun under another command are noticed like other entries, before anything of them is sealed.
    """
    return blake2b(digest_of(request), digest_size=16)


def other_upload(key: str) -> KeyConflict:
    """Return what to raise where the digests differ."""
    return KeyConflict(
        f"other entries have been uploaded under the key {key!r}, or the same for another command",
        hint="use another key, or repeat the request as it was",
    )


def packed(items: Sequence[bytes]) -> bytes:
    """Return the entries so that each says where it ends, and nothing tells where their run began."""
    packed = msgspec.msgpack.encode(items)
    return packed[1 if len(items) < 16 else 3 :]
