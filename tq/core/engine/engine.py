"""The engine: commands in; answers, changes and effects out. Pure; the times come in with each turn.

    engine = Engine(view)
    turn = engine.begin(times)
    answer = turn.apply(command, submitter)      # raises Refused: nothing changed
    finished = turn.finish()                     # Dispatch, and what to write and do

A turn (turn.py) is several commands and one commit. The same commands with the same times on the same state give the
same changes, however they are grouped into turns.
"""

from tq.core.change.step import Bounds
from tq.core.engine.turn import EngineState, Finished, Turn
from tq.core.model import tables
from tq.core.model.timers import STEADY, SWEEPS
from tq.core.model.view import View
from tq.core.vocabulary import Times
from tq.limits import prefetch_ms

__all__ = ["Bounds", "Engine", "Finished", "Turn"]


class Engine(EngineState):
    """The decider over one store. Not thread-safe; one turn at a time."""

    def __init__(self, view: View, bounds: Bounds = Bounds()) -> None:  # noqa: B008 - frozen
        super().__init__(view, bounds)
        self._timer_ms: int | None = None  # steady, of the first timer
        self._due_ms: int | None = None  # steady, of whatever is first

    def begin(self, times: Times) -> Turn:
        """Begin a turn over the store as written so far."""
        return Turn(self, times)

    def next_due_ms(self, times: Times) -> int | None:
        """Return in how many ms a Tick (or only a Dispatch) has something to do; None = nothing is planned.

        As the last turn left it: what an open one changes counts once that is finished.
        """
        if not self.is_due_known:
            self._due_ms = min(self._dues_ms(), default=None)
            self.is_due_known = True
        return None if self._due_ms is None else max(self._due_ms - times.steady_ms, 0)

    def _dues_ms(self) -> list[int]:
        """Return when there will be something to do. Looks at every worker."""
        if self.live.timers_changed:
            firsts = [self._first_due_ms(of) for of in (STEADY, SWEEPS)]
            self._timer_ms = min((first for first in firsts if first is not None), default=None)
            self.live.timers_changed = False
        due = [] if self._timer_ms is None else [self._timer_ms]
        due += [0] if self.live.to_recall else []
        due += self.live.failed_timers.dues_ms()
        due += (due_ms for due_ms in self.live.failed_ready.dues_ms() if due_ms > self.dispatched_ms)
        for worker in self.live.workers.values():
            if worker.trouble is not None and worker.trouble.until_ms > self.dispatched_ms:
                due.append(worker.trouble.until_ms)
            if worker.started and len(worker.held) > worker.slots_used:
                turned_long = (since_ms + prefetch_ms for since_ms in worker.started.values())
                due.extend(due_ms for due_ms in turned_long if due_ms > self.dispatched_ms)
        return due

    def _first_due_ms(self, of: int) -> int | None:
        """Return when the first timer of a clock is due that has not failed, and raise the floor of that clock.

        What comes later is due after the last finished turn: no turn has an earlier time, and none plans for the past.
        """
        failed, floors = self.live.failed_timers, self.live.timer_floors
        rows = self.view.scan(tables.TIMER, (of, floors[of]), (of + 1,), 1 + len(failed))
        written_ms = self.meta.steady_ms if self.meta is not None else 0
        floors[of] = min(written_ms, rows[0][0][1]) if rows else written_ms
        return next((key[1] for key, _ in rows if key not in failed), None)
