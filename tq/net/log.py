"""What tq says about itself while it runs: one line a record, key=value, on standard error.

    2026-03-01T10:00:00.123Z info worker_connected url=tq://127.0.0.1:7878 session=7

The event comes first, a word that can be searched for; fields follow. A value with anything but plain characters in
it is quoted and escaped like a JSON string, so a line stays a line and a terminal is safe from it. Never log a
secret, or bytes of a user's task.

Who writes never waits: a terminal that was stopped with Ctrl-S, or a full pipe, must not stop a server. What standard
error does not take at once is dropped, and counted in the next line that it takes; one that was cut counts, too.
"""

import io
import json
import os
import re
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error")

_PIECE_BYTES: Final = 4_096  # a pipe or a socket that has room at all has room for so many (PIPE_BUF)
_IMPATIENT: Final = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# The only state here: standard error is one for the whole process, and so is what goes there.
_least = LEVELS.index("info")
_dropped = 0  # lines, since the last that was written
_begin = ""  # a new line, behind one that was cut

_PLAIN: Final = re.compile(r"[\w.,:/@%+<>()\[\]{}-]+", re.ASCII)


def set_level(level: str) -> None:
    """Write nothing below this level from now on (`info` unless set). Raises ValueError for a word that is none."""
    global _least  # noqa: PLW0603 - see above
    _least = LEVELS.index(level)


def log(event: str, *, level: str = "info", **fields: object) -> None:
    """Write one record. `event` is a word with underscores; `level` is debug, info, warning or error."""
    if LEVELS.index(level) >= _least:
        put(_line(event, level, fields))


def event_of(line: str) -> str:
    """Return the event of a record that a program of ours has written, '' for anything else."""
    words = line.split(" ", 3)
    return words[2] if len(words) > 2 and words[1] in LEVELS else ""


def put(text: str) -> None:
    """Write somebody else's lines as records are written, without waiting."""
    global _dropped  # noqa: PLW0603 - see above
    try:
        if _dropped and _write(_line("log_dropped", "warning", {"lines": _dropped})):
            _dropped = 0
        if _dropped or not _write(text):
            _dropped += 1
    except (OSError, ValueError):
        pass  # it is closed, and nothing may fail for that


def _line(event: str, level: str, fields: dict[str, object]) -> str:
    return " ".join([_now(), level, event, *(f"{name}={_shown(value)}" for name, value in fields.items())]) + "\n"


def _write(line: str) -> bool:
    """Write a line without waiting; return whether all of it was taken."""
    global _begin  # noqa: PLW0603 - see above
    sys.stderr.flush()
    try:
        fd = sys.stderr.fileno()
    except io.UnsupportedOperation:  # no file, but something in memory
        sys.stderr.write(line)
        return True
    data = (_begin + line).encode("utf-8", "backslashreplace")
    with _impatient(fd) as open_fd:
        taken = _taken(open_fd, data)
    if taken:
        _begin = "" if taken == len(data) else "\n"
    return taken == len(data)


def _taken(fd: int, data: bytes) -> int:
    """Write what is taken at once, and return how much that was."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    at = 0
    while at < len(data) and poll.poll(0):
        try:
            at += os.write(fd, data[at : at + _PIECE_BYTES])
        except OSError:  # it would wait; a file's disk is full; nobody reads it any more
            break
    return at


@contextmanager
def _impatient(fd: int) -> Iterator[int]:
    """Open a terminal anew: with room for one byte it would wait with the rest, and its flags are others', too."""
    if not os.isatty(fd):
        yield fd
        return
    try:
        own = os.open(f"/proc/self/fd/{fd}", _IMPATIENT)
    except OSError:  # another user's terminal, or no descriptor is free
        yield fd
        return
    try:
        yield own
    finally:
        os.close(own)


def _now() -> str:
    seconds, ms = divmod(time.time_ns() // 1_000_000, 1_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{ms:03}Z"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
