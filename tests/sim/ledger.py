"""What was promised and what happened, written down independently of the engine: the history that the checks need.

It mirrors every task record that was written, turn by turn, so that what a crash loses can be taken back here too. It
knows what workers really did, and what clients were really told. What the verbs of clients promise is in promises.py,
what policies promise of failures and losses in policy.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec.structs import replace

from tests.sim.dues import Dues
from tests.sim.policy import Policy
from tests.sim.profiles import BOUND
from tests.sim.words import Words
from tests.sim.world import World
from tq.core.engine.engine import Finished
from tq.core.model import tables
from tq.core.model.job import Job, Progress
from tq.core.model.task import Cause, Phase, State, Task
from tq.core.vocabulary import AttemptRef, Held, Joined
from tq.store.seam import Store

ATTEMPTS_MAX = 1_000  # of one task: recalls make some dozens
TaskKey = tuple[int, int, int]


def entry_of(key: str, member: int) -> bytes:
    """Return the entry that a member of the job of this key must get."""
    return b"%s %d" % (key.encode(), member)


class Told(NamedTuple):
    """A submit that was acknowledged: its key, the id, how many members, and what else a check needs."""

    job: int
    size: int


class Ledger:
    """The record of one run. Raises Violation the moment something is wrong."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tasks: dict[TaskKey, Task] = {}
        self.jobs: dict[tuple[int, int], Job] = {}  # forgotten ones, too
        self.progress: dict[tuple[int, int], Progress] = {}
        self.keys: dict[str, int] = {}
        self.gone: dict[int, bool] = {}  # jobs that were forgotten
        self.entries: dict[int, str] = {}  # a blob of entries -> the key under which they were uploaded
        self.told: dict[str, Told] = {}
        self.started: set[AttemptRef] = set()  # physically, ever
        self.returned: set[AttemptRef] = set()  # handed back, as never started
        self.ran: dict[TaskKey, int] = {}  # by task, the number of the first of these that began
        self.running: dict[TaskKey, list[AttemptRef]] = {}  # physically, every copy
        self.ended: dict[AttemptRef, int] = {}  # physically: the exit code
        self.written: dict[AttemptRef, bytes] = {}  # what it wrote to its stdout
        self.values: dict[AttemptRef, bytes] = {}  # what it returned
        self.lost: set[tuple[TaskKey, int]] = set()  # attempts that the store called lost
        self.words = Words(self.put, world.violated)
        self.dues = Dues(world, self.put)
        self.frozen: Callable[[AttemptRef], bool] = lambda _: False  # whether nobody could have stopped its process
        self.costs_words: Callable[[int], bool] = lambda _: False  # whether what is said of a job may be passed over
        self.retries: Callable[[int], bool] = lambda _: False  # whether a job is about to be retried by a sweep
        self.retried: set[TaskKey] = set()  # what had ended when a command of this turn retried it
        self._policy = Policy(world, self.ended)
        self._open: list[tuple[dict, object, object]] = []
        self._undo: list[tuple[int, list[tuple[dict, object, object]]]] = []

    # ------------------------------------------------------------ what is written

    def put(self, table: dict, key: Any, record: Any) -> None:
        """Set (None: remove) something that a crash may take back."""
        self._open.append((table, key, table.get(key)))
        if record is None:
            table.pop(key, None)
        else:
            table[key] = record

    def wrote(self, finished: Finished) -> None:
        """Check and mirror one turn's changes."""
        changes = finished.changes
        for key, record in changes.get(tables.JOB, {}).items():
            if record is not None:
                self.put(self.jobs, key, record)
                if record.entries and record.entries not in self.entries:
                    self.put(self.entries, record.entries, record.key)
        for (name,), record in changes.get(tables.KEY, {}).items():
            if record is not None and self.keys.get(name, record.job) != record.job:
                raise self.world.violated(f"I2: key {name} stands for job {self.keys[name]} and {record.job}")
            self.put(self.keys, name, record.job if record is not None else None)
        steady_ms = changes[tables.META][()].steady_ms
        for key, progress in changes.get(tables.PROGRESS, {}).items():
            self._check_progress(key, self.progress.get(key), progress)
            self.dues.job_moved(key[0], progress, steady_ms)
            self.put(self.progress, key, progress)
        tasks = changes.get(tables.TASK, {})
        self._check_deaths(tasks)
        died = {
            key[:2] for key, after in tasks.items() if after.state is State.DEAD and not _is_dead(self.tasks.get(key))
        }
        for key, record in tasks.items():
            self._check_task(key, self.tasks.get(key), record, finished.sequence)
            self._policy.check(key, self.jobs[key[:2]], self.tasks.get(key), record, steady_ms)
            self.dues.moved(key, self.tasks.get(key), record, steady_ms)
            self.put(self.tasks, key, record)
        for job_key in died:
            _check_fails(self, job_key)
        for job in (key[0] for key in changes.get(tables.FORGOTTEN, {})):
            self._forget(job)
        self.dues.wrote(changes, self.gone.keys())
        self._undo.append((finished.sequence, self._open))
        self._open = []
        self.retried.clear()

    def flushed(self, sequence: int) -> None:
        """What is on disk cannot be taken back any more."""
        self._undo = [entry for entry in self._undo if entry[0] > sequence]

    def crashed(self, surviving: int) -> None:
        """Take back what a crash lost: everything after this sequence."""
        self._undo.append((surviving + 1, self._open))
        self._open = []
        for sequence, undo in reversed(self._undo):
            if sequence > surviving:
                for table, key, before in reversed(undo):
                    if before is None:
                        table.pop(key, None)
                    else:
                        table[key] = before
        self._undo.clear()

    def _forget(self, job: int) -> None:
        """A job is gone with all its members: only one that had ended may be."""
        for key in [key for key in self.tasks if key[0] == job]:
            self.put(self.tasks, key, None)
            if key in self.dues.waiting:
                self.put(self.dues.waiting, key, None)
        self.put(self.gone, job, True)
        self.world.tell(job, None, "store", "forgotten")

    def _check_progress(self, key: tuple[int, int], before: Progress | None, after: Progress | None) -> None:
        if after is None:
            return
        if before is not None:
            self.words.check_hold(key[0], before, after)
        if before is None or (before.first, before.hold, before.cancelling) != (
            after.first, after.hold, after.cancelling,
        ):  # fmt: skip
            self.world.tell(
                key[0], None, "store", "job: {} members, first {}, hold {}, cancelling {}",
                after.size, after.first.name, after.hold, after.cancelling,
            )  # fmt: skip

    def _check_task(self, key: TaskKey, before: Task | None, after: Task | None, sequence: int) -> None:
        if after is None:
            raise self.world.violated(f"the record of {key} is gone: a missing one means untouched")
        self.world.tell(
            key[0], key[2], "store", "{}/{} {} {} lease {} at w{:x}, {} failures, {} losses, round {}, {} {}",
            key, after.attempt, after.state.name, after.phase.name, after.lease, after.worker, after.failures,
            after.losses, after.round, after.cause.name, after.code,
        )  # fmt: skip
        attempt, lease, rounds = (before.attempt, before.lease, before.round) if before else (0, 0, 1)
        if after.round != rounds:
            self._check_round(key, before, after)
        elif before is not None and before.state.is_terminal and after != replace(before, purged=after.purged):
            raise self.world.violated(f"I3: {key} ended as {before.state.name} and then became {after}")
        if after.attempt == attempt:
            if after.lease != lease:
                raise self.world.violated(f"I3: attempt {attempt} of {key} had lease {lease}, has {after.lease}")
        elif after.attempt != attempt + 1 or after.lease != sequence or sequence <= lease:
            raise self.world.violated(f"I3: {key} went from attempt {attempt}, lease {lease} to {after} in {sequence}")
        elif after.attempt > ATTEMPTS_MAX:
            raise self.world.violated(f"{key} is leased and handed back without end: {after}")
        else:
            self.words.check_start(key[0], key[2], "was leased")
            _check_told(self, AttemptRef(*key, attempt, lease), after)
        job = self.jobs[key[:2]]
        if job.crash_limit and after.losses > job.crash_limit:
            raise self.world.violated(f"I6: {key} of crash limit {job.crash_limit}: {after}")
        if after.state is State.DEAD and after.cause is Cause.NONE:
            raise self.world.violated(f"I6: {key} is dead without a cause")
        if after.phase is Phase.LOST:
            if (key, after.attempt) not in self.lost:
                self._check_given_away(key, after)
            self.lost.add((key, after.attempt))
        elif after.history and after.history[-1].cause == Cause.LOST:
            self.lost.add((key, after.history[-1].attempt))
        if after.phase is Phase.ENDED and after.state.is_terminal:
            self._check_end(key, after)

    def _check_deaths(self, changed: dict[TaskKey, Task]) -> None:
        """Look at what a loss has ended in this turn, and at what its worker held beside it until then."""
        lost: dict[int, list[tuple[Task, Task]]] = {}
        for key, after in changed.items():
            before = self.tasks.get(key)
            if before is None or before.state is not State.RUNNING or after.attempt != before.attempt:
                continue
            if after.phase is Phase.LOST:
                lost.setdefault(before.worker, []).append((before, after))
            if after.state is State.DEAD and after.cause is Cause.LOST:
                beside = [
                    other
                    for other, task in self.tasks.items()
                    if task.state is State.RUNNING and task.worker == before.worker and other != key
                ]
                self._policy.check_death(key, self.jobs[key[:2]], before, after, beside)
        for pairs in lost.values():
            self._policy.check_charged(pairs)

    def _check_round(self, key: TaskKey, before: Task | None, after: Task) -> None:
        """A retry by hand begins a new round: of what had ended, with its counters at 0."""
        self.words.check_start(key[0], key[2], "begins a round")
        first = self.progress[key[:2]].first
        state, rounds = (before.state, before.round) if before else (first, 1)
        may_retry = state.is_terminal or first.is_terminal or key in self.retried
        if after.round != rounds + 1 or not may_retry:
            raise self.world.violated(f"{key} went from {before} to {after}, not by a retry")
        if after.attempt == (before.attempt if before else 0) and (after.failures or after.losses):
            raise self.world.violated(f"{key} begins round {after.round} with {after}")

    def _check_end(self, key: TaskKey, after: Task) -> None:
        """An accepted end must have happened: on that worker, in that attempt, with that code."""
        ref = AttemptRef(*key, after.attempt, after.lease)
        if after.cause is Cause.LOST:
            self.lost.add((key, after.attempt))
            return
        if after.state is State.SUCCEEDED and after.value_bytes != len(self.values.get(ref, b"")):
            raise self.world.violated(f"{ref} returned {self.values.get(ref, b'')!r}, and is {after}")
        is_an_exit = after.state is State.DEAD and after.cause in (Cause.EXIT, Cause.SIGNAL)
        if (after.state is State.SUCCEEDED or is_an_exit) and self.ended.get(ref) != after.code:
            raise self.world.violated(f"{ref} ended {after.state.name} {after.code}, really {self.ended.get(ref)}")

    # ------------------------------------------------------------ what workers do

    def process_starts(self, ref: AttemptRef, entry: bytes | None, *, has_run: bool) -> None:
        """A process of this attempt begins: the first and only one, and no sibling runs that nobody called lost.

        `has_run` is what it was told of earlier ones.
        """
        self.world.tell(ref.job, ref.member, "process", "{} starts", ref)
        if ref in self.started or ref in self.returned:
            raise self.world.violated(f"{ref} was started twice, or after it was handed back")
        job = self.jobs[ref.job, ref.part]
        if entry != (entry_of(self.entries[job.entries], ref.member) if job.entries else None):
            raise self.world.violated(f"{ref} of job {job.key} got the entry {entry!r}")
        # A ghost's start may come late, after that of an attempt which its worker cannot know of.
        has_begun = self.ran.setdefault(ref.task, ref.attempt) < ref.attempt and not self.costs_words(ref.job)
        if has_begun and not has_run:
            raise self.world.violated(f"{ref} was told that nothing of its task has run: it empties the files")
        self.started.add(ref)
        copies = self.running.setdefault(ref.task, [])
        for other in copies:
            if (ref.task, min(ref.attempt, other.attempt)) not in self.lost:
                raise self.world.violated(f"{ref} starts while {other} runs, which nobody has called lost")
        copies.append(ref)
        self.check_alone(ref)

    def _check_given_away(self, key: TaskKey, task: Task) -> None:
        """What was submitted with `--if-cut stop` has ended when the server takes it back, unless it stands still."""
        alive = [ref for ref in self.running.get(key, ()) if not self.frozen(ref)]
        if alive and self.jobs[key[:2]].body == BOUND:
            raise self.world.violated(f"{alive} was to stop when it was cut off, and is given away: {task}")

    def check_alone(self, ref: AttemptRef) -> None:
        """What was submitted with `--if-cut stop` has no second copy, but one that stands still with its launcher."""
        copies = self.running.get(ref.task, [])
        if len(copies) > 1 and self.jobs[ref.job, ref.part].body == BOUND:
            alive = [one for one in copies if one == ref or not self.frozen(one)]
            if len(alive) > 1:
                raise self.world.violated(f"{ref} runs beside {alive}, and was to stop when it was cut off")

    def demanded(self, refs: list[AttemptRef]) -> tuple[int, int]:
        """Return the CPUs (in thousandths) and bytes that those of these attempts want which are current."""
        cpus = memory = 0
        for ref in refs:
            task = self.tasks.get(ref.task)
            if task is not None and task.state is State.RUNNING and task.lease == ref.lease:
                demand = self.jobs[ref.task[:2]].demand
                cpus += demand.cpus_milli
                memory += demand.mem_bytes
        return cpus, memory

    def process_ends(self, ref: AttemptRef, code: int | None) -> None:
        """The last process of an attempt is gone; None = killed with its worker, nobody will tell."""
        self.world.tell(ref.job, ref.member, "process", "{} ends: {}", ref, code)
        copies = self.running.get(ref.task, [])
        if ref in copies:
            copies.remove(ref)
            if not copies:
                del self.running[ref.task]
        if code is not None:
            self.ended[ref] = code

    def answered(self, held: tuple[Held, ...], answer: Joined) -> None:
        """What a worker lists and is current it keeps, what is not it stops; nothing is left unsaid."""
        stops = dict(answer.stop)
        for one in held:
            ref = one.attempt
            task = self.tasks.get(ref.task)
            is_current = (
                task is not None
                and (task.attempt, task.lease) == (ref.attempt, ref.lease)
                and task.state is State.RUNNING
            )
            if is_current and task is not None and task.phase is not Phase.STOPPING and ref in stops:
                raise self.world.violated(f"{ref} is current, and its worker is told to stop it: {task}")
            if self.costs_words(ref.job):
                continue
            if not is_current and one.phase != Phase.ENDED and ref not in stops:
                raise self.world.violated(f"{ref} is not current, and its worker is not told to stop it: {task}")

    # ------------------------------------------------------------ what clients hear

    def acknowledged(self, key: str, told: Told) -> None:
        """A client was told an id."""
        before = self.told.setdefault(key, told)
        if before != told and before.job not in self.gone:
            raise self.world.violated(f"I2: key {key} was answered {before}, then {told}")
        self.told[key] = told

    # ------------------------------------------------------------ at the end

    def check_all(self, store: Store) -> None:
        """Every acknowledged job is there and has ended, each member once; what ended has its whole output."""
        for key, told in self.told.items():
            if told.job in self.gone:
                self._check_gone(store, told.job)
                continue
            job = store.get(tables.JOB, (told.job, 0))
            progress = store.get(tables.PROGRESS, (told.job, 0))
            if job is None or progress is None or job.key != key or job.size != told.size:
                raise self.world.violated(f"I1: job {told.job} was acknowledged for key {key}, the store has {job}")
            if not progress.is_ended:
                raise self.world.violated(f"job {told.job} has not ended: {progress}")
        for key, task in self.tasks.items():
            stored = store.get(tables.TASK, key)
            if stored != task:
                raise self.world.violated(f"{key}: written {task}, stored {stored}")
            ref = AttemptRef(*key, task.attempt, task.lease)
            value = store.get(tables.RESULT, key) if task.value_bytes > len(task.value) else task.value
            if task.state is State.SUCCEEDED and value != self.values.get(ref, b""):
                raise self.world.violated(f"{ref} returned {self.values.get(ref)!r}, the store has {value!r}")
            text = self.written.get(ref)
            has_reported = task.phase is Phase.ENDED and task.run_us > 0 and self.ended.get(ref) == task.code
            if text and has_reported:
                found = b"".join(slot.data for slot in store.output(key, task.attempt))
                if found != text:
                    raise self.world.violated(f"logs of {ref}: wrote {text!r}, stored {found!r}")

    def _check_gone(self, store: Store, number: int) -> None:
        """Nothing is left of a job that was forgotten."""
        for table in (tables.JOB, tables.PROGRESS, tables.TASK, tables.RESULT):
            if rows := store.scan(table, (number,), (number + 1,), 1):
                raise self.world.violated(f"job {number} was forgotten, and {table.name} has {rows}")
        for ref in self.written:
            if ref.job == number and (slots := store.output(ref.task, ref.attempt)):
                raise self.world.violated(f"job {number} was forgotten, and its output is there: {slots}")


def _is_dead(task: Task | None) -> bool:
    return task is not None and task.state is State.DEAD


def _check_fails(ledger: Ledger, key: tuple[int, int]) -> None:
    """A member has died: where more are dead than may be, the rest is cancelled, but for what is being retried."""
    progress = ledger.progress.get(key)
    if progress is None:  # its job was forgotten in the same turn
        return
    job = ledger.jobs[key]
    is_retried = ledger.retries(key[0]) or any(one[:2] == key for one in ledger.retried)
    if not 0 <= job.max_fails < progress.counts[State.DEAD] or progress.cancelling or is_retried:
        return
    ledger.world.count("arrays that ended early")
    rest = ((one, task) for one, task in ledger.tasks.items() if one[:2] == key and not task.state.is_terminal)
    alive = [one for one, task in rest if (task.phase, task.cause) != (Phase.STOPPING, Cause.CANCELLED)]
    if alive or (progress.untouched and not progress.first.is_terminal):
        raise ledger.world.violated(f"job {key[0]} may have {job.max_fails} dead, and {alive} go on: {progress}")


def _check_told(ledger: Ledger, before: AttemptRef, after: Task) -> None:
    """What has run stands in the history by the time that another attempt is leased."""
    is_told = any(one.attempt == before.attempt for one in after.history)
    if before in ledger.started and not (is_told or ledger.costs_words(before.job)):
        raise ledger.world.violated(f"{before} has run, and the history knows nothing of it: {after}")
