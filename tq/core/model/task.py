"""The life of a task: its states, what may move it, and the record that remembers it.

`TRANSITIONS` is the one table of legal moves and `transition()` the one function that applies it: no other
code assigns a state. Whoever wants another move adds it to the table, to docs/task-states.md (generated from
it) and to the test that walks every pair. The table is single-valued, so a nack is two triggers (FAIL, GIVE_UP)
and `retry.py` chooses between them.

What is asked for each task binds the members that it compares with to names of its module: in Python 3.11 a member
that is looked up at its class costs 115 ns, a name 2, and a life asks forty times.
"""

from enum import IntEnum
from typing import Final

import msgspec


class State(IntEnum):
    """Where a task is. Terminal states are numbered last, so that `state >= SUCCEEDED` means ended."""

    BLOCKED = 0
    SCHEDULED = 1
    HELD = 2
    QUEUED = 3
    RUNNING = 4
    RETRYING = 5
    SUCCEEDED = 6
    DEAD = 7
    CANCELLED = 8
    SKIPPED = 9
    EXPIRED = 10

    @property
    def is_terminal(self) -> bool:
        """Whether a task in this state has ended."""
        return self >= State.SUCCEEDED

    @property
    def word(self) -> str:
        """The state as people and JSON say it: `succeeded`."""
        return self.name.lower()


STATES: Final = len(State)
TaskKey = tuple[int, int, int]  # job, part, member


class Trigger(IntEnum):
    """What happens to a task. Single-valued: with the state it decides the next state."""

    OPEN = 0  # every earlier gate has opened (upstream satisfied, start time come, released): to the queue
    SHUT_SCHEDULED = 1  # the next shut gate is a start time
    SHUT_HELD = 2  # the next shut gate is a hold
    IMPOSSIBLE = 3  # the upstream condition can never hold
    HOLD = 4
    LEASE = 5
    CLAIM = 6  # the worker of a lost attempt is back before a successor was leased
    ACK = 7
    FAIL = 8  # failed, will be retried
    GIVE_UP = 9  # failed or lost for the last time
    LOSE = 10
    HAND_BACK = 11
    CANCEL = 12  # also the end of a running attempt that was asked to stop by a cancel
    EXPIRE = 13
    RETRY = 14  # by hand: a new round
    RETRY_BLOCKED = 15  # by hand, while an upstream is unfinished
    FORCE_RETRY = 16  # by hand, of a task that succeeded


class Phase(IntEnum):
    """Of the latest attempt."""

    NONE = 0  # never leased, or given back without having run
    ASSIGNED = 1
    STARTED = 2
    STOPPING = 3
    ENDED = 4
    LOST = 5  # its worker is lost; claimable until the successor is leased

    @property
    def word(self) -> str:
        """The phase as people and JSON say it: `started`."""
        return self.name.lower()


class Cause(IntEnum):
    """Why an attempt ended, or is asked to end. The first that applies is kept."""

    NONE = 0
    EXIT = 1
    SIGNAL = 2
    TIME_LIMIT = 3
    OOM = 4
    CANCELLED = 5
    LOST = 6
    SPAWN_FAILED = 7
    CWD_MISSING = 8
    INTERNAL = 9
    REQUEUE = 10
    DRAIN = 11
    WORKER_TROUBLE = 12
    EXCEPTION = 13  # a function raised
    BAD_RESULT = 14  # what a task returned is not plain data, or too large
    UNKNOWN_FUNCTION = 15
    CUT_OFF = 16  # its worker heard nothing of the server, and the submitter said `--if-cut stop`

    @property
    def word(self) -> str:
        """The cause as people and JSON say it: `time_limit`."""
        return self.name.lower()


_CAUSES: Final = tuple(Cause)


def cause_of(number: int) -> Cause:
    """Return the cause that a worker names. One that is not known (a newer worker's, or nonsense) is INTERNAL."""
    return _CAUSES[number] if 0 <= number < len(_CAUSES) else Cause.INTERNAL


_S, _T = State, Trigger
_WAITING: Final = (_S.BLOCKED, _S.SCHEDULED, _S.HELD, _S.QUEUED, _S.RETRYING)
_GAVE_UP: Final = (_S.DEAD, _S.CANCELLED, _S.SKIPPED, _S.EXPIRED)

TRANSITIONS: Final[dict[tuple[State, Trigger], State]] = {
    (_S.BLOCKED, _T.OPEN): _S.QUEUED,
    (_S.BLOCKED, _T.SHUT_SCHEDULED): _S.SCHEDULED,
    (_S.BLOCKED, _T.SHUT_HELD): _S.HELD,
    (_S.BLOCKED, _T.IMPOSSIBLE): _S.SKIPPED,
    (_S.SCHEDULED, _T.OPEN): _S.QUEUED,
    (_S.SCHEDULED, _T.SHUT_HELD): _S.HELD,
    (_S.HELD, _T.OPEN): _S.QUEUED,
    (_S.QUEUED, _T.HOLD): _S.HELD,
    (_S.QUEUED, _T.LEASE): _S.RUNNING,
    (_S.QUEUED, _T.CLAIM): _S.RUNNING,
    (_S.RUNNING, _T.ACK): _S.SUCCEEDED,
    (_S.RUNNING, _T.FAIL): _S.RETRYING,
    (_S.RUNNING, _T.GIVE_UP): _S.DEAD,
    (_S.RUNNING, _T.LOSE): _S.QUEUED,
    (_S.RUNNING, _T.HAND_BACK): _S.QUEUED,
    (_S.RUNNING, _T.CANCEL): _S.CANCELLED,
    (_S.RETRYING, _T.OPEN): _S.QUEUED,
    (_S.RETRYING, _T.SHUT_HELD): _S.HELD,
    **{(state, _T.CANCEL): _S.CANCELLED for state in _WAITING},
    **{(state, _T.EXPIRE): _S.EXPIRED for state in _WAITING},
    **{(state, _T.RETRY): _S.QUEUED for state in _GAVE_UP},
    **{(state, _T.RETRY_BLOCKED): _S.BLOCKED for state in _GAVE_UP},
    (_S.SUCCEEDED, _T.FORCE_RETRY): _S.QUEUED,
}

# The table compiled to a nested tuple: an enum member as a dict key costs five times an index (measured).
_MOVES: Final = tuple(tuple(TRANSITIONS.get((state, trigger)) for trigger in Trigger) for state in State)


class IllegalMove(Exception):
    """A trigger that the table does not allow in this state: a bug of the caller, which must check first."""


def transition(state: State, trigger: Trigger) -> State:
    """Return the state that `trigger` leads to from `state`, or raise `IllegalMove`."""
    after = _MOVES[state][trigger]
    if after is None:
        raise IllegalMove(f"{State(state).name} does not allow {Trigger(trigger).name}")
    return after


def is_legal(state: State, trigger: Trigger) -> bool:
    """Whether the table has a move for `trigger` from `state`."""
    return _MOVES[state][trigger] is not None


class Ending(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How one earlier attempt of a task ended, kept in the task's short history. Times in wall ms."""

    attempt: int
    worker: int
    host: str
    cause: int
    code: int  # exit code, or -N for signal N
    started_ms: int
    ended_ms: int
    charged: bool = True


class Task(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """One member of a job that has been touched. A member without this record is *untouched* (job.py).

    `lease` is the sequence of the commit that gave the latest attempt; with the store's lineage it is the
    fencing token. `due_ms` belongs to the clock that the state's timer names. `code` is an exit code, or -N for
    signal N. `result` is an opaque CBOR string made by the worker (usage, output counts), and so is `value`.
    `has_run`: some attempt has run, or may have: true as well where a record does not say.
    """

    state: State
    phase: Phase = Phase.NONE
    round: int = 1
    attempt: int = 0
    lease: int = 0
    worker: int = 0
    host: str = ""
    failures: int = 0
    losses: int = 0
    charged: bool = False  # whether the latest loss was charged (a claim takes it back)
    since_ms: int = 0  # steady: when it entered the queue with this record (its place in AGAIN), or died
    due_ms: int = 0
    leased_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    run_us: int = 0
    cause: Cause = Cause.NONE
    code: int = 0
    result: bytes = b""
    history: tuple[Ending, ...] = ()
    value: bytes = b""  # what it returned, up to result_inline_bytes_max; a larger one is in RESULT
    value_bytes: int = 0
    purged: bool = False  # dead, and no dead letter any more
    has_run: bool = True
    run_clipped: bool = False  # a worker said one that is not possible: `run_us` is what is (change/measured.py)
