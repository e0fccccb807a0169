"""Soft state: the connected workers, what they hold, which lanes have work. In memory only.

It follows from the store and from the changes of each finished command (fold.py): handlers never touch it. What one of
them wants changed here goes through the `LIVE_*` tables, which are not written.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec

from tq.core.model import tables
from tq.core.model.job import JobKey, Lane, Queue
from tq.core.model.task import State, TaskKey
from tq.core.model.timers import STEADY, SWEEPS
from tq.core.model.view import Key, Table
from tq.core.placement.quarantine import Quarantine
from tq.core.vocabulary import AttemptRef, Capacity
from tq.limits import prefetch_ms, put_off_max, quarantine_troubles, trouble_pause_ms

_K = TypeVar("_K")
_V = TypeVar("_V")


class Session(msgspec.Struct, frozen=True):
    """A worker's current connection and what it offers."""

    number: int
    capacity: Capacity
    draining: bool = False
    predecessors: tuple[int, ...] = ()
    drain_due_ms: int = -1  # steady: until when somebody lets its attempts run; -1 = to their ends
    silent: bool = False  # nothing is heard of it just now: it may be back, or be lost soon


class Trouble(msgspec.Struct, frozen=True):
    """A worker could not start what it was given, `count` times in a row. Nothing is given to it before `until_ms`.

    Then it gets one attempt, as a try: of something else than `failed`, lanes and jobs in the order of their latest
    trouble, if there is anything. `sequence` is that of the commit which noted the last trouble: only an attempt that
    was leased after it says anything new.
    """

    count: int
    until_ms: int  # steady
    sequence: int
    failed: tuple[Key, ...] = ()  # lane, job, part
    error: str = ""  # what the worker said, for a person

    @property
    def pause_ms(self) -> int:
        """How long the worker rests after this trouble, and after each try."""
        first_ms, longest_ms = trouble_pause_ms
        return min(longest_ms, first_ms << min(self.count - 1, 16))

    @property
    def is_quarantine(self) -> bool:
        """Whether so many in a row are more than an accident."""
        return self.count >= quarantine_troubles


_RUNNING: Final = State.RUNNING

LIVE_SESSION: Final = Table("live_session", Session, "worker")
LIVE_TROUBLE: Final = Table("live_trouble", Trouble, "worker")
LIVE_WIDTH: Final = Table("live_width", int, "worker", "lane")
LIVE_RECALLED: Final = Table("live_recalled", bool, "worker", "job", "part", "member")
# One row: tasks to be asked back, slice by slice (change/stop.py).
LIVE_TO_RECALL: Final = Table("live_to_recall", list)
LIVE_GRANTED: Final = Table("live_granted", int, "name")  # queue -> sequence of the last turn that leased from it
LIVE_COUNT: Final = Table("live_count", int, "name")
LIVE_FLOOR: Final = Table("live_floor", int, "name")  # table -> the first field of its first key (change/scan_start.py)
LIVE_UPLOADS: Final = Table("live_uploads", tuple)  # one row: where the walk over the uploads stands (change/upload.py)
LIVE_DAMAGED: Final = Table("live_damaged", bool, "job", "part")  # jobs whose input cannot be read
LIVE_TABLES: Final[frozenset[Table[Any]]] = frozenset(
    (
        LIVE_SESSION,
        LIVE_TROUBLE,
        LIVE_WIDTH,
        LIVE_RECALLED,
        LIVE_TO_RECALL,
        LIVE_GRANTED,
        LIVE_COUNT,
        LIVE_FLOOR,
        LIVE_UPLOADS,
        LIVE_DAMAGED,
    )
)
NO_UPLOADS: Final = ("", 1 << 62)  # the next name, and when the first ends of those that are passed
FLOORED: Final[tuple[Table[Any], ...]] = (tables.JOB, tables.ENDED, tables.KEY_END)


class Load:
    """What one worker holds of one lane: `held` attempts in `width` chains."""

    __slots__ = ("held", "width")

    def __init__(self) -> None:
        self.held = 0
        self.width = 0


class LiveWorker:
    """One worker that is connected, or that holds attempts and is owed its re-attach window (`session` None)."""

    __slots__ = ("held", "loads", "recalled", "session", "slots_used", "started", "trouble", "worker")

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.session: Session | None = None
        self.held: dict[TaskKey, int] = {}  # task -> lane, oldest lease first
        self.loads: dict[int, Load] = {}
        self.slots_used = 0
        self.started: dict[TaskKey, int] = {}  # task -> steady ms of the commit that said so
        self.recalled: set[TaskKey] = set()
        self.trouble: Trouble | None = None

    @property
    def session_number(self) -> int:
        """The number of its current session, 0 for none."""
        return self.session.number if self.session else 0

    @property
    def is_heard(self) -> bool:
        """Whether it is connected, and not silent."""
        return self.session is not None and not self.session.silent

    @property
    def draining(self) -> bool:
        """Whether it asked, or was asked, for nothing more."""
        return self.session is not None and self.session.draining

    @property
    def capacity(self) -> Capacity:
        """What it offers; nothing while it is not connected."""
        return self.session.capacity if self.session else Capacity(slots=0)

    def may_lease(self, steady_ms: int) -> bool:
        """Whether anything may be given to it now: it is heard, does not drain, and does not rest after trouble."""
        is_resting = self.trouble is not None and steady_ms < self.trouble.until_ms
        return self.is_heard and not self.draining and not is_resting

    @property
    def has_slot(self) -> bool:
        """Whether it has a slot that no chain has."""
        return self.slots_used < self.capacity.slots

    def hold(self, task: TaskKey, lane: int) -> None:
        """Count an attempt that was leased to it."""
        self.held[task] = lane
        load = self.loads.get(lane)
        if load is None:
            load = self.loads[lane] = Load()
        load.held += 1
        if not load.width:
            self._set_width(load, 1)

    def release(self, task: TaskKey) -> int | None:
        """Count the end of an attempt; return its lane. A chain ends with its last attempt."""
        lane = self.held.pop(task, None)
        if lane is None:
            return None
        if self.started:
            self.started.pop(task, None)
        if self.recalled:
            self.recalled.discard(task)
        load = self.loads[lane]
        load.held -= 1
        if load.held < load.width:
            self._set_width(load, load.held)
        if not load.held:
            del self.loads[lane]
        return lane

    def widen(self, lane: int, width: int) -> None:
        """Set how many attempts of a lane it may run at once."""
        load = self.loads.get(lane)
        if load is not None:
            self._set_width(load, min(width, load.held))

    def long_running(self, lane: int, steady_ms: int) -> int:
        """Count the attempts of a lane that have run for longer than a whole chain should take."""
        return sum(
            1
            for task, since_ms in self.started.items()
            if steady_ms - since_ms >= prefetch_ms and self.held[task] == lane
        )

    def _set_width(self, load: Load, width: int) -> None:
        self.slots_used += width - load.width
        load.width = width


class Live:
    """All soft state of the engine."""

    def __init__(self) -> None:
        self.workers: dict[int, LiveWorker] = {}
        self.gone: dict[int, Session] = {}  # the last sessions of workers that were lost: some of them come back
        self.jobs: dict[JobKey, dict[int, int]] = {}  # job -> member -> worker
        self.lanes: dict[int, Lane] = {}
        self.lane_names: dict[str, int] = {}
        self.queues: dict[str, Queue] = {}
        self.runs: dict[int, list[int]] = {}  # lane -> us of its last runs
        self.depths: dict[int, int] = {}  # lane -> how deep a chain may be
        self.to_recall: list[TaskKey] = []
        self.granted: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.timer_floors = {STEADY: 0, SWEEPS: 0}  # nothing is due before: deleted keys at the head are slow to pass
        self.floors = {table.name: 0 for table in FLOORED}
        self.uploads_seen = NO_UPLOADS
        self.timers_changed = True  # since somebody last looked for the next one
        self.failed_timers = Quarantine()
        self.failed_ready = Quarantine()  # jobs by their rows of READY, and lanes by the prefix of theirs
        self.failed_ended = Quarantine()
        # Tasks (or jobs) of which a worker's word, or its loss, is lost by a bug.
        self.failed_words: dict[Key, None] = {}
        self.damaged: dict[Key, None] = {}  # jobs that were held because their input could not be read
        self.may_lease = True  # whether the last Dispatch might lease anything: not while the disk is nearly full

    def holds(self, worker: int, ref: AttemptRef) -> bool:
        """Whether that worker holds an attempt of that task."""
        live = self.workers.get(worker)
        return live is not None and ref.task in live.held

    def depth(self, lane: int) -> int:
        """How many attempts of a lane may stand in one chain; 1 while its run times are unknown or long.

        Where a bound counts what runs, nothing may wait on a worker: an assigned attempt counts as running.
        """
        queue = self.queues.get(self.lanes[lane].queue)
        return 1 if queue is not None and queue.max else self.depths.get(lane, 1)

    def is_paused(self, queue: str) -> bool:
        """Whether somebody has paused a queue."""
        settings = self.queues.get(queue)
        return settings is not None and settings.paused

    def may_start(self) -> dict[str, int]:
        """How many more may start of each queue that is paused or has a bound. Looks at all lanes once: there may be a
        thousand such queues.
        """
        left = {
            name: 0 if queue.paused else queue.max for name, queue in self.queues.items() if queue.paused or queue.max
        }
        for lane in self.lanes.values() if left else ():
            if lane.queue in left:
                left[lane.queue] -= lane.counts[_RUNNING]
        return {name: max(more, 0) for name, more in left.items()}

    def why_full(self, queue: str) -> str:
        """Return why nothing of a queue may start before something of it has ended, or '' if it may."""
        settings = self.queues.get(queue)
        if settings is None:
            return ""
        running = sum(lane.counts[_RUNNING] for lane in self.lanes.values() if lane.queue == queue)
        return f"queue {queue} runs at most {settings.max}" if 0 < settings.max <= running else ""

    def note_failed(self, keys: Iterable[Key]) -> None:
        """Remember at which attempts something failed that is said once: nobody comes back to it by himself."""
        for key in keys:
            note(self.failed_words, key, None)

    def has_failed_word(self, task: TaskKey) -> bool:
        """Whether what became of an attempt of this task, or of some of its job, was lost by a bug."""
        return task in self.failed_words or task[:2] in self.failed_words


def note(noted: dict[_K, _V], key: _K, what: _V) -> None:
    """Remember what is to be known of a key, and forget the oldest where there are too many."""
    noted[key] = what
    if len(noted) > put_off_max:
        del noted[next(iter(noted))]
