"""What one submission made: the job's fixed record, and its progress.

A job has `size` members, positions 0 to size-1. *A member without a Task record is untouched and in its job's
`first` state*: so submit, hold, cancel and expiry of ten million untouched members change one Progress record.
A record is never removed but with its whole job, since a missing record means untouched.

    cursor     untouched members are leased from here upwards; it never moves back
    ahead      members at or above the cursor that have a record already (cancelled before their start)
    again      members with a record that are queued: they start before the cursor's, first in first out
    floor      none of those in the job's own lane is older (since when, then which): a scan begins there, never at the
               lane's first key, because deleted keys at the head are slow to pass (measured)
"""

from copy import copy
from typing import Final

import msgspec

from tq.core.model.task import STATES, State
from tq.limits import backoff_ms, heartbeat_s

JobKey = tuple[int, int]  # job, part
_QUEUED, _RUNNING, _SUCCEEDED = State.QUEUED, State.RUNNING, State.SUCCEEDED


class Demand(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a task asks of a worker beside its one slot. `cpus_milli` in thousandths of a CPU.

    `module` is that of a function task: only a worker that allows it may run it.
    """

    cpus_milli: int = 0
    mem_bytes: int = 0
    module: str = ""


class Lane(msgspec.Struct, array_like=True, tag=1):
    """Queued tasks that are alike in everything that decides *whether* they may start.

    `ready` counts the lane's READY entries; `floor_rank, floor_job, floor_part` is the exclusive end of what is
    known to be empty at the lane's head (lowered by whatever comes in below it): a scan starts there, never at the
    lane's first key, because deleted keys at the head of a queue are slow to pass (measured).
    """

    queue: str
    demand: Demand
    ready: int = 0
    floor_rank: int = 0
    floor_job: int = 0
    floor_part: int = 0
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * STATES)
    alone: bool = False  # each of its attempts has a worker to itself

    def copy(self) -> "Lane":
        """Return a working copy, for one command."""
        mine = copy(self)
        mine.counts = self.counts[:]
        return mine


class Queue(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """What somebody has set for a queue. One that nobody has set anything for has no record, and no bounds."""

    paused: bool = False
    max: int = 0  # at most so many running, 0 = no bound
    retries: int = -1  # of jobs that do not say how often they are tried again; -1 = as the server says


class Job(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The fixed record of a job, written once. Times in wall ms.

    `body` is opaque to the server: what only the worker needs (argv, environment, directory, limits). `stdin` is
    the number of a blob, 0 for none. `is_array` tells a task `42` from the only member of an array, `42.1`.
    """

    queue: str
    name: str
    tags: tuple[str, ...]
    demand: Demand
    size: int
    is_array: bool
    array_first: int
    array_step: int
    retries: int
    crash_limit: int
    priority: int
    submitter: str
    trace: str
    submitted_ms: int
    body: bytes
    stdin: int = 0
    key: str = ""
    entries: int = 0  # the blob that holds one entry for each member, 0 for none
    max_fails: int = -1  # with more dead members than this the rest is cancelled; -1 = never
    backoff_ms: tuple[int, int] = backoff_ms  # first and longest wait before another attempt
    retry_on: tuple[int, ...] = ()  # exit codes that are tried again; empty = all
    no_retry_on: tuple[int, ...] = ()
    has_lost_entries: bool = False  # a salvage has not found all of them


class Progress(msgspec.Struct, array_like=True, tag=1):
    """How far a job is. Mutable only as a working copy inside the engine; put once a command.

    `cancelling` stops every start at once while a sweep works through the members that have a record.

    Members whose next charged loss would be their last stand in `lane_alone`, 0 while there were none: there they count
    as `again_alone`, and `ready_alone` says whether READY has the job. All members count in the job's own lane.
    """

    lane: int
    rank: int  # 100 - priority: the order of READY
    size: int
    throttle: int = 0  # at most so many running; 0 = no bound
    hold: bool = False  # set in bulk/verbs.py, engine/submit.py and repair/rebuild_job.py
    cancelling: bool = False
    first: State = State.QUEUED
    untouched: int = 0
    cursor: int = 0
    ahead: int = 0
    again: int = 0
    ready: bool = False  # whether READY has this job
    waits: int = 0
    watched: bool = False
    ended_ms: int = 0
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * STATES)
    kept: bool = False  # it has ended and is not in ENDED: retention passed it over for its dead letters
    forgetting: bool = False  # its dead letters are being taken away; nobody finds it any more
    lane_alone: int = 0
    again_alone: int = 0
    ready_alone: bool = False
    purged: int = 0  # dead members that are no dead letters any more
    ended_steady_ms: int = 0  # retention counts from here, whatever the wall's clock does meanwhile
    cancelled_sweep: int = 0  # sweeps below this number began before all of it was cancelled last
    floor_since_ms: int = 0
    floor_member: int = 0
    held_sweep: int = 0  # sweeps below this number began before it was held or released last
    ranked_sweep: int = 0  # sweeps below this number began before it got its priority
    throttled_sweep: int = 0  # the same of its throttle
    listed: int = 0  # by which of its states NAMED has it, a bit each (read/job_index.py)

    def copy(self) -> "Progress":
        """Return a working copy, for one command."""
        mine = copy(self)
        mine.counts = self.counts[:]
        return mine

    @property
    def run(self) -> int:
        """How many untouched members in a row may be leased from the cursor on, which stands at the first of them."""
        in_a_row = 1 if self.ahead else self.untouched
        return min(in_a_row, self._places) if self.throttle else in_a_row

    @property
    def _places(self) -> int:
        """How many more its throttle lets start in its own lane. One place is kept for what waits to run alone: the
        others would take each before a worker is empty for it.
        """
        return self.throttle - self.counts[_RUNNING] - (self.again_alone > 0)

    @property
    def is_ended(self) -> bool:
        """Whether every member is in a terminal state."""
        return sum(self.counts[_SUCCEEDED:]) == self.size

    @property
    def ended_place(self) -> int:
        """Its place in ENDED: in steady ms; older records have the wall's time there, and are never due."""
        return self.ended_steady_ms or self.ended_ms

    @property
    def dead_letters(self) -> int:
        """How many of its members are in the dead letter queue."""
        return self.counts[State.DEAD] - self.purged

    @property
    def lanes(self) -> tuple[int, ...]:
        """The lanes in which members of this job may stand."""
        return (self.lane, self.lane_alone) if self.lane_alone else (self.lane,)

    def again_in(self, lane: int) -> int:
        """How many members came back to the queue and stand in this lane."""
        return self.again if lane == self.lane else self.again_alone

    def is_ready_in(self, lane: int) -> bool:
        """Whether READY has the job in this lane."""
        return self.ready if lane == self.lane else self.ready_alone

    def set_ready(self, lane: int, ready: bool) -> None:
        """Note whether READY has the job in this lane."""
        if lane == self.lane:
            self.ready = ready
        else:
            self.ready_alone = ready

    def count_again(self, lane: int, more: int) -> None:
        """Count a member that comes back to this lane, or leaves it."""
        if lane == self.lane:
            self.again += more
        else:
            self.again_alone += more

    def is_startable(self, lane: int) -> bool:
        """Whether something of this job may start in this lane now, as far as the job alone decides."""
        if self.hold or self.cancelling:
            return False
        if lane != self.lane:
            return self.again_alone > 0 and not 0 < self.throttle <= self.counts[_RUNNING]
        if self.throttle and self._places <= 0:
            return False
        return self.again > 0 or (self.first is _QUEUED and self.untouched > 0)

    @property
    def startable(self) -> int:
        """How many of this job may start in its own lane now, as far as the job alone decides."""
        if not self.is_startable(self.lane):
            return 0
        many = self.again + (self.untouched if self.first is _QUEUED else 0)
        return min(many, self._places) if self.throttle else many


class Meta(msgspec.Struct, array_like=True, tag=1):
    """The counters of the store. `sequence` numbers commits; `epoch` grows at each start of the server."""

    lineage: int
    epoch: int = 0
    sequence: int = 0
    steady_ms: int = 0
    wall_ms: int = 0
    next_job: int = 1
    next_lane: int = 1
    next_blob: int = 1
    next_sweep: int = 1
    named_from: int = 0  # from this job on NAMED has all rows that jobs have today
    beat_ms: int = round(heartbeat_s * 1_000)  # of the server that started last
    held_until_ms: int = 0  # steady: until when a worker may run what a server before that one has let it
    named_by: int = 0  # which kinds of rows those are (read/job_index.py)


class Upload(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """What a client sends before its submit: the pieces of one input, or the entries of an array.

    `received` is the next offset in bytes, or the next entry; `largest` the size of the largest entry; `digest` what
    the sender calls the entries so far.
    """

    submitter: str
    blob: int
    received: int
    expires_ms: int  # steady
    is_entries: bool = False
    largest: int = 0
    digest: bytes = b""


class Entries(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A run of entries of an array, one for each member from the key's `first` on."""

    items: tuple[bytes, ...]


class KeyUse(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """What a client's key was used for: the digest of the request, and the job it made."""

    digest: bytes
    job: int
    expires_ms: int  # steady
    is_forgotten: bool = False  # the job is gone; the key stays until it expires


class Forgotten(msgspec.Struct, frozen=True, array_like=True):
    """What goes with a forgotten job: its blobs. Never stored: the store deletes the ranges instead."""

    blobs: tuple[int, ...] = ()


class Sweep(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Work on many jobs or members that goes on in slices by a due-now timer and survives a restart.

    `command` is the msgpack of the command of a client; `job` and `member` say where to go on, `last` is the last job.
    `part_of` is the number of the sweep that this one is a part of, 0 = a whole one: it is as old as that. `given_ms`
    says when the command was given (steady): it removes nothing that has ended since.
    """

    command: bytes
    job: int
    last: int
    member: int = 0
    part_of: int = 0
    given_ms: int = 0  # 0 = nobody knows: an older release has stored it


ROLES: Final = ("read", "submit", "worker", "admin")  # of a token; what each may do stands in server/sessions/roles.py


class Token(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """An access token as stored: never the secret, only its SHA-256. Times in wall ms, 0 = never.

    Older releases have stored one more integer behind these, always 0: that is what the next field reads there.
    """

    digest: bytes
    role: str
    name: str
    created_ms: int
    expires_ms: int = 0
