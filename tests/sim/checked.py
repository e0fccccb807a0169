"""The real engine, watched: every command is compared with what the fence says, every turn with what must hold."""

from tests.sim.ledger import Ledger
from tests.sim.world import World
from tq.core import invariants, tables
from tq.core.engine import Bounds, Engine, Finished, Turn
from tq.core.engine import step as step_module
from tq.core.job import Lane
from tq.core.live import Live, LiveWorker
from tq.core.placement import could_fit
from tq.core.task import Phase, State, Task, Trigger, transition
from tq.core.view import View
from tq.core.vocabulary import Answer, AttemptRef, Command, Handback, Report, Started, Times, WorkerLost

Moves = dict[tuple[State, Trigger], int]


class count_moves:  # noqa: N801 - used as a context
    """Count what the table of moves is asked for, while it lasts."""

    def __init__(self, moves: Moves) -> None:
        self._moves = moves

    def __enter__(self) -> None:
        moves = self._moves

        def counted(state: State, trigger: Trigger) -> State:
            after = transition(state, trigger)
            moves[state, trigger] = moves.get((state, trigger), 0) + 1
            return after

        step_module.transition = counted  # type: ignore[attr-defined]

    def __exit__(self, *_: object) -> None:
        step_module.transition = transition  # type: ignore[attr-defined]


class CheckedEngine(Engine):
    """An engine whose turns tell the ledger."""

    def __init__(self, view: View, bounds: Bounds, ledger: Ledger) -> None:
        super().__init__(view, bounds)
        self.ledger = ledger

    def begin(self, times: Times) -> "CheckedTurn":
        """Begin a turn that is watched."""
        return CheckedTurn(self, times)


class CheckedTurn(Turn):
    """A turn of a CheckedEngine."""

    _engine: CheckedEngine

    def apply(self, command: Command, submitter: str = "") -> Answer | None:
        """Apply a command; a worker's word must count exactly where the fence says so."""
        self._engine.ledger.world.saw("engine", command)
        if isinstance(command, Report | Handback | Started | WorkerLost):
            live = self._engine.live.workers.get(command.worker)
            if live is None or live.session_number != command.session:
                return self._apply_superseded(command)
            if not isinstance(command, WorkerLost):
                return self._apply_word(command)
        return super().apply(command, submitter)

    def _apply_superseded(self, command: Command) -> Answer | None:
        """Nothing that a peer says in an old session, and no loss of one, changes anything."""
        counts = self._engine.live.counts
        before, counted = dict(self._overlay.changes.get(tables.TASK, {})), counts.get("superseded", 0)
        answer = super().apply(command)
        if self._overlay.changes.get(tables.TASK, {}) != before:
            raise self._violated(f"{command} of an old session changed something")
        if counts.get("superseded", 0) != counted + 1:
            raise self._violated(f"I4: {command} of an old session was not counted")
        return answer

    def _apply_word(self, command: Report | Handback | Started) -> Answer | None:
        words = [(ref, self._overlay.get(tables.TASK, ref.task)) for ref in _refs(command)]
        ours = {ref.task for ref, before in words if self._is_ours(command, ref, before)}
        stale = sum(not self._is_ours(command, ref, before) for ref, before in words)
        counts = self._engine.live.counts
        counted = counts.get("stale_reports", 0) + counts.get("known_reports", 0)
        answer = super().apply(command)
        for ref, before in words:
            after = self._overlay.get(tables.TASK, ref.task)
            if ref.task not in ours and after != before:
                raise self._violated(f"I4: a stale word {command} turned {before} into {after}")
            if ref.task in ours and after == before and isinstance(command, Report):
                raise self._violated(f"a current report {command} changed nothing of {before}")
        counted = counts.get("stale_reports", 0) + counts.get("known_reports", 0) - counted
        if counted != stale:
            raise self._violated(f"I4: {command} has {stale} stale words, {counted} were counted")
        return answer

    def _is_ours(self, command: Report | Handback | Started, ref: AttemptRef, task: Task | None) -> bool:
        """Whether a word may change something, written down once more from semantics.md."""
        session = self._engine.live.workers[command.worker].session
        if session is None or task is None or (task.attempt, task.lease) != (ref.attempt, ref.lease):
            return False
        if task.worker not in (command.worker, *session.predecessors):
            return False
        if task.state is State.RUNNING:
            return True
        progress = self._overlay.get(tables.PROGRESS, ref.task[:2])
        is_claimable = task.state is State.QUEUED and task.phase is Phase.LOST
        return is_claimable and progress is not None and not progress.cancelling

    def finish(self, *, may_lease: bool = True) -> Finished:
        """Finish the turn, and see what must hold after Dispatch."""
        finished = super().finish(may_lease=may_lease)
        if finished.changes:
            self._engine.ledger.wrote(finished)
            self._check_order(finished)
        self._engine.ledger.world.saw("engine", finished.effects)
        return finished

    def _check_order(self, finished: Finished) -> None:
        """Of a lane, what is leased comes before all that is left waiting: by priority, then by age."""
        last: dict[int, tuple[int, int, int]] = {}
        for key, task in finished.changes.get(tables.TASK, {}).items():
            if task.state is State.RUNNING and task.lease == finished.sequence:
                progress = self._overlay.get(tables.PROGRESS, key[:2])
                lane = self._overlay.get(tables.RUNNING, (task.worker, *key))
                assert progress is not None
                assert lane is not None
                last[lane] = max(last.get(lane, (0, 0, 0)), (progress.rank, *key[:2]))
        for lane, place in last.items():
            waiting = self._overlay.scan(tables.READY, (lane,), (lane, *place), 1)
            if waiting:
                raise self._violated(f"lane {lane}: {place} was leased before {waiting[0][0]}")

    def _violated(self, what: str) -> Exception:
        return self._engine.ledger.world.violated(what)


class Checks:
    """What must hold of the whole after each turn; all of it every `check_every` turns."""

    def __init__(self, world: World, check_every: int) -> None:
        self._world = world
        self._check_every = check_every
        self._turns = 0

    def turn(self, store: View, live: Live) -> None:
        """Check what is cheap, of a turn that has just been written."""
        self._turns += 1
        self._no(capacity_broken(live))
        if self._turns % self._check_every == 0:
            self.everything(store, live)

    def everything(self, store: View, live: Live) -> None:
        """Re-derive every index and count from the records (I8, I14, I15), and compare the soft state."""
        self._no("; ".join(invariants.check(store, live)[:5]))

    def idle(self, live: Live, steady_ms: int) -> None:
        """Check that nothing waits beside room for it, when the loop has nothing to do."""
        self._no(idle_beside_work(live, steady_ms))

    def _no(self, finding: str) -> None:
        if finding:
            raise self._world.violated(finding)


def _refs(command: Report | Handback | Started) -> list[AttemptRef]:
    return [end.attempt for end in command.ends] if isinstance(command, Report) else list(command.attempts)


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


def idle_beside_work(live: Live, steady_ms: int) -> str:
    """Return a worker that has room beside ready work that fits, and is not held back for another lane; '' = none.

    A lane that finds no room holds the workers back on which it could run. Which lane came first is not looked at.
    """
    workers = [worker for worker in live.workers.values() if worker.may_lease(steady_ms)]
    ready = [(number, lane) for number, lane in live.lanes.items() if lane.ready]
    if not ready or not any(worker.slots_used < worker.capacity.slots for worker in workers):
        return ""
    fits = {
        number: [worker for worker in workers if could_fit(worker, lane.queue, lane.demand)] for number, lane in ready
    }
    rooms = {
        number: {worker.worker for worker in fits[number] if has_room(live, worker, lane)} for number, lane in ready
    }
    if not any(rooms.values()):
        return ""
    held: set[int] = set()
    before = -1
    while len(held) != before:
        before = len(held)
        for number, _ in ready:
            if not rooms[number] - held:
                held.update(worker.worker for worker in fits[number])
    for number, _ in ready:
        for worker in sorted(rooms[number] - held):
            return f"liveness: w{worker:x} has room for lane {number}, which has ready work; {_scene(live)}"
    return ""


def _scene(live: Live) -> str:
    """Return lanes and workers, for a person."""
    lanes = {number: lane for number, lane in live.lanes.items() if lane.ready}
    workers = {
        f"w{worker.worker:x}": (worker.capacity, {lane: (load.held, load.width) for lane, load in worker.loads.items()})
        for worker in live.workers.values()
        if worker.session and not worker.draining
    }
    return f"lanes {lanes}, workers {workers}"
