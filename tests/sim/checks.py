"""What must hold of the whole after each turn: the core's own invariants, and that nobody idles beside work."""

from collections.abc import Mapping

from tests.sim.world import World
from tq.core.model.job import Lane
from tq.core.model.task import State
from tq.core.model.view import View
from tq.core.placement.fit import could_fit
from tq.core.placement.live import Live, LiveWorker
from tq.core.repair import invariants


class Checks:
    """What must hold of the whole after each turn; all of it every `check_every` turns."""

    def __init__(self, world: World, check_every: int) -> None:
        self._world = world
        self._check_every = check_every
        self._turns = 0
        self.has_found = False  # what is looked for only now and then

    def turn(self, store: View, live: Live) -> None:
        """Check what is cheap, of a turn that has just been written."""
        self._turns += 1
        self._no(capacity_broken(live))
        if self._turns % self._check_every == 0:
            self.everything(store, live)

    def everything(self, store: View, live: Live) -> None:
        """Re-derive every index and count from the records (I8, I14, I15), and compare the soft state."""
        findings = invariants.check(store, live)
        self.has_found = bool(findings)
        self._no("; ".join(findings[:5]))

    def idle(self, live: Live, steady_ms: int, resting: Mapping[int, int]) -> None:
        """Check that nothing waits beside room for it, when the loop has nothing to do, but what is passed over."""
        self._no(idle_beside_work(live, steady_ms, resting))

    def _no(self, finding: str) -> None:
        if finding:
            raise self._world.violated(finding)


def capacity_broken(live: Live) -> str:
    """Return who has reserved more than it offers (I8), '' for nobody."""
    for worker in live.workers.values():
        offer = worker.capacity
        if worker.session is None:
            continue
        cpus = memory = held = 0
        for number, load in worker.loads.items():
            demand = live.lanes[number].demand
            cpus += demand.cpus_milli * load.width
            memory += demand.mem_bytes * load.width
            held += load.held
        if worker.slots_used > offer.slots or cpus > offer.cpus_milli or memory > offer.mem_bytes:
            return f"I8: w{worker.worker:x} offers {offer}, has reserved {worker.slots_used} slots, {cpus}, {memory}"
        if held != len(worker.held):
            return f"I8: w{worker.worker:x} holds {len(worker.held)} in {worker.loads}"
    return ""


def has_room(live: Live, worker: LiveWorker, lane: Lane) -> bool:
    """Whether one more chain of a lane fits (written down once more, from what is reserved)."""
    if lane.alone or any(live.lanes[number].alone for number in worker.loads):
        return not worker.loads
    demand = lane.demand
    offer = worker.capacity
    cpus = sum(live.lanes[number].demand.cpus_milli * load.width for number, load in worker.loads.items())
    memory = sum(live.lanes[number].demand.mem_bytes * load.width for number, load in worker.loads.items())
    return (
        sum(load.width for load in worker.loads.values()) < offer.slots
        and (not demand.cpus_milli or cpus + demand.cpus_milli <= offer.cpus_milli)
        and (not demand.mem_bytes or memory + demand.mem_bytes <= offer.mem_bytes)
    )


def idle_beside_work(live: Live, steady_ms: int, resting: Mapping[int, int]) -> str:
    """Return a worker that has room beside ready work that fits, and is not held back for another lane; '' = none.

    A lane that finds no room holds the workers back on which it could run. Which lane came first is not looked at.
    `resting` says how many jobs of a lane are passed over.
    """
    workers = [worker for worker in live.workers.values() if worker.may_lease(steady_ms)]
    ready = [number for number, lane in live.lanes.items() if lane.ready > resting.get(number, 0)]
    if not ready or not any(worker.slots_used < worker.capacity.slots for worker in workers):
        return ""
    fits = {
        number: [worker for worker in workers if could_fit(worker, live.lanes[number].queue, live.lanes[number].demand)]
        for number in ready
    }
    rooms = {
        number: {worker.worker for worker in fits[number] if has_room(live, worker, live.lanes[number])}
        for number in ready
    }
    ready = [number for number in ready if not is_shut(live, live.lanes[number], has_room=bool(rooms[number]))]
    if not any(rooms[number] for number in ready):
        return ""
    held: set[int] = set()
    before = -1
    while len(held) != before:
        before = len(held)
        for number in ready:
            if not rooms[number] - held:
                held.update(worker.worker for worker in fits[number])
    for number in ready:
        for worker in sorted(rooms[number] - held):
            return f"liveness: w{worker:x} has room for lane {number}, which has ready work; {_scene(live)}"
    return ""


def is_shut(live: Live, lane: Lane, *, has_room: bool) -> bool:
    """Whether nothing of a lane may start: its queue is paused, or runs as many as it may, or keeps its last places for
    what else waits to run alone.
    """
    settings = live.queues.get(lane.queue)
    if settings is None:
        return False
    others = [other for other in live.lanes.values() if other.queue == lane.queue]
    running = sum(other.counts[State.RUNNING] for other in others)
    kept = sum(other.alone and other.ready > 0 for other in others if other is not lane)
    if not has_room:
        kept = 0  # it may come before those that they are kept for, or be one of them
    return settings.paused or 0 < settings.max <= running + kept


def _scene(live: Live) -> str:
    """Return lanes and workers, for a person."""
    lanes = {number: lane for number, lane in live.lanes.items() if lane.ready}
    workers = {
        f"w{worker.worker:x}": (worker.capacity, {lane: (load.held, load.width) for lane, load in worker.loads.items()})
        for worker in live.workers.values()
        if worker.session and not worker.draining
    }
    return f"lanes {lanes}, workers {workers}"
