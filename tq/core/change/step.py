"""One command's working set: what it reads, what it changes, and the indexes that follow from it.

`move()` (a member's record, the index entry of its state, the counts), `move_untouched()` and `settle()` (job ready or
not, job ended) are, with indexes.py, the only code that writes TASK, PROGRESS, LANE's counts, READY, AGAIN, RUNNING,
the timers of retries, DEAD and ENDED.
Handlers say what happens; a handler refuses before its first move. Nothing here outlives the command: its layer is
merged into the turn, or dropped.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from tq import limits
from tq.core.change.indexes import index, unindex
from tq.core.model import tables
from tq.core.model.entries import EntryReader
from tq.core.model.job import Job, JobKey, Lane, Meta, Progress, Sweep
from tq.core.model.task import Cause, Ending, Phase, State, Task, TaskKey, Trigger, transition
from tq.core.model.timers import TimerKind, retry_timer, timer
from tq.core.model.view import Key, Overlay, Row, View
from tq.core.placement.live import LIVE_COUNT, Live
from tq.core.read.job_index import relist, rows_of
from tq.core.vocabulary import Effect, TaskChanged, Times
from tq.limits import history_max, leases_per_dispatch_max, members_per_command_max


class Bounds(NamedTuple):
    """How much one command may do, and what a server decides for jobs that do not say. Tests set the bounds tiny."""

    slice: int = members_per_command_max
    leases: int = leases_per_dispatch_max
    lanes: int = 64
    retries: int = limits.retries  # where neither job nor queue says how often a failure is tried again


_QUEUED, _RETRYING, _DEAD = State.QUEUED, State.RETRYING, State.DEAD
_SUCCEEDED: Final = int(State.SUCCEEDED)
_LEASE: Final = Trigger.LEASE
_ENDED: Final = Phase.ENDED
_CANCELLED: Final = Cause.CANCELLED


class Step:
    """The working set of one command over the turn's overlay."""

    def __init__(
        self, below: View, live: Live, times: Times, sequence: int, submitter: str, bounds: Bounds, meta: Meta | None
    ) -> None:
        self.overlay = Overlay(below)
        self.live = live
        self.times = times
        self.sequence = sequence
        self.submitter = submitter
        self.bounds = bounds
        self.effects: list[Effect] = []
        self.walking: tuple[tuple[int, Sweep, Any], ...] | None = None  # sweeps, once looked for (bulk/sweeps.py)
        self.entries: EntryReader | None = None  # once somebody has read one of them
        self.at: Key = ()  # where it stands: at a row of READY, a lane (the prefix of its rows), a job, or a task
        self.failed_at: Collection[Key] = ()  # tasks and jobs at which this command has failed before
        self.stepped_over = 0  # members with a record that it has stepped over
        self.is_cut = False  # it has stopped at a bound, and goes on in a turn of its own
        self._meta: Meta | None = None
        self._stored_meta = meta
        self._jobs: dict[JobKey, Job] = {}
        self._progress: dict[JobKey, Progress] = {}
        self._lanes: dict[int, Lane] = {}

    # ------------------------------------------------------------ reading

    def task(self, key: TaskKey) -> Task | None:
        """Return the member's record, or None for an untouched one."""
        return self.overlay.get(tables.TASK, key)

    def job(self, key: JobKey) -> Job:
        """Return the job's fixed record; the caller knows that it exists."""
        job = self._jobs.get(key)
        if job is None:
            job = self.overlay.get(tables.JOB, key)
            if job is None:
                raise KeyError(key)
            self._jobs[key] = job
        return job

    def progress(self, key: JobKey) -> Progress:
        """Return the working copy of the job's progress; it is put at the end of the command."""
        progress = self._progress.get(key)
        if progress is None:
            stored = self.overlay.get(tables.PROGRESS, key)
            if stored is None:
                raise KeyError(key)
            progress = self._progress[key] = stored.copy()
        return progress

    def lane(self, number: int) -> Lane:
        """Return the working copy of a lane; it is put at the end of the command."""
        lane = self._lanes.get(number)
        if lane is None:
            lane = self._lanes[number] = self.live.lanes[number].copy()
        return lane

    def meta(self) -> Meta:
        """Return the working copy of the store's counters; it is put at the end of the command."""
        if self._meta is None:
            stored = self._stored_meta or self.overlay.get(tables.META, ())
            if stored is None:
                raise KeyError("meta")
            self._meta = replace(stored)
        return self._meta

    # ------------------------------------------------------------ saying what happened

    def open_job(self, key: JobKey, job: Job, progress: Progress) -> None:
        """Add a new job with all its members untouched."""
        self.overlay.put(tables.JOB, key, job)
        self._jobs[key] = job
        self._progress[key] = progress
        for row in rows_of(key[0], job, progress.listed):
            self.overlay.put(tables.NAMED, row, True)
        progress.counts[progress.first] = progress.untouched = progress.size
        self.lane(progress.lane).counts[progress.first] += progress.size

    def open_lane(self, number: int, lane: Lane) -> None:
        """Add a new lane."""
        self._lanes[number] = lane

    def move(self, key: TaskKey, task: Task | None, trigger: Trigger, **fields: Any) -> Task:
        """Move one member by the table of moves, set `fields` of its record, and keep every index true."""
        if task is None:
            return self.move_run(key[:2], range(key[2], key[2] + 1), trigger, **fields)
        progress = self.progress(key[:2])
        before = task.state
        after = transition(before, trigger)
        if after is _QUEUED or after is _RETRYING or after is _DEAD:
            fields["since_ms"] = self.times.steady_ms
        unindex(self.overlay, key, task, progress, self.job)
        record = replace(task, state=after, **fields)
        index(self.overlay, key, record, progress, self.job)
        _count(self, progress, before, after, 1)
        self.overlay.put(tables.TASK, key, record)
        return record

    def move_run(self, key: JobKey, members: range, trigger: Trigger, **fields: Any) -> Task:
        """Move untouched members of a job, alike in all: they share the record that they get."""
        progress = self.progress(key)
        before = progress.first
        after = transition(before, trigger)
        if after is _QUEUED or after is _RETRYING:
            fields["since_ms"] = self.times.steady_ms
        _touch(progress, members, trigger)
        record = Task(after, **fields)
        for member in members:
            task = (*key, member)
            index(self.overlay, task, record, progress, self.job)
            self.overlay.put(tables.TASK, task, record)
        _count(self, progress, before, after, len(members))
        return record

    def move_untouched(self, key: JobKey, trigger: Trigger) -> int:
        """Move all untouched members of a job at once: one field. Return how many."""
        progress = self.progress(key)
        after = transition(progress.first, trigger)
        _count(self, progress, progress.first, after, progress.untouched)
        progress.first = after
        return progress.untouched

    def mark(self, key: TaskKey, task: Task, **fields: Any) -> Task:
        """Set fields of a record that keep its state and so its indexes (phase, cause, start)."""
        record = replace(task, **fields)
        self.overlay.put(tables.TASK, key, record)
        return record

    def purge(self, key: TaskKey, task: Task) -> None:
        """Take a dead member out of the dead letter queue; its record stays as long as its job."""
        progress = self.progress(key[:2])
        unindex(self.overlay, key, task, progress, self.job)
        progress.purged += 1
        self.mark(key, task, purged=True)
        if progress.kept and not progress.dead_letters:
            # Retention finds it again, at its old age.
            progress.kept = False
            self.overlay.put(tables.ENDED, (progress.ended_place, key[0]), True)

    def set_timer(self, kind: TimerKind, due_ms: int, subject: int = 0) -> None:
        """Ask for `kind` to be done at `due_ms` of the steady clock. `subject` names what it is about (a sweep)."""
        self.overlay.put(tables.TIMER, timer(kind, due_ms, subject), True)

    def count(self, name: str, more: int = 1) -> None:
        """Add to one of the live counters."""
        seen = self.overlay.changes.get(LIVE_COUNT, {}).get((name,), 0)
        self.overlay.put(LIVE_COUNT, (name,), seen + more)

    def set_rank(self, key: JobKey, rank: int) -> None:
        """Give a job another place in its lane."""
        progress = self.progress(key)
        for lane in progress.lanes if rank != progress.rank else ():
            if progress.is_ready_in(lane):
                # Out of its old place; settle() puts it into the new one.
                self.overlay.delete(tables.READY, (lane, progress.rank, *key))
                self.lane(lane).ready -= 1
                progress.set_ready(lane, False)
        progress.rank = rank

    def close_job(self, key: JobKey) -> None:
        """Remove an ended job's own rows; those of its members go as a range."""
        progress = self.progress(key)
        counts = self.lane(progress.lane).counts
        for state, count in enumerate(progress.counts):
            counts[state] -= count
        for row in rows_of(key[0], self.job(key), progress.listed):
            self.overlay.delete(tables.NAMED, row)
        self.overlay.delete(tables.ENDED, (progress.ended_place, key[0]))
        self.overlay.delete(tables.PROGRESS, key)
        self.overlay.delete(tables.JOB, key)
        del self._progress[key]
        self.effects.append(TaskChanged(*key))

    # ------------------------------------------------------------ what follows from it

    def settle(self) -> None:
        """Bring READY, ENDED and NAMED in line with every job touched, and put all working copies."""
        for key, progress in self._progress.items():
            for lane in progress.lanes:
                self.at = (lane, progress.rank, *key)
                self._settle_ready(progress, lane, self.at)
            ended = sum(progress.counts[_SUCCEEDED:])
            self._settle_ended(key, progress, is_ended=ended == progress.size)
            if progress.listed or progress.hold or ended != progress.counts[_SUCCEEDED]:
                relist(self.overlay, key[0], progress)
            self.overlay.put(tables.PROGRESS, key, progress)
            self.effects.append(TaskChanged(*key))
        for number, working in self._lanes.items():
            self.overlay.put(tables.LANE, (number,), working)
        if self._meta is not None:
            self.overlay.put(tables.META, (), self._meta)

    def _settle_ready(self, progress: Progress, number: int, entry: Key) -> None:
        startable = progress.is_startable(number)
        if startable is progress.is_ready_in(number):
            return
        progress.set_ready(number, startable)
        lane = self.lane(number)
        if startable:
            lane.ready += 1
            lane.floor_rank, lane.floor_job, lane.floor_part = min(
                (lane.floor_rank, lane.floor_job, lane.floor_part), entry[1:]
            )
            self.overlay.put(tables.READY, entry, True)
        else:
            lane.ready -= 1
            self.overlay.delete(tables.READY, entry)

    def _settle_ended(self, key: JobKey, progress: Progress, *, is_ended: bool) -> None:
        if is_ended is (progress.ended_ms > 0):
            return
        progress.kept = False
        if is_ended:
            progress.ended_ms = max(self.times.wall_ms, 1)
            progress.ended_steady_ms = max(self.times.steady_ms, 1)
            self.overlay.put(tables.ENDED, (progress.ended_place, key[0]), True)
        else:
            self.overlay.delete(tables.ENDED, (progress.ended_place, key[0]))
            progress.ended_ms = progress.ended_steady_ms = 0


def wait_until(step: Step, key: TaskKey, task: Task, due_ms: int) -> None:
    """Let a member that failed wait for its next attempt until then. Needs nothing of its job."""
    step.overlay.delete(tables.TIMER, retry_timer(key, task))
    step.overlay.put(tables.TIMER, retry_timer(key, step.mark(key, task, due_ms=due_ms)), True)


def running_in(step: Step, queue: str) -> int:
    """Return how many of a queue run, or are assigned to run, as this command has left it so far."""
    lanes = {**step.live.lanes, **step._lanes}  # noqa: SLF001 - the same noun
    return sum(lane.counts[State.RUNNING] for lane in lanes.values() if lane.queue == queue)


def came_back(step: Step, key: JobKey, lane: int, limit: int) -> Sequence[Row]:
    """Return rows of AGAIN: members that came back to a lane, the oldest first. Raises the floor to the first one.

    What comes back later is not older: only in the same millisecond it may stand before it.
    """
    progress = step.progress(key)
    is_own = lane == progress.lane
    floor = (progress.floor_since_ms, progress.floor_member) if is_own else ()
    rows = step.overlay.scan(tables.AGAIN, (*key, lane, *floor), (*key, lane + 1), limit)
    if rows and is_own:
        _, _, _, since_ms, member = rows[0][0]
        progress.floor_since_ms = since_ms
        progress.floor_member = member if since_ms < step.times.steady_ms else 0
    return rows


def _count(step: Step, progress: Progress, before: State, after: State, more: int) -> None:
    """Count that members of a job go from one state to another."""
    counts, all_counts = progress.counts, step.lane(progress.lane).counts
    counts[before] -= more
    counts[after] += more
    all_counts[before] -= more
    all_counts[after] += more


def _touch(progress: Progress, members: range, trigger: Trigger) -> None:
    """Count that untouched members get a record."""
    progress.untouched -= len(members)
    if trigger is _LEASE:
        progress.cursor = members.stop
    elif members.start >= progress.cursor:
        progress.ahead += len(members)


def history_with_last(task: Task | None) -> tuple[Ending, ...]:
    """Return the history with how the latest attempt ended, unless it was given back without having run."""
    if task is None or task.phase not in (Phase.ENDED, Phase.LOST):
        return task.history if task else ()
    if task.history and task.history[-1].attempt == task.attempt:
        return task.history  # it was cancelled after that
    is_lost = task.phase is Phase.LOST
    cause = Cause.LOST if is_lost else task.cause
    return history_with(task, cause, task.code, task.ended_ms, charged=task.charged or not is_lost)


def history_with(task: Task, cause: Cause, code: int, ended_ms: int, *, charged: bool) -> tuple[Ending, ...]:
    """Return the history with an end of the latest attempt; the oldest ones go."""
    started_ms = task.started_ms or task.leased_ms
    last = Ending(task.attempt, task.worker, task.host, int(cause), code, started_ms, ended_ms, charged)
    return (*task.history, last)[-history_max:]


def ending(step: Step, cause: Cause, code: int, run_us: int, result: bytes = b"") -> dict[str, Any]:
    """Return the fields of a record whose latest attempt ends now. Times are the server's: workers' clocks differ.

    A `run_us` of 0 says that it could not be started, or was stopped before that: what is cancelled then has no attempt
    that ended.
    """
    ended_ms = step.times.wall_ms
    fields = {
        "phase": _ENDED if run_us or cause is not _CANCELLED else Phase.NONE,
        "cause": cause,
        "code": code,
        "run_us": run_us,
        "run_clipped": False,
        "result": result,
        "ended_ms": ended_ms,
        "started_ms": max(ended_ms - run_us // 1_000, 0),
    }
    if run_us:
        fields["has_run"] = True
    return fields
