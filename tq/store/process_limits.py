"""What the system lets a process have: address space and open files, and how a server shares these.

Owns the soft limit of this process (`ulimit -n`). RocksDB opens tables as it needs them and fails where it may not,
which ends the server: so connections never get what the store may come to need.
"""

import resource
import sys
from typing import Final, NamedTuple

from tq.errors import ConfigurationError
from tq.limits import MIB

server_bytes_min: Final = 640 * MIB  # one without work starts with as much; each thread reserves some

_TABLES_MIN: Final = 20  # RocksDB takes no less
_TABLES_MAX: Final = 512
_BESIDE: Final = 64  # logs, tables that are being written, a backup, listeners, the program itself: about 30 are seen
server_files_min: Final = 100
worker_files_min: Final = 40  # itself and, by the same limit, its launcher with one attempt


class Share(NamedTuple):
    """How many tables the store may keep open, and how many connections there may be beside it."""

    tables: int
    connections: int


def share(files: int) -> Share:
    """Divide so many files."""
    tables = min(max((files - _BESIDE) // 3, _TABLES_MIN), _TABLES_MAX)
    return Share(tables, max(0, files - _BESIDE - tables))


def allowed() -> int:
    """Return how many files this process may have open."""
    return _number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def hard() -> int:
    """Return how many `raise_limit` could let it have."""
    return _number(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def raise_limit(connections: int) -> int:
    """Let this process have as many files open as so many connections need, if it may; return how many it may have."""
    wanted = min(connections + _TABLES_MAX + _BESIDE, hard())
    if allowed() < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return allowed()


def check(files: int, files_min: int, who: str) -> None:
    """Raise ConfigurationError where so few files may be open that `who` could not work."""
    if files < files_min:
        raise ConfigurationError(
            f"no more than {files} files may be open here (ulimit -n); {who} needs {files_min}",
            hint="raise it: ulimit -n 1024, or LimitNOFILE= of a systemd unit",
        )


def _number(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def check_address_space() -> None:
    """Raise ConfigurationError where a server could not work."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < server_bytes_min:
        raise ConfigurationError(
            f"a server may use only {limit // 1024} KiB of address space here (ulimit -v), and needs "
            f"{server_bytes_min // 1024}",
            hint="raise it: ulimit -v unlimited, or LimitAS= of a systemd unit",
        )
