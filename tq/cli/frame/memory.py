"""What is said where there is not enough memory for the program: the system names a library, or nothing at all."""

import errno
from contextlib import suppress
from typing import Final

from tq.errors import ConfigurationError

_NO_MEMORY: Final = "annot allocate memory"
_NO_ROOM: Final = "failed to map segment"  # said of a file system without programs (noexec), too


def lack(error: BaseException) -> ConfigurationError | None:
    """Return the error to say where it was memory that was missing, None for any other."""
    limit_kib = _limit_kib()
    if not (
        isinstance(error, MemoryError)
        or (limit_kib and isinstance(error, SystemError))  # Python had no room for a MemoryError
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, ImportError) and (_NO_MEMORY in str(error) or (limit_kib and _NO_ROOM in str(error))))
    ):
        return None
    if limit_kib:
        return ConfigurationError(
            f"tq may use only {limit_kib} KiB of address space here (ulimit -v), and needs more",
            hint="raise it: ulimit -v unlimited, or LimitAS= of a systemd unit",
        )
    return ConfigurationError("there is not enough memory for tq", hint="free some, or raise a limit of its cgroup")


def _limit_kib() -> int:
    """Return how much address space this process may have, 0 for any. Needs no library: for one there is no room."""
    with suppress(OSError), open("/proc/self/limits", "rb") as limits:  # noqa: PTH123
        for line in limits:
            if line.startswith(b"Max address space"):
                soft = line.split()[3]
                return int(soft) // 1024 if soft.isdigit() else 0
    return 0
