"""The placeholders of a command, `{} {1} {2} {#}`: they stand for a task's entry where a job has inputs. Pure.

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

_NUMBERED: Final = re.compile(rb"\{([1-9][0-9]*)\}")
_ANY: Final = re.compile(rb"\{(?:[1-9]?|#)\}")
_numbered_max: Final = 9


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


def has_any(word: str) -> bool:
    """Whether an entry would be put into this word."""
    return _ANY.search(os.fsencode(word)) is not None
