"""How much address space a server needs (`ulimit -v`): where its threads get none, RocksDB aborts without a word."""

import resource
from typing import Final

from tq.errors import ConfigurationError
from tq.limits import MIB

server_bytes_min: Final = 640 * MIB  # one without work starts with as much; each thread reserves some


def check() -> None:
    """Raise ConfigurationError where a server could not work."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < server_bytes_min:
        raise ConfigurationError(
            f"a server may use only {limit // 1024} KiB of address space here (ulimit -v), and needs "
            f"{server_bytes_min // 1024}",
            hint="raise it: ulimit -v unlimited, or LimitAS= of a systemd unit",
        )
