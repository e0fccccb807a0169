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
_NUMBERED: Final = re.compile(rb"\{([1-9][0-9]*)\}")
_ANY: Final = re.compile(rb"\{(?:[1-9]?|#)\}")
_numbered_max: Final = 9
_throttle_alone: Final = re.compile(r"%([0-9]{1,9})")


def split(words: Sequence[str], *, is_dashed: bool) -> tuple[list[str], list[list[str]]]:
    """Return the command, and the lists after `:::`. Only behind `--` is `:::` more than a word of the command."""
    parts: list[list[str]] = [[]]
    for word in words:
        if is_dashed and word == SEPARATOR:
            parts.append([])
        else:
            parts[-1].append(word)
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


def hint(words: Sequence[str], columns: int, *, is_dashed: bool) -> str:
    """Return a hint about inputs or places that are probably not meant as they stand, "" else."""
    if not columns:
        if SEPARATOR in words and not is_dashed:
            return f"hint: {SEPARATOR} is a word of this command; to give it lists, write -- before the command"
        return ""
    if not any(_ANY.search(os.fsencode(word)) or "TQ_ENTRY" in word for word in words):
        return "hint: the command has no {}: its tasks find their entries in TQ_ENTRY only"
    return ""
