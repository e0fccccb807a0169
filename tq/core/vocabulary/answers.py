"""What the engine says to whoever gave a command. Part of the vocabulary (__init__.py), which names them all."""

from typing import Any

from tq.core.vocabulary.commands import Submit
from tq.core.vocabulary.words import AttemptRef, Word


class Submitted(Word, frozen=True, tag=True):
    """`id` is the job's; `existed` says that the key was known already; `warning` is for the person."""

    id: str
    existed: bool = False
    warning: str = ""


class Uploaded(Word, frozen=True, tag=True):
    """`received` is the next offset in bytes, or the next entry; `digest` the `after` of the last run.

    `job` is the job that the key has made already: nothing more is to be sent.
    """

    received: int
    digest: bytes = b""
    job: str = ""


class Requested(Word, frozen=True, tag=True):
    """A request as it was, without keys: what was uploaded for it is named by `stdin_of` and `entries_of`."""

    submit: Submit


class Acted(Word, frozen=True, tag=True):
    """How many tasks (for what acts on whole jobs: jobs) were changed, were asked to stop, were left as they were.

    `sweeping`: a sweep goes on with the rest, beyond these counts. `unknown`: the ids that name nothing (if all do, it
    is refused).
    """

    done: int
    stopping: int = 0
    unchanged: int = 0
    sweeping: bool = False
    unknown: tuple[str, ...] = ()


class Document(Word, frozen=True, tag=True):
    """One JSON-like document for people and scripts (`show`, `status`, `store stats`): str keys, plain values."""

    value: dict[str, Any]


class Page(Word, frozen=True, tag=True):
    """Some documents, and the page to ask for next ('' = no more; a page may be empty with a next).

    `unread`: the ids that stand where the store is damaged, for who asked for a list `around` that.
    """

    items: tuple[dict[str, Any], ...]
    next: str = ""
    unread: tuple[str, ...] = ()


class Result(Word, frozen=True, gc=False):
    """How one task stands, and what its latest attempt returned or raised (`value`, `usage`: see End)."""

    id: str
    state: str
    attempt: int = 0
    code: int = 0
    cause: str = ""
    value: bytes = b""
    usage: bytes = b""
    phase: str = ""


class Results(Word, frozen=True, tag=True):
    """Some results, and the page to ask for next ('' = no more)."""

    items: tuple[Result, ...]
    next: str = ""


class Outcome(Word, frozen=True, gc=False):
    """How one job or task stands, as `wait` needs it. `code` and `cause` as in End; of an array only the counts.

    `reason` says why it may not start anywhere just now, where something keeps it from that. `pause_ms` is how long a
    task waits after a failure before it is tried again; of an array `retrying` says how many of its tasks do. What
    is `earlier` is how the attempt before the latest one ended, of a task that failed or was lost in this round.
    """

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
    reason: str = ""
    pause_ms: int = 0
    retrying: int = 0
    earlier_attempt: int = 0
    earlier_cause: str = ""
    earlier_code: int = 0


class Waited(Word, frozen=True, tag=True):
    """`done` says that the condition holds for all of `outcomes`."""

    done: bool
    outcomes: tuple[Outcome, ...]


class Done(Word, frozen=True, tag=True):
    """It is done; `text` names what it was done to, `unchanged` says that it was so already, `made` that it was not
    there before.
    """

    text: str = ""
    unchanged: bool = False
    made: bool = False


class Chunk(Word, frozen=True, tag=True):
    """Output bytes: `stream` 1 or 2, at `offset` of that stream. A jump of the offset is a dropped middle."""

    stream: int
    offset: int
    data: bytes
    attempt: int = 0


class BackupPart(Word, frozen=True, tag=True):
    """Bytes of an archive of `size_bytes` from `offset` on. It holds the store as commit `sequence` left it."""

    offset: int
    data: bytes
    size_bytes: int
    sequence: int


class LogsEnd(Word, frozen=True, tag=True):
    """The output is complete (or, without `follow`, this is all there is). Totals in bytes by stream."""

    attempt: int
    totals: tuple[int, int]
    state: str = ""


class Joined(Word, frozen=True, tag=True):
    """The complete answer to what a worker holds: stop these (with a cause), these reports are settled, keep the rest.

    `stopping` maps the position in the held list to a core.task.Cause.
    """

    stop: tuple[tuple[AttemptRef, int], ...] = ()
    settled: tuple[AttemptRef, ...] = ()


class Recovered(Word, frozen=True, tag=True):
    """After a start of the server: who holds attempts, and the names of this life of the store."""

    lineage: int
    epoch: int
    workers: tuple[int, ...]
    held_ms: int = 0  # for how long from now on they may run what an earlier life has let them, unheard
