"""Lanes: found by what makes them alike, opened when they are wanted first."""

from tq import limits
from tq.core import tables
from tq.core.engine.step import JobKey, Step
from tq.core.job import Demand, Lane
from tq.errors import TooManyLanes


def lane_for(step: Step, queue: str, demand: Demand, *, alone: bool = False) -> int:
    """Return the number of the lane for such tasks. Raises TooManyLanes."""
    number = _known(step, lane_name(queue, demand, alone=alone))
    if number is not None:
        return number
    lane = Lane(queue, demand, alone=alone)
    if step.meta().next_lane <= limits.lanes_max:
        return _open(step, lane)
    number = _emptied(step)
    if number is None:
        raise TooManyLanes(f"there are {limits.lanes_max} combinations of queue and demand already (lanes_max)")
    return _put(step, number, lane)


def stand_alone(step: Step, key: JobKey) -> None:
    """Give a job a lane for those of its members that must have a worker to themselves, if it has none yet.

    Nothing bounds these: what has a lane has at most one of them beside it.
    """
    progress = step.progress(key)
    lane = step.live.lanes[progress.lane]
    if not lane.alone and not progress.lane_alone:
        number = _known(step, lane_name(lane.queue, lane.demand, alone=True))
        progress.lane_alone = _open(step, Lane(lane.queue, lane.demand, alone=True)) if number is None else number


def _known(step: Step, name: str) -> int | None:
    """Return the number of the lane of this name, if there is one: in memory, or opened by this very command."""
    number = step.live.lane_names.get(name)
    return step.overlay.get(tables.LANE_NAME, (name,)) if number is None else number


def _emptied(step: Step) -> int | None:
    """Take the name from a lane whose jobs are all forgotten, and return its number; None if there is none.

    Not from one for what runs alone: jobs that count elsewhere may have members there.
    """
    for number, lane in step.live.lanes.items():
        if not (lane.alone or lane.ready or any(lane.counts)):
            step.overlay.delete(tables.LANE_NAME, (lane_name(lane.queue, lane.demand, alone=False),))
            return number
    return None


def _open(step: Step, lane: Lane) -> int:
    meta = step.meta()
    number, meta.next_lane = meta.next_lane, meta.next_lane + 1
    return _put(step, number, lane)


def _put(step: Step, number: int, lane: Lane) -> int:
    step.overlay.put(tables.LANE_NAME, (lane_name(lane.queue, lane.demand, alone=lane.alone),), number)
    step.open_lane(number, lane)
    return number


def lane_name(queue: str, demand: Demand, *, alone: bool) -> str:
    """Return what makes lanes alike, as the key of LANE_NAME. No module is called `!alone`."""
    parts = [queue, str(demand.cpus_milli), str(demand.mem_bytes)]
    return "/".join([*parts, *filter(None, (demand.module,)), *(["!alone"] if alone else [])])
