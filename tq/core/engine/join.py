"""A worker's session begins: reconcile what it holds with what the store says, in one command.

What it holds and is current: keep. What it holds and is not: stop. What the store says and it does not hold: back to
the queue, uncharged (semantics.md, Delivery 5).
"""

from collections import Counter
from collections.abc import Callable
from functools import cache, partial

from msgspec.structs import replace

from tq.core.change.fence import Verdict, claim, is_current_session, judge, passes_over
from tq.core.change.step import Step, running_in
from tq.core.engine.report import give_back, lose_worker, mark_started
from tq.core.model.job import JobKey, Queue
from tq.core.model.retry import lane_of
from tq.core.model.task import Cause, Phase, State, TaskKey
from tq.core.placement.live import LIVE_RECALLED, LIVE_SESSION, LIVE_WIDTH, LiveWorker, Session
from tq.core.vocabulary import AttemptRef, DrainAsked, Held, Join, Joined, Recall, Supersede, WorkerDrains, WorkerSilent


def join(step: Step, command: Join) -> Joined:
    """Begin a session; answer the worker's whole list."""
    before = step.live.workers.get(command.worker)
    if before is not None and before.session_number > command.session:
        step.count("superseded")
        return Joined()
    if before is not None and before.session is not None and before.session.number != command.session:
        step.effects.append(Supersede(command.worker, before.session.number))
    _lose_predecessors(step, command)
    draining, drain_due_ms = _drains(step, command, before)
    session = Session(command.session, command.capacity, draining, command.predecessors, drain_due_ms)
    step.overlay.put(LIVE_SESSION, (command.worker,), session)
    stop: list[tuple[AttemptRef, int]] = []
    settled: list[AttemptRef] = []
    kept = set()
    for held in command.held:
        if not passes_over(step, held.attempt.task) and _keep(step, command.worker, held, stop, settled):
            kept.add(held.attempt.task)
    if before is not None:
        _give_back_missing(step, before, kept)
    _restore_widths(step, command, kept, before)
    _recall_again(step, command, kept, before)
    return Joined(tuple(stop), tuple(settled))


def _lose_predecessors(step: Step, command: Join) -> None:
    """Take everything back from the workers whose directory this one has: they are gone.

    What ended there and was not reported is about to be: it must not be given up for its loss before that. One that
    lives on (somebody has copied the directory) has to come back: in a session that nobody knows it is given nothing.
    """
    ended = {held.attempt.task for held in command.held if held.phase == Phase.ENDED}
    for predecessor in command.predecessors:
        if predecessor != command.worker and (live := step.live.workers.get(predecessor)) is not None:
            lose_worker(step, predecessor, spared=ended)
            if live.session is not None:
                step.effects.append(Supersede(predecessor, live.session.number))


def _drains(step: Step, command: Join, before: LiveWorker | None) -> tuple[bool, int]:
    """Return whether the worker drains, and until when; tell it so if its list says otherwise.

    What was asked here since its last session is newer than the list, also if it was lost meanwhile: the worker may not
    have heard of it, or not yet. Two that do not agree would lease and hand back without end. A deadline is told again,
    as the list does not name it.
    """
    session = before.session if before is not None else None
    session = session or step.live.gone.get(command.worker)
    if session is None:
        return command.draining, -1
    if session.draining is not command.draining or session.drain_due_ms >= 0:
        left_ms = max(session.drain_due_ms - step.times.steady_ms, 0) if session.drain_due_ms >= 0 else -1
        step.effects.append(DrainAsked(command.worker, command.session, session.draining, left_ms))
    return session.draining, session.drain_due_ms


def worker_drains(step: Step, command: WorkerDrains) -> None:
    """The worker wants nothing more."""
    if is_current_session(step, command.worker, command.session):
        session = step.live.workers[command.worker].session
        if session is not None:
            step.overlay.put(LIVE_SESSION, (command.worker,), replace(session, draining=True))


def worker_silent(step: Step, command: WorkerSilent) -> None:
    """Give nothing more to a worker of which nothing is heard; or go on, as it is heard again."""
    live = step.live.workers.get(command.worker)
    if live is not None and live.session is not None and live.session.number == command.session:
        step.overlay.put(LIVE_SESSION, (command.worker,), replace(live.session, silent=command.on))


def _keep(step: Step, worker: int, held: Held, stop: list[tuple[AttemptRef, int]], settled: list[AttemptRef]) -> bool:
    """Judge one held attempt; return whether the worker still holds it for us."""
    ref = held.attempt
    task = step.task(ref.task)
    verdict = judge(step, task, ref, worker)
    has_ended = held.phase == Phase.ENDED
    if task is not None and verdict is Verdict.CLAIM and not step.progress(ref.task[:2]).cancelling:
        task = claim(step, ref, task, worker, Phase.ASSIGNED)
        verdict = Verdict.CURRENT
    if task is not None and verdict is Verdict.CURRENT:
        if task.phase is Phase.ASSIGNED and held.phase == Phase.STARTED:
            task = mark_started(step, ref.task, task)
        elif task.phase is Phase.STARTED:
            task = step.mark(ref.task, task)  # a restart of the server has forgotten which run, and since when
        if task.phase is Phase.STOPPING and not has_ended:
            stop.append((ref, int(task.cause)))
        return True
    if has_ended:
        settled.append(ref)
    else:
        stop.append((ref, int(Cause.LOST)))
    step.count("known_reports" if verdict is Verdict.KNOWN else "stale_reports")
    return False


def _give_back_missing(step: Step, before: LiveWorker, kept: set[TaskKey]) -> None:
    for key in list(before.held):
        if key not in kept and not passes_over(step, key):
            task = step.task(key)
            if task is not None:
                # Then it has met another store, and ended what it ran of this one.
                has_run = task.phase is Phase.STARTED or task.phase is Phase.STOPPING
                give_back(step, key, task, Cause.LOST if has_run else Cause.NONE)


def _is_stopped(step: Step, key: JobKey, running: Callable[[str], int]) -> bool:
    """Whether nothing more of a job may start: it is held, its queue is paused, or more is running than may.

    That can be where something was claimed: others have got the places of what was lost. What runs there, runs; what
    has not started must not.
    """
    progress, queue = step.progress(key), step.job(key).queue
    bound = step.live.queues.get(queue, Queue()).max
    return (
        progress.hold
        or step.live.is_paused(queue)
        or 0 < progress.throttle < progress.counts[State.RUNNING]
        or 0 < bound < running(queue)
    )


def _recall_again(step: Step, command: Join, kept: set[TaskKey], before: LiveWorker | None) -> None:
    """Ask again for what was asked back and has not come (the word may have been lost with the connection), and for
    what must not start now.
    """
    recalled = before.recalled if before is not None else set()
    running = cache(partial(running_in, step))  # each looks at all lanes
    refs = []
    for held in command.held:
        key = held.attempt.task
        if passes_over(step, key):
            continue
        if key in kept and held.phase == Phase.ASSIGNED and (key in recalled or _is_stopped(step, key[:2], running)):
            step.overlay.put(LIVE_RECALLED, (command.worker, *key), True)
            refs.append(held.attempt)
    if refs:
        step.effects.append(Recall(command.worker, command.session, tuple(refs)))


def _restore_widths(step: Step, command: Join, kept: set[TaskKey], before: LiveWorker | None) -> None:
    """Reserve for each lane as many chains as the worker may run of it: soft state that a restart of the server loses.

    The worker's own word counts, since its launcher goes by it: what runs just now may be fewer, for a moment. What is
    passed over is with it, too: without that, another would get its place.
    """
    lanes = before.held if before is not None else {}
    claimed = ((key, step.task(key)) for key in kept if key not in lanes and not passes_over(step, key))
    held = Counter(lane_of(key, task, step.progress(key[:2]), step.job) for key, task in claimed if task is not None)
    held.update(lane for key, lane in lanes.items() if key in kept or passes_over(step, key))
    for lane, width in command.widths:
        if held[lane]:
            step.overlay.put(LIVE_WIDTH, (command.worker, lane), max(min(width, held[lane]), 1))
