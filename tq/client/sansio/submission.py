"""What every submit has, whoever makes it, the command line or a program: its key, its trace, its umask, its input."""

import os
from collections.abc import Mapping
from pathlib import Path

from tq import limits
from tq.core import vocabulary as v
from tq.core.model.names import is_trace


def new_key() -> str:
    """Return a key that nobody else has."""
    return os.urandom(16).hex()


def trace(environ: Mapping[str, str]) -> str:
    """Return the trace that this program's caller is in, "" for none."""
    text = environ.get("TRACEPARENT", "")
    return text if is_trace(text) else ""


def umask() -> int:
    """Return the umask of this process. It is looked up: to set it, and back, is seen by every other thread."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))
    except (OSError, StopIteration, ValueError):  # no such file, or a kernel that does not say it
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


def pieces(key: str, stdin: bytes) -> list[v.Upload]:
    """Cut a large input into uploads, none where it is small. Their key follows from the request: a repeat is one."""
    if len(stdin) <= limits.stdin_inline_bytes_max:
        return []
    from hashlib import sha256

    upload = "in." + sha256(key.encode() + b"\0" + stdin).hexdigest()[:32]
    step = limits.piece_bytes_max
    return [v.Upload(upload, offset, stdin[offset : offset + step]) for offset in range(0, len(stdin), step)]
