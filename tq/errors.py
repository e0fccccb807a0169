"""Every error of tq, as one tree.

    TqError                       code, exit status, hint
      Refused                     the engine or the server says no; nothing was changed
        BadRequest                bad_request       2
        TaskNotFound              not_found         1
        AlreadyEnded              already_ended     1
        KeyConflict               key_conflict      1
        NotAllowed                not_allowed       4   authenticated, but the role may not do this
        Unauthorised              unauthorised      4   token wrong, missing, expired or revoked
        TooLarge                  too_large         2
        TooManyLanes              too_many_lanes    75
        NotDone                   not_done          75  nothing happened; try again later
          Stopping                stopping          75  the server ends, and perhaps starts again
        Unknown                   unknown           74  the outcome is not known; repeat with the same key
        InternalError             internal_error    70
        VersionMismatch           version_mismatch  78
      ProtocolError               protocol_error    76  a peer sent what the protocol does not allow
      Unreachable                 unreachable       69  no server answers
      TimedOut                    timed_out         124 not done within the time that the caller gave it
      ConfigurationError          configuration     78  directory, key, file, option of this machine
      Upgraded                    upgraded          75  another version was installed under a running worker
      StoreError                  store             74  the disk failed: acknowledge nothing more
        StoreDamaged              store_damaged     78  an acknowledged commit is missing, or bytes are damaged

The code is stable and goes over the wire; the exit status is what the command line ends with (docs/cli.md);
the hint says what to do next, in the imperative.
"""

from typing import ClassVar


class TqError(Exception):
    """Base of all errors that tq raises on purpose. `str(error)` is one sentence for a person."""

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # a traceback shows it


class Refused(TqError):
    """The request is answered with this error, and changed nothing."""

    code = "refused"


class BadRequest(Refused):
    """The request makes no sense: malformed id, empty command, value past its range."""

    code = "bad_request"
    exit_status = 2


class TaskNotFound(Refused):
    """No such job, task, attempt, worker or token."""

    code = "not_found"


class AlreadyEnded(Refused):
    """The task ended before the request came."""

    code = "already_ended"


class KeyConflict(Refused):
    """The same key was used for another request."""

    code = "key_conflict"


class NotAllowed(Refused):
    """The token's role may not do this."""

    code = "not_allowed"
    exit_status = 4


class Unauthorised(Refused):
    """The token is wrong, missing, expired or revoked. Never says which."""

    code = "unauthorised"
    exit_status = 4


class TooLarge(Refused):
    """Something exceeds its bound in limits.py; the message names the bound."""

    code = "too_large"
    exit_status = 2


class TooManyLanes(Refused):
    """Jobs of more combinations of queue and demand than `lanes_max` are there."""

    code = "too_many_lanes"
    exit_status = 75


class NotDone(Refused):
    """Nothing happened; trying again later may work (low disk)."""

    code = "not_done"
    exit_status = 75


class Stopping(NotDone):
    """Nothing happened: the server is stopping. Whoever waits for one that is away asks the next one."""

    code = "stopping"


class Unknown(Refused):
    """It is not known whether the request took effect; repeat it with the same key."""

    code = "unknown"
    exit_status = 74


class InternalError(Refused):
    """A bug: the command was dropped, logged for replay, and changed nothing."""

    code = "internal_error"
    exit_status = 70


class VersionMismatch(Refused):
    """The two programs have no protocol version in common."""

    code = "version_mismatch"
    exit_status = 78


class ProtocolError(TqError):
    """A peer sent bytes or a message that the protocol does not allow; its connection is closed."""

    code = "protocol_error"
    exit_status = 76


class Unreachable(TqError):
    """No server answers at the address."""

    code = "unreachable"
    exit_status = 69


class TimedOut(TqError, TimeoutError):
    """What was waited for did not come within the time that the caller gave it. Nothing was cancelled."""

    code = "timed_out"
    exit_status = 124


class ConfigurationError(TqError):
    """Something on this machine is set up wrongly: directory, mode, file, port, option."""

    code = "configuration"
    exit_status = 78


class Upgraded(TqError):
    """Another version was installed under a running worker, which cannot start the parts that it needs any more."""

    code = "upgraded"
    exit_status = 75


class StoreError(TqError):
    """Write, flush or fsync failed once: nothing more may be acknowledged (docs/store-format.md)."""

    code = "store"
    exit_status = 74


class StoreDamaged(StoreError):
    """The store misses what was acknowledged, and is not opened; or bytes of it are damaged."""

    code = "store_damaged"
    exit_status = 78


def _tree(of: type[TqError]) -> list[type[TqError]]:
    return [of, *(leaf for child in of.__subclasses__() for leaf in _tree(child))]


def from_code(code: str, message: str, hint: str = "") -> TqError:
    """Return the error that a peer named on the wire; an unknown code becomes a plain `Refused`."""
    kinds = {kind.code: kind for kind in _tree(TqError)}
    return kinds.get(code, Refused)(message, hint=hint)
