"""What `submit --stdin` and `run` read from their own standard input, up to its bound.

The end of the input is waited for: to guess it from silence would cut the input of a slow producer. Whoever waits for
a pipe that nobody closes is told so.
"""

import os
import select

from tq import limits
from tq.cli.frame import context
from tq.errors import TooLarge

_PATIENCE_S = 2.0
_PIECE_BYTES = 1 << 16


def has_input() -> bool:
    """Whether stdin is open and no terminal."""
    try:
        return not os.isatty(0)
    except OSError:
        return False


def read() -> bytes:
    """Return all of stdin; b"" if it is closed. TooLarge past stdin_bytes_max, which is not read further."""
    taken = bytearray()
    is_told = False
    while True:
        if not is_told and not _is_readable():
            context.say("tq: waiting for the end of standard input (redirect it from /dev/null if there is none)")
            is_told = True
        try:
            piece = os.read(0, _PIECE_BYTES)
        except OSError:
            return bytes(taken)  # closed, or a directory: there is no input
        if not piece:
            return bytes(taken)
        taken += piece
        if len(taken) > limits.stdin_bytes_max:
            raise TooLarge(
                f"the input has more than stdin_bytes_max, {limits.stdin_bytes_max} bytes",
                hint="put it in a file that the worker can read",
            )


def _is_readable() -> bool:
    try:
        return bool(select.select([0], [], [], _PATIENCE_S)[0])
    except (OSError, ValueError):
        return True  # reading will tell
