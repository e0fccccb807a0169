"""A turn: several commands that are committed together, and what the server does by itself beside them.

`apply` runs each command in a layer of its own, so that a refused command, or one that raises, leaves nothing behind;
only a finished layer is merged, and folded into the soft state. Of the server's own work a bug costs what it is about
(ADR 23). The engine (engine.py) begins turns; what each command does stands in its own module (handlers.py).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from tq.core.bulk import act
from tq.core.change import fence, forget, lanes
from tq.core.change.step import Bounds, Step
from tq.core.engine import clock, dispatch
from tq.core.engine.handlers import CHANGES, READS
from tq.core.model import tables
from tq.core.model.job import JobKey, Meta
from tq.core.model.view import Changes, Key, Overlay, Table, View
from tq.core.placement.fold import FoldFailed, fold, live_of
from tq.core.placement.live import LIVE_TABLES
from tq.core.placement.quarantine import Quarantine
from tq.core.vocabulary import (
    Acted,
    Answer,
    Command,
    Dispatch,
    Effect,
    Handback,
    Join,
    Report,
    Retain,
    Started,
    TaskChanged,
    Tick,
    Times,
    WorkerLost,
)
from tq.errors import Refused, StoreDamaged, StoreError
from tq.limits import passed_over_max


class EngineState:
    """The state that each turn works on, and writes forward."""

    def __init__(self, view: View, bounds: Bounds) -> None:
        self.view = view
        self.bounds = bounds
        self.live = live_of(view)
        self.live.lanes |= lanes.lost_lanes(view, self.live)
        # The counters as the last turn left them: whoever writes turns is alone, so they need no reading again.
        self.meta: Meta | None = view.get(tables.META, ())
        self.is_due_known = False  # nothing has been done since the next due time was looked up
        self.dispatched_ms = 0  # steady time of the last Dispatch: what turned long until then has been looked at

    def dispatched(self, steady_ms: int, *, may_lease: bool) -> None:
        """Note until when Dispatch has looked at the chains, and whether it might lease."""
        self.dispatched_ms = steady_ms
        self.live.may_lease = may_lease
        self.is_due_known = False


Own = Tick | Dispatch | Retain  # what the server does by itself: a bug there is put off

_OF_MANY_ATTEMPTS: Final = (Join, Started, Report, Handback, WorkerLost)


class Finished(NamedTuple):
    """A finished turn. With no `changes` there is nothing to write, and the sequence is not used up."""

    sequence: int
    epoch: int
    wall_ms: int
    changes: Changes
    effects: list[Effect]
    is_cut: bool  # Dispatch stopped at a bound: another turn is wanted at once


class Turn:
    """Several commands that are committed together."""

    def __init__(self, engine: EngineState, times: Times) -> None:
        self._engine = engine
        self._overlay = Overlay(engine.view)
        self._effects: list[Effect] = []
        self._changed_jobs: dict[JobKey, TaskChanged] = {}
        self.bugs: list[tuple[Command, Exception]] = []  # what was put off, for whoever writes that down
        self._has_read = self._has_acted = False
        meta = engine.meta
        self.sequence = meta.sequence + 1 if meta else 1
        # Times never go back, whatever the caller's clock does.
        self.times = Times(max(times.steady_ms, meta.steady_ms), times.wall_ms) if meta else times

    @property
    def changes_count(self) -> int:
        """How many keys the turn will write so far: the cap of a turn counts them."""
        return sum(map(len, self._overlay.changes.values()))

    @property
    def has_only_read(self) -> bool:
        """Whether it has answered questions and nothing else: then it finds nothing to dispatch that was not there."""
        return self._has_read and not self._has_acted

    def apply(self, command: Command, submitter: str = "") -> Answer | None:
        """Apply one command; return its answer. Raises Refused, or whatever a bug raises: both change nothing."""
        kind = type(command)
        read = READS.get(kind)
        if read is not None:
            self._has_read = True
            return read(self._overlay, self._engine.live, command)
        self._has_acted = True
        if isinstance(command, Retain):
            return self._retain(command)
        if kind is Tick:
            self._tick()
            return None
        if getattr(command, "dry_run", False):
            return CHANGES[kind](self._step(submitter), command)
        answer, step = self._carry_out(command, submitter)
        self._merge(step)
        if step.failed_at:
            self._engine.live.note_failed(step.failed_at)
        return answer

    def _carry_out(self, command: Command, submitter: str) -> tuple[Answer | None, Step]:
        """Carry out a command in a layer of its own. If one about many fails at a job, it goes on without it (ADR 23):
        what a worker says without those attempts, what a client wants by a filter as a sweep.
        """
        work, failed = CHANGES[type(command)], set[Key]()
        while True:
            step = self._step(submitter)
            step.failed_at = failed
            try:
                answer = work(step, command)
                step.settle()
            except (Refused, StoreError):
                raise
            except Exception as error:
                known = len(failed)
                if step.at and isinstance(command, _OF_MANY_ATTEMPTS) and known < passed_over_max:
                    failed.add(fence.to_blame(step.at, failed))
                if step.at and act.is_by_filter(command) and work is not act.put_off:
                    work = act.put_off
                elif len(failed) == known:
                    raise
                self.bugs.append((command, error))
            else:
                return answer, step

    def finish(self, *, may_lease: bool = True) -> Finished:
        """Dispatch, unless all was reading, and return what to write and what to do once it is on disk."""
        if self.has_only_read:
            is_cut = False
        else:
            is_cut = self._dispatch(may_lease=may_lease)
            self._engine.dispatched(self.times.steady_ms, may_lease=may_lease)
        changes = {table: rows for table, rows in self._overlay.changes.items() if table not in LIVE_TABLES and rows}
        meta = self._latest_meta()
        epoch = meta.epoch if meta else 0
        if changes and meta is not None:
            self._engine.meta = self._stamped(meta)
            changes[tables.META] = {(): self._engine.meta}
        return Finished(
            self.sequence, epoch, self.times.wall_ms, changes, [*self._effects, *self._changed_jobs.values()], is_cut
        )

    def _tick(self) -> None:
        """Do what is due."""
        failed = self._engine.live.failed_timers
        keys = clock.due(self._step(""), failed.resting(self.times.steady_ms))
        error = self._do_each(Tick(), keys, clock.tick, failed, clock.narrow, clock.delay)
        if error is not None:
            raise error
        failed.end(self.times.steady_ms, partial(self._is_gone, tables.TIMER))

    def _retain(self, command: Retain) -> Acted:
        """Forget what ended long ago, oldest first, a bounded part; `sweeping` says that there is more."""
        failed = self._engine.live.failed_ended
        look = self._step("")
        keys = forget.ended_long_ago(look, command.keep_ms, failed.resting(self.times.steady_ms))
        self._take(look)
        before = len(self._overlay.changes.get(tables.FORGOTTEN, ()))
        error = self._do_each(command, keys, forget.retain, failed)
        if error is not None:  # what was forgotten until then is, so this is not a command that changed nothing
            self.bugs.append((command, error))
        failed.end(self.times.steady_ms, partial(self._is_gone, tables.ENDED))
        done = len(self._overlay.changes.get(tables.FORGOTTEN, ())) - before
        return Acted(done, sweeping=error is None and len(keys) >= self._engine.bounds.slice)

    def _do_each(
        self,
        what: Own,
        keys: list[Key],
        work: Callable[[Step, list[Key]], None],
        failed: Quarantine,
        narrow: Callable[[Step, list[Key], Key], None] | None = None,
        delay: Callable[[Step, list[Key]], None] | None = None,
    ) -> Exception | None:
        """Do the server's own work on these rows; if a bug ends that, on each by itself, and what fails is put off:
        of a row that is about many jobs, as little as can be. Where there is no room for one more, it is delayed.

        Return what ended all of it, where that cannot be.
        """
        bug = self._attempt(self._step(""), work, keys)
        known = len(self.bugs)
        for key in keys if bug is not None else ():
            step = self._step("")
            error = self._attempt(step, work, [key])
            if error is None:
                continue
            if not self._put_off(failed, key, what, error):
                if delay is None or self._attempt(self._step(""), delay, [key]) is not None:
                    return error
            elif narrow is not None and (error := self._attempt(self._step(""), narrow, [key], step.at)) is not None:
                self.bugs.append((what, error))
        if bug is not None and len(self.bugs) == known:
            self.bugs.append((what, bug))
        return None

    def _is_gone(self, table: Table[Any], key: Key) -> bool:
        """Whether a row that had failed is not there any more: it was worked off, or something else took it away."""
        return self._overlay.get(table, key) is None

    def _dispatch(self, *, may_lease: bool) -> bool:
        """Lease and recall; the job or lane at which a bug ends that is put off, the others go on. Return if cut."""
        failed = self._engine.live.failed_ready
        while True:
            resting = failed.resting(self.times.steady_ms)
            step = self._step("")
            error = self._attempt(step, partial(dispatch.dispatch, may_lease=may_lease, resting=resting))
            if error is None:
                if failed:
                    failed.end(self.times.steady_ms, dispatch.over(step))
                return step.is_cut
            key = dispatch.to_blame(step, resting)
            if not key or key in resting or not self._put_off(failed, key, Dispatch(), error):
                raise error

    def _attempt(self, step: Step, work: Callable[..., None], *what: object) -> Exception | None:
        """Do a part of the server's own work in a layer of its own; return the bug, or the damage, that ended it, and
        changed nothing.

        What the fold raises is fatal: the soft state would no longer be that of the store.
        """
        try:
            work(step, *what)
            step.settle()
        except StoreDamaged as error:  # of a read: nothing was decided
            return error
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug costs what it is about, never the server (I12, ADR 23)
            return error
        self._merge(step)
        return None

    def _put_off(self, failed: Quarantine, key: Key, what: Own, error: Exception) -> bool:
        """Leave what failed alone for a while, and note why. Return whether there was room."""
        if not failed.add(key, self.times.steady_ms):
            return False
        self.bugs.append((what, error))
        self._engine.live.timers_changed = True
        return True

    def _stamped(self, meta: Meta) -> Meta:
        return Meta(
            meta.lineage,
            meta.epoch,
            self.sequence,
            self.times.steady_ms,
            self.times.wall_ms,
            meta.next_job,
            meta.next_lane,
            meta.next_blob,
            meta.next_sweep,
            meta.named_from,
            meta.beat_ms,
            meta.held_until_ms,
            meta.named_by,
        )

    def _step(self, submitter: str) -> Step:
        engine = self._engine
        return Step(
            self._overlay, engine.live, self.times, self.sequence, submitter, engine.bounds, self._latest_meta()
        )

    def _latest_meta(self) -> Meta | None:
        """Return the counters as the turn has left them so far; None before the first Recover of a store."""
        changed = self._overlay.changes.get(tables.META)
        return changed[()] if changed else self._engine.meta

    def _take(self, step: Step) -> None:
        """Settle a command's layer, and take it over."""
        step.settle()
        self._merge(step)

    def _merge(self, step: Step) -> None:
        """Merge a settled layer, and fold it into the soft state."""
        self._overlay.merge(step.overlay.changes)
        try:
            fold(self._engine.live, step.overlay.changes)
        except Exception as error:
            raise FoldFailed(repr(error)) from error
        for effect in step.effects:
            if type(effect) is TaskChanged:
                self._changed_jobs[effect.job, effect.part] = effect
            else:
                self._effects.append(effect)
