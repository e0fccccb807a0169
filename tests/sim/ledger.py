"""What was promised and what happened, written down independently of the engine: the history that the checks need.

It mirrors every task record that was written, turn by turn, so that what a crash loses can be taken back here too. It
knows what workers really did (`physical`), and what clients were really told.
"""

from typing import NamedTuple

from tests.sim.world import World
from tq.core import tables
from tq.core.engine import Finished
from tq.core.job import Job
from tq.core.task import Cause, Phase, State, Task
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
        self.jobs: dict[tuple[int, int], Job] = {}
        self.keys: dict[str, int] = {}
        self.told: dict[str, Told] = {}
        self.started: set[AttemptRef] = set()  # physically, ever
        self.running: dict[TaskKey, AttemptRef] = {}  # physically, the newest
        self.ended: dict[AttemptRef, int] = {}  # physically: the exit code
        self.written: dict[AttemptRef, bytes] = {}  # what it wrote to its stdout
        self.lost: set[tuple[TaskKey, int]] = set()  # attempts that the store called lost
        self.cancelled: set[int] = set()  # jobs whose cancel was answered
        self._undo: list[tuple[int, list[tuple[dict, object, object]]]] = []

    # ------------------------------------------------------------ what is written

    def wrote(self, finished: Finished) -> None:
        """Check and mirror one turn's changes."""
        undo: list[tuple[dict, object, object]] = []
        changes = finished.changes
        for key, record in changes.get(tables.JOB, {}).items():
            self._set(undo, self.jobs, key, record)
        for (name,), record in changes.get(tables.KEY, {}).items():
            if record is not None:
                if self.keys.get(name, record.job) != record.job:
                    raise self.world.violated(f"I2: key {name} stands for job {self.keys[name]} and {record.job}")
                self._set(undo, self.keys, name, record.job)
        for key, record in changes.get(tables.TASK, {}).items():
            self._check_task(key, self.tasks.get(key), record, finished.sequence)
            self._set(undo, self.tasks, key, record)
        self._undo.append((finished.sequence, undo))

    def flushed(self, sequence: int) -> None:
        """What is on disk cannot be taken back any more."""
        self._undo = [entry for entry in self._undo if entry[0] > sequence]

    def crashed(self, surviving: int) -> None:
        """Take back what a crash lost: everything after this sequence."""
        for sequence, undo in reversed(self._undo):
            if sequence > surviving:
                for table, key, before in reversed(undo):
                    if before is None:
                        table.pop(key, None)
                    else:
                        table[key] = before
        self._undo.clear()

    @staticmethod
    def _set(undo: list, table: dict, key: object, record: object) -> None:
        undo.append((table, key, table.get(key)))
        table[key] = record

    def _check_task(self, key: TaskKey, before: Task | None, after: Task | None, sequence: int) -> None:
        if after is None:
            raise self.world.violated(f"the record of {key} is gone: a missing one means untouched")
        attempt, lease = (before.attempt, before.lease) if before else (0, 0)
        if before is not None and before.state.is_terminal and after != before:
            raise self.world.violated(f"I3: {key} ended as {before.state.name} and then became {after}")
        if after.attempt == attempt:
            if after.lease != lease:
                raise self.world.violated(f"I3: attempt {attempt} of {key} had lease {lease}, has {after.lease}")
        elif after.attempt != attempt + 1 or after.lease != sequence or sequence <= lease:
            raise self.world.violated(f"I3: {key} went from attempt {attempt}, lease {lease} to {after} in {sequence}")
        elif after.attempt > ATTEMPTS_MAX:
            raise self.world.violated(f"{key} is leased and handed back without end: {after}")
        elif key[0] in self.cancelled:
            raise self.world.violated(f"{key} was leased after the cancel of its job was answered")
        job = self.jobs[key[:2]]
        if after.failures > job.retries + 1 or (job.crash_limit and after.losses > job.crash_limit):
            raise self.world.violated(f"I6: {key} of {job.retries} retries, crash limit {job.crash_limit}: {after}")
        if after.state is State.DEAD and after.cause is Cause.NONE:
            raise self.world.violated(f"I6: {key} is dead without a cause")
        if after.phase is Phase.LOST:
            self.lost.add((key, after.attempt))
        elif after.history and after.history[-1].cause == Cause.LOST:
            self.lost.add((key, after.history[-1].attempt))
        if after.phase is Phase.ENDED and after.state.is_terminal:
            self._check_end(key, after)

    def _check_end(self, key: TaskKey, after: Task) -> None:
        """An accepted end must have happened: on that worker, in that attempt, with that code."""
        ref = AttemptRef(*key, after.attempt, after.lease)
        if after.cause is Cause.LOST:
            self.lost.add((key, after.attempt))
            return
        is_an_exit = after.state is State.DEAD and after.cause in (Cause.EXIT, Cause.SIGNAL)
        if (after.state is State.SUCCEEDED or is_an_exit) and self.ended.get(ref) != after.code:
            raise self.world.violated(f"{ref} ended {after.state.name} {after.code}, really {self.ended.get(ref)}")

    # ------------------------------------------------------------ what workers do

    def process_starts(self, ref: AttemptRef, entry: bytes | None) -> None:
        """A process of this attempt begins: the first and only one, and no sibling runs that nobody called lost."""
        if ref in self.started:
            raise self.world.violated(f"{ref} was started twice")
        job = self.jobs[ref.job, ref.part]
        if entry != (entry_of(job.key, ref.member) if job.entries else None):
            raise self.world.violated(f"{ref} of job {job.key} got the entry {entry!r}")
        self.started.add(ref)
        other = self.running.get(ref.task)
        older = min(ref.attempt, other.attempt) if other is not None else 0
        if other is not None and (ref.task, older) not in self.lost:
            raise self.world.violated(f"{ref} starts while {other} runs, which nobody has called lost")
        if other is None or other.attempt < ref.attempt:
            self.running[ref.task] = ref

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
        if self.running.get(ref.task) == ref:
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
            if not is_current and one.phase != Phase.ENDED and ref not in stops:
                raise self.world.violated(f"{ref} is not current, and its worker is not told to stop it: {task}")

    # ------------------------------------------------------------ what clients hear

    def acknowledged(self, key: str, told: Told) -> None:
        """A client was told an id."""
        before = self.told.setdefault(key, told)
        if before != told:
            raise self.world.violated(f"I2: key {key} was answered {before}, then {told}")

    # ------------------------------------------------------------ at the end

    def check_all(self, store: Store) -> None:
        """Every acknowledged job is there and has ended, each member once; what ended has its whole output."""
        for key, told in self.told.items():
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
            text = self.written.get(ref)
            has_reported = task.phase is Phase.ENDED and task.run_us > 0 and self.ended.get(ref) == task.code
            if text and has_reported:
                found = b"".join(slot.data for slot in store.output(key, task.attempt))
                if found != text:
                    raise self.world.violated(f"logs of {ref}: wrote {text!r}, stored {found!r}")
