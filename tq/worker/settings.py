"""The settings of one worker: frozen, checked once, made by the command line; and the server, which may move.

Nothing here is read from the environment. The token is a secret: it goes into Hello and nowhere else, and the repr
does not show it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tq import limits
from tq.core.model.ids import LABEL_HINT, NAME_HINT, is_label, is_name
from tq.errors import BadRequest, ConfigurationError
from tq.net.address import Address
from tq.worker.machine import check_modules

DRAIN_S_MAX: float = 7 * 24 * 3_600.0
TASKS_MAX: int = 2**53


class Server(NamedTuple):
    """Where the server is, what lets the worker in, and what proves that it is the server.

    Exactly one of `ca_pem` and `ca_sha256` is set: the server's CA, or the hash by which it is known at the first
    contact.
    """

    address: Address
    token: str
    ca_pem: str = ""
    ca_sha256: str = ""

    def __repr__(self) -> str:
        return f"<Server {self.address}>"


class Settings(NamedTuple):
    """What `tq worker` was asked for.

    `state` is the state directory of the user. 0 slots, CPUs or bytes = as the machine has; `queues` empty = all;
    `name` '' = the machine's name. `modules` are those whose functions it may call. After `tasks_max` attempts, or
    `idle_s` without any, the worker leaves.
    """

    state: Path
    slots: int = 0
    cpus: float = 0.0
    mem_bytes: int = 0
    queues: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    name: str = ""
    drain_s: float = limits.drain_s
    modules: tuple[str, ...] = ()
    tasks_max: int | None = None
    idle_s: float | None = None


def check_settings(settings: Settings) -> None:
    """Raise BadRequest for an option that makes no sense, ConfigurationError for what is wrong with this machine."""
    check_options(settings)
    if not settings.state.is_absolute():
        raise ConfigurationError("the state directory must be an absolute path")


def check_server(server: Server) -> None:
    """Raise ConfigurationError for a server that cannot be asked."""
    if bool(server.ca_pem) == bool(server.ca_sha256):
        raise ConfigurationError("the server's CA is not known", hint="set TQ_JOIN, or TQ_CA to the server's ca.pem")
    if not server.token:
        raise ConfigurationError("no token was given", hint="set TQ_JOIN, TQ_TOKEN or TQ_TOKEN_FILE")


def check_options(settings: Settings) -> None:
    """Raise BadRequest for an option that makes no sense."""
    if not 0 <= settings.slots <= limits.slots_max:
        raise BadRequest(f"{settings.slots} slots are out of range", hint=f"at most {limits.slots_max}; 0 = as CPUs")
    if settings.cpus < 0 or settings.mem_bytes < 0:
        raise BadRequest("CPUs and memory cannot be negative")
    if not 0 <= settings.drain_s <= DRAIN_S_MAX:
        raise BadRequest(f"a drain time of {settings.drain_s:g} s is out of range", hint="try --drain-time 30s")
    if settings.tasks_max is not None and not 1 <= settings.tasks_max <= TASKS_MAX:
        raise BadRequest(f"a worker for {settings.tasks_max} tasks is none", hint="--max-tasks 1 is the least")
    if settings.idle_s is not None and not settings.idle_s > 0:
        raise BadRequest("an idle time must be longer than nothing", hint="try --idle-timeout 5m")
    if len(settings.queues) + len(settings.labels) > limits.offer_words_max:
        raise BadRequest(
            f"more than {limits.offer_words_max} queues and labels (offer_words_max)",
            hint="leave --queue out to serve all",
        )
    check_modules(settings.modules)
    _check_words("name", (settings.name,) if settings.name else (), is_name, NAME_HINT)
    _check_words("queue", settings.queues, is_name, NAME_HINT)
    _check_words("label", settings.labels, is_label, LABEL_HINT)


def _check_words(what: str, words: tuple[str, ...], is_one: Callable[[str], bool], hint: str) -> None:
    for word in words:
        if not is_one(word):
            raise BadRequest(f"{word[: limits.name_chars_max]!r} is not a {what} of a worker", hint=hint)
