"""A store anew from what can be read of a damaged one: the records decide, and all that is derived is derived again.

    rebuild = Rebuild(view, meta, is_sure=False)
    for changes in rebuild.changes(): ...       # batches for an empty store
    rebuild.losses                              # in words: what is lost, and what was made of it

The other half of invariants.py, which compares what is derived; after this it has nothing to say. Nothing that may have
run starts again where its record is lost (rebuild_job.py). What is missing because a whole commit is, nobody can see:
that is as it was before that commit.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from tq.core.bulk.sweeps import is_sweep
from tq.core.change.lanes import lane_name
from tq.core.model import tables
from tq.core.model.job import Job, JobKey, Lane, Meta, Sweep
from tq.core.model.task import STATES
from tq.core.model.timers import TimerKind, timer
from tq.core.model.view import Changes, Overlay, Table, View, pages
from tq.core.read.job_index import NAMED_BY, rows_of
from tq.core.repair.rebuild_job import JobRebuild
from tq.core.vocabulary import Cancel

LOSSES_MAX: Final = 1_000
_BATCH_ROWS: Final = 2_000


class Numbers:
    """A set of small integers, a bit each: ten million jobs are a megabyte."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self.last = 0

    def add(self, number: int) -> bool:
        """Add a number; return whether it is new."""
        place, bit = number >> 3, 1 << (number & 7)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 - len(self._bits)))
        is_new = not self._bits[place] & bit
        self._bits[place] |= bit
        self.last = max(self.last, number)
        return is_new

    def __contains__(self, number: int) -> bool:
        return number >> 3 < len(self._bits) and bool(self._bits[number >> 3] & 1 << (number & 7))


class _Nothing:
    """A view of an empty store."""

    def get(self, _table: Table[Any], _key: Any) -> None:
        return

    def scan(self, _table: Table[Any], _low: Any, _high: Any, _limit: int) -> list[Any]:
        return []


class Rebuild:
    """Reads `view`, which may lack any row, and gives every row of a whole store.

    `meta` has what the new store is called, and when this is (lineage, wall time); who writes the rows numbers their
    commits. `is_sure`: no row of the inputs can be missing unnoticed, so that one which looks complete is. `is_old`: a
    record may be as it was before its last change, so that no job goes on before somebody has looked at it.
    """

    def __init__(self, view: View, meta: Meta, *, is_sure: bool, is_old: bool = False) -> None:
        self.losses: list[str] = []
        self.jobs = Numbers()  # that go on
        self.counts = {"jobs": 0, "held": 0, "dead": 0, "lost": 0}
        self._view = view
        self._meta = meta
        self._is_sure = is_sure
        self._is_old = is_old
        self._out = Overlay(_Nothing())
        self._lanes: dict[int, Lane] = {}
        self._lane_names: dict[str, int] = {}
        self._blobs = Numbers()
        self._shared = Numbers()
        self._seen = Numbers()  # jobs that are lost
        self._sweeps: list[Sweep] = []
        self._steady_ms = 0
        self._last_sweep = 0

    def changes(self) -> Iterator[Changes]:
        """Yield all rows, in batches; lanes and counters come last."""
        self._read_lanes()
        for key, job in self._rows(tables.JOB):
            yield from self._rebuild_job(key, job)
        self._say_lost_jobs()
        for _ in self._copies():
            yield from self._batch(_BATCH_ROWS)
        self._put_sweeps()
        self._put_lanes()
        self._put_meta()
        yield from self._batch(1)

    def _batch(self, rows_min: int) -> Iterator[Changes]:
        """Yield what has gathered, if that is enough."""
        if sum(map(len, self._out.changes.values())) >= rows_min:
            yield self._out.take()

    def _rows(self, table: Table[Any]) -> Iterator[tuple[Any, Any]]:
        for page in pages(self._view, table):
            yield from page

    def _lose(self, what: str) -> None:
        if len(self.losses) < LOSSES_MAX:
            self.losses.append(what)

    # ------------------------------------------------------------ jobs

    def _rebuild_job(self, key: JobKey, job: Job) -> Iterator[Changes]:
        rebuild = JobRebuild(self._view, self._out, key, job, self._lane_for)
        for _ in rebuild.run(max(self._meta.wall_ms, 1), is_sure=self._is_sure, is_old=self._is_old):
            yield from self._batch(_BATCH_ROWS)
        progress = rebuild.progress
        for number in progress.lanes:
            if progress.is_startable(number):
                progress.set_ready(number, True)
                self._lanes[number].ready += 1
                self._out.put(tables.READY, (number, progress.rank, *key), True)
        counts = self._lanes[progress.lane].counts
        for state in range(STATES):
            counts[state] += progress.counts[state]
        if progress.cancelling:  # it goes on where it was, and ends
            self._sweeps.append(Sweep(msgspec.msgpack.encode(Cancel((str(key[0]),))), key[0], key[0]))
        for blob in filter(None, (job.stdin, job.entries)):
            if not self._blobs.add(blob):
                self._shared.add(blob)
        for row in rows_of(key[0], job, progress.listed):
            self._out.put(tables.NAMED, row, True)
        self.jobs.add(key[0])
        self._steady_ms = max(self._steady_ms, rebuild.steady_ms)
        self.counts["jobs"] += 1
        self.counts["dead"] += rebuild.dead
        self.counts["held"] += bool(rebuild.losses) and progress.hold
        if rebuild.dead:
            self._lose(f"job {key[0]}: {rebuild.dead} tasks are dead letters now: what became of them is lost")
        for what in rebuild.losses:
            self._lose(f"job {key[0]} is held: {what}" if progress.hold else f"job {key[0]}: {what}")
        yield from self._batch(_BATCH_ROWS)

    def _say_lost_jobs(self) -> None:
        """Name the jobs of which something is left, but not what was asked for."""
        having: tuple[Table[Any], ...] = (tables.PROGRESS, tables.TASK)
        for table in having:
            low: tuple[int, ...] = (0,)
            while rows := self._view.scan(table, low, (1 << 63,), 1):
                number = rows[0][0][0]
                if number not in self.jobs and self._seen.add(number):
                    self.counts["lost"] += 1
                    self._lose(f"job {number} is lost: what it was to run cannot be read")
                low = (number + 1,)

    # ------------------------------------------------------------ everything else

    def _copies(self) -> Iterator[None]:
        """Put what is kept as it is, and what follows from the jobs that there are."""
        for blob, number in self._users():
            self._out.put(tables.BLOB_USER, (blob, number), True)
            yield
        for table in (tables.BODY, tables.ENTRIES):
            for key, row in self._rows(table):
                if key[0] in self._blobs:
                    self._out.put(table, key, row)
                    if table is tables.ENTRIES:
                        self._out.put(tables.ENTRY_AT, key, True)
                    yield
        for (name,), key in self._rows(tables.KEY):
            if key.is_forgotten or key.job in self.jobs:
                self._out.put(tables.KEY, (name,), key)
            if key.is_forgotten:
                self._out.put(tables.KEY_END, (key.expires_ms, name), True)
                self._out.put(tables.TIMER, timer(TimerKind.KEYS, key.expires_ms), True)
            yield
        for small in (tables.QUEUE, tables.TOKEN):
            for key, row in self._rows(small):
                self._out.put(small, key, row)
                yield
        uploads = sum(1 for _ in self._rows(tables.UPLOAD))
        if uploads:
            self._lose(f"{uploads} uploads that were under way begin anew")

    def _users(self) -> Iterator[tuple[int, int]]:
        """Yield the jobs of blobs that more than one has."""
        for (number, _), job in self._rows(tables.JOB) if self._shared.last else ():
            for blob in (job.stdin, job.entries):
                if blob in self._shared:
                    yield blob, number

    def _put_sweeps(self) -> None:
        """Let what goes on in slices begin its jobs again; what it has done already it finds done."""
        rows = sorted(self._rows(tables.SWEEP), key=lambda row: row[1].part_of or row[0][0])  # as old as the whole
        sweeps = [replace(sweep, member=0, part_of=0) for _, sweep in rows if is_sweep(sweep)]
        for number, sweep in enumerate((*sweeps, *self._sweeps), start=1):
            self._out.put(tables.SWEEP, (number,), sweep)
            self._out.put(tables.TIMER, timer(TimerKind.SWEEP, 0, number), True)
        self._last_sweep = len(sweeps) + len(self._sweeps)

    def _read_lanes(self) -> None:
        for (number,), lane in self._rows(tables.LANE):
            name = lane_name(lane.queue, lane.demand, alone=lane.alone)
            if self._lane_names.setdefault(name, number) == number:
                self._lanes[number] = Lane(lane.queue, lane.demand, alone=lane.alone)

    def _lane_for(self, job: Job, alone: bool) -> int:
        name = lane_name(job.queue, job.demand, alone=alone)
        number = self._lane_names.setdefault(name, max(self._lanes, default=0) + 1)
        if number not in self._lanes:
            self._lanes[number] = Lane(job.queue, job.demand, alone=alone)
        return number

    def _put_lanes(self) -> None:
        for name, number in self._lane_names.items():
            self._out.put(tables.LANE_NAME, (name,), number)
            self._out.put(tables.LANE, (number,), self._lanes[number])

    def _put_meta(self) -> None:
        stored = self._view.get(tables.META, ()) or Meta(0)
        numbers = max(self.jobs.last, self._seen.last)
        known = Meta(
            lineage=self._meta.lineage,
            epoch=stored.epoch,
            steady_ms=max(stored.steady_ms, self._steady_ms),
            wall_ms=max(stored.wall_ms, self._meta.wall_ms),
            next_job=max(stored.next_job, numbers + 1),
            next_lane=max(stored.next_lane, max(self._lanes, default=0) + 1),
            next_blob=max(stored.next_blob, self._blobs.last + 1),
            next_sweep=self._last_sweep + 1,
            named_from=1,
            beat_ms=stored.beat_ms,
            held_until_ms=stored.held_until_ms,
            named_by=NAMED_BY,
        )
        self._out.put(tables.META, (), known)
