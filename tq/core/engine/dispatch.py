"""Dispatch, the last command of every turn that did more than read: lease what may start, recall what should not wait.

Lanes that have something ready are taken in the order of their heads (priority, then age), and of the queues the one
that was served longest ago goes first. A lane that finds no room keeps later lanes from refilling workers on which it
could run: so chains drain, and it gets its slot.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from tq.core.change.step import Step
from tq.core.change.stop import recall_next, ref_of
from tq.core.change.worker_backoff import passed_over
from tq.core.engine import ready
from tq.core.engine.leases import Leases
from tq.core.model import tables
from tq.core.model.task import State
from tq.core.model.view import Key
from tq.core.placement.fit import Room, chain_room, could_fit, places, to_empty
from tq.core.placement.live import LIVE_RECALLED, LiveWorker
from tq.core.vocabulary import AttemptRef, Recall, Start
from tq.limits import put_off_of_lane_max

_KEEP_MORE_MS: Final = 60_000


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


def _fitting(step: Step, worker: LiveWorker, lanes: Iterable[int], leases: Leases) -> list[int]:
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
    leases: Leases,
    resting: Collection[Key],
    choices: Iterable[Collection[Key]],
) -> None:
    """Lease one attempt to a worker after trouble: of each choice it passes some over, until it has found one."""
    for others in choices if lanes else ():
        if not leases.added[worker.worker]:
            _lease_to([worker], lanes, step, leases, {*resting, *others})


def _lease_to(
    workers: Sequence[LiveWorker], lanes: Iterable[int], step: Step, leases: Leases, resting: Collection[Key]
) -> None:
    """Lease of these lanes, which have something ready, to these workers."""
    if not workers or step.is_cut:
        return
    for number in ready.lanes_in_order(step, lanes, resting):
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
        if is_unmet and (kept := _kept(step, number, fitting, resting, bound)):
            workers = [worker for worker in workers if worker not in kept]
            leases.unmet.append((number, resting))
            if not workers:
                break


def _kept(
    step: Step, number: int, fitting: list[LiveWorker], resting: Collection[Key], bound: int | None
) -> list[LiveWorker]:
    """Return the workers that nobody behind a lane in the order may refill: for what found no room there.

    Where it asks for a slot alone, nobody has one, and all are kept, so that chains drain. What must run alone needs
    one worker that is empty. What demands more than a slot waits beside slots that are free: so as many are kept for it
    as may start, and one more for each minute that the first has waited, since what it waits for may run for days.
    """
    lane = step.live.lanes[number]
    if lane.alone:
        return to_empty(fitting, 1, step.times.steady_ms)
    if not lane.demand.cpus_milli and not lane.demand.mem_bytes:
        return fitting
    most = len(fitting) if bound is None else min(len(fitting), bound)
    wanted = waited_ms = 0
    for key, progress in ready.jobs_in_order(step, number, resting):
        waited_ms = waited_ms or max(step.times.wall_ms - step.job(key).submitted_ms, 1)
        wanted += progress.startable
        if wanted >= most:
            break
    count = min(wanted, most) + waited_ms // _KEEP_MORE_MS if wanted else 0
    return to_empty(fitting, count, step.times.steady_ms)


def _may_start(step: Step, number: int, leases: Leases, resting: Collection[Key]) -> bool:
    """Return whether anything of a lane could still start, if there were room."""
    if leases.bound(number) == 0:
        return False
    return any(progress.is_startable(number) for _, progress in ready.jobs_in_order(step, number, resting))


def to_blame(step: Step, resting: Collection[Key]) -> Key:
    """Return what is to rest when dispatch has failed where the step stands: a job, or its lane if so many of it rest
    already. Empty where none is to blame.
    """
    found: list[Key] = [step.at]
    if step.at in resting or step.at[:1] in resting:  # settling failed at a job's row in its other lane
        job = step.at[2:]
        progress = step.progress(job)
        found = [(lane, progress.rank, *job) for lane in progress.lanes]  # it was found by one of these
    blamed = (
        row if len(row) == 1 or ready.resting_in(row[:1], resting) < put_off_of_lane_max else row[:1] for row in found
    )
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
