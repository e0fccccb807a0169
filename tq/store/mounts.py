"""What is mounted where, as the kernel tells this process. It only reads."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

TABLE: Final = Path("/proc/self/mountinfo")
_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mount: what of the file system (`root`) is seen where (`point`), its type, and the options of the whole."""

    root: str
    point: str
    kind: str
    options: str


def mounts(table: Path = TABLE) -> Iterator[Mount]:
    """Yield all mounts; of two on one point the later hides the earlier. A name is as `os.fsdecode` has it.

    Raises OSError.
    """
    for line in table.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        place, what = before.split(), after.split()
        if len(place) > 4 and what:
            yield Mount(_name(place[3]), _name(place[4]), _name(what[0]), _name(what[-1]))


def _name(word: bytes) -> str:
    r"""Return a word with what stands for its blanks, \040, made blanks again."""
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), word))
