"""The settings of one server: frozen, checked once, made by the command line.

Directories are absolute paths; nothing here is read from the environment.
"""

from pathlib import Path
from typing import NamedTuple

from tq import limits
from tq.errors import BadRequest, ConfigurationError
from tq.net.address import DEFAULT_PORT
from tq.net.log import LEVELS
from tq.store.directory import check_path

HEARTBEAT_S_MIN: float = 0.05
HEARTBEAT_S_MAX: float = 3_600.0


class Settings(NamedTuple):
    """What `tq server` was asked for. `port` 0 = any free one; `state` is where the local user's copy of the
    connection file goes; `connections` is how many peers are expected (compared with `ulimit -n`). `keep_ms` is for how
    long ended jobs are kept, 0 = for ever; `retries` how often a failed task is tried again where nobody says.
    """

    data: Path
    state: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    heartbeat_s: float = limits.heartbeat_s
    is_check: bool = False
    data_on_network: bool = False
    cert: Path | None = None
    key: Path | None = None
    connections: int = 100
    log_level: str = "info"
    keep_ms: int = 7 * 86_400_000
    retries: int = limits.retries

    @property
    def beat_ms(self) -> int:
        """One heartbeat in milliseconds, as Welcome carries it."""
        return max(1, round(self.heartbeat_s * 1_000))


def check_settings(settings: Settings) -> None:
    """Raise BadRequest for a value that makes no sense, ConfigurationError for a directory that cannot be one."""
    if not 0 <= settings.port <= 65_535:
        raise BadRequest(f"port {settings.port} is out of range")
    if not HEARTBEAT_S_MIN <= settings.heartbeat_s <= HEARTBEAT_S_MAX:
        raise BadRequest(f"a heartbeat of {settings.heartbeat_s:g} s is out of range", hint="try 5s")
    if not 0 <= settings.retries <= limits.retries_max:
        raise BadRequest(f"retries are between 0 and {limits.retries_max}")
    if settings.keep_ms < 0:
        raise BadRequest("ended jobs cannot be kept for less than no time")
    if not settings.data.is_absolute() or not settings.state.is_absolute():
        raise ConfigurationError("data and state directory must be absolute paths")
    check_path(settings.data)
    if settings.log_level not in LEVELS:
        raise BadRequest(f"{settings.log_level!r} is not a level", hint="one of " + ", ".join(LEVELS))
    if (settings.cert is None) != (settings.key is None):
        raise BadRequest("--cert and --key belong together")
