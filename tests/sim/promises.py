"""What the verbs of clients promise, written down once more: for each job and task that a command means, what must have
become of it when its walk is over.

A command opens a promise: the tasks (or whole jobs) that it means as they stand, each of which must be seen at least
once as the verb leaves it. What is done at once keeps it at once; a sweep until its last slice, over restarts.
A crash takes back what it takes back of the store (ledger.put).
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.sim.ledger import Ledger
from tests.sim.removals import Removals
from tq.core.model import tables
from tq.core.model.job import Job, Progress
from tq.core.model.task import Cause, Phase, State, Task
from tq.core.model.view import Overlay
from tq.core.vocabulary import (
    Acted,
    Cancel,
    Forget,
    Hold,
    Purge,
    Release,
    Requeue,
    Retry,
    SetPriority,
    SetThrottle,
    Where,
)

Verb = Cancel | Hold | Release | Requeue | Retry | SetPriority | SetThrottle | Forget | Purge
WHOLE: Final = -1  # in the place of a member: the job itself
GAVE_UP: Final = (State.DEAD, State.CANCELLED, State.SKIPPED, State.EXPIRED)
_ID: Final = re.compile(r"(\d+)(?:\.(\d+)(?:-(\d+))?)?")

Subject = tuple[int, int]  # a job, and a member or WHOLE


class Seen(NamedTuple):
    """How a task, or a job, stands: `task` None is untouched, `progress` None a job that is gone."""

    progress: Progress | None
    task: Task | None = None

    @property
    def state(self) -> State:
        """The state as people see it: under a hold, queued reads held."""
        assert self.progress is not None
        state = self.progress.first if self.task is None else self.task.state
        return State.HELD if self.progress.hold and state is State.QUEUED else state

    @property
    def is_gone(self) -> bool:
        """Whether the job is forgotten, or about to be."""
        return self.progress is None or self.progress.forgetting

    @property
    def is_letter(self) -> bool:
        """Whether it is in the dead letter queue."""
        return self.task is not None and self.task.state is State.DEAD and not self.task.purged

    def is_meant(self, where: Where) -> bool:
        """Whether a filter means this task."""
        if where.states and self.state not in _states(where.states):
            return False
        if where.cause and (self.task is None or self.task.cause is not Cause[where.cause.upper()]):
            return False
        return self.is_letter or not where.is_letter

    def shows(self, where: Where) -> bool:
        """Whether a whole job has a task that a filter means by its state, or a dead letter if it means those."""
        states = where.states
        assert self.progress is not None
        counts = list(self.progress.counts)
        if self.progress.hold:
            counts[State.HELD] += counts[State.QUEUED]
            counts[State.QUEUED] = 0
        if where.is_letter and self.progress.counts[State.DEAD] == self.progress.purged:
            return False
        return not states or any(counts[state] for state in _states(states))


def _states(words: tuple[str, ...]) -> set[State]:
    named = {State[word.upper()] for word in words if word != "failed"}
    return named | ({State.DEAD, State.EXPIRED} if "failed" in words else set())


class Promise:
    """One command of a client, until its walk is over."""

    def __init__(self, command: Verb, subjects: dict[Subject, Seen], life: int) -> None:
        self.command = command
        self.life = life
        self.before = subjects
        self.pending = {subject: True for subject, seen in subjects.items() if self._is_due(subject, seen)}

    def _is_due(self, subject: Subject, seen: Seen) -> bool:
        """Whether the command must do something to this, as it stands when the command comes."""
        if seen.is_gone or (subject[1] == WHOLE) is not isinstance(self.command, WHOLES):
            return False
        return not self.is_kept(subject, seen, seen)

    def is_kept(self, subject: Subject, seen: Seen, before: Seen | None = None) -> bool:
        """Whether the verb has nothing more to do here: it has done it, or does not mean the subject any more."""
        where = self.command.where or Where()
        before = before or self.before[subject]
        if seen.is_gone or seen.progress is None or not seen.shows(where):
            return True
        if subject[1] == WHOLE:
            return self._is_job_kept(seen.progress)
        return not seen.is_meant(where) or self._is_task_kept(seen, before)

    def _is_job_kept(self, progress: Progress) -> bool:
        match self.command:
            case Hold():
                return progress.hold or progress.is_ended
            case Release():
                return not progress.hold
            case SetPriority():
                return progress.rank == 100 - self.command.priority or progress.is_ended
            case SetThrottle():
                return progress.throttle == self.command.throttle or progress.is_ended or progress.size == 1
            case _:  # Forget
                return not progress.is_ended

    def _is_task_kept(self, seen: Seen, before: Seen) -> bool:
        task = seen.task
        is_stopping = task is not None and task.state is State.RUNNING and task.phase is Phase.STOPPING
        match self.command:
            case Cancel():
                return seen.state.is_terminal or (is_stopping and task is not None and task.cause is Cause.CANCELLED)
            case Requeue():
                is_other = task is None or before.task is None or task.attempt != before.task.attempt
                return seen.state is not State.RUNNING or is_stopping or is_other
            case Purge():
                return not seen.is_letter
            case _:  # Retry
                may = (*GAVE_UP, State.SUCCEEDED) if isinstance(self.command, Retry) and self.command.force else GAVE_UP
                return seen.state not in may or (task.round if task else 1) != (before.task.round if before.task else 1)


WHOLES: Final = (Hold, Release, SetPriority, SetThrottle, Forget)  # verbs that act on whole jobs


class Promises:
    """The open promises of one store, over all lives of its server."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.open: dict[int, Promise] = {}  # by the number of a sweep; several may belong to one promise
        self._of: dict[int, Promise] = {}  # those of whole sweeps, also of those that are over: their parts may go on
        self.lives = 0
        self.removals = Removals(ledger)
        ledger.retries = self._retries

    def _retries(self, job: int) -> bool:
        retries = (promise for promise in self.open.values() if isinstance(promise.command, Retry))
        return any(subject[0] == job for promise in retries for subject in promise.before)

    def subjects(self, overlay: Overlay, command: Verb) -> dict[Subject, Seen]:
        """Return what a command means: all that its ids name, or all jobs that match its filter, as they stand."""
        found: dict[Subject, Seen] = {}
        for number, members in self._meant(overlay, command):
            progress = overlay.get(tables.PROGRESS, (number, 0))
            if progress is None or progress.forgetting:
                continue
            if members is None:
                found[number, WHOLE] = Seen(progress)
            for member in range(progress.size) if members is None else members:
                found[number, member] = Seen(progress, overlay.get(tables.TASK, (number, 0, member)))
        return found

    def _meant(self, overlay: Overlay, command: Verb) -> Iterator[tuple[int, range | None]]:
        where = command.where or Where()
        if not command.ids:
            for key, job in overlay.scan(tables.JOB, (0,), (1 << 63,), 1 << 31):
                progress = overlay.get(tables.PROGRESS, key)
                if progress is not None and _matches(where, job, progress):
                    yield key[0], None
        for text in command.ids:
            match = _ID.fullmatch(text)
            assert match is not None, text
            job, progress = (overlay.get(table, (int(match[1]), 0)) for table in (tables.JOB, tables.PROGRESS))
            if job is None or progress is None or not _matches(where, job, progress):
                continue
            if match[2] is None:
                yield int(match[1]), None
            else:
                last = int(match[3] or match[2])
                yield int(match[1]), range(_place(job, int(match[2])), _place(job, last) + 1)

    def given(self, command: Verb, subjects: dict[Subject, Seen], sweeps: list[int], overlay: Overlay) -> Promise:
        """Note what a command has promised; without sweeps it must be kept by now."""
        promise = Promise(command, subjects, self.lives)
        self.removals.given(command, subjects)
        self._let_off(promise, overlay)
        for subject, was in subjects.items() if isinstance(command, Forget) else ():
            if was.progress is not None and not was.progress.is_ended and seen(overlay, subject).is_gone:
                raise self._ledger.world.violated(f"{command} removed job {subject[0]}, which had not ended: {was}")
        for number in sweeps:
            self._ledger.put(self.open, number, promise)
            self._ledger.put(self._of, number, promise)
        self._look(promise, overlay, {subject[0] for subject in subjects})
        if not sweeps:
            self._check_kept(promise, overlay)
        return promise

    def _let_off(self, promise: Promise, overlay: Overlay) -> None:
        """Of a cancel and a retry that are both at work the cancel counts: what it means need not be retried. Of a hold
        and a release the later one does.
        """
        for one in self.open.values() if isinstance(promise.command, Hold | Release) else ():
            for subject in promise.before if isinstance(one.command, Hold | Release) else ():
                self._ledger.put(one.pending, subject, None)
        retries = [promise] if isinstance(promise.command, Retry) else list(self.open.values())
        cancels = list(self.open.values()) if isinstance(promise.command, Retry) else [promise]
        jobs = {subject[0] for one in cancels if isinstance(one.command, Cancel) for subject in one.before}
        for one in retries:
            for subject in list(one.pending) if isinstance(one.command, Retry) else ():
                progress = overlay.get(tables.PROGRESS, (subject[0], 0))
                if subject[0] in jobs or (progress is not None and progress.cancelling):
                    self._ledger.put(one.pending, subject, None)

    def check_end(self) -> None:
        """Nothing is left to be kept when all is idle."""
        for promise in self.open.values():
            raise self._ledger.world.violated(f"idle, and {promise.command} is not over: {promise.pending}")

    def look(self, overlay: Overlay) -> None:
        """Look at what a turn has changed so far; a promise whose sweeps are over must be kept."""
        if not self.open:
            return
        changes = overlay.changes
        jobs = {key[0] for table in (tables.TASK, tables.PROGRESS) for key in changes.get(table, {})}
        for promise in dict.fromkeys(self.open.values()):
            self._look(promise, overlay, jobs)
        sweeps = changes.get(tables.SWEEP, {}).items()
        for (number,), sweep in sweeps:
            if sweep is not None and sweep.part_of and number not in self.open:  # it has passed over a job
                self._ledger.put(self.open, number, self._of[sweep.part_of])
                self._ledger.world.count("parts of sweeps")
        for (number,), sweep in sweeps:
            promise = self.open.get(number)
            if sweep is None and promise is not None:
                self._ledger.put(self.open, number, None)
                self._ledger.world.count("sweeps kept" if promise.life == self.lives else "sweeps kept over a restart")
                if promise not in self.open.values():
                    self._check_kept(promise, overlay)

    def _look(self, promise: Promise, overlay: Overlay, jobs: set[int]) -> None:
        for subject in [subject for subject in promise.pending if subject[0] in jobs]:
            if promise.is_kept(subject, seen(overlay, subject)):
                self._ledger.put(promise.pending, subject, None)

    def _check_kept(self, promise: Promise, overlay: Overlay) -> None:
        for subject in promise.pending:
            raise self._ledger.world.violated(
                f"{promise.command} is over and has left job {subject[0]} member {subject[1]} as it was: "
                f"{promise.before[subject]}, now {seen(overlay, subject)}"
            )


def seen(overlay: Overlay, subject: Subject) -> Seen:
    """Return how a subject stands."""
    job, member = subject
    progress = overlay.get(tables.PROGRESS, (job, 0))
    return Seen(progress, overlay.get(tables.TASK, (job, 0, member)) if member != WHOLE else None)


def counts(command: Verb, before: dict[Subject, Seen], overlay: Overlay) -> Acted:
    """Return what a command that was done at once must have answered, but for `unchanged`: counted by what changed."""
    done = stopping = 0
    where = command.where or Where()
    for subject, was in before.items():
        assert was.progress is not None
        if (subject[1] == WHOLE) is not isinstance(command, WHOLES):
            continue
        now = seen(overlay, subject)
        if isinstance(command, Forget):
            done += now.is_gone
        elif isinstance(command, SetPriority):
            done += not was.progress.is_ended
        elif isinstance(command, SetThrottle):
            done += not was.progress.is_ended and was.progress.size > 1
        elif isinstance(command, Hold | Release):
            done += is_settled(was, now)
        elif isinstance(command, Retry):
            done += was.state.is_terminal and not now.state.is_terminal
        elif isinstance(command, Purge):
            done += was.is_letter and not now.is_letter
        elif was.is_meant(where):
            done += was.state is not now.state and now.state is State.CANCELLED
            stopping += _is_asked(command, was.task, now.task)
    return Acted(done, stopping)


def is_settled(was: Seen, now: Seen) -> bool:
    """Whether a word about the hold of a job has changed that, or ended what an older one had still to do about it."""
    if was.progress is None or now.progress is None:
        return False
    return (was.progress.hold, was.progress.held_sweep) != (now.progress.hold, now.progress.held_sweep)


def _is_asked(command: Verb, was: Task | None, now: Task | None) -> bool:
    """Whether a task counts as asked to stop: by a cancel also if one before had asked it."""
    if now is None or now.state is not State.RUNNING or now.phase is not Phase.STOPPING:
        return False
    return now.cause is Cause.CANCELLED if isinstance(command, Cancel) else now != was


def _matches(where: Where, job: Job, progress: Progress) -> bool:
    is_named = where.queue in ("", job.queue) and where.name in ("", job.name)
    return is_named and (not where.tag or where.tag in job.tags) and Seen(progress).shows(where)


def _place(job: Job, value: int) -> int:
    return (value - job.array_first) // job.array_step
