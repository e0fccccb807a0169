"""Every message of the protocol (docs/protocol.md is generated from here).

A frame carries an array of messages; a message is an array whose first item is its name. Requests of clients carry a
number that the reply repeats. Between server and worker, what must not get lost carries a delivery number that the
other end acknowledges.
"""

import msgspec

from tq.core import vocabulary as v

VERSIONS = (1, 1)  # the oldest and the newest protocol version that this program speaks


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages: only the options of the struct."""


# ---------------------------------------------------------------- both ways, and before authentication


class GetCA(_Message, frozen=True, tag=True):
    """Before authentication: ask for the server's CA certificate, to compare it with a hash known beforehand."""


class CA(_Message, frozen=True, tag=True):
    """The server's CA certificate, PEM."""

    pem: bytes


class Hello(_Message, frozen=True, tag=True):
    """The first message of a peer. `lineage` and `epoch` are those it saw last (0 = none): a server of that lineage
    that is behind that epoch is an older copy, and says so in its log. `software` is named where versions differ.

    `worker` is its random id for a worker, 0 for a client; `predecessors` the ids that lived before it on its state
    directory, and on those that it has taken over. `required` names features without which this peer cannot work:
    version 1 has none to name, so a server that is asked for one refuses with `version_mismatch`.
    """

    versions: tuple[int, int]
    software: str
    token: str
    role: str  # `client` or `worker`
    worker: int = 0
    predecessors: tuple[int, ...] = ()
    lineage: int = 0
    epoch: int = 0
    required: tuple[str, ...] = ()


class Welcome(_Message, frozen=True, tag=True):
    """The server accepts. `role` is the token's. A peer silent for `missed_beats_max` beats is gone."""

    version: int
    software: str
    lineage: int
    epoch: int
    session: int
    beat_ms: int
    role: str


class Refused(_Message, frozen=True, tag=True):
    """The server refuses the connection, and closes it."""

    code: str
    message: str
    hint: str = ""


class Beat(_Message, frozen=True, tag=True):
    """A sign of life. A worker's carries the count and hash of what it holds (wire/held.py).

    A worker numbers its beats, and the server answers each with a beat of the same number: so the worker knows until
    when it was heard. `stuck` are the attempts that it cannot kill.
    """

    count: int = 0
    digest: int = 0
    number: int = 0
    stuck: int = 0


class Goodbye(_Message, frozen=True, tag=True):
    """The sender closes on purpose."""

    reason: str = ""


# ---------------------------------------------------------------- client and server


class Ask(_Message, frozen=True, tag=True):
    """A client's request."""

    request: int
    command: v.ClientCommand


class Reply(_Message, frozen=True, tag=True):
    """The answer; `more` says that further replies with this number follow (Wait, Logs, Backup)."""

    request: int
    answer: v.Answer
    more: bool = False


class Failed(_Message, frozen=True, tag=True):
    """The request was refused; codes of tq.errors."""

    request: int
    code: str
    message: str
    hint: str = ""


class Unsubscribe(_Message, frozen=True, tag=True):
    """The client wants no more replies with this number."""

    request: int


# ---------------------------------------------------------------- worker and server


class Reconcile(_Message, frozen=True, tag=True):
    """First message of a worker's session, and the answer to ReconcileAgain: all that it holds.

    A long list comes in several messages; `more` says so. `widths` says for each lane how many of it the server last
    let run at once here.
    """

    capacity: v.Capacity
    held: tuple[v.Held, ...]
    more: bool = False
    draining: bool = False
    widths: tuple[tuple[int, int], ...] = ()


class Reconciled(_Message, frozen=True, tag=True):
    """The complete answer: stop these with a cause, these reports are settled, keep the rest."""

    stop: tuple[tuple[v.AttemptRef, int], ...]
    settled: tuple[v.AttemptRef, ...]


class ReconcileAgain(_Message, frozen=True, tag=True):
    """Two beats in a row disagreed with the server: send the list again."""


class Assign(_Message, frozen=True, tag=True):
    """Attempts to start; see vocabulary.Start. Acknowledged by Assigned."""

    delivery: int
    lane: int
    width: int
    is_array: bool
    queue: str
    trace: str
    body: bytes
    stdin: int
    attempts: tuple[v.Assignment, ...]


class Assigned(_Message, frozen=True, tag=True):
    """The worker holds what the delivery brought."""

    delivery: int


class StopAttempts(_Message, frozen=True, tag=True):
    """End these attempts; report them with the cause. `signal` is sent first; 0 = what the body says.

    With a signal, what is being stopped already is sent that one, too.
    """

    attempts: tuple[v.AttemptRef, ...]
    cause: int
    signal: int = 0


class RecallAttempts(_Message, frozen=True, tag=True):
    """Hand back what of these has not started."""

    attempts: tuple[v.AttemptRef, ...]


class StartedAttempts(_Message, frozen=True, tag=True):
    """These have run for longer than a moment."""

    attempts: tuple[v.AttemptRef, ...]


class Ended(_Message, frozen=True, tag=True):
    """Reports. Acknowledged by Acknowledged, once on disk."""

    delivery: int
    ends: tuple[v.End, ...]


class HandedBack(_Message, frozen=True, tag=True):
    """Attempts returned, uncharged: they have not run, or what `cause` says has stopped them (DRAIN, CUT_OFF, LOST).
    Acknowledged by Acknowledged. `error` is for a person: what trouble of its own keeps the worker from starting them.
    """

    delivery: int
    attempts: tuple[v.AttemptRef, ...]
    cause: int = 0
    error: str = ""


class Acknowledged(_Message, frozen=True, tag=True):
    """The delivery of the worker is on disk: forget it."""

    delivery: int


class Output(_Message, frozen=True, tag=True):
    """The contents so far of one slot of an attempt's output, from the slot's first byte at `offset`.

    Absolute, so that a repeat changes nothing; sent before the report of the end.
    """

    attempt: v.AttemptRef
    stream: int
    offset: int
    data: bytes


class FollowOutput(_Message, frozen=True, tag=True):
    """Somebody watches this attempt (or no longer does): send its output as it comes."""

    attempt: v.AttemptRef
    on: bool


class DrainWorker(_Message, frozen=True, tag=True):
    """The server asks the worker to hand back what has not started (or, `on` False, to go on).

    What still runs in `deadline_ms` is stopped then, and handed back with the cause DRAIN; -1 = it may run to its end.
    """

    on: bool
    deadline_ms: int = -1


class Draining(_Message, frozen=True, tag=True):
    """The worker wants nothing more."""


class GetBlob(_Message, frozen=True, tag=True):
    """The worker asks for one piece of a large input."""

    blob: int
    piece: int


class Blob(_Message, frozen=True, tag=True):
    """A piece; an empty one means that there are no more."""

    blob: int
    piece: int
    data: bytes


Message = (
    GetCA
    | CA
    | Hello
    | Welcome
    | Refused
    | Beat
    | Goodbye
    | Ask
    | Reply
    | Failed
    | Unsubscribe
    | Reconcile
    | Reconciled
    | ReconcileAgain
    | Assign
    | Assigned
    | StopAttempts
    | RecallAttempts
    | StartedAttempts
    | Ended
    | HandedBack
    | Acknowledged
    | Output
    | FollowOutput
    | DrainWorker
    | Draining
    | GetBlob
    | Blob
)
