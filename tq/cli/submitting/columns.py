"""Columns of lines: apart by a regular expression (`--colsep`), or as CSV has them (`--csv`)."""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from tq.errors import BadRequest

Lines = Iterator[list[bytes]]
Rows = Iterator[list[list[bytes]]]
Split = Callable[[Lines], Rows]

_FEW: Final = "`tq submit --dry-run` with the first few lines shows what becomes of them"
_CSV: Final = "columns are apart by commas; one that has a comma or a quote stands in quotes"
_HINT: Final = "as in --colsep '\\t', --colsep ', *' or --colsep '[|]'"


def chosen(each_line: str, colsep: str, csv: bool) -> Split | None:
    """Return what takes lines apart, batch by batch; None where each line is one column. Raises BadRequest."""
    if not (colsep or csv):
        return None
    option = "--csv" if csv else "--colsep"
    if colsep and csv:
        raise BadRequest("--colsep and --csv both say where columns end", hint="choose one of them")
    if not each_line:
        raise BadRequest(
            f"{option} is for the lines of --each-line", hint="add --each-line FILE, or - for standard input"
        )
    return _of_csv if csv else by_pattern(colsep)


def by_pattern(text: str) -> Split:
    """Return what takes lines apart at each match of a regular expression, that of Python, over bytes."""
    try:
        pattern = re.compile(os.fsencode(text))
    except re.error as error:
        raise BadRequest(f"--colsep {text!r} is not a regular expression: {error}", hint=_HINT) from None
    return lambda lines: ([pattern.split(line)[:: pattern.groups + 1] for line in batch] for batch in lines)


def joined(rows: Rows, columns_min: int) -> Lines:
    """Yield each row as an entry, its columns with NUL between. Raises BadRequest for a row with too few of them."""
    number = 1
    for batch in rows:
        for row in batch:
            if len(row) < columns_min:
                count = "1 column" if len(row) == 1 else f"{len(row)} columns"
                raise BadRequest(f"line {number} has {count}, and the command has {{{columns_min}}}", hint=_FEW)
            number += 1
        yield [b"\0".join(row) for row in batch]


def _of_csv(lines: Lines) -> Rows:
    """Yield the records of CSV (RFC 4180). One that has line ends within quotes goes over several lines."""
    import csv

    begun: list[bytes] = []  # of a record whose quotes are still open
    number = 1
    for batch in lines:
        if not batch:
            yield []
            continue
        begun += batch
        whole = _whole(begun)
        if whole:
            yield _records(csv, begun[:whole], number)
            number += whole
            del begun[:whole]
    if begun:
        raise BadRequest(f"a quote that line {number} opens is never closed", hint='within quotes "" is one quote')


def _whole(lines: list[bytes]) -> int:
    """Return how many of these lines end a record: those before which all quotes are closed."""
    whole, quotes = 0, 0
    for count, line in enumerate(lines, 1):
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            whole = count
    return whole


def _records(csv: Any, lines: list[bytes], number: int) -> list[list[bytes]]:
    reader = csv.reader((f"{os.fsdecode(line)}\n" for line in lines), strict=True)
    try:
        return [[os.fsencode(column) for column in row] or [b""] for row in reader]
    except csv.Error as error:
        raise BadRequest(f"line {number + reader.line_num - 1} is not CSV: {error}", hint=_CSV) from None
