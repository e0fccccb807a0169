"""The dead letter queue: what is in it, what a filter takes of it, retry, purge, and retention beside it."""

import pytest

from tests.support.house import House
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.task import Cause, State
from tq.core.vocabulary import (
    Acted,
    AddEntries,
    Cancel,
    DeadLetters,
    Forget,
    Get,
    List,
    Purge,
    Retain,
    Retry,
    Tick,
    Times,
    Where,
)
from tq.errors import AlreadyEnded, BadRequest, StoreDamaged

LETTERS = Where(states=("dead",), is_letter=True)


@pytest.fixture
def house():
    return House()


def die(house, number, cause=Cause.EXIT, code=1):
    while house.starts():
        for ref in house.starts():
            house.report(ref, cause=cause if ref.job == number else Cause.EXIT, code=code if ref.job == number else 0)


def letters(house, **fields):
    return [item["id"] for item in house.do(DeadLetters(**fields)).items]


def test_letters_are_listed_with_cause_and_code_oldest_first_and_by_filter(house):
    house.join(slots=2)
    first = house.submit(name="a")
    die(house, first, code=3)
    second = house.array(2, queue="q", tags=("t",))
    die(house, second, cause=Cause.SIGNAL, code=-9)
    assert letters(house) == [str(first), f"{second}.1", f"{second}.2"]
    item = house.do(DeadLetters()).items[0]
    assert (item["cause"], item["code"], item["host"], item["failures"]) == ("exit", 3, "host5", 1)
    assert letters(house, where=Where(queue="q", tag="t")) == [f"{second}.1", f"{second}.2"]
    assert letters(house, where=Where(name="a", cause="exit")) == [str(first)]
    assert letters(house, where=Where(cause="lost")) == []
    with pytest.raises(BadRequest, match="is not a cause"):
        house.do(DeadLetters(Where(cause="nonsense")))


@pytest.mark.parametrize("field, word", [("tag", "a,b"), ("name", "night*"), ("queue", "a b")])
def test_a_filter_by_what_is_no_name_is_no_empty_answer(house, field, word):
    for command in (DeadLetters(Where(**{field: word})), Retry((), Where(**{field: word})), List(**{field: word})):
        with pytest.raises(BadRequest, match=f"is not a {field}"):
            house.do(command)


def test_pages_follow_one_another_and_end(house):
    house.join(slots=9)
    number = house.array(7)
    die(house, number)
    page, found = "", []
    for _ in range(10):
        answer = house.do(DeadLetters(limit=2, page=page))
        found += [item["id"] for item in answer.items]
        page = answer.next
        if not page:
            break
    assert found == [f"{number}.{member}" for member in range(1, 8)]
    for wrong in ("x", "1", "1.2.3", "1.2.3.-4"):
        with pytest.raises(BadRequest):
            house.do(DeadLetters(page=wrong))


def test_a_purged_letter_stays_dead_and_is_retried_only_by_its_id(house):
    house.join(slots=3)
    number = house.array(3)
    die(house, number)
    assert house.do(Purge((f"{number}.2",))) == Acted(done=1)
    assert letters(house) == [f"{number}.1", f"{number}.3"]
    assert house.do(Get(f"{number}.2")).value["state"] == "dead"
    with pytest.raises(AlreadyEnded, match="is not a dead letter"):
        house.do(Purge((f"{number}.2",)))
    assert house.do(Retry((str(number),), LETTERS)).done == 2
    refs = house.starts()
    assert [house.task(number, member).state for member in range(3)] == [State.RUNNING, State.DEAD, State.RUNNING]
    house.do(Retry((f"{number}.2",)))
    assert house.task(number, 1).state is State.RUNNING
    assert not house.task(number, 1).purged
    house.report(*refs, *house.starts(), code=1)
    assert letters(house) == [f"{number}.{member}" for member in (1, 2, 3)]


@pytest.mark.parametrize("where", [LETTERS, Where(is_letter=True)])
def test_a_retry_of_letters_leaves_what_was_cancelled(house, where):
    number = house.array(3)
    house.do(Purge(where=LETTERS))
    house.do(Cancel((f"{number}.1",)))
    house.join(slots=3)
    die(house, number)
    house.do(Retry((str(number),), where))
    assert house.task(number, 0).state is State.CANCELLED
    assert house.task(number, 1).state is State.RUNNING


def test_a_filter_by_cause_takes_only_what_ended_so(house):
    house.join(slots=1)
    number = house.array(2)
    house.report(*house.starts(), cause=Cause.SIGNAL, code=-9)
    house.report(*house.starts(), code=1)
    assert house.do(Purge(where=Where(states=("dead",), is_letter=True, cause="signal"))) == Acted(done=1)
    assert letters(house) == [f"{number}.2"]


def test_retention_passes_over_letters_until_they_are_purged(house):
    house.join()
    number = house.submit()
    die(house, number)
    house.now_ms += 10_000
    assert house.do(Retain(1_000)).done == 0
    assert house.do(Retain(1_000)).done == 0
    house.do(Purge((str(number),)))
    assert house.do(Retain(1_000)).done == 1
    assert house.store.get(tables.JOB, (number, 0)) is None


def test_a_purged_job_can_be_forgotten_at_once(house):
    house.join(slots=2)
    number = house.array(2)
    die(house, number)
    house.do(Purge((f"{number}.1",)))
    assert house.do(Forget((str(number),))).done == 1
    assert letters(house) == []


@pytest.mark.parametrize("command", [Purge, Retry])
def test_a_whole_queue_of_letters_goes_in_slices_over_a_restart(command):
    house = House(Bounds(slice=3, leases=100, lanes=4))
    house.join(slots=40)
    number = house.array(20)
    die(house, number)
    assert len(letters(house)) == 20
    answer = house.do(command(where=LETTERS))
    assert answer.sweeping
    assert answer.done < 20
    house.restart()
    for _ in range(20):
        house.do(Tick())
    assert letters(house) == []
    assert house.store.scan(tables.SWEEP, (0,), (99,), 9) == []


@pytest.mark.parametrize("command", [Purge, Forget])
@pytest.mark.parametrize("where", [Where(), LETTERS])
def test_what_is_retried_and_dies_again_before_a_purge_or_forget_of_many_comes_to_it_is_left(command, where):
    house = House(Bounds(slice=3, leases=100, lanes=4))
    numbers = [house.submit() for _ in range(8)]
    house.join()
    while refs := house.starts():
        house.report(*refs, code=1)
    assert len(letters(house)) == len(numbers)
    assert house.do(command(where=where)).sweeping

    house.do(Retry((str(numbers[-1]),)))
    house.report(*house.starts(), code=2)
    for _ in range(20):
        house.do(Tick())
    assert house.store.scan(tables.SWEEP, (0,), (99,), 9) == []
    assert letters(house) == [str(numbers[-1])]
    assert house.task(numbers[-1]).code == 2


def test_retention_does_not_follow_a_jump_of_the_walls_clock(house):
    house.join()
    house.submit()
    house.report(*house.starts())
    later = Times(house.now_ms + 5_000, 4_000_000_000_000)
    turn = house.engine.begin(later)
    assert turn.apply(Retain(60_000)) == Acted(0)
    turn.finish()
    turn = house.engine.begin(Times(house.now_ms + 61_000, 0))
    assert turn.apply(Retain(60_000)) == Acted(1)
    turn.finish()


def test_who_asks_around_damage_gets_the_other_letters_and_the_jobs_of_those_that_cannot_be_read(house, monkeypatch):
    house.join(slots=2)
    numbers = []
    for _ in range(3):
        numbers.append(house.submit())
        die(house, numbers[-1])
    get = house.store.get

    def damaged(table, key):
        if (table, key) == (tables.TASK, (numbers[1], 0, 0)):
            raise StoreDamaged("block checksum mismatch")
        return get(table, key)

    monkeypatch.setattr(house.store, "get", damaged)
    with pytest.raises(StoreDamaged):
        house.do(DeadLetters())
    page = house.do(DeadLetters(around=True))
    assert [item["id"] for item in page.items] == [str(numbers[0]), str(numbers[2])]
    assert (page.next, page.unread) == ("", (str(numbers[1]),))


def test_a_letter_whose_entry_cannot_be_read_is_shown_without_it_and_its_job_is_named(house, monkeypatch):
    house.join(slots=2)
    house.do(AddEntries("u", 0, (b"a",)))
    number = house.submit(size=1, is_array=True, entries_key="u")
    die(house, number)
    scan = house.store.scan

    def damaged(table, *more):
        if table is tables.ENTRY_AT:
            raise StoreDamaged("block checksum mismatch")
        return scan(table, *more)

    monkeypatch.setattr(house.store, "scan", damaged)
    page = house.do(DeadLetters(around=True))
    assert [(item["id"], "entry" in item) for item in page.items] == [(f"{number}.1", False)]
    assert page.unread == (str(number),)
