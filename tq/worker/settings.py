"""The settings of one worker: frozen, checked once, made by the command line.

Nothing here is read from the environment. The token is a secret: it goes into Hello and nowhere else, and the repr
does not show it.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from tq import limits
from tq.errors import ConfigurationError
from tq.net.address import Address
from tq.worker.modules import check_modules

DRAIN_S_MAX: float = 7 * 24 * 3_600.0
WORDS_MAX: int = 256
_WORD = re.compile(r"[A-Za-z0-9._=-]+")


class Settings(NamedTuple):
    """What `tq worker` was asked for.

    Exactly one of `ca_pem` and `ca_sha256` is set: the server's CA, or the hash by which it is known at the first
    contact. `state` is the state directory of the user. 0 slots, CPUs or bytes = as the machine has; `queues` empty =
    all; `name` '' = the machine's name. `modules` are those whose functions it may call.
    """

    address: Address
    token: str
    state: Path
    ca_pem: str = ""
    ca_sha256: str = ""
    slots: int = 0
    cpus: float = 0.0
    mem_bytes: int = 0
    queues: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    name: str = ""
    drain_s: float = limits.drain_s
    modules: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Settings {self.address} slots={self.slots} state={os.fspath(self.state)}>"


def check_settings(settings: Settings) -> None:
    """Raise ConfigurationError for a value that makes no sense."""
    if not 0 <= settings.slots <= limits.slots_max:
        raise ConfigurationError(f"{settings.slots} slots are out of range", hint=f"at most {limits.slots_max}")
    if settings.cpus < 0 or settings.mem_bytes < 0:
        raise ConfigurationError("CPUs and memory cannot be negative")
    if not 0 <= settings.drain_s <= DRAIN_S_MAX:
        raise ConfigurationError(f"a drain time of {settings.drain_s:g} s is out of range", hint="try --drain-time 30s")
    if not settings.state.is_absolute():
        raise ConfigurationError("the state directory must be an absolute path")
    if bool(settings.ca_pem) == bool(settings.ca_sha256):
        raise ConfigurationError("the server's CA is not known", hint="set TQ_JOIN, or TQ_CA to the server's ca.pem")
    if not settings.token:
        raise ConfigurationError("no token was given", hint="set TQ_JOIN, TQ_TOKEN or TQ_TOKEN_FILE")
    if len(settings.queues) + len(settings.labels) > WORDS_MAX:
        raise ConfigurationError(f"more than {WORDS_MAX} queues and labels", hint="leave --queue out to serve all")
    check_modules(settings.modules)
    for word in (*settings.queues, *settings.labels):
        if len(word) > limits.name_chars_max or not _WORD.fullmatch(word):
            raise ConfigurationError(f"{word!r} is no name of a queue or label", hint="letters, digits and . _ - only")
