"""Entries: what each task of an array gets as its own input, from lines, a JSON array, or lists after `:::`.

Input is read in large blocks and cut into runs as they go over the wire, so that a million lines cost no more than
their bytes. A stream that is silent for a while gives an empty run: whoever uploads says then that it is still there.
"""

import os
import re
import select
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, product, starmap
from math import prod
from typing import Final

from tq import limits
from tq.cli.frame import values
from tq.cli.submitting import columns
from tq.client.sansio.runs import Runs, cut
from tq.errors import BadRequest, TooLarge

SEPARATOR: Final = ":::"
FOREIGN_SEPARATORS: Final = frozenset({":::+", "::::", "::::+"})
BY_LINES: Final = "a file has an entry on each line: `tq submit --each-line FILE -- COMMAND {}`"
_throttle_alone: Final = re.compile(r"%([0-9]{1,9})")


def split(words: Sequence[str], *, is_dashed: bool) -> tuple[list[str], list[list[str]]]:
    """Return the command, and the lists after `:::`. Only behind `--` is `:::` more than a word of the command.

    Raises BadRequest for lists as only GNU parallel has them, which would be taken for items.
    """
    parts: list[list[str]] = [[]]
    for word in words:
        if is_dashed and word == SEPARATOR:
            parts.append([])
        else:
            parts[-1].append(word)
    strange = next((word for items in parts[1:] for word in items if word in FOREIGN_SEPARATORS), "")
    if strange:
        raise BadRequest(
            f"there are no lists with {strange}, only with {SEPARATOR} (all their combinations)", hint=BY_LINES
        )
    return parts[0], parts[1:]


def throttle(text: str) -> int:
    """Return the N of `--array %N`, all that --array may say where the inputs decide how many tasks there are."""
    match = _throttle_alone.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise BadRequest(
            f"--array {text}: the inputs say how many tasks there are", hint="write --array %4 to run four at a time"
        )
    return int(match[1])


json_bytes_max: Final = 256 * limits.MIB
_BLOCK_BYTES: Final = 256 * limits.KIB
_SILENT_S: Final = 60.0


def from_lines(name: str, bytes_max: int, split: columns.Split | None = None, columns_min: int = 0) -> Runs:
    """Yield the lines of a file, or of stdin (`-`), without their newlines. Empty lines are entries, too.

    `split` takes them apart into columns, each at least `columns_min`; NUL is between them then.
    Raises BadRequest for a NUL byte, TooLarge for a line of more than `bytes_max`; both name the line.
    """
    fd = _open(name)
    try:
        lines = _lines(_blocks(fd, name), bytes_max)
        yield from cut(lines if split is None else _in_columns(split(lines), bytes_max, columns_min))
    finally:
        if fd:
            os.close(fd)


def from_json(name: str, bytes_max: int, is_plain: bool) -> Runs:
    """Yield the items of a JSON array: a string as its own text, everything else as compact JSON.

    `is_plain`: all of them as plain data, for a function.
    """
    import msgspec

    data = _read_all(name)
    try:
        items = msgspec.json.decode(data, type=list[msgspec.Raw])
    except msgspec.DecodeError as error:
        raise BadRequest(
            f"{_shown(name)} is not JSON array: {values.why_no_json(data, error)}",
            hint='write [ITEM, …], as in ["a", {"b": 1}]',
        ) from None
    made = starmap(_plain, enumerate(items, 1)) if is_plain else map(_text, items)
    yield from cut(_checked(made, "item", bytes_max, is_joined=is_plain))


def from_lists(lists: Sequence[Sequence[bytes]], bytes_max: int) -> Runs:
    """Yield all combinations of the lists, the last one changing fastest; the columns are separated by NUL."""
    for number, words in enumerate(lists, 1):
        if not words:
            raise BadRequest(f"there is nothing in list {number} of :::", hint="write ::: A B C")
    size = prod(map(len, lists))
    if size > limits.array_size_max:
        raise TooLarge(f"the lists make {size} tasks; array_size_max is {limits.array_size_max}")
    yield from cut(_checked(map(b"\0".join, product(*lists)), "combination", bytes_max, is_joined=True))


# ---------------------------------------------------------------- lines


def _lines(blocks: Iterable[bytes], bytes_max: int) -> Iterator[list[bytes]]:
    rest, number = b"", 1
    for block in blocks:
        if not block:
            yield []
            continue
        whole, newline, tail = block.rpartition(b"\n")
        if newline:
            batch = (rest + whole).split(b"\n")
            _check(batch, number, "line", bytes_max)
            yield batch
            number += len(batch)
            rest = tail
        else:
            rest += tail
        if len(rest) > bytes_max:
            raise _too_long("line", number, bytes_max)
    if rest:
        _check([rest], number, "line", bytes_max)
        yield [rest]


def _in_columns(rows: columns.Rows, bytes_max: int, columns_min: int) -> Iterator[list[bytes]]:
    number = 1
    for batch in columns.joined(rows, columns_min):
        if batch:
            _check(batch, number, "line", bytes_max, is_joined=True)
        yield batch
        number += len(batch)


def _blocks(fd: int, name: str) -> Iterator[bytes]:
    """Yield what comes, and b"" after each _SILENT_S without anything."""
    while True:
        try:
            if not select.select([fd], [], [], _SILENT_S)[0]:
                yield b""
                continue
            block = os.read(fd, _BLOCK_BYTES)
        except OSError as error:
            raise _unreadable(name, error) from None
        if not block:
            return
        yield block


def _open(name: str) -> int:
    if name == "-":
        return 0
    try:
        return os.open(os.path.expanduser(name), os.O_RDONLY | os.O_CLOEXEC)  # noqa: PTH111 - a name may be no UTF-8
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: Exception) -> BadRequest:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return BadRequest(f"cannot read {_shown(name)}: {reason}", hint="name a file, or - for standard input")


def _shown(name: str) -> str:
    return "standard input" if name == "-" else name


# ---------------------------------------------------------------- JSON, and what all share


def _read_all(name: str) -> bytes:
    fd = _open(name)
    data = bytearray()
    try:
        for block in _blocks(fd, name):
            data += block
            if len(data) > json_bytes_max:
                raise TooLarge(
                    f"{_shown(name)} has more than {json_bytes_max} bytes",
                    hint="write one JSON text a line, and use --each-line",
                )
    finally:
        if fd:
            os.close(fd)
    return bytes(data)


def _text(item: bytes) -> bytes:
    import msgspec

    raw = bytes(item)
    if raw.startswith(b'"'):
        return msgspec.json.decode(raw, type=str).encode()
    return msgspec.json.format(raw, indent=-1)


def _plain(number: int, item: bytes) -> bytes:
    import msgspec

    from tq.client.sansio.function_call import pack_entry

    entry = pack_entry(msgspec.json.decode(item))
    raw = bytes(item)
    if b"{" in raw:
        values.check_keys(raw, f"item {number}")
    return entry


def _checked(entries: Iterable[bytes], what: str, bytes_max: int, *, is_joined: bool = False) -> Iterator[list[bytes]]:
    entries = iter(entries)
    number = 1
    while batch := list(islice(entries, limits.entries_items_max)):
        _check(batch, number, what, bytes_max, is_joined=is_joined)
        yield batch
        number += len(batch)


def _check(batch: list[bytes], number: int, what: str, bytes_max: int, *, is_joined: bool = False) -> None:
    """Raise for the first entry that is too long or has a NUL byte (which separates the columns of joined ones)."""
    if max(map(len, batch)) > bytes_max:
        index = next(index for index, entry in enumerate(batch) if len(entry) > bytes_max)
        raise _too_long(what, number + index, bytes_max)
    if not is_joined and b"\0" in b"".join(batch):
        index = next(index for index, entry in enumerate(batch) if b"\0" in entry)
        raise BadRequest(f"{what} {number + index} contains a NUL byte", hint="no argument of a command can have one")


def _too_long(what: str, number: int, bytes_max: int) -> TooLarge:
    bound = "entry_bytes_max" if bytes_max == limits.entry_bytes_max else "what fits beside this command"
    return TooLarge(
        f"{what} {number} has more than {bytes_max} bytes ({bound})", hint="write the name of a file there instead"
    )
