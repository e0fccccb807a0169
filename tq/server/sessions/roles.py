"""Which role may ask for what. One table, walked by a test over every command of the vocabulary.

`read` < `submit` < `admin`; `worker` stands apart: it may lease and report, and may not submit or look. An admin's
token may do everything, also serve as a worker's: `tq up` runs both roles of one user. The check stands in one place
(the session asks here before a command goes anywhere), so that no handler has to remember it.
"""

import re
from typing import Any, Final

from tq.core import vocabulary as v
from tq.errors import NotAllowed

READ: Final = frozenset({"read", "submit", "admin"})
SUBMIT: Final = frozenset({"submit", "admin"})
ADMIN: Final = frozenset({"admin"})
WORKER: Final = frozenset({"worker", "admin"})
NOBODY: Final[frozenset[str]] = frozenset()  # the server's own commands: no peer may send them

ALLOWED: Final[dict[type[Any], frozenset[str]]] = {
    v.Submit: SUBMIT,
    v.Upload: SUBMIT,
    v.AddEntries: SUBMIT,
    v.GetRequest: SUBMIT,
    v.Cancel: SUBMIT,
    v.Hold: SUBMIT,
    v.Release: SUBMIT,
    v.Requeue: SUBMIT,
    v.Retry: SUBMIT,
    v.SetPriority: SUBMIT,
    v.SetThrottle: SUBMIT,
    v.Forget: SUBMIT,
    v.Purge: SUBMIT,
    v.DeadLetters: READ,
    v.SetQueue: ADMIN,
    v.Queues: READ,
    v.Get: READ,
    v.GetResults: READ,
    v.List: READ,
    v.Wait: READ,
    v.Workers: READ,
    v.Status: READ,
    v.StoreStatistics: READ,
    v.Backup: ADMIN,
    v.Logs: READ,
    v.Drain: ADMIN,
    v.CreateToken: ADMIN,
    v.RevokeToken: ADMIN,
    v.Tokens: ADMIN,
    v.Join: WORKER,
    v.Started: WORKER,
    v.Report: WORKER,
    v.Handback: WORKER,
    v.WorkerDrains: WORKER,
    v.WorkerLost: NOBODY,
    v.WorkerSilent: NOBODY,
    v.InputDamaged: NOBODY,
    v.Recover: NOBODY,
    v.Tick: NOBODY,
    v.Retain: NOBODY,
    v.Dispatch: NOBODY,
}


# Called for what they show, not for what they do.
_SEEN: Final = (v.DeadLetters, v.Queues, v.Workers, v.Status, v.StoreStatistics, v.Logs, v.Tokens)


def check_allowed(role: str, command: type[Any]) -> None:
    """Raise NotAllowed unless a token of this role may ask for this command; an unlisted command is nobody's."""
    allowed = ALLOWED.get(command, NOBODY)
    if role in allowed:
        return
    may = " or ".join(sorted(allowed)) or "the server itself"
    raise NotAllowed(
        f"a token of role {role} may not {_in_words(command)}", hint=f"use a token of role {may}" if allowed else ""
    )


def _in_words(command: type[Any]) -> str:
    """Return what a command does, after `may not`: those that are called for what they list see it."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", command.__name__).lower()
    return f"see {words}" if command in _SEEN else words


def check_peer(token_role: str, peer_role: str) -> None:
    """Raise NotAllowed unless a token of this role may connect as that kind of peer (`client` or `worker`)."""
    if peer_role == "worker":
        if token_role not in WORKER:
            raise NotAllowed(
                f"a token of role {token_role} may not serve as a worker's", hint="on the server's machine: tq join"
            )
    elif token_role not in READ:
        raise NotAllowed(
            f"a token of role {token_role} is for workers only", hint="on the server's machine: tq join --role submit"
        )


def sees_secrets(role: str) -> bool:
    """Whether a token of this role may see environments and inputs of tasks."""
    return role in SUBMIT
