"""Lanes: found by what makes them alike, opened when they are wanted first."""

from tq import limits
from tq.core import tables
from tq.core.engine.step import JobKey, Step
from tq.core.job import Demand, Lane
from tq.errors import TooManyLanes


def lane_for(step: Step, queue: str, demand: Demand, *, alone: bool = False) -> int:
    """Return the number of the lane for such tasks. Raises TooManyLanes."""
    number = step.live.lane_names.get(lane_name(queue, demand, alone=alone))
    if number is None and step.meta().next_lane > limits.lanes_max:
        raise TooManyLanes(f"there are {limits.lanes_max} combinations of queue and demand already (lanes_max)")
    return _open(step, queue, demand, alone=alone) if number is None else number


def stand_alone(step: Step, key: JobKey) -> None:
    """Give a job a lane for those of its members that must have a worker to themselves, if it has none yet.

    Nothing bounds these: what has a lane has at most one of them beside it.
    """
    progress = step.progress(key)
    lane = step.live.lanes[progress.lane]
    if not lane.alone and not progress.lane_alone:
        number = step.live.lane_names.get(lane_name(lane.queue, lane.demand, alone=True))
        progress.lane_alone = _open(step, lane.queue, lane.demand, alone=True) if number is None else number


def _open(step: Step, queue: str, demand: Demand, *, alone: bool) -> int:
    name = lane_name(queue, demand, alone=alone)
    opened = step.overlay.get(tables.LANE_NAME, (name,))  # by this very command
    if opened is not None:
        return opened
    meta = step.meta()
    number, meta.next_lane = meta.next_lane, meta.next_lane + 1
    step.overlay.put(tables.LANE_NAME, (name,), number)
    step.open_lane(number, Lane(queue, demand, alone=alone))
    return number


def lane_name(queue: str, demand: Demand, *, alone: bool) -> str:
    """Return what makes lanes alike, as the key of LANE_NAME."""
    parts = [queue, str(demand.cpus_milli), str(demand.mem_bytes)]
    return "/".join([*parts, *filter(None, (demand.module,)), *(["alone"] if alone else [])])
