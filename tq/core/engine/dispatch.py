"""Dispatch, the last command of every turn that did more than read: lease what may start, recall what should not wait.

Lanes that have something ready are taken in the order of their heads (priority, then age), and of the queues the one
that was served longest ago goes first. A lane that finds no room where it could run keeps later lanes from refilling
those workers: so chains drain, and it gets its slot.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from tq.core import ids, tables
from tq.core.engine.step import Step, came_back, history_with_last
from tq.core.engine.stop import recall_next, ref_of
from tq.core.engine.trouble import note_try, passed_over
from tq.core.entries import EntryReader
from tq.core.job import JobKey, Progress
from tq.core.live import LIVE_GRANTED, LIVE_RECALLED, LIVE_WIDTH, LiveWorker
from tq.core.placement import Places, chain_room, could_fit, places, to_empty
from tq.core.task import Cause, Phase, State, Task, Trigger
from tq.core.view import Key
from tq.core.vocabulary import Assignment, AttemptRef, Recall, Start
from tq.limits import body_bytes_max, prefetch_max, put_off_of_lane_max

Found = tuple[range, Task | None]  # positions
_LEASE: Final = Trigger.LEASE
_ASSIGNED: Final = Phase.ASSIGNED
_PAGE_FIRST: Final = 16
_NOBODY: Final = LiveWorker(0)


def dispatch(step: Step, *, may_lease: bool = True, resting: Collection[Key] = ()) -> None:
    """Lease to every worker with room what may start there, but of jobs and lanes that rest; recall what stands behind
    a long attempt. `step.at` says where it stands.
    """
    _recall(step)
    if step.live.to_recall:
        recall_next(step)
    workers = [worker for worker in step.live.workers.values() if worker.may_lease(step.times.steady_ms)]
    lanes = [number for number, lane in step.live.lanes.items() if lane.ready]
    if not may_lease or not workers or not lanes:
        return
    if resting:
        resting = {key for key in resting if len(key) == 1 or step.overlay.get(tables.READY, key)}
    leases = Leases(step)
    rested = [worker for worker in workers if worker.trouble is not None and worker.has_slot]
    troubled = [(worker, fitting) for worker in rested if (fitting := _fitting(step, worker, lanes, leases))]
    # They come before the others, whose chains would leave them nothing. Where a queue is bounded there are no chains,
    # and who is first in it has its place.
    for worker, fitting in troubled:
        unbounded = [number for number in fitting if leases.bound(number) is None]
        _try(worker, unbounded, step, leases, resting, passed_over(step, worker))
    leases.unmet.clear()  # whoever was given nothing is looked at again
    _lease_to([worker for worker in workers if worker.trouble is None], lanes, step, leases, resting)
    for worker, fitting in troubled:
        _try(worker, fitting, step, leases, resting, (*passed_over(step, worker), ()))
    if leases.taken and not all(_may_start(step, number, leases, passed) for number, passed in leases.unmet):
        step.is_cut = True  # its last place or its last job was taken elsewhere: nobody is kept for it any more
    leases.send()


def _fitting(step: Step, worker: LiveWorker, lanes: Iterable[int], leases: "Leases") -> list[int]:
    """Return the lanes that a worker could run anything of."""
    live = step.live.lanes
    return [
        number
        for number in lanes
        if leases.bound(number) != 0 and could_fit(worker, live[number].queue, live[number].demand)
    ]


def _try(
    worker: LiveWorker,
    lanes: Sequence[int],
    step: Step,
    leases: "Leases",
    resting: Collection[Key],
    choices: Iterable[Collection[Key]],
) -> None:
    """Lease one attempt to a worker after trouble: of each choice it passes some over, until it has found one."""
    for others in choices if lanes else ():
        if not leases.added[worker.worker]:
            _lease_to([worker], lanes, step, leases, {*resting, *others})


def _lease_to(
    workers: Sequence[LiveWorker], lanes: Iterable[int], step: Step, leases: "Leases", resting: Collection[Key]
) -> None:
    """Lease of these lanes, which have something ready, to these workers."""
    if not workers or step.is_cut:
        return
    for number in _lanes_in_order(step, lanes, resting):
        step.at = (number,)
        lane = step.live.lanes[number]
        bound = leases.bound(number)
        if bound == 0:
            continue
        fitting = [worker for worker in workers if could_fit(worker, lane.queue, lane.demand)]
        if not fitting:
            continue
        left = step.bounds.leases - leases.taken
        room = Room(
            places(step.live, number, fitting, step.times.steady_ms, leases.added),
            left if bound is None else min(left, bound),
        )
        before = leases.taken
        is_unmet = leases.fill(number, room, resting)
        if bound is not None:
            bound -= leases.taken - before
            is_unmet = is_unmet and bound != 0
            leases.use(number, leases.taken - before, keeps=is_unmet and lane.alone)
        if leases.taken >= step.bounds.leases:
            step.is_cut = True
            return
        if is_unmet:
            # Nobody behind it in the order may refill where it could run; one worker to empty is enough to run alone.
            kept = [to_empty(fitting, step.times.steady_ms)] if lane.alone else fitting
            workers = [worker for worker in workers if worker not in kept]
            leases.unmet.append((number, resting))
            if not workers:
                break


def _may_start(step: Step, number: int, leases: "Leases", resting: Collection[Key]) -> bool:
    """Return whether anything of a lane could still start, if there were room."""
    if leases.bound(number) == 0:
        return False
    return any(progress.is_startable(number) for _, progress in _ready_jobs(step, number, resting))


def to_blame(step: Step, resting: Collection[Key]) -> Key:
    """Return what is to rest when dispatch has failed where the step stands: a job, or its lane if so many of it rest
    already. Empty where none is to blame.
    """
    found: list[Key] = [step.at]
    if step.at in resting or step.at[:1] in resting:  # settling failed at a job's row in its other lane
        job = step.at[2:]
        progress = step.progress(job)
        found = [(lane, progress.rank, *job) for lane in progress.lanes]  # it was found by one of these
    blamed = (row if len(row) == 1 or _resting_in(row[:1], resting) < put_off_of_lane_max else row[:1] for row in found)
    return next((key for key in blamed if key not in resting), step.at)


def over(step: Step) -> Callable[[Key], bool]:
    """Return whether a job or a lane that had failed has been got over by now: something of it starts, or nothing is
    left that could.
    """
    starts = [effect for effect in step.effects if isinstance(effect, Start)]
    started = {(effect.lane,) for effect in starts} | {
        (effect.lane, *effect.attempts[0].attempt.task[:2]) for effect in starts
    }

    def is_over(key: Key) -> bool:
        if len(key) == 1:
            lane = step.live.lanes.get(key[0])
            return key in started or lane is None or not lane.ready
        return (key[0], *key[2:]) in started or step.overlay.get(tables.READY, key) is None

    return is_over


def _may_be_tried(step: Step, number: int, resting: Collection[Key]) -> bool:
    """Return whether a lane has ready jobs that do not rest."""
    return (number,) not in resting and _resting_in((number,), resting) < step.live.lanes[number].ready


def _resting_in(lane: Key, resting: Collection[Key]) -> int:
    """Count the jobs of a lane that rest."""
    return sum(1 for key in resting if len(key) > 1 and key[:1] == lane)


class Room:
    """The places of a lane that are still free, at most `bound`: the next `count` are on `worker`, at this `width`."""

    def __init__(self, runs: Iterator[Places], bound: int) -> None:
        self._runs = runs
        self.bound = bound
        self.count = 0  # 0 = there is none
        self.use(0)

    def use(self, count: int) -> None:
        """Take so many of the next ones."""
        self.bound -= count
        self.count -= count
        if not self.count:
            self.worker, self.width, self.count = next(self._runs, (_NOBODY, 0, 0))
        self.count = min(self.count, self.bound)


class Leases:
    """The attempts leased by one dispatch, and the Start effects that they become."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.taken = 0
        self._entries = EntryReader(step.overlay)
        self._starts: dict[tuple[int, int, JobKey], list[Assignment]] = defaultdict(list)
        self._widths: dict[JobKey, int] = {}
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
        for jobs, (key, progress) in enumerate(_ready_jobs(self._step, number, resting), start=1):
            for members, task in _startable(self._step, key, progress, number, room):
                self._lease(key, members, task, number, room)
                room.use(len(members))
                if not room.count:
                    return progress.is_startable(number) or jobs + _resting_in((number,), resting) < lane.ready
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


def _lanes_in_order(step: Step, lanes: Iterable[int], resting: Collection[Key]) -> list[int]:
    """Return those of the lanes that do not rest: by the order of their heads, queues taking turns.

    Only so many heads are looked up. The other lanes follow as their floors stand: none may be left out, or lanes that
    wait for one worker would hide one that may start on another.
    """
    ready = [number for number in lanes if not resting or _may_be_tried(step, number, resting)]
    if len(ready) <= 1:
        return ready
    live = step.live.lanes
    ready.sort(key=lambda number: (live[number].floor_rank, live[number].floor_job))
    heads: dict[str, list[tuple[Key, int]]] = defaultdict(list)
    for number in ready[: step.bounds.lanes]:
        head = _head(step, number, resting)
        if head is not None:
            heads[live[number].queue].append((head, number))
    granted = step.live.granted
    queues = sorted(heads, key=lambda queue: (granted.get(queue, 0), queue))
    # Of one job, what must run alone comes first: the rest would take every worker before one is empty.
    rows = [sorted(heads[queue], key=lambda pair: (pair[0], not live[pair[1]].alone, pair[1])) for queue in queues]
    longest = max(map(len, rows), default=0)
    first = [row[place][1] for place in range(longest) for row in rows if place < len(row)]
    return first + ready[step.bounds.lanes :]


def _head(step: Step, number: int, resting: Collection[Key]) -> Key | None:
    lane = step.live.lanes[number]
    low = (number, lane.floor_rank, lane.floor_job, lane.floor_part)
    rows = step.overlay.scan(tables.READY, low, (number + 1,), 1 + _resting_in((number,), resting))
    return next((row[1:] for row, _ in rows if row not in resting), None)


def _ready_jobs(step: Step, number: int, resting: Collection[Key]) -> Iterator[tuple[JobKey, Progress]]:
    """Walk the lane's ready jobs in order from its floor, but for those that rest; raise the floor over those that have
    nothing left.

    Who takes everything that a job has leaves it not startable; settle() removes its READY entry.
    """
    lane = step.lane(number)
    at_head = True
    low: Key = (number, lane.floor_rank, lane.floor_job, lane.floor_part)
    while rows := step.overlay.scan(tables.READY, low, (number + 1,), step.bounds.lanes):
        for row, _ in rows:
            _, rank, job, part = row
            if resting and row in resting:
                at_head = False
                continue
            step.at = row
            progress = step.progress((job, part))
            yield (job, part), progress
            at_head = at_head and not progress.is_startable(number)
            if at_head:
                lane.floor_rank, lane.floor_job, lane.floor_part = rank, job, part + 1
        if len(rows) < step.bounds.lanes:
            return  # that was the last page: another scan would cost more than all of this
        low = (number, rank, job, part + 1)


def _startable(step: Step, key: JobKey, progress: Progress, lane: int, room: Room) -> Iterator[Found]:
    """Yield members of a job that may start: first those that came back, one by one with their records, then the
    untouched ones from the cursor, so many of them as there are places alike.

    They are leased by the caller before the next are asked for.
    """
    page_max = max(min(room.bound, step.bounds.slice), 1)
    page = min(_PAGE_FIRST, page_max)  # nobody knows how many places there are: not many, mostly
    while progress.again_in(lane) and progress.is_startable(lane):
        rows = came_back(step, key, lane, page)
        if not rows:
            raise AssertionError(f"job {key} counts {progress.again_in(lane)} that came back, and has none")
        for row, _ in rows:
            if not progress.is_startable(lane):
                return
            yield range(row[4], row[4] + 1), step.task((*key, row[4]))
        page = min(4 * page, page_max)
    while progress.is_startable(lane):
        member = _next_untouched(step, key, progress)
        if member is None:
            step.is_cut = True
            return
        yield range(member, member + min(room.count, progress.run)), None


def _next_untouched(step: Step, key: JobKey, progress: Progress) -> int | None:
    """Return the first untouched member from the cursor on; step over members that have a record already.

    None where that would be more of them than one dispatch may step over: the next one goes on from there.
    """
    while progress.ahead:
        if step.stepped_over >= step.bounds.slice:
            return None
        high = (*key, progress.cursor + step.bounds.lanes)
        rows = step.overlay.scan(tables.TASK, (*key, progress.cursor), high, step.bounds.lanes)
        if not rows or rows[0][0][2] != progress.cursor:
            break
        for row, _ in rows:
            if row[2] != progress.cursor:
                break
            progress.cursor += 1
            progress.ahead -= 1
            step.stepped_over += 1
    return progress.cursor


def _recall(step: Step) -> None:
    """Ask for the assigned attempts back that stand behind ones that turned out long."""
    for worker in step.live.workers.values():
        if worker.session is None or not worker.started:
            continue
        refs: list[AttemptRef] = []
        for number, load in list(worker.loads.items()):
            surplus = -chain_room(step.live, worker, number, load.width, step.times.steady_ms)
            if surplus <= 0:
                continue  # nobody looks through hundreds that may stay
            waiting = [key for key, lane in worker.held.items() if lane == number and key not in worker.started]
            asked = sum(1 for key in waiting if key in worker.recalled)
            for key in reversed(waiting):
                if asked >= surplus:
                    break
                task = step.task(key)
                if key in worker.recalled or task is None or task.state is not State.RUNNING:
                    continue
                step.overlay.put(LIVE_RECALLED, (worker.worker, *key), True)
                refs.append(ref_of(key, task))
                asked += 1
        if refs:
            step.effects.append(Recall(worker.worker, worker.session.number, tuple(refs)))
