"""What of the lanes may start, in order: lanes by their heads, jobs by their place in a lane, members by their age.

What rests, as it has failed before (placement/quarantine.py), is stepped over. Nothing is leased here: leases.py takes
what it is shown before it asks for more.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from tq.core.change.step import Step, came_back
from tq.core.model import tables
from tq.core.model.job import JobKey, Progress
from tq.core.model.task import Task
from tq.core.model.view import Key
from tq.core.placement.fit import Room

Found = tuple[range, Task | None]  # positions
_PAGE_FIRST: Final = 16


def lanes_in_order(step: Step, lanes: Iterable[int], resting: Collection[Key]) -> list[int]:
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


def _may_be_tried(step: Step, number: int, resting: Collection[Key]) -> bool:
    """Return whether a lane has ready jobs that do not rest."""
    return (number,) not in resting and resting_in((number,), resting) < step.live.lanes[number].ready


def _head(step: Step, number: int, resting: Collection[Key]) -> Key | None:
    lane = step.live.lanes[number]
    low = (number, lane.floor_rank, lane.floor_job, lane.floor_part)
    rows = step.overlay.scan(tables.READY, low, (number + 1,), 1 + resting_in((number,), resting))
    return next((row[1:] for row, _ in rows if row not in resting), None)


def resting_in(lane: Key, resting: Collection[Key]) -> int:
    """Count the jobs of a lane that rest."""
    return sum(1 for key in resting if len(key) > 1 and key[:1] == lane)


def jobs_in_order(step: Step, number: int, resting: Collection[Key]) -> Iterator[tuple[JobKey, Progress]]:
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


def members_in_order(step: Step, key: JobKey, progress: Progress, lane: int, room: Room) -> Iterator[Found]:
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
