"""Jobs are found by name and tag without a walk over all others, newest first; those of older releases, too."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.house import House
from tests.support.worker_context import WORKERS, WorkerContext
from tq.core.change.stop import ref_of
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.read import job_search
from tq.core.read.job_index import number_of, rows_of
from tq.core.read.query import list_page
from tq.core.read.selection import matches, states_of
from tq.core.repair import invariants
from tq.core.vocabulary import Acted, Cancel, Forget, Hold, List, Purge, Retry, Submit, Tick, Where


def found(house: House, limit: int = 100, **where: Any) -> list[int]:
    """Return the numbers of the jobs that are listed, over all pages."""
    numbers, page = [], ""
    while True:
        answer = house.do(List(limit=limit, page=page, **where))
        numbers += [int(item["id"]) for item in answer.items]
        page = answer.next
        if not page:
            return numbers


@pytest.fixture
def house() -> House:
    return House()


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_jobs_are_found_by_name_and_by_tag_newest_first(house: House, limit: int) -> None:
    for number in range(1, 11):
        house.submit(name="nightly" if number % 2 else "weekly", tags=("a", "b", "a") if number % 3 else ("nightly",))
    assert found(house, limit, name="nightly") == [9, 7, 5, 3, 1]
    assert found(house, limit, tag="a") == [10, 8, 7, 5, 4, 2, 1]
    assert found(house, limit, tag="nightly") == [9, 6, 3]
    assert found(house, limit, name="weekly", tag="b") == [10, 8, 4, 2]
    assert found(house, limit, name="weekly", states=("failed",)) == []
    assert found(house, limit, name="night") == []


def test_a_forgotten_job_is_found_no_more_and_leaves_nothing(house: House) -> None:
    house.submit(name="nightly", tags=("a", "b"))
    house.submit(name="nightly")
    house.do(Cancel(("1",)))
    house.do(Forget(("1",)))
    assert found(house, name="nightly") == [2]
    assert found(house, tag="a") == []
    assert [key[1] for key in all_rows(house)] == [(1 << 63) - 1 - 2]


def test_a_name_that_nobody_has_is_known_at_once_among_many(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.turn(*[Submit("", b"body") for _ in range(500)])
    house.submit(name="rare")
    looks = counted_looks(house, monkeypatch)
    assert listed(house, name="nosuch") == []
    assert listed(house, name="rare", limit=1) == [501]
    assert len(looks) < 20


def test_jobs_of_a_release_that_had_no_such_rows_are_found_beside_new_ones(house: House) -> None:
    for _ in range(300):
        house.submit()
    for name in ("nightly", "weekly", "nightly"):
        house.submit(name=name, tags=("t",))
    as_of_old(house)
    house.restart()
    house.submit(name="nightly", tags=("t",))
    house.do(Cancel(("303",)))
    house.do(Forget(("303",)))
    house.submit(name="nightly")
    assert found(house, name="nightly") == [305, 304, 301]
    assert found(house, tag="t", limit=1) == [304, 302, 301]
    house.restart()
    assert found(house, name="nightly") == [305, 304, 301]


def test_a_job_that_lost_its_row_and_a_row_too_many_are_noticed(house: House) -> None:
    house.submit(name="nightly")
    (row,) = all_rows(house)
    write(house, {tables.NAMED: {row: None}})
    assert any("not found by its name" in finding for finding in invariants.check(house.store))
    write(house, {tables.NAMED: {row: True, (5, row[1]): True}})
    assert invariants.check(house.store) == ["index named has 2 entries, the records want 1"]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_what_runs_is_listed_without_a_look_at_what_has_ended(
    house: House, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    house.join(slots=3)
    running = [house.submit(name="a"), house.submit(), house.array(5, name="a")]
    house.turn(*[Submit("", b"body", name="a") for _ in range(500)])
    house.do(Cancel((), Where(states=("queued",))))
    assert found(house, limit, states=("running",)) == running[::-1]
    assert found(house, limit, states=("running",), name="a") == [running[2], running[0]]
    looks = counted_looks(house, monkeypatch)
    assert listed(house, limit=limit, states=("running",)) == running[::-1][:limit]
    assert len(looks) < 20
    house.restart()
    assert found(house, limit, states=("running",)) == running[::-1]


def counted_looks(house: House, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what will have every look at the store, from now on."""
    looks: list[Any] = []
    for name in ("get", "scan"):
        was = getattr(house.store, name)
        monkeypatch.setattr(house.store, name, lambda *words, was=was: looks.append(words) or was(*words))
    return looks


def listed(house: House, page: str = "", **where: Any) -> list[int]:
    """Return the numbers of the jobs on one page, without a turn."""
    answer = list_page(house.store, house.engine.live, List(page=page, **where))
    return [int(item["id"]) for item in answer.items]


def test_the_few_that_wait_or_have_failed_are_found_among_many_that_have_ended(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.join(slots=1)
    dead = house.submit(name="a")
    house.report(*house.starts(), code=1)
    retrying = house.submit(retries=1)
    house.report(*house.starts(), code=1)
    bounded, queued = house.array(3, throttle=1), house.submit(queue="q")
    house.turn(*[Submit("", b"body", name="a") for _ in range(500)])
    house.do(Cancel((), Where(name="a", states=("queued",))))
    looks = counted_looks(house, monkeypatch)
    for states, jobs in {
        ("failed",): [dead], ("retrying",): [retrying], ("running",): [bounded], ("queued",): [queued, bounded],
        ("queued", "retrying", "dead"): [queued, bounded, retrying, dead], ("expired",): [],
    }.items():  # fmt: skip
        assert listed(house, states=states) == jobs, states
        assert listed(house, states=states, name="a") == [job for job in jobs if job == dead]
    assert listed(house, states=("queued",), queue="q") == [queued]
    assert listed(house, states=("failed",), queue="q") == listed(house, queue="nosuch") == []
    assert len(looks) < 200


@pytest.mark.parametrize("seed", range(6))
def test_whatever_has_happened_a_list_by_state_and_queue_has_all_that_there_is(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = WorkerContext(seed, Bounds(slice=3, leases=5, lanes=2) if seed % 2 else None)
    for few_max in (1_000, 1_000, 12, 1_000, 1):
        if few_max == 12 and seed % 3 == 0:  # a new release
            as_of_old(life)
            life.restart()
            for worker in range(1, WORKERS + 1):
                life.join(worker, 1_000, slots=2)
        life.live(25)
        monkeypatch.setattr(job_search, "page_keys_max", few_max)
        for states in (("queued",), ("failed",), ("retrying",), ("running", "queued"), ("held",), ("cancelled",), ()):
            for queue in ("", "default", "other", "nosuch"):
                assert walked(life, states, queue) == [*with_tasks(life, states, queue)], (states, queue, few_max)


def walked(house: House, states: tuple[str, ...], queue: str) -> list[int]:
    """Return what is listed on pages of three jobs."""
    numbers, page = [], "1000"
    while page:
        answer = list_page(house.store, house.engine.live, List(states=states, queue=queue, limit=3, page=page))
        numbers += [int(item["id"]) for item in answer.items]
        page = answer.next
    return numbers


def with_tasks(house: House, states: tuple[str, ...], queue: str) -> Iterator[int]:
    """Yield the jobs that a list must have, newest first, by a look at all of them."""
    for (number, _), progress in reversed(house.store.scan(tables.PROGRESS, (0,), (1 << 62,), 1_000)):
        job = house.store.get(tables.JOB, (number, 0))
        assert job is not None
        if not progress.forgetting and matches(Where(queue=queue), states_of(states), job, progress):
            yield number


def test_numbers_without_a_job_are_walked_over_in_bounded_steps(house: House) -> None:
    """Ten million forgotten jobs are no reason to hold up a turn."""
    house.submit()
    meta = house.store.get(tables.META, ())
    assert meta is not None
    write(house, {tables.META: {(): replace(meta, next_job=10_000_000)}})
    house.restart()
    answer = house.do(List())
    assert answer.items == ()
    assert 9_000_000 < int(answer.next) < 10_000_000


def all_rows(house: House) -> list[tuple[int, int]]:
    return [key for key, _ in house.store.scan(tables.NAMED, (0,), (1 << 63,), 1_000)]


def as_of_old(house: House) -> None:
    """Make the store as a release wrote it that knew no such rows."""
    meta = house.store.get(tables.META, ())
    assert meta is not None
    progress = {key: replace(row, listed=0) for key, row in house.store.scan(tables.PROGRESS, (0,), (1 << 62,), 1_000)}
    old = {(): replace(meta, named_from=0, named_by=0)}
    write(house, {tables.NAMED: dict.fromkeys(all_rows(house)), tables.PROGRESS: progress, tables.META: old})


def write(house: House, changes: dict[Any, Any]) -> None:
    meta = house.store.get(tables.META, ())
    assert meta is not None
    changed = changes.get(tables.META, {}).get((), meta)
    changes[tables.META] = {(): replace(changed, sequence=meta.sequence + 1)}
    house.store.write(changes, sequence=meta.sequence + 1, epoch=meta.epoch, wall_ms=meta.wall_ms)


def test_rows_are_of_the_words_of_a_job() -> None:
    house = House()
    house.submit(name="a", tags=("a", "b"))
    job = house.store.get(tables.JOB, (1, 0))
    assert job is not None
    rows: Iterator[tuple[int, int]] = rows_of(1, job, 0)
    assert len(set(rows)) == 3


@pytest.mark.parametrize("where", [Where(name="rare"), Where(tag="t"), Where(name="rare", tag="t")])
def test_who_acts_by_a_name_or_tag_reaches_its_jobs_at_once_among_many(where: Where) -> None:
    house = House(Bounds(slice=3))
    house.turn(*[Submit("", b"body") for _ in range(20)])
    house.submit(name="rare", tags=("t",))
    house.submit(name="rarer", tags=("tt",))
    assert house.do(Cancel((), where, dry_run=True)) == Acted(1)
    assert house.do(Hold((), where)) == Acted(1)
    assert house.do(Cancel((), where)) == Acted(1)
    assert house.do(Hold((), Where(name="nosuch"))) == Acted(0)


@pytest.mark.parametrize("turned_round_max, rows_from", [(1_000, 1), (3, 1), (1_000, 13)])
def test_who_acts_by_a_name_that_many_have_or_had_in_an_older_release_reaches_them_all(
    monkeypatch: pytest.MonkeyPatch, turned_round_max: int, rows_from: int
) -> None:
    monkeypatch.setattr(job_search, "page_keys_max", turned_round_max)
    house = House(Bounds(slice=3))
    named = [house.submit(name="nightly" if number % 2 else "") for number in range(20)][1::2]
    meta = house.store.get(tables.META, ())
    meta.named_from, meta.sequence = rows_from, meta.sequence + 1
    old = {key: None for key in all_rows(house) if number_of(key) < rows_from}
    house.store.write({tables.NAMED: old, tables.META: {(): meta}}, sequence=meta.sequence, epoch=1, wall_ms=1)
    house.restart()
    assert house.do(Cancel((), Where(name="nightly"))).sweeping
    house.restart()
    for _ in range(20):
        house.do(Tick())
    ended = [key[0] for key, progress in house.store.scan(tables.PROGRESS, (0,), (99,), 99) if progress.is_ended]
    assert ended == named
    assert house.store.scan(tables.SWEEP, (0,), (99,), 9) == []


@pytest.mark.parametrize("command", [Retry, Purge, Forget])
@pytest.mark.parametrize("where", [Where(states=("failed",), is_letter=True), Where(is_letter=True), Where(queue="q")])
def test_who_acts_on_the_few_that_have_failed_reaches_them_at_once_among_many(command: Any, where: Where) -> None:
    house = House(Bounds(slice=6))
    house.join(slots=2)
    dead = [house.submit(queue="q"), house.submit(queue="q")]
    house.report(*[ref_of((number, 0, 0), house.task(number)) for number in dead], code=1)
    house.turn(*[Submit("", b"body", hold=True) for _ in range(20)])
    assert house.do(command((), where)) == Acted(2)
    assert not house.do(command((), where)).done
