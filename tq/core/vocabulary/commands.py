"""What clients ask of the engine. Part of the vocabulary (__init__.py)."""

from tq.core.model.ids import DEFAULT_QUEUE
from tq.core.model.job import Demand
from tq.core.vocabulary.words import Word
from tq.limits import backoff_ms, crash_limit, page_items_max


class Submit(Word, frozen=True, tag=True):
    """Make a job. `key` makes it idempotent. `stdin_key` names a finished upload that becomes its input, `entries_key`
    one of `size` entries, one for each member: nothing of it runs before this submit.

    `name` and `tags` are names as queues have, but none that means ids to people (`42`, `43.1-5`, `last.7`, `all`).
    `body` is the CBOR of a `wire.body.Body`, opaque here. `size` members; an array shows member position p as
    `array_first + p * array_step`. `entries_digest` is the `after` of the last run: entries are a part of the request.
    `stdin_of` and `entries_of` name a job whose uploaded input, or entries, this one gets, too. After a failure the
    next attempt is due in `backoff_ms` (first, longest), unless its exit code says otherwise (core/model/retry.py).
    `retries` -1: as its queue, or else the server, says.
    """

    key: str
    body: bytes
    name: str = ""
    tags: tuple[str, ...] = ()
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    demand: Demand = Demand()
    size: int = 1
    is_array: bool = False
    array_first: int = 1
    array_step: int = 1
    throttle: int = 0
    retries: int = 0
    crash_limit: int = crash_limit
    hold: bool = False
    trace: str = ""
    stdin_key: str = ""
    entries_key: str = ""
    max_fails: int = -1
    entries_digest: bytes = b""
    stdin_of: str = ""
    entries_of: str = ""
    backoff_ms: tuple[int, int] = backoff_ms
    retry_on: tuple[int, ...] = ()
    no_retry_on: tuple[int, ...] = ()


class Upload(Word, frozen=True, tag=True):
    """One piece of a large input, at byte `offset` (a multiple of piece_bytes_max). Idempotent by offset."""

    key: str
    offset: int
    data: bytes


class AddEntries(Word, frozen=True, tag=True):
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


class Where(Word, frozen=True):
    """Which jobs: all that match every part that is given. `states` are words; `failed` means dead or expired.

    What acts on tasks acts on those of a matching job that are in one of the states, ended with that `cause` if one is
    given, and are dead letters if `is_letter`.
    """

    states: tuple[str, ...] = ()
    queue: str = ""
    tag: str = ""
    name: str = ""
    cause: str = ""
    is_letter: bool = False


class _Selected(Word, frozen=True):
    """Base of what acts on many: jobs and members by id (`42`, `43.7`, `43.1-5`), or all jobs that match `where`.

    With both, those of the ids that match. With `dry_run` the answer says what would be done, and nothing is.
    """

    ids: tuple[str, ...] = ()
    where: Where | None = None
    dry_run: bool = False


class Cancel(_Selected, frozen=True, tag=True):
    """Cancel jobs or members. What runs is sent `signal` first (0: what its submitter chose), KILL after its grace.

    With a signal, what is being stopped already is sent that one, too.
    """

    signal: int = 0


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


class SetThrottle(_Selected, frozen=True, tag=True):
    """Let at most so many tasks of arrays run at once (0 = no bound)."""

    throttle: int = 0


class Forget(_Selected, frozen=True, tag=True):
    """Remove ended jobs with all their records and output."""


class Purge(_Selected, frozen=True, tag=True):
    """Take tasks out of the dead letter queue; they stay dead, with their job."""


Selected = Cancel | Hold | Release | Requeue | Retry | SetPriority | SetThrottle | Forget | Purge


class DeadLetters(Word, frozen=True, tag=True):
    """The dead letters, oldest first. `page` continues an earlier answer; `around` as of List, by job."""

    where: Where = Where()
    limit: int = 100
    page: str = ""
    around: bool = False


class SetQueue(Word, frozen=True, tag=True):
    """Pause or resume a queue, bound how many of it run at once (0 = no bound), or say how often its jobs are tried
    again that do not say so (-1 = as the server says); None leaves a part as it is. `known`: only if there is such a
    queue, by its tasks, its settings or a worker that serves it.
    """

    name: str
    paused: bool | None = None
    max: int | None = None
    retries: int | None = None
    known: bool = False


class Queues(Word, frozen=True, tag=True):
    """The queues that have tasks or settings, by name, as many as a page holds. `page` continues an earlier answer."""

    limit: int = page_items_max
    page: str = ""


class Get(Word, frozen=True, tag=True):
    """Everything about one job or task."""

    id: str


class GetRequest(Word, frozen=True, tag=True):
    """The request that made a job, to make it again."""

    id: str


class GetResults(Word, frozen=True, tag=True):
    """How a task ended and what it returned; of an array, its members in order. `page` continues an earlier answer."""

    id: str
    page: str = ""


class List(Word, frozen=True, tag=True):
    """Jobs, newest first; with `job`, the members of that job, in order. `page` continues an earlier answer.

    `begun`: only members up to the one that starts next, and `next` says where later ones will be found, until the job
    has ended. So who asks again and again from there sees each member once, and an array is never listed anew.

    `around`: what cannot be read of a damaged store is passed over and named, instead of `store_damaged` for all of it.
    """

    job: str = ""
    states: tuple[str, ...] = ()
    queue: str = ""
    tag: str = ""
    name: str = ""
    limit: int = 100
    page: str = ""
    begun: bool = False
    around: bool = False


class Wait(Word, frozen=True, tag=True):
    """Whether these ended (`until` = `done`) or started (`running`), and how. The server subscribes the asker."""

    ids: tuple[str, ...]
    until: str = "done"


class Workers(Word, frozen=True, tag=True):
    """The connected workers, by host and id, as many as a page holds. `page` continues an earlier answer."""

    limit: int = page_items_max
    page: str = ""


class Drain(Word, frozen=True, tag=True):
    """Stop (or, with `on` False, resume) leasing to a worker, named by id, unique id prefix or host.

    What runs there may end within `deadline_ms`; then it is stopped and handed back. -1 = it may run to its end.
    """

    worker: str
    on: bool = True
    deadline_ms: int = -1


class CreateToken(Word, frozen=True, tag=True):
    """Store a new token. The caller made the secret; only its SHA-256 comes here. `expires_ms` wall, 0 = never.

    `name` is empty or a name as jobs have, of at most 128 characters; what exceeds this is refused.
    """

    id: str
    digest: bytes
    role: str
    name: str = ""
    expires_ms: int = 0


class RevokeToken(Word, frozen=True, tag=True):
    """Forget a token, by id; its connections are closed."""

    id: str


class Tokens(Word, frozen=True, tag=True):
    """The tokens that exist, by id, without secrets, as many as a page holds. `page` continues an earlier answer."""

    limit: int = page_items_max
    page: str = ""


class Status(Word, frozen=True, tag=True):
    """Counts by state over all queues, workers, and the server's own story. `Queues` has those of each queue."""


class StoreStatistics(Word, frozen=True, tag=True):
    """What `tq store stats` prints. Answered at the edge, from the store."""


class Backup(Word, frozen=True, tag=True):
    """The whole store and the server's identity, as one archive. Answered at the edge, in many parts."""


class Logs(Word, frozen=True, tag=True):
    """Stored output of one task. `attempt` 0 = the latest. Answered at the edge (output is the second door).

    `position` are the bytes already seen of (stdout, stderr); `follow` keeps sending chunks until the task's end. With
    `tail_bytes` what is stored of each stream is left out up to its last bytes; what comes afterwards, later attempts
    among it, is sent whole. `every` is to follow all attempts, from the first on, or from `attempt`.
    """

    id: str
    attempt: int = 0
    follow: bool = False
    position: tuple[int, int] = (0, 0)
    tail_bytes: int = 0
    every: bool = False
