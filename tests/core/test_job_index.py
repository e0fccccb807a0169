"""Jobs in a queue of their own, held, or ended badly, are found among all others by rows, as long as they are that."""

from typing import Any

import pytest
from msgspec.structs import replace

from tests.core.test_job_search import all_rows, counted_looks, found, listed, write
from tests.core.test_view import passed_by
from tests.support.ground import Ground
from tests.support.house import House, held
from tq.core.model import tables
from tq.core.read import job_search, query
from tq.core.repair import invariants
from tq.core.vocabulary import Acted, Cancel, Forget, Hold, List, Purge, Release, Retain, Retry, Submit, Where

OTHERS = 300
BAD = ("failed", "cancelled")
LISTS: dict[str, dict[str, Any]] = {
    "failed": {"states": ("failed",)}, "cancelled": {"states": ("cancelled",)}, "held": {"states": ("held",)},
    "gpu": {"queue": "gpu"}, "failed gpu": {"states": ("failed",), "queue": "gpu"},
}  # fmt: skip


def with_others() -> House:
    """Return a house in which many jobs have succeeded."""
    house = House()
    house.join(slots=OTHERS)
    house.turn(*[Submit("", b"body") for _ in range(OTHERS)])
    house.report(*house.starts())
    return house


def said(house: House, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Return what lists have, if anything; each finds that without a look at the others."""
    lists = {}
    for what, where in LISTS.items():
        with monkeypatch.context() as patch:
            looks = counted_looks(house, patch)
            lists[what] = listed(house, **where)
            assert len(looks) < 30, what
        assert found(house, limit=1, **where) == lists[what]
    return {what: jobs for what, jobs in lists.items() if jobs}


def test_they_are_listed_as_they_are_at_each_turn_of_their_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    house = with_others()
    assert said(house, monkeypatch) == {}
    two, one = house.submit(hold=True), house.submit(queue="gpu")
    (start,) = house.starts()
    array = house.array(3, queue="gpu")
    first, *rest = house.starts()
    gpu = {"gpu": [array, one]}
    assert said(house, monkeypatch) == {**gpu, "held": [two]}
    house.report(start, first, code=1)
    bad = {**gpu, "failed": [array, one], "failed gpu": [array, one]}
    assert said(house, monkeypatch) == {**bad, "held": [two]}
    house.do(Cancel((str(two),)))
    house.do(Purge((str(one),)))  # it stays dead
    house.restart()
    assert said(house, monkeypatch) == {**bad, "cancelled": [two]}
    house.do(Retry((str(one), str(two))))
    house.do(Hold((str(one),)))
    assert said(house, monkeypatch) == {**gpu, "failed": [array], "failed gpu": [array], "held": [one, two]}
    house.do(Release((str(one), str(two))))
    house.do(Cancel((str(one), str(two))))
    house.do(Forget((str(one),)))
    assert said(house, monkeypatch) == {"gpu": [array], "failed": [array], "failed gpu": [array], "cancelled": [two]}
    house.do(Forget((str(two),)))
    house.join(session=2, held=held(*rest))
    house.report(*rest, session=2)
    house.do(Forget((str(array),)))
    assert said(house, monkeypatch) == {}
    assert all_rows(house) == []


@pytest.mark.parametrize("named_from", [0, 1])
def test_those_of_a_release_that_had_fewer_rows_are_found_beside_new_ones(named_from: int) -> None:
    house = House()
    jobs = [house.submit(queue=queue, hold=True) for queue in ("gpu", "default") * 2]
    house.do(Cancel((), Where(queue="gpu")))
    meta = house.store.get(tables.META, ())
    assert meta is not None
    progress = {(job, 0): replace(house.store.get(tables.PROGRESS, (job, 0)), listed=0) for job in jobs}
    write(house, {
        tables.NAMED: dict.fromkeys(all_rows(house)), tables.PROGRESS: progress,
        tables.META: {(): replace(meta, named_from=named_from, named_by=0)},
    })  # fmt: skip
    assert invariants.check(house.store) == []
    for _ in range(2):
        house.restart()
        new = house.submit(queue="gpu")
        house.do(Cancel((str(new),)))
        jobs.append(new)
    gpu = [job for job in reversed(jobs) if job not in (2, 4)]
    assert found(house, limit=1, queue="gpu") == found(house, states=BAD) == gpu
    house.do(Retry((str(gpu[-1]),)))
    house.do(Forget((str(gpu[-2]),)))
    assert found(house, limit=1, queue="gpu") == [*gpu[:-2], gpu[-1]]
    assert found(house, states=BAD) == gpu[:-2]
    assert found(house, states=("held",)) == [4, 2, 1]  # a retry does not release


def test_who_acts_on_a_queue_or_a_state_that_few_of_many_have_reaches_them_at_once() -> None:
    house = with_others()
    house.bounds = house.engine.bounds = house.bounds._replace(slice=5)
    jobs = [house.submit(queue="gpu", hold=True) for _ in range(3)]
    assert house.do(Hold((), Where(queue="gpu"))) == Acted(0, unchanged=3)
    assert house.do(Cancel((), Where(queue="gpu"))) == Acted(3)
    assert house.do(Retry((), Where(states=("cancelled",)))) == Acted(3)
    assert house.do(Release((), Where(states=("held",)))) == Acted(3)
    assert found(house, queue="gpu") == jobs[::-1]


def test_a_row_of_a_state_that_is_missing_or_one_too_many_is_noticed() -> None:
    house = House()
    house.submit(hold=True)
    (row,) = all_rows(house)
    write(house, {tables.NAMED: {row: None}})
    assert any("not found by" in finding for finding in invariants.check(house.store))
    progress = house.store.get(tables.PROGRESS, (1, 0))
    write(house, {tables.PROGRESS: {(1, 0): replace(progress, listed=0)}})
    assert any("listed by states" in finding for finding in invariants.check(house.store))


def test_a_page_passes_few_rows_of_what_was_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million dead ones that run again a look by state passes a million deleted rows, else, in one turn."""
    monkeypatch.setattr(job_search, "_STRETCH", 10)
    monkeypatch.setattr(query, "page_keys_max", 20)
    house = House(store=Ground(tables.NAMED, 2))
    first = house.submit()
    house.do(Cancel((str(first),)))
    house.turn(*[Submit("", b"body", name="a") for _ in range(100)])
    house.do(Cancel((), Where(name="a")))
    house.do(Retry((), Where(name="a")))
    page: Any = house.do(List(states=("cancelled",)))
    assert passed_by(house, List(states=("cancelled",))) <= 20
    assert page.next
    assert page.items == ()
    assert found(house, states=("cancelled",)) == [first]


def test_a_list_ends_where_all_is_forgotten() -> None:
    """Ten million jobs that are gone are not walked over, nor their rows that are deleted passed."""
    house = House(store=Ground(tables.NAMED, 2))
    for _ in range(12):
        house.turn(*[Submit("", b"body", queue="gpu", name="a") for _ in range(10)])
        house.do(Cancel((), Where(name="a")))
    house.now_ms += 10_000
    keep = house.submit(queue="gpu")
    for _ in range(3):
        house.do(Retain(1_000))
    for where in ({"queue": "gpu"}, {}, {"states": ("cancelled",)}, {"name": "a"}):
        page: Any = house.do(List(**where))
        assert [item["id"] for item in page.items] == ([str(keep)] if where in ({"queue": "gpu"}, {}) else [])
        assert page.next == ""
        assert passed_by(house, List(**where)) == 0
