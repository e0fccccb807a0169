"""Names of jobs, queues, tags and labels: what they may look like, since completions and terminals show them."""

import re
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
NAME_HINT: Final = "use 1 to 128 letters, digits, '.', '_' or '-'"


def is_name(text: str) -> bool:
    """Whether `text` may name something."""
    return _NAME.fullmatch(text) is not None
