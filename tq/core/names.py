"""Names of jobs, queues, tags and labels: what they may look like, since completions and terminals show them.

Jobs and tags are named where an id may stand, too. So no word that means ids there, or looks like some that went wrong
(`1..2`), may be a name or a tag: who writes `cancel 42` means the job, for ever. A date (`2026-11-26`) is a name.
"""

import re
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
NAME_HINT: Final = "use 1 to 128 letters, digits, '.', '_' or '-'"
ID_LIKE_HINT: Final = "put a letter in it, as in v1.4; a date may be one"
_MEANS_IDS: Final = re.compile(r"all|last(?:\.[0-9.-]*)?|(?!\d+(?:-\d+){2,}\Z)[0-9.-]+")


def is_name(text: str) -> bool:
    """Whether `text` may name something."""
    return _NAME.fullmatch(text) is not None


def means_ids(text: str) -> bool:
    """Whether a name stands for ids where one may be written (`42`, `43.1-5`, `last.7`, `all`), or was meant to."""
    return _MEANS_IDS.fullmatch(text) is not None
