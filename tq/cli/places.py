"""The placeholders of a command, `{} {1} {2} {#}`: they stand for a task's entry where a job has inputs.

A worker puts the entries in (worker/program.py); here is checked, before anything is sent, that each place has
something to stand for. Without inputs they are plain text: `find . -exec cat {} +` stays what it is.
"""

import os
import re
from collections.abc import Sequence
from typing import Final

from tq import limits
from tq.errors import BadRequest
from tq.wire.body import Body

SEPARATOR: Final = ":::"
FOREIGN_SEPARATORS: Final = frozenset({":::+", "::::", "::::+"})
BY_LINES: Final = "a file has an entry on each line: `tq submit --each-line FILE -- COMMAND {}`"
_NUMBERED: Final = re.compile(rb"\{([1-9][0-9]*)\}")
_ANY: Final = re.compile(rb"\{(?:[1-9]?|#)\}")
_numbered_max: Final = 9
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


def check(argv: Sequence[bytes], columns: int) -> None:
    """Raise BadRequest for a placeholder that no column fills."""
    for word in argv:
        for match in _NUMBERED.finditer(word):
            if int(match[1]) > min(columns, _numbered_max):
                place = match[0].decode()
                have = "an entry has one column" if columns == 1 else f"there are {columns} lists"
                raise BadRequest(
                    f"nothing stands for {place}: {have}",
                    hint=f"write {{}} or {{1}}{f' to {{{min(columns, _numbered_max)}}}' if columns > 1 else ''}; "
                    f"for a literal {place} put the command into a script",
                )


def bytes_max(body: Body, packed_bytes: int) -> int:
    """Return how long an entry may be, so that it fits beside this body, and into each argument that it is put in."""
    room = min(limits.entry_bytes_max, limits.body_bytes_max - packed_bytes)
    for word in body.argv:
        places = len(_ANY.findall(word))
        if places:
            room = min(room, (limits.argument_bytes_max - len(word)) // places)
    return max(room, 0)


def throttle(text: str) -> int:
    """Return the N of `--array %N`, all that --array may say where the inputs decide how many tasks there are."""
    match = _throttle_alone.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise BadRequest(
            f"--array {text}: the inputs say how many tasks there are", hint="write --array %4 to run four at a time"
        )
    return int(match[1])


def has_any(word: str) -> bool:
    """Whether an entry would be put into this word."""
    return _ANY.search(os.fsencode(word)) is not None
