"""Entries of an array as they go over the wire: in runs within the bounds, and as what a digest is made of. Pure."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from tq import limits

Runs = Iterator[tuple[bytes, ...]]


def cut(batches: Iterable[list[bytes]]) -> Runs:
    """Cut entries into runs of at most entries_items_max entries and entries_bytes_max bytes, each as full as it goes.

    An empty batch becomes an empty run.
    """
    waiting: list[bytes] = []
    for batch in batches:
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


def packed(items: Sequence[bytes]) -> bytes:
    """Return the entries so that each says where it ends, and nothing tells where their run began."""
    packed = msgspec.msgpack.encode(items)
    return packed[1 if len(items) < 16 else 3 :]
