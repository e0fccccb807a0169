"""What the core understands and says: commands in, answers and effects out.

A command asks (`Submit`, `Cancel`) or tells of a fact (`WorkerLost`). The engine gives one answer to a command of a
client, and effects: things to do once the commit that decided them is on disk. All are frozen array-like structs, so
they go over the wire as they are (wire/messages.py wraps them); new fields go at the end, with defaults.
Ids are text (`42`, `43.7`) where people give them, and `AttemptRef`s between server and worker. Times in ms.
"""

from typing import Any, NamedTuple

import msgspec

from tq.core.job import Demand


class Times(NamedTuple):
    """The two clocks of a command: `steady_ms` never goes back; `wall_ms` is what the system says."""

    steady_ms: int
    wall_ms: int


class _Word(msgspec.Struct, frozen=True, array_like=True):
    """Base of all words: only the options of the struct."""


class AttemptRef(_Word, frozen=True, array_like=True, gc=False):
    """Names one attempt, with its fencing token. `member` is a position (from 0), never a value."""

    job: int
    part: int
    member: int
    attempt: int
    lease: int

    @property
    def task(self) -> tuple[int, int, int]:
        """The key of its task in TASK."""
        return (self.job, self.part, self.member)


# ---------------------------------------------------------------- commands of clients


class Submit(_Word, frozen=True, tag=True):
    """Make a job. `key` makes it idempotent. `stdin_key` names a finished upload that becomes its input, `entries_key`
    one of `size` entries, one for each member: nothing of it runs before this submit.

    `body` is the CBOR of a `wire.body.Body`, opaque here. `size` members; an array shows member position p as
    `array_first + p * array_step`. `entries_digest` is the `after` of the last run: entries are a part of the request.
    `stdin_of` and `entries_of` name a job whose uploaded input, or entries, this one gets, too.
    """

    key: str
    body: bytes
    name: str = ""
    tags: tuple[str, ...] = ()
    queue: str = "default"
    priority: int = 0
    demand: Demand = Demand()
    size: int = 1
    is_array: bool = False
    array_first: int = 1
    array_step: int = 1
    throttle: int = 0
    retries: int = 0
    crash_limit: int = 3
    hold: bool = False
    trace: str = ""
    stdin_key: str = ""
    entries_key: str = ""
    max_fails: int = -1
    entries_digest: bytes = b""
    stdin_of: str = ""
    entries_of: str = ""


class Upload(_Word, frozen=True, tag=True):
    """One piece of a large input, at byte `offset` (a multiple of piece_bytes_max). Idempotent by offset."""

    key: str
    offset: int
    data: bytes


class AddEntries(_Word, frozen=True, tag=True):
    """A run of entries of a coming array, from entry `first` (from 0). Idempotent by `first`.

    A run has at most entries_items_max items and entries_bytes_max bytes; one without items only asks where to go on,
    and keeps the upload alive. `before` and `after` are the sender's digests of all entries before the run and up to
    its end: a run joins only the entries that its sender has seen, whoever else uploads under the key.
    """

    key: str
    first: int
    items: tuple[bytes, ...]
    before: bytes = b""
    after: bytes = b""


class Where(_Word, frozen=True):
    """Which jobs: all that match every part that is given. `states` are words; `failed` means dead or expired.

    What acts on tasks acts on those of a matching job that are in one of the states.
    """

    states: tuple[str, ...] = ()
    queue: str = ""
    tag: str = ""
    name: str = ""


class _Selected(_Word, frozen=True):
    """Base of what acts on many: jobs and members by id (`42`, `43.7`, `43.1-5`), or all jobs that match `where`.

    With `dry_run` the answer says what would be done, and nothing is.
    """

    ids: tuple[str, ...] = ()
    where: Where | None = None
    dry_run: bool = False


class Cancel(_Selected, frozen=True, tag=True):
    """Cancel jobs or members."""


class Hold(_Selected, frozen=True, tag=True):
    """Start nothing more of these jobs; what runs goes on."""


class Release(_Selected, frozen=True, tag=True):
    """End a hold."""


class Requeue(_Selected, frozen=True, tag=True):
    """Stop what runs and put it back into the queue, uncharged."""


class Retry(_Selected, frozen=True, tag=True):
    """Begin a new round of what gave up; with `force` of what succeeded, too."""

    force: bool = False


class SetPriority(_Selected, frozen=True, tag=True):
    """Give jobs another priority."""

    priority: int = 0


class Forget(_Selected, frozen=True, tag=True):
    """Remove ended jobs with all their records and output."""


class SetQueue(_Word, frozen=True, tag=True):
    """Pause or resume a queue, or bound how many of it run at once (0 = no bound); None leaves a part as it is."""

    name: str
    paused: bool | None = None
    max: int | None = None


class Queues(_Word, frozen=True, tag=True):
    """The queues that have tasks or settings."""


class Get(_Word, frozen=True, tag=True):
    """Everything about one job or task."""

    id: str


class GetRequest(_Word, frozen=True, tag=True):
    """The request that made a job, to make it again."""

    id: str


class List(_Word, frozen=True, tag=True):
    """Jobs, newest first; with `job`, the members of that job, in order. `page` continues an earlier answer."""

    job: str = ""
    states: tuple[str, ...] = ()
    queue: str = ""
    tag: str = ""
    name: str = ""
    limit: int = 100
    page: str = ""


class Wait(_Word, frozen=True, tag=True):
    """Whether these ended (`until` = `done`) or started (`running`), and how. The server subscribes the asker."""

    ids: tuple[str, ...]
    until: str = "done"


class Workers(_Word, frozen=True, tag=True):
    """The connected workers."""


class Drain(_Word, frozen=True, tag=True):
    """Stop (or, with `on` False, resume) leasing to a worker, named by id, unique id prefix or host."""

    worker: str
    on: bool = True


class CreateToken(_Word, frozen=True, tag=True):
    """Store a new token. The caller made the secret; only its SHA-256 comes here. `expires_ms` wall, 0 = never."""

    id: str
    digest: bytes
    role: str
    name: str = ""
    expires_ms: int = 0


class RevokeToken(_Word, frozen=True, tag=True):
    """Forget a token, by id; its connections are closed."""

    id: str


class Tokens(_Word, frozen=True, tag=True):
    """The tokens that exist, without secrets."""


class Status(_Word, frozen=True, tag=True):
    """Counts by state over all queues, workers, and the server's own story."""


class StoreStatistics(_Word, frozen=True, tag=True):
    """What `tq store stats` prints. Answered at the edge, from the store."""


class Logs(_Word, frozen=True, tag=True):
    """Stored output of one task. `attempt` 0 = the latest. Answered at the edge (output is the second door).

    `position` are the bytes already seen of (stdout, stderr); `follow` keeps sending chunks until the task's end.
    """

    id: str
    attempt: int = 0
    follow: bool = False
    position: tuple[int, int] = (0, 0)
    tail_bytes: int = 0


# ---------------------------------------------------------------- commands of workers and of the server itself


class Capacity(_Word, frozen=True):
    """What a worker offers and who it is."""

    slots: int
    cpus_milli: int = 0
    mem_bytes: int = 0
    host: str = ""
    pid: int = 0
    software: str = ""
    queues: tuple[str, ...] = ()  # empty = all
    labels: tuple[str, ...] = ()
    level: str = "group"  # of containment


class Held(_Word, frozen=True, gc=False):
    """One attempt that a worker holds; `phase` is that of core.task.Phase (ASSIGNED, STARTED, STOPPING, ENDED)."""

    attempt: AttemptRef
    phase: int


class End(_Word, frozen=True):
    """A report: how one attempt ended. `code` = exit code, or -N for signal N; `cause` of core.task.Cause.

    `result` is the CBOR of a `wire.body.Usage`, opaque here.
    """

    attempt: AttemptRef
    cause: int
    code: int
    run_us: int
    result: bytes = b""


class Join(_Word, frozen=True, tag=True):
    """A worker's session begins: reconcile what it holds with what the store says (semantics.md, Delivery 5).

    `widths` are pairs of a lane and how many of it this worker was last told to run at once.
    """

    worker: int
    session: int
    capacity: Capacity
    held: tuple[Held, ...] = ()
    predecessor: int = 0
    draining: bool = False
    widths: tuple[tuple[int, int], ...] = ()


class Started(_Word, frozen=True, tag=True):
    """Attempts that have been running for longer than a moment."""

    worker: int
    session: int
    attempts: tuple[AttemptRef, ...]


class Report(_Word, frozen=True, tag=True):
    """Attempts that ended. `delivery` comes back in the effect `Acknowledge`."""

    worker: int
    session: int
    delivery: int
    ends: tuple[End, ...]


class Handback(_Word, frozen=True, tag=True):
    """Attempts returned without having run (or, when `stopped`, run and stopped by a drain), uncharged."""

    worker: int
    session: int
    delivery: int
    attempts: tuple[AttemptRef, ...]
    cause: int = 0


class WorkerDrains(_Word, frozen=True, tag=True):
    """A worker says that it wants nothing more."""

    worker: int
    session: int


class WorkerLost(_Word, frozen=True, tag=True):
    """The lease clock or a goodbye says that a worker is gone. Does nothing if `session` is superseded."""

    worker: int
    session: int


class Recover(_Word, frozen=True, tag=True):
    """The server starts: a new epoch. Answered with the workers that are owed the re-attach window."""

    lineage: int = 0  # for a new store: the name it gets


class Tick(_Word, frozen=True, tag=True):
    """Do what is due at these times."""


class Retain(_Word, frozen=True, tag=True):
    """The janitor: forget what ended longer than `keep_ms` ago; dead letters stay until somebody purges them."""

    keep_ms: int


class Dispatch(_Word, frozen=True, tag=True):
    """Lease what may start, recall what should not wait. The last command of every turn."""


# ---------------------------------------------------------------- answers


class Submitted(_Word, frozen=True, tag=True):
    """`id` is the job's; `existed` says that the key was known already; `warning` is for the person."""

    id: str
    existed: bool = False
    warning: str = ""


class Uploaded(_Word, frozen=True, tag=True):
    """`received` is the next offset in bytes, or the next entry; `digest` the `after` of the last run.

    `job` is the job that the key has made already: nothing more is to be sent.
    """

    received: int
    digest: bytes = b""
    job: str = ""


class Requested(_Word, frozen=True, tag=True):
    """A request as it was, without keys: what was uploaded for it is named by `stdin_of` and `entries_of`."""

    submit: Submit


class Acted(_Word, frozen=True, tag=True):
    """How many tasks (for what acts on whole jobs: jobs) were changed, were asked to stop, were left as they were.

    `sweeping`: a sweep goes on with the rest, beyond these counts.
    """

    done: int
    stopping: int = 0
    unchanged: int = 0
    sweeping: bool = False


class Document(_Word, frozen=True, tag=True):
    """One JSON-like document for people and scripts (`show`, `status`, `store stats`): str keys, plain values."""

    value: dict[str, Any]


class Page(_Word, frozen=True, tag=True):
    """Some documents, and the page to ask for next ('' = no more; a page may be empty with a next)."""

    items: tuple[dict[str, Any], ...]
    next: str = ""


class Outcome(_Word, frozen=True, gc=False):
    """How one job or task stands, as `wait` needs it. `code` and `cause` as in End; of an array only the counts."""

    id: str
    state: str  # of a job with several tasks: `ended`, or the most alive of its tasks' states
    phase: str = ""
    code: int = 0
    cause: str = ""
    size: int = 1
    succeeded: int = 0
    ended: int = 0
    attempt: int = 0
    usage: bytes = b""  # CBOR of a wire.body.Usage


class Waited(_Word, frozen=True, tag=True):
    """`done` says that the condition holds for all of `outcomes`."""

    done: bool
    outcomes: tuple[Outcome, ...]


class Done(_Word, frozen=True, tag=True):
    """It is done; `text` names what it was done to."""

    text: str = ""


class Chunk(_Word, frozen=True, tag=True):
    """Output bytes: `stream` 1 or 2, at `offset` of that stream. A jump of the offset is a dropped middle."""

    stream: int
    offset: int
    data: bytes
    attempt: int = 0


class LogsEnd(_Word, frozen=True, tag=True):
    """The output is complete (or, without `follow`, this is all there is). Totals in bytes by stream."""

    attempt: int
    totals: tuple[int, int]
    state: str = ""


class Joined(_Word, frozen=True, tag=True):
    """The complete answer to what a worker holds: stop these (with a cause), these reports are settled, keep the rest.

    `stopping` maps the position in the held list to a core.task.Cause.
    """

    stop: tuple[tuple[AttemptRef, int], ...] = ()
    settled: tuple[AttemptRef, ...] = ()


class Recovered(_Word, frozen=True, tag=True):
    """After a start of the server: who holds attempts, and the names of this life of the store."""

    lineage: int
    epoch: int
    workers: tuple[int, ...]


# ---------------------------------------------------------------- effects: done after the commit is on disk


class Assignment(_Word, frozen=True):
    """One attempt to start. `member` in the ref is the position, `value` what the task's id shows.

    `entry` is the member's own input; its columns are separated by NUL bytes.
    """

    attempt: AttemptRef
    value: int
    entry: bytes | None = None


class Start(_Word, frozen=True, tag=True):
    """Start these attempts of one job, at most `width` of its lane at once; `body` as submitted."""

    worker: int
    session: int
    lane: int
    width: int
    is_array: bool
    queue: str
    trace: str
    body: bytes
    stdin: int
    attempts: tuple[Assignment, ...]


class Stop(_Word, frozen=True, tag=True):
    """End these attempts: TERM, then KILL after `kill_after`; report them with `cause`."""

    worker: int
    session: int
    attempts: tuple[AttemptRef, ...]
    cause: int


class Recall(_Word, frozen=True, tag=True):
    """Give back what of these has not started."""

    worker: int
    session: int
    attempts: tuple[AttemptRef, ...]


class Acknowledge(_Word, frozen=True, tag=True):
    """The report or handback with this delivery number is on disk; forget it."""

    worker: int
    session: int
    delivery: int


class Supersede(_Word, frozen=True, tag=True):
    """A newer session of this worker has begun: close this one."""

    worker: int
    session: int


class TaskChanged(_Word, frozen=True, tag=True):
    """Something in this job started, ended or was cancelled: whoever waits for it looks again. Once a turn and job."""

    job: int
    part: int


class DrainAsked(_Word, frozen=True, tag=True):
    """Somebody asked this worker to drain (or, `on` False, to go on)."""

    worker: int
    session: int
    on: bool


class TokenRevoked(_Word, frozen=True, tag=True):
    """Close the connections of this token."""

    id: str


ClientCommand = (
    Submit | Upload | AddEntries | Cancel | Hold | Release | Requeue | Retry | SetPriority
    | Forget | SetQueue | Queues | Get | GetRequest | List | Wait | Workers | Drain | CreateToken | RevokeToken | Tokens
    | Status | StoreStatistics | Logs
)
WorkerCommand = Join | Started | Report | Handback | WorkerDrains
ServerCommand = WorkerLost | Recover | Tick | Retain | Dispatch
Command = ClientCommand | WorkerCommand | ServerCommand
Answer = (
    Submitted | Uploaded | Requested | Acted | Document | Page | Waited | Done | Chunk | LogsEnd | Joined | Recovered
)
Effect = Start | Stop | Recall | Acknowledge | Supersede | TaskChanged | DrainAsked | TokenRevoked
