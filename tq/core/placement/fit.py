"""Which worker may take a task, and how much: capacity, demand, chains. Pure arithmetic over the live workers.

A chain is an attempt that runs with others of its lane assigned behind it, on one worker; it reserves one slot and
the lane's demand once. So short tasks stream, and a long task never has another one stuck behind it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import nsmallest
from typing import Final

from tq.core.model.job import Demand, Lane
from tq.core.placement.live import Live, LiveWorker
from tq.limits import held_max, prefetch_ms, trouble_pause_ms

_NOBODY: Final = LiveWorker(0)


def could_fit(worker: LiveWorker, queue: str, demand: Demand) -> bool:
    """Whether this worker, were it idle, could run such a task."""
    return worker.is_heard and not worker.draining and _offers(worker, queue, demand)


def _offers(worker: LiveWorker, queue: str, demand: Demand) -> bool:
    """Whether a connected worker has what such a task asks for, all of it."""
    offer = worker.capacity
    if offer.queues and queue not in offer.queues:
        return False
    if demand.module and not allows(offer.modules, demand.module):
        return False
    return offer.slots > 0 and demand.cpus_milli <= offer.cpus_milli and demand.mem_bytes <= offer.mem_bytes


def allows(modules: Collection[str], module: str) -> bool:
    """Whether a worker that allows `modules` may call functions of `module`: itself, or one above it."""
    return any(module == allowed or module.startswith(allowed + ".") for allowed in modules)


def why_stuck(live: Live, queue: str, demand: Demand) -> str:
    """Return why no such task can start just now, wherever there is room, or '' if one can."""
    return why_shut(live, queue, demand) or live.why_full(queue)


def why_shut(live: Live, queue: str, demand: Demand) -> str:
    """Return why no such task can start before somebody does something, or '' if one can: that others end helps not."""
    if not live.may_lease:
        return "the server's disk is nearly full: nothing is started"
    paused = f"queue {queue} is paused" if live.is_paused(queue) else ""
    return _why_nowhere(live.workers.values(), queue, demand) or paused


def _why_nowhere(workers: Collection[LiveWorker], queue: str, demand: Demand) -> str:
    """Return why no connected worker can ever run such a task, or '' if one can."""
    connected = [worker for worker in workers if worker.is_heard]
    if not connected:
        return "no worker is connected" + (": those that ran tasks may be back" if workers else "")
    troubles = [worker.trouble for worker in connected if could_fit(worker, queue, demand)]
    if troubles:
        return "" if None in troubles else _why_rests(len(troubles))
    if all(worker.draining for worker in connected):
        return "all workers are draining"
    if any(_offers(worker, queue, demand) for worker in connected):
        return "the workers that could run it are draining"
    serving = [worker.capacity for worker in connected if queue in worker.capacity.queues or not worker.capacity.queues]
    if not serving:
        return f"no connected worker serves the queue {queue}"
    if demand.module and not any(allows(offer.modules, demand.module) for offer in serving):
        return f"no connected worker allows the module {demand.module}"
    if demand.cpus_milli > max(offer.cpus_milli for offer in serving):
        return f"no connected worker offers {demand.cpus_milli / 1_000:g} CPUs"
    return "no connected worker offers what it asks for"


def _why_rests(troubles: int) -> str:
    """Return why a task waits for workers that could not start what they were given: the same with each trouble more,
    so that who waits is told once.
    """
    who = "the worker that could run it" if troubles == 1 else "every worker that could run it"
    longest_s = trouble_pause_ms[1] / 1_000
    return f"{who} could not start its last attempts, as its log says; tried again within {longest_s:g} s"


Added = Mapping[int, Mapping[int, int]]  # worker -> lane -> chains given in this dispatch, not yet in the soft state


def free_chains(live: Live, worker: LiveWorker, lane: Lane, added: Added) -> int:
    """How many more chains of a lane the worker has room for; after trouble of its own one, as a try.

    What runs alone needs, and has, a worker to itself.
    """
    demand = lane.demand
    chains = {number: load.width for number, load in worker.loads.items()}
    mine = added.get(worker.worker, {})
    for number, more in mine.items():
        chains[number] = chains.get(number, 0) + more
    if lane.alone:
        return int(not chains)
    if any(live.lanes[number].alone for number in chains):
        return 0
    offer = worker.capacity
    free = offer.slots - sum(chains.values())
    if free > 0 and demand.cpus_milli:
        used = sum(live.lanes[number].demand.cpus_milli * width for number, width in chains.items())
        free = min(free, (offer.cpus_milli - used) // demand.cpus_milli)
    if free > 0 and demand.mem_bytes:
        used = sum(live.lanes[number].demand.mem_bytes * width for number, width in chains.items())
        free = min(free, (offer.mem_bytes - used) // demand.mem_bytes)
    if worker.trouble is not None:
        free = min(free, 1 - sum(mine.values()))
    return max(free, 0)


Places = tuple[LiveWorker, int, int]  # worker, how many of the lane it may run at once if it takes one, how many it may


def places(live: Live, number: int, workers: Iterable[LiveWorker], steady_ms: int, added: Added) -> Iterator[Places]:
    """Yield the places for attempts of a lane that may be leased now, in their order: free slots first, then chains."""
    lane: Lane = live.lanes[number]
    fitting = [(worker, free_chains(live, worker, lane, added)) for worker in workers]
    spread = sorted((pair for pair in fitting if pair[1]), key=lambda pair: _busy(pair[0]))
    taken = {worker.worker: 0 for worker, _ in fitting}
    widths = {worker.worker: _width(worker, number) for worker, _ in fitting}
    turn = 0
    while spread:
        for worker, _ in spread:
            taken[worker.worker] += 1
            widths[worker.worker] += 1
            yield worker, widths[worker.worker], 1
        turn += 1
        spread = [pair for pair in spread if pair[1] > turn]
    if live.depth(number) > 1 and not lane.alone:
        rooms = [
            (worker, width, chain_room(live, worker, number, width, steady_ms) - taken[worker.worker])
            for worker, width in ((worker, widths[worker.worker]) for worker, _ in fitting if worker.trouble is None)
        ]
        yield from _evenly([room for room in rooms if room[2] > 0])


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


def _evenly(rooms: list[Places]) -> Iterator[Places]:
    """Yield all places of the rooms, those of workers with the most for each slot first: few tasks must not stand
    behind one another on one worker while the next one has nothing.
    """
    if len(rooms) <= 1:
        yield from rooms
        return
    level = max(-(-room // width) for _, width, room in rooms)
    while level > 0:
        level -= 1
        for worker, width, room in rooms:
            if room > level * width:
                yield worker, width, min(room - level * width, width)


def to_empty(workers: Iterable[LiveWorker], count: int, steady_ms: int) -> list[LiveWorker]:
    """Return so many workers that will be empty soonest, if nothing more is leased to them."""

    def busy(worker: LiveWorker) -> tuple[int, int, int]:
        long = sum(1 for since_ms in worker.started.values() if steady_ms - since_ms >= prefetch_ms)
        return long, len(worker.held), worker.worker

    return nsmallest(count, workers, key=busy)


def chain_room(live: Live, worker: LiveWorker, number: int, width: int, steady_ms: int) -> int:
    """How many more attempts of a lane may stand in `width` chains on this worker; negative = too many stand there.

    Nothing stands behind an attempt that has run for as long as a whole chain should.
    """
    load = worker.loads.get(number)
    held = load.held if load else 0
    long = min(worker.long_running(number, steady_ms), width) if worker.started else 0
    room = (width - long) * live.depth(number) + long - held
    return min(room, held_max - len(worker.held))


def _width(worker: LiveWorker, number: int) -> int:
    load = worker.loads.get(number)
    return load.width if load else 0


def _busy(worker: LiveWorker) -> float:
    return worker.slots_used / worker.capacity.slots
