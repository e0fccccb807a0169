"""Names of jobs, queues, tags, labels and traces: what they may look like, since completions and terminals show them.

Jobs and tags are named where an id may stand, too. So no word that means ids there, or looks like some that went wrong
(`1..2`), may be a name or a tag: who writes `cancel 42` means the job, for ever. A date (`2026-11-26`) is a name.
"""

import re
from typing import Final

from tq.limits import name_chars_max

DEFAULT_QUEUE: Final = "default"
NAME_HINT: Final = f"use 1 to {name_chars_max} letters, digits, '.', '_' or '-'"
LABEL_HINT: Final = f"use KEY=VALUE, or KEY: at most {name_chars_max} letters, digits, '.', '_' or '-'"
ID_LIKE_HINT: Final = "put a letter in it, as in v1.4; a date may be one"
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_LABEL: Final = re.compile(r"[A-Za-z0-9._-]+(=[A-Za-z0-9._-]+)?")
_TRACE: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MEANS_IDS: Final = re.compile(r"all|last(?:\.[0-9.-]*)?|(?!\d+(?:-\d+){2,}\Z)[0-9.-]+")


def is_name(text: str) -> bool:
    """Whether `text` may name something."""
    return len(text) <= name_chars_max and _NAME.fullmatch(text) is not None


def is_label(text: str) -> bool:
    """Whether `text` may be a label of a worker."""
    return len(text) <= name_chars_max and _LABEL.fullmatch(text) is not None


def is_trace(text: str) -> bool:
    """Whether `text` is a W3C traceparent."""
    return _TRACE.fullmatch(text) is not None


def means_ids(text: str) -> bool:
    """Whether a name stands for ids where one may be written (`42`, `43.1-5`, `last.7`, `all`), or was meant to."""
    return _MEANS_IDS.fullmatch(text) is not None
