"""A store is rebuilt from its records: as it was where nothing is lost, and always to one in which every rule holds.

TQ_REBUILD_SEEDS sets how many lives are looked at (default 10).
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.support.worker_context import WORKERS, WorkerContext
from tq.core import vocabulary as v
from tq.core.engine.engine import Bounds, Engine
from tq.core.model import tables
from tq.core.model.job import Meta
from tq.core.model.task import Cause, State
from tq.core.model.view import Key, Table, View, pages
from tq.core.repair import invariants
from tq.core.repair import rebuild as rebuilding
from tq.core.repair.rebuild import Numbers, Rebuild
from tq.errors import AlreadyEnded, BadRequest
from tq.store.memory import MemoryStore

SEEDS = int(os.environ.get("TQ_REBUILD_SEEDS", "10"))
META = Meta(99, wall_ms=1_800_000_000_000)
TINY = Bounds(slice=3, leases=5, lanes=2)
UNTOUCHED = {tables.META, tables.UPLOAD, tables.TIMER, tables.SWEEP, tables.LANE, tables.PROGRESS, tables.BODY,
             tables.ENTRIES, tables.ENTRY_AT, tables.LANE_NAME, tables.BLOB_USER, tables.DEAD}  # fmt: skip


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a batch end inside jobs, as it does in stores of more rows than these have."""
    monkeypatch.setattr(rebuilding, "_BATCH_ROWS", 5)


class Lossy:
    """A view that does not show some rows."""

    def __init__(self, view: View, is_lost: Callable[[Table[Any], Key], bool]) -> None:
        self.view = view
        self.is_lost = is_lost

    def get(self, table: Table[Any], key: Key) -> Any:
        return None if self.is_lost(table, key) else self.view.get(table, key)

    def scan(self, table: Table[Any], low: Key, high: Key, limit: int) -> Sequence[Any]:
        found = [row for row in self.view.scan(table, low, high, 1_000_000) if not self.is_lost(table, row[0])]
        return found[:limit]


def rebuilt(view: View, *, is_sure: bool = True, is_old: bool = False) -> tuple[MemoryStore, Rebuild]:
    store, rebuild = MemoryStore(), Rebuild(view, META, is_sure=is_sure, is_old=is_old)
    for changes in rebuild.changes():
        meta = changes.get(tables.META, {}).get(())
        if meta is not None:
            meta.sequence = store.sequence + 1
        store.write(changes, sequence=store.sequence + 1, epoch=1, wall_ms=1)
    return store, rebuild


def rows(store: View, table: Table[Any]) -> dict[Key, Any]:
    if table is tables.META:
        return {(): store.get(tables.META, ())}
    return {key: row for page in pages(store, table) for key, row in page}


def goes_on(life: WorkerContext, store: MemoryStore, *commands: v.Command) -> None:
    """Serve a store with the workers of a life until all has ended."""
    life.store = store
    life.engine = Engine(store, life.bounds)
    life.do(v.Recover(5))
    for worker in range(1, WORKERS + 1):
        life.join(worker, 1_000, slots=2)
    for command in commands:
        life.do(command)
    life.settle()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_where_nothing_is_lost_it_is_as_it_was(seed: int) -> None:
    life = WorkerContext(seed, TINY if seed % 2 else None).live(120)
    store, rebuild = rebuilt(life.store)
    assert [loss for loss in rebuild.losses if "uploads" not in loss] == []
    assert invariants.check(store) == []
    for table in set(tables.TABLES) - UNTOUCHED:
        assert rows(store, table) == rows(life.store, table), table
    going = {key[0] for key, progress in rows(life.store, tables.PROGRESS).items() if progress.forgetting}
    dead = rows(store, tables.DEAD)
    assert {key for key in dead if key[1] not in going} == {
        key for key in rows(life.store, tables.DEAD) if key[1] not in going
    }
    before, after = rows(life.store, tables.PROGRESS), rows(store, tables.PROGRESS)
    assert before.keys() == after.keys()
    for key, progress in before.items():
        assert (after[key].counts, after[key].untouched, after[key].cursor) == (
            progress.counts, progress.untouched, progress.cursor,
        )  # fmt: skip
        assert after[key].hold == progress.hold
    uploads = {upload.blob for upload in rows(life.store, tables.UPLOAD).values()}
    for table in (tables.BODY, tables.ENTRIES, tables.ENTRY_AT):
        kept = {key: row for key, row in rows(life.store, table).items() if key[0] not in uploads}
        assert rows(store, table) == kept
    users = Counter(blob for blob, _ in rows(life.store, tables.BLOB_USER))
    assert set(rows(store, tables.BLOB_USER)) == {
        key for key in rows(life.store, tables.BLOB_USER) if users[key[0]] > 1
    }
    meta = store.get(tables.META, ())
    assert meta is not None
    assert meta.lineage == 99
    assert meta.next_job == life.engine.meta.next_job  # type: ignore[union-attr]
    goes_on(life, store)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_rows_are_lost_every_rule_holds_and_all_goes_on(seed: int) -> None:
    life = WorkerContext(seed, TINY if seed % 2 else None).live(120)
    dice = random.Random(seed)
    ended = {
        key for key, task in rows(life.store, tables.TASK).items() if task.state in (State.SUCCEEDED, State.CANCELLED)
    }
    lost = {
        (table, key)
        for table in tables.TABLES
        for key in rows(life.store, table)
        if dice.random() < dice.choice([0.0, 0.05, 0.5])
    }
    store, rebuild = rebuilt(Lossy(life.store, lambda table, key: (table, key) in lost), is_sure=dice.random() < 0.5)
    assert invariants.check(store) == []
    for key in ended:  # what was known to have ended has not begun again
        task = store.get(tables.TASK, key)
        assert task is None or (tables.TASK, key) in lost or task.state.is_terminal
    for key in rows(life.store, tables.JOB):
        assert ((tables.JOB, key) in lost) is (key[0] not in rebuild.jobs)
    goes_on(life, store)


def whole_job(**fields: Any) -> WorkerContext:
    life = WorkerContext(1)
    life.jobs.append(life.array(10, **fields))
    for _ in range(3):
        for worker, ref in life.running()[:2]:
            session = life.engine.live.workers[worker].session_number
            life.delivery += 1
            life.do(v.Report(worker, session, life.delivery, (v.End(ref, int(Cause.EXIT), 0, 5),)))
    return life


def without(life: WorkerContext, *lost: tuple[Table[Any], Key]) -> tuple[MemoryStore, Rebuild]:
    return rebuilt(Lossy(life.store, lambda table, key: (table, key) in lost))


def test_a_member_that_may_have_run_is_not_run_again_but_a_dead_letter() -> None:
    life = whole_job()
    key = (1, 0, 0)
    assert life.store.get(tables.TASK, key).state is State.SUCCEEDED  # type: ignore[union-attr]
    store, rebuild = without(life, (tables.TASK, key))
    task = store.get(tables.TASK, key)
    assert task is not None
    assert (task.state, task.cause) == (State.DEAD, Cause.INTERNAL)
    assert list(rows(store, tables.DEAD)) == [(META.wall_ms, 1, 0, 0)]
    assert rebuild.losses == ["job 1: 1 tasks are dead letters now: what became of them is lost"]
    assert rebuild.counts["dead"] == 1


def test_how_long_a_cut_off_worker_may_run_is_not_forgotten() -> None:
    store = MemoryStore()
    meta = Meta(7, beat_ms=60_000, held_until_ms=180_000)
    store.write({tables.META: {(): meta}}, sequence=1, epoch=1, wall_ms=1)
    known = rebuilt(store)[0].get(tables.META, ())
    assert known is not None
    assert (known.beat_ms, known.held_until_ms) == (60_000, 180_000)


def test_where_the_counters_are_lost_time_goes_on_behind_the_latest_record() -> None:
    life = WorkerContext(1).live(40)
    latest_ms = max(task.since_ms for task in rows(life.store, tables.TASK).values())
    store, _ = without(life, (tables.META, ()))
    assert rows(store, tables.META)[()].steady_ms == latest_ms > 0


def test_a_job_whose_request_is_lost_is_gone_and_named_and_its_key_is_free() -> None:
    life = whole_job()
    life.jobs.append(life.submit(key="k"))
    store, rebuild = without(life, (tables.JOB, (2, 0)))
    assert rebuild.losses == ["job 2 is lost: what it was to run cannot be read"]
    assert rows(store, tables.KEY) == {}
    assert set(rows(store, tables.PROGRESS)) == {(1, 0)}
    meta = store.get(tables.META, ())
    assert meta is not None
    assert meta.next_job == 3


def test_a_job_whose_progress_is_lost_is_held_where_it_was() -> None:
    life = whole_job()
    store, rebuild = without(life, (tables.PROGRESS, (1, 0)))
    progress = store.get(tables.PROGRESS, (1, 0))
    assert progress is not None
    assert progress.hold
    assert progress.cursor == life.store.get(tables.PROGRESS, (1, 0)).cursor  # type: ignore[union-attr]
    assert rebuild.losses == ["job 1 is held: how far it was is lost"]


def test_a_job_whose_input_has_a_hole_is_held() -> None:
    life = WorkerContext(1)
    for offset in (0, 131_072, 262_144):
        life.do(v.Upload("i", offset, bytes(131_072 if offset < 262_144 else 7)))
    life.jobs.append(life.submit(stdin_key="i", hold=True))
    blob = life.store.get(tables.JOB, (1, 0)).stdin  # type: ignore[union-attr]
    for piece in (0, 1):
        _, rebuild = without(life, (tables.BODY, (blob, piece)))
        assert rebuild.losses == ["job 1 is held: a part of its input is lost"]
    # The last piece may be gone unnoticed; then, and only then, one that looks complete is not believed.
    for is_sure, losses in ((True, []), (False, ["job 1 is held: a part of its input is lost"])):
        _, rebuild = rebuilt(
            Lossy(life.store, lambda table, key: (table, key) == (tables.BODY, (blob, 2))), is_sure=is_sure
        )
        assert rebuild.losses == losses


def test_where_records_may_be_old_ones_no_job_goes_on_by_itself() -> None:
    life = WorkerContext(3).live(80)
    store, rebuild = rebuilt(life.store, is_old=True)
    found = rows(store, tables.PROGRESS)
    unended = {key for key, progress in found.items() if not progress.is_ended}
    assert 0 < len(unended) < len(found)
    assert {key for key, progress in found.items() if progress.hold and not progress.is_ended} == unended
    said = [f"job {number} is held: what it did last may be lost" for number, _ in sorted(unended)]
    assert rebuild.losses == [*said, "2 uploads that were under way begin anew"]
    assert not rows(store, tables.READY)


def with_entries(life: WorkerContext) -> Key:
    """Submit an array with entries, none of which starts; return the key of the second run of them."""
    life.do(v.SetQueue("default", paused=True))
    for first in (0, 4, 8):
        items = tuple(b"%d" % number for number in range(first, first + 4))
        life.do(v.AddEntries("e", first, items, b"%d" % first if first else b"", b"%d" % (first + 4)))
    life.jobs.append(life.array(12, entries_key="e", entries_digest=b"12"))
    return life.store.get(tables.JOB, (1, 0)).entries, 4  # type: ignore[union-attr]


def test_members_whose_entries_are_lost_do_not_start_and_the_others_do() -> None:
    life = WorkerContext(1)
    store, rebuild = without(life, (tables.ENTRIES, with_entries(life)))
    assert rebuild.losses == [
        "job 1: 4 tasks are dead letters now: what became of them is lost",
        "job 1 is held: the entries of 4 tasks are lost",
    ]
    assert set(rows(store, tables.TASK)) == {(1, 0, member) for member in range(4, 8)}
    assert {task.state for task in rows(store, tables.TASK).values()} == {State.DEAD}
    goes_on(life, store, v.SetQueue("default", paused=False))
    with pytest.raises(AlreadyEnded, match="has lost its input"):  # what looks like an empty one might remove more
        life.do(v.Retry(("1.6",)))
    assert life.store.get(tables.TASK, (1, 0, 5)).state is State.DEAD  # type: ignore[union-attr]
    with pytest.raises(BadRequest, match="lost entries of job 1"):
        life.do(life.do(v.GetRequest("1")).submit)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("retry", [v.Retry(("1",)), v.Retry(where=v.Where())])
def test_what_was_cancelled_and_has_lost_its_entries_stays_so_and_a_retry_starts_the_others(retry: v.Retry) -> None:
    life = WorkerContext(1)
    lost = with_entries(life)
    life.do(v.Cancel(("1",)))
    store, rebuild = without(life, (tables.ENTRIES, lost))
    assert rebuild.losses == ["job 1: the entries of 4 tasks are lost"]
    goes_on(life, store, retry, v.SetQueue("default", paused=False))
    counts = life.store.get(tables.PROGRESS, (1, 0)).counts  # type: ignore[union-attr]
    assert (counts[State.SUCCEEDED], counts[State.CANCELLED]) == (8, 4)


def test_a_cancel_that_was_under_way_ends() -> None:
    life = WorkerContext(1, TINY)
    life.jobs.append(life.array(30))
    life.do(v.Cancel(("1",)))
    progress = life.store.get(tables.PROGRESS, (1, 0))
    assert progress is not None
    assert progress.cancelling
    lost = {(tables.SWEEP, key) for key in rows(life.store, tables.SWEEP)}
    store, _ = rebuilt(Lossy(life.store, lambda table, key: (table, key) in lost))
    goes_on(life, store, v.Tick(), v.Tick(), v.Tick())
    after = life.store.get(tables.PROGRESS, (1, 0))
    assert after is not None
    assert not after.cancelling


def test_numbers_are_a_set() -> None:
    numbers, model, dice = Numbers(), set[int](), random.Random(2)
    for _ in range(500):
        number = dice.randrange(300)
        assert numbers.add(number) is (number not in model)
        model.add(number)
    assert {number for number in range(10_000) if number in numbers} == model
    assert numbers.last == max(model)
