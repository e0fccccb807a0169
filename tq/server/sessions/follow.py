"""What a reader of `logs` is sent: which attempt, from which byte on, and when it is complete. Pure.

Stored slots and live ones look alike: the contents so far of one slot of a stream, absolute. A reader has a position
in each stream and gets what lies past it; so repeats cost nothing, and a jump of the offset is a dropped middle. Live
slots that a slow reader has not taken yet are coalesced (a newer one replaces the older), and bounded: a reader that
falls behind reads on from the store.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from tq.core.model import ids, tables
from tq.core.model.task import Phase, State, TaskKey
from tq.core.model.view import View
from tq.core.read.selection import find_job
from tq.core.vocabulary import AttemptRef, Chunk, LogsEnd
from tq.errors import BadRequest, TaskNotFound
from tq.server.sessions.present import written
from tq.store.seam import OutputSlot

pending_slots_max: Final = 64


class Sight(NamedTuple):
    """How a task stands, as a reader of its output must know. `worker` 0 = no attempt is out."""

    task: TaskKey
    attempt: int  # the latest one, 0 = none yet
    lease: int
    state: State
    is_out: bool  # whether the latest attempt is running, or may be claimed back
    worker: int
    totals: tuple[int, int] | None  # written by the latest attempt, once it has ended

    @property
    def ref(self) -> AttemptRef:
        """The latest attempt."""
        return AttemptRef(*self.task, self.attempt, self.lease)


def find(view: View, text: str) -> TaskKey:
    """Return the key of the one task that an id names. Raises TaskNotFound, or BadRequest for a whole array."""
    named = ids.parse(text)
    job, _ = find_job(view, named.job)
    if named.value is not None:
        return (named.job, 0, ids.position(named.job, job, named.value))
    if job.is_array:
        first = ids.task_id(named.job, job, 0)
        hint = f"name one of them, as in {first}, or show all: tq logs --prefix {text}"
        raise BadRequest(f"{text} is an array of {job.size} tasks", hint=hint)
    return (named.job, 0, 0)


def look(view: View, task: TaskKey) -> Sight:
    """Return how a task stands now. Raises TaskNotFound once it is forgotten."""
    record = view.get(tables.TASK, task)
    if record is None:
        progress = view.get(tables.PROGRESS, task[:2])
        if progress is None or progress.forgetting:
            raise TaskNotFound(f"job {task[0]} is gone")
        return Sight(task, 0, 0, progress.first, False, 0, None)
    is_running = record.state is State.RUNNING
    return Sight(
        task,
        record.attempt,
        record.lease,
        record.state,
        is_running or record.phase is Phase.LOST,
        record.worker if is_running else 0,
        written(record.result) if record.phase is Phase.ENDED else None,
    )


class Reader:
    """One `logs` of one attempt: a position in each stream, and live slots not yet taken."""

    def __init__(self, attempt: int, position: tuple[int, int], on_news: Callable[[], None]) -> None:
        self.attempt = attempt
        self.on_news = on_news
        self.is_behind = False  # more came than is kept: the store has it
        self._position = [position[0], position[1]]
        self._seen = [0, 0]  # where each stream ends, as far as known
        self._pending: dict[tuple[int, int], bytes] = {}

    def skip_to_tail(self, slots: Iterable[OutputSlot], tail_bytes: int) -> None:
        """Move to the last bytes of each stream, counted from the end of what is stored."""
        for slot in slots:
            self._see(slot)
        for stream in (0, 1):
            self._position[stream] = max(self._position[stream], self._seen[stream] - tail_bytes)

    def feed(self, slot: OutputSlot) -> None:
        """Take live contents of a slot."""
        key = (slot.stream, slot.offset)
        self._pending.pop(key, None)
        self._pending[key] = slot.data
        if len(self._pending) > pending_slots_max:
            self._pending.clear()
            self.is_behind = True
        self.on_news()

    def take_live(self) -> list[Chunk]:
        """Return what the live slots have that was not sent yet; nothing for a reader that was behind."""
        if self.is_behind:
            self.is_behind = False
            self._pending.clear()
        slots = [OutputSlot(stream, offset, data) for (stream, offset), data in sorted(self._pending.items())]
        self._pending.clear()
        return self.take(slots)

    def take(self, slots: Iterable[OutputSlot]) -> list[Chunk]:
        """Return the chunks that these slots, ordered by offset, have past the position; move it."""
        chunks = []
        for slot in slots:
            self._see(slot)
            stream = slot.stream - 1
            end = slot.offset + len(slot.data)
            begin = max(self._position[stream], slot.offset)
            if begin < end:
                self._position[stream] = end
                chunks.append(Chunk(slot.stream, begin, slot.data[begin - slot.offset :], self.attempt))
        return chunks

    def end(self, sight: Sight) -> LogsEnd:
        """Return what closes the output of this attempt."""
        totals = sight.totals if sight.totals is not None and sight.attempt == self.attempt else None
        return LogsEnd(self.attempt, totals or (self._seen[0], self._seen[1]), sight.state.word)

    def _see(self, slot: OutputSlot) -> None:
        self._seen[slot.stream - 1] = max(self._seen[slot.stream - 1], slot.offset + len(slot.data))


class Follow:
    """All readers that follow: by attempt for live output, by job for changes."""

    def __init__(self) -> None:
        self._by_attempt: defaultdict[tuple[TaskKey, int], list[Reader]] = defaultdict(list)
        self._by_job: defaultdict[int, list[Callable[[], None]]] = defaultdict(list)

    def add(self, task: TaskKey, reader: Reader) -> bool:
        """Feed a reader from now on; return whether it is the first of its attempt."""
        readers = self._by_attempt[task, reader.attempt]
        readers.append(reader)
        return len(readers) == 1

    def remove(self, task: TaskKey, reader: Reader) -> bool:
        """Feed a reader no more; return whether it was the last of its attempt."""
        readers = self._by_attempt[task, reader.attempt]
        readers.remove(reader)
        if not readers:
            del self._by_attempt[task, reader.attempt]
        return not readers

    def has(self, ref: AttemptRef) -> bool:
        """Whether somebody follows this attempt."""
        return (ref.task, ref.attempt) in self._by_attempt

    def feed(self, ref: AttemptRef, slot: OutputSlot) -> None:
        """Give live output to whoever follows the attempt."""
        readers = self._by_attempt.get((ref.task, ref.attempt))
        for reader in readers or ():
            reader.feed(slot)

    def on_change(self, job: int, wake: Callable[[], None]) -> None:
        """Call `wake` whenever something in a job changed."""
        self._by_job[job].append(wake)

    def off_change(self, job: int, wake: Callable[[], None]) -> None:
        """Call it no more."""
        wakes = self._by_job[job]
        wakes.remove(wake)
        if not wakes:
            del self._by_job[job]

    def changed(self, job: int) -> None:
        """Wake whoever follows a task of this job."""
        for wake in tuple(self._by_job.get(job, ())):
            wake()
