"""Soft state: the connected workers, what they hold, which lanes have work. In memory only.

Built from the store at the start and folded from the changes of each finished command by the same function, `fold`:
handlers never touch it. What a handler wants changed here goes through the `LIVE_*` tables, which are not written.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from tq.core import tables
from tq.core.job import Lane, Queue
from tq.core.put_off import PutOff
from tq.core.task import Phase, State, Task
from tq.core.timers import STEADY, SWEEPS
from tq.core.view import Changes, Key, Table, View, pages
from tq.core.vocabulary import AttemptRef, Capacity
from tq.limits import (
    prefetch_max,
    prefetch_ms,
    prefetch_runs_latest,
    prefetch_runs_min,
    prefetch_runs_seen,
    put_off_max,
    quarantine_troubles,
    trouble_pause_ms,
)

TaskKey = tuple[int, int, int]


class FoldFailed(Exception):
    """The soft state is no longer that of the store: fatal, since going on would be a guess (docs/adr/0023)."""


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

    @property
    def pause_ms(self) -> int:
        """How long the worker rests after this trouble, and after each try."""
        first_ms, longest_ms = trouble_pause_ms
        return min(longest_ms, first_ms << min(self.count - 1, 16))

    @property
    def is_quarantine(self) -> bool:
        """Whether so many in a row are more than an accident."""
        return self.count >= quarantine_troubles


_STARTED, _ENDED = Phase.STARTED, Phase.ENDED
_CANCELLED: Final = State.CANCELLED
_RUNNING: Final = State.RUNNING

LIVE_SESSION: Final = Table("live_session", Session, "worker")
LIVE_TROUBLE: Final = Table("live_trouble", Trouble, "worker")
LIVE_WIDTH: Final = Table("live_width", int, "worker", "lane")
LIVE_RECALLED: Final = Table("live_recalled", bool, "worker", "job", "part", "member")
LIVE_TO_RECALL: Final = Table(
    "live_to_recall", list
)  # one row: tasks to be asked back, slice by slice (engine/stop.py)
LIVE_GRANTED: Final = Table("live_granted", int, "name")  # queue -> sequence of the last turn that leased from it
LIVE_COUNT: Final = Table("live_count", int, "name")
LIVE_FLOOR: Final = Table("live_floor", int, "name")  # table -> the first field of its first key (engine/floors.py)
LIVE_UPLOADS: Final = Table("live_uploads", tuple)  # one row: where the walk over the uploads stands (engine/upload.py)
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

    def __init__(self, view: View) -> None:
        self.workers: dict[int, LiveWorker] = {}
        self.jobs: dict[tuple[int, int], dict[int, int]] = {}  # job -> member -> worker
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
        self.failed_timers = PutOff()
        self.failed_ready = PutOff()  # jobs by their rows of READY, and lanes by the prefix of theirs
        self.failed_ended = PutOff()
        self.failed_words: dict[
            Key, None
        ] = {}  # tasks (or jobs) of which a worker's word, or its loss, is lost by a bug
        self.damaged: dict[Key, None] = {}  # jobs that were held because their input could not be read
        self.may_lease = True  # whether the last Dispatch might lease anything: not while the disk is nearly full
        lasting: tuple[Table[Any], ...] = (tables.RUNNING, tables.LANE, tables.LANE_NAME, tables.QUEUE)
        for table in lasting:
            for page in pages(view, table):
                self.fold({table: dict(page)})

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

    def why_waits(self, queue: str) -> str:
        """Return why nothing of a queue may start just now, or '' if it may."""
        settings = self.queues.get(queue)
        if settings is None or settings.paused:
            return f"queue {queue} is paused" if settings is not None else ""
        running = sum(lane.counts[_RUNNING] for lane in self.lanes.values() if lane.queue == queue)
        return f"queue {queue} runs at most {settings.max}" if 0 < settings.max <= running else ""

    def fold(self, changes: Changes) -> None:
        """Take over what a finished command changed."""
        for (name,), queue in changes.get(tables.QUEUE, {}).items():
            if queue is None:
                self.queues.pop(name, None)
            else:
                self.queues[name] = queue
        for (name,), number in changes.get(tables.LANE_NAME, {}).items():
            if number is None:  # its lane is another's now, with other run times
                known = self.lane_names.pop(name)
                self._forget_turns(known)
                self.runs.pop(known, None)
                self.depths.pop(known, None)
            else:
                self.lane_names[name] = number
        lanes = changes.get(tables.LANE)
        if lanes:
            for (number,), lane in lanes.items():
                self.lanes[number] = lane
        timers = changes.get(tables.TIMER)
        if timers:
            self.timers_changed = True
        sessions = changes.get(LIVE_SESSION)
        if sessions:
            for (worker,), session in sessions.items():
                self._fold_session(worker, session)
        for (worker,), trouble in changes.get(LIVE_TROUBLE, {}).items():
            if worker in self.workers:
                self.workers[worker].trouble = trouble
        running = changes.get(tables.RUNNING)
        if running:
            self._fold_running(running, changes.get(tables.TASK, {}))
        for task, record in changes.get(tables.TASK, {}).items():
            if record.phase is _STARTED:
                self._mark_started(task, record)
            if self.failed_words and record.phase is not Phase.STOPPING:  # a cancel has only asked for its end
                self.failed_words.pop(task, None)
                if task[:2] not in self.jobs:
                    self.failed_words.pop(task[:2], None)
        for (worker, lane), width in changes.get(LIVE_WIDTH, {}).items():
            self.workers[worker].widen(lane, width)
        for worker, job, part, member in changes.get(LIVE_RECALLED, {}):
            self.workers[worker].recalled.add((job, part, member))
        if LIVE_TO_RECALL in changes:
            self.to_recall = changes[LIVE_TO_RECALL][()]
        for (queue,), sequence in changes.get(LIVE_GRANTED, {}).items():
            self.granted[queue] = sequence
        for (name,), floor in changes.get(LIVE_FLOOR, {}).items():
            self.floors[name] = floor
        for (ended_ms, _), there in changes.get(tables.ENDED, {}).items():
            if there and ended_ms < self.floors["ended"]:
                self.floors["ended"] = ended_ms  # a job whose dead letters are gone takes its old place
        for job in changes.get(LIVE_DAMAGED, {}):
            _note(self.damaged, job)
        self.uploads_seen = changes.get(LIVE_UPLOADS, {}).get((), self.uploads_seen)
        for (name,), more in changes.get(LIVE_COUNT, {}).items():
            self.counts[name] = self.counts.get(name, 0) + more

    def note_failed(self, keys: Iterable[Key]) -> None:
        """Remember at which attempts something failed that is said once: nobody comes back to it by himself."""
        for key in keys:
            _note(self.failed_words, key)

    def has_failed_word(self, task: TaskKey) -> bool:
        """Whether what became of an attempt of this task, or of some of its job, was lost by a bug."""
        return task in self.failed_words or task[:2] in self.failed_words

    def _forget_turns(self, given_away: int) -> None:
        """Forget when a queue had its turn, if the lane that is given away was its last."""
        queue = self.lanes[given_away].queue
        if not any(lane.queue == queue for number, lane in self.lanes.items() if number != given_away):
            self.granted.pop(queue, None)

    def _mark_started(self, task: TaskKey, record: Task) -> None:
        live = self.workers.get(record.worker)
        if live is not None and task in live.held:
            live.started.setdefault(task, record.since_ms)

    def _fold_session(self, worker: int, session: Session | None) -> None:
        if session is not None:
            self.workers.setdefault(worker, LiveWorker(worker)).session = session
        elif worker in self.workers:
            live = self.workers[worker]
            live.session = None
            if not live.held:
                del self.workers[worker]

    def _fold_running(self, running: dict[Any, int | None], tasks: dict[Any, Task]) -> None:
        for (worker, job, part, member), lane in running.items():
            task = (job, part, member)
            live = self.workers.get(worker)
            if lane is not None:
                if live is None:
                    live = self.workers[worker] = LiveWorker(worker)
                if task not in live.held:
                    live.hold(task, lane)
                self.jobs.setdefault((job, part), {})[member] = worker
            elif live is not None:
                self._release(live, task, tasks.get(task))

    def _release(self, live: LiveWorker, task: TaskKey, record: Task | None) -> None:
        lane = live.release(task)
        if lane is None:
            return
        members = self.jobs[task[0], task[1]]
        if members.get(task[2]) == live.worker:
            del members[task[2]]
            if not members:
                del self.jobs[task[0], task[1]]
        if live.session is None and not live.held:
            del self.workers[live.worker]
        if record is not None and record.phase is _ENDED and record.state is not _CANCELLED:
            self._learn(lane, record.run_us)

    def _learn(self, lane: int, run_us: int) -> None:
        """Remember a run time, and settle anew how deep the lane's chains may be.

        Every 64th run is enough, or one that took as long as a whole chain should: when an array of slow tasks follows
        on one of quick ones, what stands behind each of its first is asked back.
        """
        runs = self.runs.setdefault(lane, [])
        runs.append(max(run_us, 1))
        count = len(runs)
        if count % 64 and count > 32 and (run_us < prefetch_ms * 1_000 or self.depths.get(lane, 1) <= 1):
            return
        if count > prefetch_runs_seen + 64:
            del runs[:64]
        if len(runs) >= prefetch_runs_min:
            usual_us = max(_median(runs), _median(runs[-prefetch_runs_latest:]))
            self.depths[lane] = max(1, min(prefetch_max, prefetch_ms * 1_000 // usual_us))


def _median(runs: list[int]) -> int:
    """Return the lower median; `statistics` would cost every launcher its import."""
    return sorted(runs)[(len(runs) - 1) // 2]


def _note(noted: dict[Key, None], key: Key) -> None:
    """Remember a key, and forget the oldest where there are too many."""
    noted[key] = None
    if len(noted) > put_off_max:
        del noted[next(iter(noted))]
