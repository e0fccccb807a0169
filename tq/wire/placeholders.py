"""The placeholders of a command, `{} {1} {2} {#}`: they stand for a task's entry where a job has inputs. Pure.

    {}   the entry, its columns with blanks between      {1} to {9}   one of its columns
    {#}  the task's number in the array

Who submits checks that each has something to stand for; the worker puts the entries in, and who shows what it runs does
it, too. Without inputs they are plain
text: `find . -exec cat {} +` stays what it is.
"""

import re
from collections.abc import Sequence
from typing import Final

from tq import limits
from tq.errors import BadRequest

_NUMBERED: Final = re.compile(rb"\{([1-9][0-9]*)\}")
_ANY: Final = re.compile(rb"\{([1-9]?|#)\}")
numbered_max: Final = 9


def check(argv: Sequence[bytes], columns: int) -> None:
    """Raise BadRequest for a placeholder that no column fills."""
    for word in argv:
        for match in _NUMBERED.finditer(word):
            if int(match[1]) > min(columns, numbered_max):
                found = match[0].decode()
                have = "an entry has one column" if columns == 1 else f"there are {columns} columns"
                ways = f"{{}} or {{1}} to {{{min(columns, numbered_max)}}}"
                if columns == 1:
                    ways = "{} or {1}; --colsep or --csv make columns of the lines of --each-line"
                raise BadRequest(
                    f"nothing stands for {found}: {have}",
                    hint=f"write {ways}; for a literal {found} put the command into a script",
                )


def highest(argv: Sequence[bytes]) -> int:
    """Return the last column that a command has a place for, 0 for none."""
    return max((int(found[1]) for word in argv for found in _NUMBERED.finditer(word)), default=0)


def entry_bytes_max(argv: Sequence[bytes], packed_bytes: int) -> int:
    """Return how long an entry may be, so that it fits beside a body of so many bytes, and into each argument."""
    room = min(limits.entry_bytes_max, limits.body_bytes_max - packed_bytes)
    for word in argv:
        count = len(_ANY.findall(word))
        if count:
            room = min(room, (limits.argument_bytes_max - len(word)) // count)
    return max(room, 0)


def has_any(word: bytes) -> bool:
    """Whether an entry would be put into this word."""
    return _ANY.search(word) is not None


def fill(argv: Sequence[bytes], value: int, columns: Sequence[bytes], *, is_shell: bool) -> list[bytes]:
    """Return the arguments with an entry in its places: that of the task which the array shows as `value`.

    What a shell reads has each column as one word of it: an entry is data, never code.
    """
    if is_shell:
        columns = [b"'" + column.replace(b"'", b"'\\''") + b"'" for column in columns]
    words = {b"": b" ".join(columns), b"#": b"%d" % value}
    words |= {b"%d" % number: column for number, column in enumerate(columns, 1)}
    return [_ANY.sub(lambda match: words.get(match[1], match[0]), word) for word in argv]
