"""Lost connections, as both clients take them: what may pass, how long they try again, and what is then known.

A connection that is lost, or on which comes what cannot be read, is re-made until an answer comes or the patience is
over. So is one that cannot be made: nobody listens yet, something else does, a server that begins or stops refuses, or
says what is none of the protocol. Final is what no time mends: a token, a CA, a version, an old copy of the store.
Decides only; it neither connects nor sleeps.
"""

from collections.abc import Callable
from math import inf
from typing import Final

from tq import limits
from tq.client.target import Target
from tq.core import vocabulary as v
from tq.errors import ConfigurationError, NotDone, ProtocolError, TaskNotFound, TqError, Unknown, Unreachable

MAY_PASS: Final = (Unreachable, NotDone, ProtocolError)
_OF_IDS: Final = (v.Get, v.GetResults, v.Wait, v.Logs)
_PAUSE_S_MIN: Final = 0.02
_LONG_S: Final = 60.0


class Losses:
    """Connections lost one after the other without an answer: how long that may go on, and how long to pause.

    `clock` tells seconds. `patience_s` None is without end.
    """

    def __init__(self, patience_s: float | None, clock: Callable[[], float]) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._until_s: float | None = None
        self._pause_s = 0.0
        self._long_s: float | None = None

    def is_over(self) -> bool:
        """Whether the patience has run out; it begins with the first call, and is good for one attempt at least."""
        if self._patience_s is None:
            return False
        now_s = self._clock()
        if self._until_s is None:
            self._until_s = now_s + self._patience_s
        return now_s >= self._until_s and self._pause_s > 0

    def is_long(self) -> bool:
        """Whether it has gone on for a minute without end in sight; true once."""
        now_s = self._clock()
        if self._long_s is None:
            self._long_s = now_s + _LONG_S
        if self._patience_s is not None or now_s < self._long_s:
            return False
        self._long_s = inf
        return True

    def pause_s(self) -> float:
        """Return how long to wait before the next attempt: with full jitter, and not at all before the first one."""
        chosen_s = 0.0
        if self._pause_s:
            import random  # only who lost a connection needs dice

            chosen_s = random.uniform(0, self._pause_s)
        self._pause_s = min(max(self._pause_s * 2, _PAUSE_S_MIN), limits.reconnect_holding_s_max)
        return chosen_s


def found(find: Callable[[], Target], *, is_first: bool) -> Target:
    """Return where the server is. Later than at first, what keeps it from being found may pass: that is Unreachable.

    Its connection file, which may have the token, is away while it is.
    """
    try:
        return find()
    except TqError as error:
        if is_first:
            raise
        raise Unreachable(error.message, hint=error.hint) from None


def turned_away(command: v.ClientCommand, refusal: TqError) -> TqError:
    """Return what is known of a command whose connection was lost, when the server lets us in no more."""
    if isinstance(command, v.Read):
        return refusal
    known = given_up(command, refusal)
    what = "it is not known whether the request was done" if isinstance(known, Unknown) else "nothing was submitted"
    hint = "; ".join(filter(None, (refusal.hint, known.hint)))
    return type(refusal)(f"{refusal.message}; {what}", hint=hint)


def given_up(command: v.ClientCommand, error: Exception) -> TqError:
    """Return what is known of a command whose connection was lost for good."""
    if isinstance(command, v.Read):
        return Unreachable(f"the connection was lost and could not be made again: {error}")
    if isinstance(command, v.AddEntries):
        return Unreachable(
            f"the connection was lost and could not be made again; nothing was submitted: {error}",
            hint=f"repeat it with --key {command.key}: it goes on where it was",
        )
    hint = f"repeat it with --key {command.key}: it will not be done twice" if isinstance(command, v.Submit) else ""
    return Unknown(f"the connection was lost and it is not known whether the request was done: {error}", hint=hint)


def check_store(command: v.ClientCommand, lineage: int, here: int) -> None:
    """Raise unless a command that was not sent yet may go to the store `here`: it is meant for `lineage` (0: any)."""
    if lineage not in (0, here) and is_elsewhere(command, was_sent=False):
        raise other_store(command, was_sent=False)


def is_elsewhere(command: v.ClientCommand, *, was_sent: bool = True) -> bool:
    """Whether a command for one store must not go to another: it may be done already, or its ids name other jobs."""
    return _names_ids(command) or (was_sent and not isinstance(command, v.Read | v.AddEntries))


def _names_ids(command: v.ClientCommand) -> bool:
    return isinstance(command, _OF_IDS) or bool(getattr(command, "ids", ()))


def other_store(command: v.ClientCommand, *, was_sent: bool = True) -> TqError:
    """Return what is said of such a command."""
    came = "the server came back with another store"
    if isinstance(command, _OF_IDS) or not was_sent:
        return TaskNotFound(f"{came}: what was asked for is of the earlier one", hint="look what there is: tq ls")
    return Unknown(f"{came}: it is not known what became of the request")


def old_copy(epoch: int, known: int) -> ConfigurationError:
    """Return what is said of a server whose store is behind what it was."""
    return ConfigurationError(
        f"the server is at epoch {epoch} and was at {known}: an old copy of its store runs",
        hint="do not submit there: look at the server's directory first",
    )


def closed() -> Unreachable:
    """Return what is said to who asks a client behind the end of its block."""
    return Unreachable("the client is closed", hint="ask within the block of its `connect`")
