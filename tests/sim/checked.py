"""The real engine, watched: a worker's word is compared with what the fence says, a client's verb with what it promises
(promises.py), every turn with what may be leased in it.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace

from tests.sim.drains import Drains
from tests.sim.ledger import Ledger
from tests.sim.policy import must_be_alone
from tests.sim.promises import WHOLE, Promises, Subject, Verb, counts, is_settled, seen
from tests.sim.recalls import Recalls
from tq import errors
from tq.core.change import step as step_module
from tq.core.engine.engine import Bounds, Engine, Finished, Turn
from tq.core.model import tables
from tq.core.model.task import Phase, State, Task, Trigger, transition
from tq.core.model.view import Overlay, View
from tq.core.vocabulary import (
    Acted,
    Answer,
    AttemptRef,
    Cancel,
    Command,
    Drain,
    Handback,
    Hold,
    Join,
    Release,
    Report,
    Retain,
    Retry,
    SetQueue,
    Started,
    Times,
    Where,
    WorkerLost,
    WorkerSilent,
)

REST_MS = 1_000  # at least so long a worker rests that could not start what it was given
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

    def __init__(self, view: View, bounds: Bounds, ledger: Ledger, promises: Promises, drains: Drains) -> None:
        super().__init__(view, bounds)
        self.ledger = ledger
        self.promises = promises
        self.drains = drains
        self.recalls = Recalls(ledger)
        self.boot_ms: Callable[[], int] = lambda: 0  # what the clock says that goes on while the machine sleeps
        self.troubled: dict[int, int] = {}  # worker -> steady ms of the last trouble of its own, while that is not over
        self.drained: dict[int, bool] = {}  # workers that somebody has drained, or taken that back of
        self.silent: dict[int, bool] = {}  # ... of whom nothing is heard in their session
        self._begun = (0, 0)  # the last turn: its steady ms, and when that was

    def begin(self, times: Times) -> "CheckedTurn":
        """Begin a turn that is watched: in one life, steady time passes as time does, whatever the wall clock says."""
        now_ms = self.boot_ms()
        steady_ms, then_ms = self._begun
        if not then_ms:
            self.ledger.dues.began(times)
        elif times.steady_ms - steady_ms != now_ms - then_ms:
            raise self.ledger.world.violated(f"steady time went from {self._begun} to {(times.steady_ms, now_ms)}")
        self._begun = (times.steady_ms, now_ms)
        return CheckedTurn(self, times)


class CheckedTurn(Turn):
    """A turn of a CheckedEngine."""

    _engine: CheckedEngine

    def apply(self, command: Command, submitter: str = "") -> Answer | None:
        """Apply a command; a worker's word must count exactly where the fence says so."""
        world = self._engine.ledger.world
        world.saw("engine", command)
        world.count(f"command {type(command).__name__}")
        troubles = self._engine.live.counts.get("worker_troubles", 0)
        answer = self._apply(command, submitter)
        if isinstance(command, Handback) and self._engine.live.counts.get("worker_troubles", 0) > troubles:
            self._engine.troubled[command.worker] = self.times.steady_ms
        self._engine.promises.look(self._overlay)
        return answer

    def _apply(self, command: Command, submitter: str) -> Answer | None:
        if isinstance(command, Retain):
            return self._apply_retain(command)
        if isinstance(command, Verb):
            return self._apply_verb(command)
        if isinstance(command, Join):
            return self._apply_join(command)
        if isinstance(command, Handback):
            self._engine.recalls.handed_back(command)
        if isinstance(command, Report | Handback | Started | WorkerLost):
            current = self._session_of(command.worker)
            # A loss is one also of a session that has never begun, or that was over when something was passed over.
            if current > command.session or (current < command.session and not isinstance(command, WorkerLost)):
                return self._apply_superseded(command)
            if not isinstance(command, WorkerLost):
                return self._apply_word(command)
        answer = super().apply(command, submitter)
        if isinstance(command, Drain):
            self._engine.drained[int(command.worker[1:], 16)] = command.on
            self._engine.drains.asked(command, self._engine.boot_ms())
            self._watch_drain(int(command.worker[1:], 16))
        if isinstance(command, WorkerSilent) and self._session_of(command.worker) == command.session:
            self._engine.silent[command.worker] = command.on
        if isinstance(command, SetQueue) and command.paused:
            self._check_stopped({key[0] for key, job in self._engine.ledger.jobs.items() if job.queue == command.name})
        return answer

    def _apply_join(self, command: Join) -> Answer | None:
        """What must not start is asked back of a worker; what has ended there it holds until that is acknowledged."""
        ledger, before = self._engine.ledger, dict(self._overlay.changes.get(tables.TASK, {}))
        joined = super().apply(command)
        self._engine.recalls.joined(command, self._overlay, self._effects)
        self._engine.silent.pop(command.worker, None)
        self._watch_drain(command.worker)
        for key, task in self._overlay.changes.get(tables.TASK, {}).items():
            was = before.get(key) or ledger.tasks.get(key)
            is_back = was is not None and was.worker == command.worker and was.state is State.RUNNING
            if not is_back or task.state is not State.QUEUED or task.phase is not Phase.NONE:
                continue
            if AttemptRef(*key, task.attempt, task.lease) in ledger.ended and not ledger.costs_words(key[0]):
                raise self._violated(f"{key} has ended at w{command.worker:x}, which knows nothing of it: {was}")
        return joined

    def _session_of(self, number: int) -> int:
        worker = self._engine.live.workers.get(number)
        return worker.session_number if worker is not None else 1 << 62

    def _watch_drain(self, number: int) -> None:
        worker = self._engine.live.workers.get(number)
        if worker is not None:
            self._engine.drains.watch(worker, self._engine.boot_ms(), self._engine.recalls.is_quiet)

    def _check_stopped(self, jobs: set[int]) -> None:
        """What of these jobs has not started is asked back, where they are held or their queue is paused by now."""
        view, is_paused = self._overlay, self._engine.live.is_paused
        held = {job for job in jobs if (known := view.get(tables.PROGRESS, (job, 0))) and known.hold}
        rest = ((job, view.get(tables.JOB, (job, 0))) for job in jobs - held)  # one of them may be of this very turn
        paused = {job for job, known in rest if known is not None and is_paused(known.queue)}
        self._engine.recalls.stopped(held | paused, self._overlay, self._effects, self._engine.live)

    def _apply_retain(self, command: Retain) -> Answer | None:
        """The janitor takes what ended long enough ago, by the steady clock, and no dead letters."""
        before = dict(self._overlay.changes.get(tables.FORGOTTEN, {}))
        stood = dict(self._overlay.changes.get(tables.PROGRESS, {}))  # a purge may have come before it in the same turn
        answer = super().apply(command)
        for key in self._overlay.changes.get(tables.FORGOTTEN, {}).keys() - before.keys():
            progress = stood.get((key[0], 0)) or self._overlay.below.get(tables.PROGRESS, (key[0], 0))
            self._engine.ledger.world.count("jobs forgotten by the janitor")
            ended_ms = self._engine.ledger.dues.ended.get(key[0], 0)
            if progress is not None and ended_ms > self.times.steady_ms - command.keep_ms:
                raise self._violated(f"{command} at {self.times} removed job {key[0]}: {progress}")
            if progress is not None:
                self._engine.promises.removals.retained(key[0], progress.ended_steady_ms)
            if progress is not None and progress.counts[State.DEAD] > progress.purged:
                raise self._violated(f"{command} removed the dead letters of job {key[0]}: {progress}")
        return answer

    def _apply_verb(self, command: Verb) -> Answer:
        """A dry run says what the command would do, and changes nothing; the command does that, to what it means."""
        subjects = self._engine.promises.subjects(self._overlay, command)
        before = {table: dict(rows) for table, rows in self._overlay.changes.items()}
        said = self._try(replace(command, dry_run=True))
        if self._overlay.changes != before:
            raise self._violated(f"a dry run of {command} changed something")
        if command.dry_run and not isinstance(said, errors.Refused):
            self._engine.ledger.world.count("dry runs")
            return said
        answer = self._try(command)
        if answer != said and not (isinstance(said, errors.Refused) and type(said) is type(answer)):
            raise self._violated(f"a dry run of {command} said {said!r}, then it was {answer!r}")
        if isinstance(answer, errors.Refused):
            if self._overlay.changes != before:
                raise self._violated(f"{command} was refused and changed something")
            raise answer
        self._check_verb(command, subjects, before, answer)
        return answer

    def _try(self, command: Verb) -> Acted | errors.Refused:
        try:
            answer = super().apply(command)
        except errors.Refused as refusal:
            return refusal
        assert isinstance(answer, Acted)
        return answer

    def _check_verb(self, command: Verb, subjects: dict[Subject, Any], before: dict, answer: Acted) -> None:
        """Nothing but what the command means has changed; what it counts, it did; what it could not do yet, it will."""
        ledger, old_sweeps = self._engine.ledger, before.get(tables.SWEEP, {})
        meant = {subject[0] for subject in subjects}
        for job in meant:
            ledger.world.tell(job, None, "engine", "{}: {}", command, answer)
        for key, task in self._overlay.changes.get(tables.TASK, {}).items():
            if task is not before.get(tables.TASK, {}).get(key) and (key[0], key[2]) not in subjects:
                raise self._violated(f"{command} turned {key}, which it does not mean, into {task}")
        for key, progress in self._overlay.changes.get(tables.PROGRESS, {}).items():
            if progress is not before.get(tables.PROGRESS, {}).get(key) and key[0] not in meant:
                raise self._violated(f"{command} changed job {key[0]}, which it does not mean: {progress}")
        sweeps = [
            key[0]
            for key, sweep in self._overlay.changes.get(tables.SWEEP, {}).items()
            if sweep is not None and key not in old_sweeps
        ]
        if bool(sweeps) is not answer.sweeping:
            raise self._violated(f"{command} has begun the sweeps {sweeps}, and answered {answer}")
        self._engine.promises.given(command, subjects, sweeps, self._overlay)
        if isinstance(command, Retry):
            ended = (subject for subject, was in subjects.items() if subject[1] != WHOLE and was.state.is_terminal)
            ledger.retried.update((job, 0, member) for job, member in ended)
        if isinstance(command, Hold):
            self._check_stopped(
                {job for job, member in subjects if member == WHOLE and not subjects[job, WHOLE].progress.hold}
            )
        is_wide = bool(sweeps) and not command.ids
        ledger.words.say(command, _said_about(command, subjects, self._overlay, is_wide=is_wide), is_wide=is_wide)
        counted = counts(command, subjects, self._overlay)
        if not sweeps and (counted.done, counted.stopping) != (answer.done, answer.stopping):
            raise self._violated(f"{command} was answered {answer}, and did {counted}")

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
        costs = self._engine.ledger.costs_words
        words = [(ref, self._overlay.get(tables.TASK, ref.task)) for ref in _refs(command) if not costs(ref.job)]
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
        if counted != stale and not any(costs(ref.job) for ref in _refs(command)):
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
        self._engine.promises.look(self._overlay)
        if finished.changes:
            self._engine.promises.removals.check(finished.changes)
            self._engine.ledger.wrote(finished)
            self._check_order(finished)
            self._check_leases(finished)
            self._check_workers(finished)
        self._engine.recalls.asked(finished.effects)
        self._engine.ledger.world.saw("engine", finished.effects)
        return finished

    def _check_order(self, finished: Finished) -> None:
        """Of a lane, what is leased comes before all that is left waiting and does not rest: by priority, then by age.

        A worker after trouble tries something else than what it could not start.
        """
        last: dict[int, tuple[int, int, int]] = {}
        live = self._engine.live
        for key, task in finished.changes.get(tables.TASK, {}).items():
            if task.state is State.RUNNING and task.lease == finished.sequence:
                progress = self._overlay.get(tables.PROGRESS, key[:2])
                lane = self._overlay.get(tables.RUNNING, (task.worker, *key))
                assert progress is not None
                assert lane is not None
                place = (progress.rank, *key[:2])
                trouble = live.workers[task.worker].trouble
                if trouble is not None:
                    self._check_first(lane, place, {failed[1:] for failed in trouble.failed})
                else:
                    last[lane] = max(last.get(lane, (0, 0, 0)), place)
        for lane, place in last.items():
            self._check_first(lane, place, set())

    def _check_first(self, lane: int, place: tuple[int, int, int], passed_over: set[tuple[int, ...]]) -> None:
        resting = self._engine.live.failed_ready.resting(self.times.steady_ms)
        waiting = self._overlay.scan(tables.READY, (lane,), (lane, *place), 1 + len(passed_over) + len(resting))
        if first := [row for row, _ in waiting if row[2:] not in passed_over and row not in resting]:
            raise self._violated(f"lane {lane}: {place} was leased before {first[0]}")

    def _check_leases(self, finished: Finished) -> None:
        """I13: nothing is leased of what is held or being cancelled, of a paused queue, or beyond a bound."""
        leased = {
            key[:2]
            for key, task in finished.changes.get(tables.TASK, {}).items()
            if task.state is State.RUNNING and task.lease == finished.sequence
        }
        running: Counter[str] = Counter()
        if leased and self._overlay.scan(tables.QUEUE, ("",), ("\U0010ffff",), 1):
            rows = self._overlay.scan(tables.RUNNING, (0,), (1 << 63,), 1 << 31)
            running.update(self._engine.ledger.jobs[key[1:3]].queue for key, _ in rows)
        for key in leased:
            progress = self._overlay.get(tables.PROGRESS, key)
            assert progress is not None
            if progress.hold or progress.cancelling:
                raise self._violated(f"something of job {key[0]} was leased: {progress}")
            if progress.throttle and progress.counts[State.RUNNING] > progress.throttle:
                raise self._violated(f"I13: job {key[0]} runs more than its throttle: {progress}")
            name = self._engine.ledger.jobs[key].queue
            queue = self._overlay.get(tables.QUEUE, (name,))
            if queue is not None and (queue.paused or 0 < queue.max < running[name]):
                raise self._violated(f"I13: something of job {key[0]} was leased: {queue} runs {running[name]}")

    def _check_workers(self, finished: Finished) -> None:
        """What one more loss would end has its worker to itself from its lease on; who drains or rests gets nothing."""
        ledger = self._engine.ledger
        leased = {
            task.worker for task in finished.changes.get(tables.TASK, {}).values() if task.lease == finished.sequence
        }
        for worker in leased:
            live, troubled_ms = self._engine.live.workers[worker], self._engine.troubled.get(worker)
            if live.trouble is None:
                self._engine.troubled.pop(worker, None)
            elif troubled_ms is not None and self.times.steady_ms < troubled_ms + REST_MS:
                raise self._violated(
                    f"w{worker:x} had trouble at {troubled_ms}, and was given something at {self.times}"
                )
            is_shut = self._engine.drained.get(worker) or self._engine.silent.get(worker)
            if live.session is None or live.session.draining or is_shut:
                raise self._violated(f"w{worker:x} was given something: {live.session}")
            rows = [key[1:] for key, _ in self._overlay.scan(tables.RUNNING, (worker,), (worker + 1,), 1_000)]
            if len(rows) > 1 and (
                lone := [key for key in rows if must_be_alone(ledger.jobs[key[:2]], ledger.tasks[key])]
            ):
                raise self._violated(f"{lone} must run alone, and w{worker:x} was given {rows}")

    def _violated(self, what: str) -> Exception:
        return self._engine.ledger.world.violated(what)


def _said_about(command: Verb, subjects: dict[Subject, Any], overlay: Overlay, *, is_wide: bool) -> Iterator[Subject]:
    """Yield what a command has settled by its answer: for a cancel all of a job, for a hold or a release that of it."""
    where = command.where or Where()
    is_whole = not (where.states or where.cause or where.is_letter)
    for subject, was in subjects.items():
        if isinstance(command, Cancel):
            is_said = subject[1] == WHOLE and is_whole and not is_wide
        elif isinstance(command, Hold | Release):
            is_said = subject[1] == WHOLE and is_settled(was, seen(overlay, subject))
        else:
            is_said = True
        if is_said:
            yield subject


def _refs(command: Report | Handback | Started) -> list[AttemptRef]:
    return [end.attempt for end in command.ends] if isinstance(command, Report) else list(command.attempts)
