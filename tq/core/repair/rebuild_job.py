"""One job anew from the records that can be read: its counts, its index entries, and what is made of what it lacks.

Part of rebuild.py. A member whose record is lost, though the cursor has passed it, or whose entry is lost, becomes a
dead letter: it may have run, or cannot. A job of which more than that is in doubt is held. A member that was cancelled
and has lost its entry gets a record of that, so that a retry of the job passes it over.
"""

from collections.abc import Callable, Iterator
from typing import Final

from msgspec.structs import replace

from tq.core.change.indexes import index
from tq.core.model import tables
from tq.core.model.job import Job, JobKey, Progress
from tq.core.model.retry import runs_alone
from tq.core.model.task import STATES, Cause, Phase, State, Task
from tq.core.model.view import Overlay, View
from tq.core.read.job_index import listed_of
from tq.limits import piece_bytes_max, priority_max

_PIECES_MAX: Final = 1_000

LaneFor = Callable[[Job, bool], int]


class JobRebuild:
    """Rebuilds one job of `view` into `out`. `lane_for` finds or opens the lane of a job (True: its lane alone).

    `is_sure`: an input that looks complete is; `is_old`: any record may be an older one. `losses` says afterwards what
    is lost of the job, in words.
    """

    def __init__(self, view: View, out: Overlay, key: JobKey, job: Job, lane_for: LaneFor) -> None:
        self.key = key
        self.job = job
        self.losses: list[str] = []
        self.dead = 0  # members that became dead letters here
        self.steady_ms = 0  # the latest that a record speaks of
        self._view = view
        self._out = out
        self._lane_for = lane_for
        stored = view.get(tables.PROGRESS, key)
        self._was_kept = stored is not None and stored.kept
        self._said_ahead = stored.ahead if stored is not None else 0
        self.progress = _without_derived(stored or Progress(0, priority_max - job.priority, job.size))
        self.progress.size = job.size
        self.progress.lane = lane_for(job, runs_alone(job.crash_limit, 0))
        if stored is None:
            self.progress.cursor = self._behind_leased()
            self.losses.append("how far it was is lost")

    def run(self, wall_ms: int, *, is_sure: bool, is_old: bool = False) -> Iterator[None]:
        """Put all rows of the job but those of READY; yields after every few, so that the caller can take them away."""
        progress = self.progress
        lost = self._lost_entries() if self.job.entries else []
        job = self.job = replace(self.job, has_lost_entries=bool(lost))
        if job.stdin and not self._has_input(is_sure=is_sure):
            self.losses.append("a part of its input is lost")
        if lost:
            self.losses.append(f"the entries of {sum(map(len, lost))} tasks are lost")
        due = 0
        for member, task in self._records():
            yield from self._put_missing(range(due, member), lost, wall_ms)
            is_stuck = not task.state.is_terminal and any(member in run for run in lost)
            self._put(member, _ended(task, wall_ms) if is_stuck else task)
            self.dead += is_stuck
            due = member + 1
            yield
        yield from self._put_missing(range(due, job.size), lost, wall_ms)
        progress.untouched = job.size - sum(progress.counts)
        progress.counts[progress.first] += progress.untouched
        self._say_lost_records(progress)
        if is_old and not progress.is_ended:
            self.losses.append("what it did last may be lost")
        if self.losses and not progress.is_ended:
            self._hold()
        progress.ended_ms = (progress.ended_ms or wall_ms) if progress.is_ended else 0
        progress.ended_steady_ms = progress.ended_steady_ms if progress.is_ended else 0
        progress.kept = self._was_kept and progress.is_ended and progress.dead_letters > 0
        if progress.ended_ms and not progress.kept:
            self._out.put(tables.ENDED, (progress.ended_place, self.key[0]), True)
        progress.listed = listed_of(progress)
        self._out.put(tables.JOB, self.key, job)
        self._out.put(tables.PROGRESS, self.key, progress)

    def _say_lost_records(self, progress: Progress) -> None:
        cancelled = self._said_ahead - progress.ahead
        if cancelled > 0 and not progress.first.is_terminal and progress.untouched:
            self.losses.append(f"which {cancelled} of its tasks had been cancelled is lost")

    def _hold(self) -> None:
        """Let nothing start before somebody has looked at the job."""
        progress = self.progress
        progress.hold = True
        if progress.first is State.QUEUED:
            progress.counts[State.QUEUED] -= progress.untouched
            progress.counts[State.HELD] += progress.untouched
            progress.first = State.HELD

    def _records(self) -> Iterator[tuple[int, Task]]:
        low: tuple[int, ...] = (*self.key, 0)
        while rows := self._view.scan(tables.TASK, low, (self.key[0], self.key[1] + 1), 1_000):
            yield from ((found[2], task) for found, task in rows if found[2] < self.job.size)
            low = (*self.key, rows[-1][0][2] + 1)

    def _behind_leased(self) -> int:
        """Return where the cursor stands at least, by the records."""
        return max((member + 1 for member, task in self._records() if task.attempt), default=0)

    def _put_missing(self, members: range, lost: list[range], wall_ms: int) -> Iterator[None]:
        """Put records of those of the members, none of which has one, that must not start (again) by themselves."""
        first, cursor = self.progress.first, self.progress.cursor
        dead = Task(State.DEAD, Phase.ENDED, attempt=1, cause=Cause.INTERNAL, ended_ms=wall_ms)
        for member in range(members.start, min(members.stop, cursor)):
            self._put(member, dead)
            self.dead += 1
            yield
        without_entry = Task(first, cause=Cause.CANCELLED, ended_ms=wall_ms) if first.is_terminal else dead
        for run in lost:
            for member in range(max(run.start, members.start, cursor), min(run.stop, members.stop)):
                self._put(member, without_entry)
                self.dead += without_entry is dead
                yield

    def _put(self, member: int, task: Task) -> None:
        """Put a member's record with the index entry that follows from it, and count it."""
        key, job, progress = (*self.key, member), self.job, self.progress
        if not progress.lane_alone and task.losses and not runs_alone(job.crash_limit, 0):
            progress.lane_alone = self._lane_for(job, True) if runs_alone(job.crash_limit, task.losses) else 0
        progress.counts[task.state] += 1
        progress.ahead += member >= progress.cursor
        if task.state is State.DEAD and task.purged:
            progress.purged += 1
        else:
            index(self._out, key, task, progress, lambda _: job)
        self._out.put(tables.TASK, key, task)
        value = self._view.get(tables.RESULT, key) if task.value_bytes > len(task.value) else None
        if value is not None:
            self._out.put(tables.RESULT, key, value)
        self.steady_ms = max(self.steady_ms, task.since_ms)

    # ------------------------------------------------------------ what was uploaded

    def _has_input(self, *, is_sure: bool) -> bool:
        """Whether the pieces of the input follow on one another. Only the last one may be shorter than the others."""
        rows = self._view.scan(tables.BODY, (self.job.stdin,), (self.job.stdin + 1,), _PIECES_MAX)
        sizes = {piece: len(data) for (_, piece), data in rows}
        if sorted(sizes) != list(range(len(sizes))) or not sizes:
            return False
        last = sizes.pop(max(sizes))
        return all(size == piece_bytes_max for size in sizes.values()) and (is_sure or last < piece_bytes_max)

    def _lost_entries(self) -> list[range]:
        """Return the members whose entries are lost. Nothing stands for them: retried, they would run with nothing."""
        lost: list[range] = []
        due = 0
        low: tuple[int, ...] = (self.job.entries,)
        while rows := self._view.scan(tables.ENTRIES, low, (self.job.entries + 1,), 100):
            for (_, first), run in rows:
                if first > due:
                    lost.append(range(due, first))
                due = max(due, first + len(run.items))
            low = (self.job.entries, rows[-1][0][1] + 1)
        if due < self.job.size:
            lost.append(range(due, self.job.size))
        return lost


def _without_derived(stored: Progress) -> Progress:
    """Return a working copy of a job's progress without what follows from its members."""
    progress = stored.copy()
    progress.untouched = progress.ahead = progress.again = progress.again_alone = progress.purged = 0
    progress.lane_alone = 0
    progress.cancelled_sweep = progress.held_sweep = 0  # sweeps are numbered anew
    progress.ranked_sweep = progress.throttled_sweep = 0
    progress.floor_since_ms = progress.floor_member = 0
    progress.ready = progress.ready_alone = progress.kept = progress.forgetting = False
    progress.counts = [0] * STATES
    return progress


def _ended(task: Task, wall_ms: int) -> Task:
    """Return the record of a member that cannot go on, as a dead letter."""
    return replace(task, state=State.DEAD, phase=Phase.ENDED, cause=Cause.INTERNAL, ended_ms=wall_ms, purged=False)
