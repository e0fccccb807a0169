"""What workers tell the engine, and the server itself, with what these are made of. Part of the vocabulary."""

from tq.core.vocabulary.words import AttemptRef, Word


class Capacity(Word, frozen=True):
    """What a worker offers and who it is. How many texts it has, and how long each may be, is bounded."""

    slots: int
    cpus_milli: int = 0
    mem_bytes: int = 0
    host: str = ""
    pid: int = 0
    software: str = ""
    queues: tuple[str, ...] = ()  # empty = all
    labels: tuple[str, ...] = ()
    level: str = "group"  # of containment
    modules: tuple[str, ...] = ()  # whose functions it may call, each with what is below it


class Held(Word, frozen=True, gc=False):
    """One attempt that a worker holds; `phase` is that of core.task.Phase (ASSIGNED, STARTED, STOPPING, ENDED)."""

    attempt: AttemptRef
    phase: int


class End(Word, frozen=True, gc=False):
    """A report: how one attempt ended. `code` = exit code, or -N for signal N; `cause` of core.task.Cause.

    A `run_us` longer than since the attempt was given is clipped, and the record says so. `result` is the CBOR of
    a `wire.body.Usage`, opaque here; `value` the CBOR of what it returned, or raised: b"" if there is none.
    """

    attempt: AttemptRef
    cause: int
    code: int
    run_us: int
    result: bytes = b""
    value: bytes = b""


class Join(Word, frozen=True, tag=True):
    """A worker's session begins: reconcile what it holds with what the store says (semantics.md, Delivery 5).

    `widths` are pairs of a lane and how many of it this worker was last told to run at once. `predecessors` are the
    workers whose state directory this one has taken over: it speaks for them.
    """

    worker: int
    session: int
    capacity: Capacity
    held: tuple[Held, ...] = ()
    predecessors: tuple[int, ...] = ()
    draining: bool = False
    widths: tuple[tuple[int, int], ...] = ()


class Started(Word, frozen=True, tag=True):
    """Attempts that have been running for longer than a moment."""

    worker: int
    session: int
    attempts: tuple[AttemptRef, ...]


class Report(Word, frozen=True, tag=True):
    """Attempts that ended. `delivery` comes back in the effect `Acknowledge`."""

    worker: int
    session: int
    delivery: int
    ends: tuple[End, ...]


class Handback(Word, frozen=True, tag=True):
    """Attempts returned uncharged: without having run, stopped by a drain or a cut, or LOST with their launcher (these
    may have run). `error` says what trouble of its own keeps the worker from starting them.
    """

    worker: int
    session: int
    delivery: int
    attempts: tuple[AttemptRef, ...]
    cause: int = 0
    error: str = ""


class WorkerDrains(Word, frozen=True, tag=True):
    """A worker says that it wants nothing more."""

    worker: int
    session: int


class WorkerSilent(Word, frozen=True, tag=True):
    """Nothing is heard of a worker: its connection has ended with no goodbye, or it has missed a beat. Or it is again.

    Does nothing if `session` is superseded.
    """

    worker: int
    session: int
    on: bool = True


class InputDamaged(Word, frozen=True, tag=True):
    """The store cannot read an input that this worker has asked for: the jobs that it has with that are held."""

    worker: int
    blob: int


class WorkerLost(Word, frozen=True, tag=True):
    """The lease clock or a goodbye says that a worker is gone. Does nothing if `session` is superseded."""

    worker: int
    session: int


class Recover(Word, frozen=True, tag=True):
    """The server starts: a new epoch. Answered with the workers that are owed the re-attach window."""

    lineage: int = 0  # for a new store: the name it gets
    beat_ms: int = 0


class Tick(Word, frozen=True, tag=True):
    """Do what is due at these times."""


class Retain(Word, frozen=True, tag=True):
    """The janitor: forget what ended longer than `keep_ms` ago; dead letters stay until somebody purges them."""

    keep_ms: int


class Dispatch(Word, frozen=True, tag=True):
    """Lease what may start, recall what should not wait. The last command of every turn."""
