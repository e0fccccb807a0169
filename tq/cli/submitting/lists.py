"""Lists behind a command, `::: a b ::: 1 2`, and how many of their tasks run at once. Pure."""

import re
from collections.abc import Sequence
from typing import Final

from tq.errors import BadRequest

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
