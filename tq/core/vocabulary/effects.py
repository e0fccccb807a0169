"""What is to be done once the commit that decided it is on disk. Part of the vocabulary (__init__.py)."""

from tq.core.vocabulary.words import AttemptRef, Word


class Assignment(Word, frozen=True, gc=False):
    """One attempt to start. `member` in the ref is the position, `value` what the task's id shows.

    `entry` is the member's own input; its columns are separated by NUL bytes. `has_run`: an earlier attempt of the task
    may have run, so that files which take its output hold some of it.
    """

    attempt: AttemptRef
    value: int
    entry: bytes | None = None
    has_run: bool = True


class Start(Word, frozen=True, tag=True):
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


class Stop(Word, frozen=True, tag=True):
    """End these attempts: `signal` (0: the task's own), then KILL after `kill_after`; report them with `cause`."""

    worker: int
    session: int
    attempts: tuple[AttemptRef, ...]
    cause: int
    signal: int = 0


class Recall(Word, frozen=True, tag=True):
    """Give back what of these has not started."""

    worker: int
    session: int
    attempts: tuple[AttemptRef, ...]


class Acknowledge(Word, frozen=True, tag=True):
    """The report or handback with this delivery number is on disk; forget it."""

    worker: int
    session: int
    delivery: int


class Supersede(Word, frozen=True, tag=True):
    """A newer session of this worker has begun, or one of its heir's: close this one."""

    worker: int
    session: int


class TaskChanged(Word, frozen=True, tag=True):
    """Something in this job started, ended or was cancelled: whoever waits for it looks again. Once a turn and job."""

    job: int
    part: int


class DrainAsked(Word, frozen=True, tag=True):
    """Somebody asked this worker to drain (or, `on` False, to go on); see commands.Drain."""

    worker: int
    session: int
    on: bool
    deadline_ms: int = -1


class TokenRevoked(Word, frozen=True, tag=True):
    """Close the connections of this token."""

    id: str
