"""What a task returned: the JSON that it wrote to its TQ_RESULT, as the plain data that goes up with its report.

Read by the launcher once the last process of a successful attempt is dead. What cannot be a value is said in a
sentence for its author; nothing is repaired or cut.
"""

import os
import stat
from contextlib import suppress
from typing import Final

import msgspec

from tq.limits import depth_max, result_bytes_max
from tq.wire import plain

# A FIFO must not hold the launcher up, and what a link leads to was not written there.
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class BadResult(Exception):
    """What lies at TQ_RESULT is not a value; the text says why."""


class Reader:
    """Reads results with a descriptor that is kept back for it: attempts may have all others, and are not to blame."""

    def __init__(self) -> None:
        self._kept_back = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def read(self, path: bytes) -> bytes:
        """Return what the file at `path` says as CBOR. Raises BadResult."""
        if self._kept_back >= 0:
            os.close(self._kept_back)
        try:
            return read(path)
        finally:
            self._kept_back = -1
            with suppress(OSError):  # the whole machine may have none
                self._kept_back = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def read(path: bytes) -> bytes:
    """Return what the file at `path` says as CBOR. Raises BadResult."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):  # opening a device may do something
            raise BadResult("TQ_RESULT is not a regular file")
        text = _read(path)
    except OSError as error:
        raise BadResult(f"TQ_RESULT cannot be read: {error.strerror}") from error
    if len(text) > result_bytes_max:
        raise BadResult(f"TQ_RESULT has more than result_bytes_max, {result_bytes_max} bytes")
    if not text.strip():
        raise BadResult("TQ_RESULT is empty, which is not JSON")
    return _packed(text)


def _read(path: bytes) -> bytes:
    """Return the contents, at most one byte more than is allowed."""
    fd = os.open(path, _FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BadResult("TQ_RESULT is not a regular file")
        text = b""
        while len(text) <= result_bytes_max and (piece := os.read(fd, result_bytes_max + 1 - len(text))):
            text += piece
        return text
    finally:
        os.close(fd)


def _packed(text: bytes) -> bytes:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadResult(f"TQ_RESULT is not JSON: {error}") from error
    except RecursionError as error:
        raise BadResult(f"TQ_RESULT is nested deeper than {depth_max} levels (depth_max)") from error
    try:
        return plain.dumps(value, result_bytes_max, "result_bytes_max")
    except plain.NotPlain as error:
        raise BadResult(f"TQ_RESULT is not plain data: {error}") from error
