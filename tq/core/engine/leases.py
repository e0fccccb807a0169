"""The attempts that one dispatch leases: into which places, how many of a bounded queue, and what is sent of them."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any, Final

from tq.core.change.step import Step, history_with_last
from tq.core.change.worker_backoff import note_try
from tq.core.engine import ready
from tq.core.model import ids, tables
from tq.core.model.entries import EntryReader
from tq.core.model.job import JobKey
from tq.core.model.task import Cause, Phase, Task, Trigger
from tq.core.model.view import Key
from tq.core.placement.fit import Room
from tq.core.placement.live import LIVE_GRANTED, LIVE_WIDTH
from tq.core.vocabulary import Assignment, AttemptRef, Start
from tq.limits import body_bytes_max, prefetch_max

_LEASE: Final = Trigger.LEASE
_ASSIGNED: Final = Phase.ASSIGNED


class Leases:
    """The attempts leased by one dispatch, and the Start effects that they become."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.taken = 0
        self._entries = EntryReader(step.overlay)
        self._starts: dict[tuple[int, int, JobKey], list[Assignment]] = defaultdict(list)
        self._widths: dict[tuple[int, int], int] = {}
        self.added: dict[int, dict[int, int]] = defaultdict(dict)
        # Lanes that keep workers free, and what was passed over there.
        self.unmet: list[tuple[int, Collection[Key]]] = []
        self._left = step.live.may_start()
        self._kept: dict[str, set[int]] = defaultdict(set)  # queue -> lanes that wait to run alone, with a place each

    def bound(self, number: int) -> int | None:
        """Return how many of a lane may still start by the bound of its queue, but for places that others keep there;
        None for any number.
        """
        queue = self._step.live.lanes[number].queue
        left = self._left.get(queue)
        return None if left is None else left - len(self._kept[queue] - {number})

    def use(self, number: int, taken: int, *, keeps: bool) -> None:
        """Count what was leased of a lane in a bounded queue, and whether it keeps a place for what waits."""
        queue = self._step.live.lanes[number].queue
        self._left[queue] -= taken
        if keeps:
            self._kept[queue].add(number)
        else:
            self._kept[queue].discard(number)

    def fill(self, number: int, room: Room, resting: Collection[Key]) -> bool:
        """Lease members of a lane, in order, into the places that there are, but of jobs that rest. Return whether some
        found none.
        """
        if not room.count:
            return True
        lane = self._step.live.lanes[number]
        self._step.overlay.put(LIVE_GRANTED, (lane.queue,), self._step.sequence)
        for jobs, (key, progress) in enumerate(ready.jobs_in_order(self._step, number, resting), start=1):
            for members, task in ready.members_in_order(self._step, key, progress, number, room):
                self._lease(key, members, task, number, room)
                room.use(len(members))
                if not room.count:
                    return progress.is_startable(number) or jobs + ready.resting_in((number,), resting) < lane.ready
            if self._step.is_cut:
                break  # what comes after this job in the lane must not overtake it
        return False

    def send(self) -> None:
        """Turn what was leased into effects, grouped by worker and job."""
        for (worker, lane), width in self._widths.items():
            self._step.overlay.put(LIVE_WIDTH, (worker, lane), width)
        for (worker, lane, key), assignments in self._starts.items():
            live = self._step.live.workers[worker]
            job = self._step.job(key)
            for part in _frames(assignments, body_bytes_max - len(job.body)):
                self._step.effects.append(
                    Start(
                        worker=worker,
                        session=live.session_number,
                        lane=lane,
                        width=self._widths[worker, lane],
                        is_array=job.is_array,
                        queue=job.queue,
                        trace=job.trace,
                        body=job.body,
                        stdin=job.stdin,
                        attempts=part,
                    )
                )

    def _lease(self, key: JobKey, members: range, task: Task | None, lane: int, room: Room) -> None:
        """Lease members of a job, one that has the record `task` or a run of untouched ones, into the next places."""
        step, worker = self._step, room.worker
        attempt = task.attempt + 1 if task else 1
        has_run = task is not None and task.attempt > 0 and task.has_run
        fields: dict[str, Any] = {
            "phase": _ASSIGNED,
            "attempt": attempt,
            "lease": step.sequence,
            "worker": worker.worker,
            "host": worker.capacity.host,
            "leased_ms": step.times.wall_ms,
            "has_run": has_run,
        }
        if task is None:
            step.move_run(key, members, _LEASE, **fields)
        else:
            task_key = (*key, members.start)
            step.move(task_key, task, _LEASE, **fields, **_into_history(task))
            if task.value_bytes > len(task.value):
                step.overlay.delete(tables.RESULT, task_key)
        job = step.job(key)
        starts = self._starts[worker.worker, lane, key]
        for member in members:
            ref = AttemptRef(*key, member, attempt, step.sequence)
            entry = self._entries.entry(job.entries, member) if job.entries else None
            starts.append(Assignment(ref, ids.value_of(job, member), entry, has_run))
        self._widths[worker.worker, lane] = room.width
        load = worker.loads.get(lane)
        self.added[worker.worker][lane] = room.width - (load.width if load else 0)
        self.taken += len(members)
        note_try(step, worker)


def _into_history(task: Task) -> dict[str, Any]:
    """Return the fields of a record whose latest attempt makes room for the next."""
    return {
        "started_ms": 0,
        "ended_ms": 0,
        "run_us": 0,
        "run_clipped": False,
        "cause": Cause.NONE,
        "code": 0,
        "result": b"",
        "history": history_with_last(task),
        "value": b"",
        "value_bytes": 0,
    }


def _frames(assignments: list[Assignment], entries_bytes_max: int) -> Iterator[tuple[Assignment, ...]]:
    """Cut assignments of one job into parts whose entries fit a frame beside their body."""
    if assignments[0].entry is None:
        for first in range(0, len(assignments), prefetch_max):
            yield tuple(assignments[first : first + prefetch_max])
        return
    part: list[Assignment] = []
    size = 0
    for assignment in assignments:
        size += len(assignment.entry or b"")
        if part and (len(part) >= prefetch_max or size > entries_bytes_max):
            yield tuple(part)
            part, size = [], len(assignment.entry or b"")
        part.append(assignment)
    yield tuple(part)
