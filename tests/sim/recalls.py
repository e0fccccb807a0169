"""What becomes of attempts that were asked back, written down once more.

What a worker lists, has not started and may not start now is asked back at once: its job is held, its queue is paused,
or more runs than a bound allows, because others have got the places of what was claimed (semantics.md, Delivery 4). It
comes back or has started before long, so that the bound holds again for all that starts. What was handed back as if it
had never run has never run, and never does.
"""

from collections.abc import Callable, Collection
from typing import Final

from tests.sim.ledger import Ledger
from tests.sim.world import SECOND
from tq.core.model import tables
from tq.core.model.task import Cause, Phase, State
from tq.core.model.view import Overlay
from tq.core.placement.live import Live
from tq.core.vocabulary import AttemptRef, Effect, Handback, Join, Recall

SETTLED_US: Final = 5 * SECOND


class Recalls:
    """The recalls of one engine. `is_quiet(worker, session, since_us)`: nothing has kept them from settling since."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.is_quiet: Callable[[int, int, int], bool] = lambda *_: False
        self._asked: set[AttemptRef] = set()

    def stopped(self, jobs: Collection[int], overlay: Overlay, effects: list[Effect], live: Live) -> None:
        """Nothing more of these jobs may start: what has not, at workers that are connected, is asked back, or will."""
        asked = {ref for effect in effects if isinstance(effect, Recall) for ref in effect.attempts} | self._asked
        sessions = {number: worker.session_number for number, worker in live.workers.items() if worker.session}
        wanted, world = {*live.to_recall}, self._ledger.world
        for key, _ in overlay.scan(tables.RUNNING, (0,), (1 << 63,), 1 << 31) if jobs else ():
            task = overlay.get(tables.TASK, key[1:])
            if key[1] not in jobs or key[0] not in sessions or task is None or task.phase is not Phase.ASSIGNED:
                continue
            world.count("asked back at a stop")
            ref = AttemptRef(*key[1:], task.attempt, task.lease)
            if ref not in asked and key[1:] not in wanted:
                raise world.violated(f"{key[1:]} must not start any more, and is not asked back: {task}")
            world.after(SETTLED_US, self._settled, Recall(key[0], sessions[key[0]], (ref,)), world.now_us)

    def joined(self, command: Join, overlay: Overlay, effects: list[Effect]) -> None:
        """A worker has said what it holds: what of it must not start now is asked back."""
        asked = {
            ref
            for effect in effects
            if isinstance(effect, Recall) and (effect.worker, effect.session) == (command.worker, command.session)
            for ref in effect.attempts
        }
        for held in command.held:
            ref = held.attempt
            task = overlay.get(tables.TASK, ref.task)
            is_waiting = held.phase == Phase.ASSIGNED and task is not None and task.state is State.RUNNING
            is_theirs = task is not None and (task.lease, task.worker) == (ref.lease, command.worker)
            is_heard = not self._ledger.costs_words(ref.job)
            if not is_waiting or not is_theirs or not is_heard or not self._must_not_start(ref, overlay):
                continue
            self._ledger.world.count("asked back beyond a bound")
            if ref not in asked:
                raise self._ledger.world.violated(f"{ref} must not start now, and is not asked back: {task}")

    def _must_not_start(self, ref: AttemptRef, overlay: Overlay) -> bool:
        job = ref.task[:2]
        progress = overlay.get(tables.PROGRESS, job)
        name = self._ledger.jobs[job].queue
        queue = overlay.get(tables.QUEUE, (name,))
        if progress is None or progress.hold or 0 < progress.throttle < progress.counts[State.RUNNING]:
            return progress is not None
        if queue is None or queue.paused or not queue.max:
            return queue is not None and queue.paused
        running = (key for key, _ in overlay.scan(tables.RUNNING, (0,), (1 << 63,), 1 << 31))
        return sum(self._ledger.jobs[key[1:3]].queue == name for key in running) > queue.max

    def asked(self, effects: list[Effect]) -> None:
        """A turn asks for attempts back: look again when that must be settled."""
        world = self._ledger.world
        for effect in effects:
            if isinstance(effect, Recall):
                self._asked.update(effect.attempts)
                world.after(SETTLED_US, self._settled, effect, world.now_us)

    def _settled(self, recall: Recall, since_us: int) -> None:
        for ref in recall.attempts:
            task = self._ledger.tasks.get(ref.task)
            is_open = task is not None and task.state is State.RUNNING and task.phase is Phase.ASSIGNED
            if (
                self._ledger.costs_words(ref.job)
                or not is_open
                or task is None
                or (task.lease, task.worker) != (ref.lease, recall.worker)
            ):
                continue
            if self.is_quiet(recall.worker, recall.session, since_us):
                raise self._ledger.world.violated(f"{ref} was asked back, and neither started nor came back: {task}")

    def handed_back(self, command: Handback) -> None:
        """A worker hands attempts back; without a cause it says that they have never run."""
        if command.cause == Cause.NONE:
            for ref in command.attempts:
                if ref in self._ledger.started:
                    raise self._ledger.world.violated(f"{ref} is handed back as if it had not run")
                self._ledger.returned.add(ref)
