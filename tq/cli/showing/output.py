"""How results are printed: table, json, jsonl or ids. stdout is data; talk goes to stderr (context.say).

Every JSON object has `"v": 1` and may only grow. A table on a terminal is cut to its width, or printed row by row
where that would cut most of it, and everything in it is escaped; elsewhere nothing is cut.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from tq.cli.frame import context
from tq.cli.frame.context import Context, is_terminal, writing_stdout
from tq.cli.showing import escape

VERSION: Final = 1
_COLORS: Final = {
    "succeeded": "32",
    "running": "36",
    "dead": "31",
    "expired": "31",
    "retrying": "33",
    "cancelled": "35",
    "held": "33",
    "up": "32",
    "lost": "31",
    "suspect": "33",
    "draining": "33",
}
_WIDTH_MIN: Final = 10
_LAST_MAX: Final = 24  # columns that others are cut for, so that the last one says something;
_LAST_MIN: Final = 8  # with less than these nothing is cut
_CUT_MIN: Final = 14  # that are left of what is cut
_SAYS_NOTHING: Final = frozenset({"-", "default", ""})


def print_json(value: dict[str, Any]) -> None:
    """Print one object, with its version first."""
    text = json_text({"v": VERSION} | value)
    _write(escape.json(text) if is_terminal(sys.stdout) else text)


def print_items(
    context: Context, items: Sequence[dict[str, Any]], next_page: str, rows: Iterable[Sequence[str]]
) -> None:
    """Print many objects in the format asked for. `rows` is the table, its first row the head."""
    if context.format == "json":
        print_json({"items": items, "next": next_page or None})
    elif context.format == "jsonl":
        for item in items:
            print_json(item)
    elif context.format == "id":
        for item in items:
            _write(escape.line(str(item.get("id", ""))))
    else:
        print_table(context, list(rows))


def print_pages(
    context: Context,
    pages: Iterable[list[dict[str, Any]]],
    next_page: Callable[[], str],
    rows: Callable[[list[dict[str, Any]]], Sequence[Sequence[str]]],
    unread: Sequence[str] = (),
    *,
    what: str,
) -> None:
    """Print what comes in pages, each when it comes, with bounded memory: the one object of `json`, too.

    `rows` makes the table of a page; a later page's columns are at least as wide as those before it. `unread` grows
    meanwhile: ids of what could not be read. `what` they are called is said where there are none.
    """
    from tq.client.sansio import documents

    if context.format == "json":
        _print_json_pages(pages, next_page, unread)
        return
    widths: list[int] = []
    for page in pages:
        if not context.is_table:
            print_items(context, [documents.document(item) for item in page], "", ())
        else:
            widths = print_table(context, rows(page), widths)
    if context.is_table and not widths and not unread:
        context.talk(f"tq: no {what}")


def _print_json_pages(
    pages: Iterable[list[dict[str, Any]]], next_page: Callable[[], str], unread: Sequence[str]
) -> None:
    """Print one object piece by piece. Nothing of it stands there before the first page; who fails leaves it open."""
    from tq.client.sansio import documents

    safe: Callable[[str], str] = escape.json if is_terminal(sys.stdout) else str
    before = f'{{"v":{VERSION},"items":['
    for page in pages:
        for item in page:
            _write(before + safe(json_text(documents.document(item))), end="")
            before = ","
    rest = {"next": next_page() or None} | ({"unread": unread} if unread else {})
    _write(f"{before if before != ',' else ''}],{json_text(rest)[1:]}")


def print_one(context: Context, item: dict[str, Any], lines: Iterable[tuple[str, str]]) -> None:
    """Print one object in the format asked for. `lines` are the pairs of the table."""
    if context.is_json:
        print_json(item)
    elif context.format == "id":
        _write(escape.line(str(item.get("id", ""))))
    else:
        print_pairs(context, list(lines))


def print_table(context: Context, rows: Sequence[Sequence[str]], before: Sequence[int] = ()) -> list[int]:
    """Print rows in columns, the first as their head. Cells are escaped here: pass them as they came.

    `before` are the widths of a table that this one goes on, without another head. Returns the widths: 0 for a column
    that is empty, or says nothing and gave way on a narrow terminal. When it says something after all, there is
    another head.
    """
    cells = [[escape.line(cell) for cell in row] for row in rows]
    widths = [_size(column) for column in zip(*cells, strict=True)]
    dull = [_is_dull(cells, column) for column in range(len(widths))]
    width = terminal_width()
    if before and any(not size and not says_nothing for size, says_nothing in zip(before, dull, strict=True)):
        before = ()
    if before:
        widths = [max(pair) if pair[1] else 0 for pair in zip(widths, before, strict=True)]
    elif width and sum(widths) + 2 * (len(widths) - 1) > width:
        widths = [0 if says_nothing else size for size, says_nothing in zip(widths, dull, strict=True)]
    shown = [[cell for cell, size in zip(row, widths, strict=True) if size] for row in cells]
    sizes = [size for size in widths if size]
    _print_rows(context, shown, _cut(sizes, width) if width else sizes, width, has_begun=bool(before))
    return widths


def _cut(widths: list[int], width: int) -> list[int]:
    """Return the widths on a terminal: one long name must not push the command of every row over the edge.

    The widest columns give way, but neither the first, of the ids, nor the last; on a terminal that is too narrow none.
    """
    cut, last = list(widths), widths[-1]
    room = width - 2 * (len(widths) - 1) - min(last, _LAST_MAX)  # for all but the last
    while sum(cut[:-1]) > room:
        widest = max(range(1, len(cut) - 1), key=cut.__getitem__, default=0)
        if not widest or cut[widest] <= _CUT_MIN:
            break
        cut[widest] -= 1
    return cut if sum(cut[:-1]) <= room + min(last, _LAST_MAX) - min(last, _LAST_MIN) else widths


def _size(column: Sequence[str]) -> int:
    """Return how wide a column is, 0 for one with nothing below its head."""
    return max(map(_columns, column)) if len(column) == 1 or any(column[1:]) else 0


def _is_dull(cells: Sequence[Sequence[str]], column: int) -> bool:
    """Whether a column has nothing but dashes, or the default queue, below its head."""
    return len(cells) > 1 and all(row[column] in _SAYS_NOTHING for row in cells[1:])


def _print_rows(
    context: Context, cells: Sequence[Sequence[str]], widths: Sequence[int], width: int, *, has_begun: bool
) -> None:
    if width and _is_too_narrow(widths, width):
        _print_blocks(context, cells, width, has_begun=has_begun)
        return
    is_colored = context.is_colored  # once: it asks the environment
    for number, row in enumerate(cells):
        if has_begun and number == 0:
            continue
        fitted = [*map(_fitted, row[:-1], widths), row[-1]]
        padded = [cell + " " * (size - _columns(cell)) for cell, size in zip(fitted, widths, strict=True)]
        line = _fitted("  ".join(padded).rstrip(), width)
        _write(_painted(context, line, row, is_head=number == 0) if is_colored else line)


def _is_too_narrow(widths: Sequence[int], width: int) -> bool:
    """Whether half of the columns would begin behind the edge."""
    begins = [sum(widths[:column]) + 2 * column for column in range(len(widths))]
    return sum(begin >= width for begin in begins) * 2 >= len(widths)


def _print_blocks(context: Context, cells: Sequence[Sequence[str]], width: int, *, has_begun: bool) -> None:
    """Print each row as lines of `HEAD  value`, broken at the edge, with an empty line between rows."""
    head, *rows = cells
    room = max(width - max(map(len, head)) - 2, 1)
    for number, row in enumerate(rows):
        if number or has_begun:
            _write("")
        broken = ("\n".join(_broken(cell, room)) for cell in row)
        print_pairs(context, [pair for pair in zip(head, broken, strict=True) if pair[1]])


def _columns(text: str) -> int:
    """Return how many columns of a terminal a text takes: some characters take two, and some none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _fitted(text: str, room: int) -> str:
    """Return a text that takes at most so many columns, with a mark where it was cut; 0 = however many it has."""
    return _broken(text, room - 1)[0] + "…" if room and _columns(text) > room else text


def _broken(text: str, room: int) -> list[str]:
    """Return a text in pieces of at most so many columns."""
    if text.isascii():
        return [text[at : at + room] for at in range(0, len(text), room)]
    pieces, taken = [""], 0
    for char in text:
        size = _columns(char)
        if taken + size > room and pieces[-1]:
            pieces.append("")
            taken = 0
        pieces[-1] += char
        taken += size
    return pieces


def print_pairs(context: Context, pairs: Sequence[tuple[str, str]]) -> None:
    """Print `name  value` lines; a value of several lines is indented under its name."""
    wide = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        shown = escape.block(value).replace("\n", "\n" + " " * (wide + 2))
        label = name.ljust(wide)
        _write(f"{_paint(context, '1', label)}  {_paint(context, _COLORS.get(value, ''), shown)}".rstrip())


def print_line(text: str) -> None:
    """Print one line of data, escaped when it goes to a terminal, at once."""
    _write(escape.line(text))
    flush()


def flush() -> None:
    """Have what was printed arrive."""
    with writing_stdout():
        sys.stdout.flush()


def _painted(context: Context, line: str, row: Sequence[str], *, is_head: bool) -> str:
    if is_head:
        return _paint(context, "1", line)
    for cell in row:
        if cell in _COLORS:
            return line.replace(f" {cell}", " " + _paint(context, _COLORS[cell], cell), 1)
    return line


def _paint(context: Context, color: str, text: str) -> str:
    return f"\x1b[{color}m{text}\x1b[0m" if color and context.is_colored else text


def json_text(value: Any) -> str:
    """Return a value as JSON on one line."""
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, TypeError):
        import json  # lone surrogates in names of files: `\udcff` is what JSON has for them

        return json.dumps(value, separators=(",", ":"), default=str)


def _write(line: str, end: str = "\n") -> None:
    with writing_stdout():
        try:
            sys.stdout.write(line + end)
        except UnicodeEncodeError:
            sys.stdout.write(line.encode("ascii", "backslashreplace").decode("ascii") + end)


def terminal_width() -> int:
    """Return the width of the terminal on stdout, 0 when there is none."""
    if not is_terminal(sys.stdout):
        return 0
    from shutil import get_terminal_size

    return max(_WIDTH_MIN, get_terminal_size().columns)


class Ticker:
    """Where progress is shown; nothing where stderr is not a terminal, is told to be quiet, or cannot go back."""

    def __init__(self, *, is_quiet: bool) -> None:
        self.is_shown = not is_quiet and context.is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
        self.columns = context.columns(sys.stderr)
        self._is_drawn = False

    def draw(self, text: str) -> None:
        """Show `text` instead of what the line shows."""
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
        self._is_drawn = True

    def clear(self) -> None:
        """Leave the line empty."""
        if self._is_drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_drawn = False
