"""What tq says about itself while it runs: one line a record, key=value, on standard error.

    2026-03-01T10:00:00.123Z info worker_connected url=tq://127.0.0.1:7878 session=7

The event comes first, a word that can be searched for; fields follow. A value with anything but plain characters in
it is quoted and escaped like a JSON string, so a line stays a line and a terminal is safe from it. Never log a
secret, or bytes of a user's task.

Who writes never waits: a terminal that was stopped with Ctrl-S, or a full pipe, must not stop a server. What standard
error does not take at once is dropped, and counted in the next line that it takes.
"""

import io
import json
import os
import re
import select
import sys
import time
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error")

_PIECE_BYTES: Final = 4_096  # what has room at all has room for so many (PIPE_BUF)

# The only state here: standard error is one for the whole process, and so is what goes there.
_least = LEVELS.index("info")
_dropped = 0  # lines, since the last that was written

_PLAIN: Final = re.compile(r"[\w.,:/@%+<>()\[\]{}-]+", re.ASCII)


def set_level(level: str) -> None:
    """Write nothing below this level from now on (`info` unless set). Raises ValueError for a word that is none."""
    global _least  # noqa: PLW0603 - see above
    _least = LEVELS.index(level)


def log(event: str, *, level: str = "info", **fields: object) -> None:
    """Write one record. `event` is a word with underscores; `level` is debug, info, warning or error."""
    if LEVELS.index(level) < _least:
        return
    global _dropped  # noqa: PLW0603 - see above
    try:
        if _dropped and _write(_line("log_dropped", "warning", {"lines": _dropped})):
            _dropped = 0
        if _dropped or not _write(_line(event, level, fields)):
            _dropped += 1
    except (OSError, ValueError):
        pass  # nobody reads it any more, and nothing may fail for that


def _line(event: str, level: str, fields: dict[str, object]) -> str:
    return " ".join([_now(), level, event, *(f"{name}={_shown(value)}" for name, value in fields.items())]) + "\n"


def _write(line: str) -> bool:
    """Write a line without waiting; return whether at least its beginning was taken."""
    sys.stderr.flush()
    try:
        fd = sys.stderr.fileno()
    except io.UnsupportedOperation:  # no file, but something in memory
        sys.stderr.write(line)
        return True
    data = line.encode()
    for at in range(0, len(data), _PIECE_BYTES):
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if not poll.poll(0):
            return at > 0
        os.write(fd, data[at : at + _PIECE_BYTES])
    return True


def _now() -> str:
    seconds, ms = divmod(time.time_ns() // 1_000_000, 1_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{ms:03}Z"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
