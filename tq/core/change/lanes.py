"""Lanes: found by what makes them alike, opened when they are wanted first."""

from operator import add
from typing import Final

from tq import limits
from tq.core.change.step import Step
from tq.core.model import tables
from tq.core.model.job import Demand, JobKey, Lane
from tq.core.model.view import View, pages
from tq.core.placement.live import Live
from tq.errors import TooManyLanes

_ALONE: Final = "/!alone"


def lane_for(step: Step, queue: str, demand: Demand, *, alone: bool = False) -> int:
    """Return the number of the lane for such tasks. Raises TooManyLanes."""
    number = _known(step, lane_name(queue, demand, alone=alone))
    if number is not None:
        return number
    number = _free(step)
    if number is None:
        raise TooManyLanes(f"there are {limits.lanes_max} combinations of queue and demand already (lanes_max)")
    return _put(step, number, Lane(queue, demand, alone=alone))


def stand_alone(step: Step, key: JobKey) -> None:
    """Give a job a lane for those of its members that must have a worker to themselves, if it has none yet.

    It gets one beyond lanes_max if need be: what has a lane has at most one of them beside it.
    """
    progress = step.progress(key)
    lane = step.live.lanes[progress.lane]
    if lane.alone or progress.lane_alone:
        return
    number = _known(step, lane_name(lane.queue, lane.demand, alone=True))
    if number is None:
        free = _free(step)
        number = _put(step, _new(step) if free is None else free, Lane(lane.queue, lane.demand, alone=True))
    progress.lane_alone = number


def _known(step: Step, name: str) -> int | None:
    """Return the number of the lane of this name, if there is one: in memory, or opened by this very command."""
    number = step.live.lane_names.get(name)
    return step.overlay.get(tables.LANE_NAME, (name,)) if number is None else number


def _free(step: Step) -> int | None:
    """Return the number of a lane that nobody has: a new one, or beyond lanes_max one that is not used any more, whose
    name is taken away; None if there is none.
    """
    if step.meta().next_lane <= limits.lanes_max:
        return _new(step)
    taken = step.overlay.changes.get(tables.LANE_NAME, {}).values()  # by this very command
    for number, lane in step.live.lanes.items():
        if number not in taken and _is_unused(step, lane):
            step.overlay.delete(tables.LANE_NAME, (lane_name(lane.queue, lane.demand, alone=lane.alone),))
            return number
    return None


def _is_unused(step: Step, lane: Lane) -> bool:
    """Whether the jobs of a lane are all forgotten. What stands in one for what runs alone may count in the other."""
    number = step.live.lane_names.get(lane_name(lane.queue, lane.demand, alone=False)) if lane.alone else None
    lanes = [lane] if number is None else [lane, step.live.lanes[number]]
    return not any(one.ready or any(one.counts) for one in lanes)


def _new(step: Step) -> int:
    meta = step.meta()
    number, meta.next_lane = meta.next_lane, meta.next_lane + 1
    return number


def _put(step: Step, number: int, lane: Lane) -> int:
    step.overlay.put(tables.LANE_NAME, (lane_name(lane.queue, lane.demand, alone=lane.alone),), number)
    step.open_lane(number, lane)
    return number


def lost_lanes(view: View, live: Live) -> dict[int, Lane]:
    """Return the lanes whose rows are lost while their names are there, derived anew from the jobs in them. All that a
    worker with one such attempt could run would wait for ever, and every list of jobs fail. Reads all jobs if so.
    """
    lost = {number: _of_name(name) for name, number in live.lane_names.items() if number not in live.lanes}
    for page in pages(view, tables.PROGRESS) if lost else ():
        for _, progress in page:
            for number in lost.keys() & {*progress.lanes}:
                lane = lost[number]
                lane.ready += progress.is_ready_in(number)
                if number == progress.lane:
                    lane.counts = [*map(add, lane.counts, progress.counts)]
    return lost


def _of_name(name: str) -> Lane:
    queue, cpus_milli, mem_bytes, *rest = name.removesuffix(_ALONE).split("/")
    return Lane(queue, Demand(int(cpus_milli), int(mem_bytes), "/".join(rest)), alone=name.endswith(_ALONE))


def lane_name(queue: str, demand: Demand, *, alone: bool) -> str:
    """Return what makes lanes alike, as the key of LANE_NAME. No module is called `!alone`."""
    parts = (queue, str(demand.cpus_milli), str(demand.mem_bytes), *filter(None, (demand.module,)))
    return "/".join(parts) + (_ALONE if alone else "")
