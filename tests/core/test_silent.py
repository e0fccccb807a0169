"""A worker of which nothing is heard is given nothing more, until it is heard again, or lost."""

import pytest

from tests.support.house import House
from tq.core.engine.engine import Engine
from tq.core.vocabulary import Document, Drain, Get, Page, Recover, Recovered, Status, WorkerLost, Workers, WorkerSilent


@pytest.fixture
def house() -> House:
    made = House()
    made.join(5)
    made.join(6)
    return made


def workers(house: House) -> dict[str, str]:
    page = house.do(Workers())
    assert isinstance(page, Page)
    return {item["host"]: item["state"] for item in page.items}


def shown(house: House, job: int) -> Document:
    document = house.do(Get(str(job)))
    assert isinstance(document, Document)
    return document


def test_what_is_submitted_while_a_worker_is_silent_goes_to_others_and_to_it_when_it_is_heard(house: House) -> None:
    house.do(WorkerSilent(5, 1))
    assert workers(house) == {"host5": "suspect", "host6": "up"}
    house.array(2)
    (ref,) = house.starts()
    assert house.engine.live.holds(6, ref)

    house.do(WorkerSilent(5, 1, on=False))
    (ref,) = house.starts()
    assert house.engine.live.holds(5, ref)
    assert workers(house) == {"host5": "up", "host6": "up"}


def test_a_worker_that_is_back_gets_what_waits_and_an_older_word_changes_nothing(house: House) -> None:
    house.do(WorkerSilent(5, 1))
    house.do(WorkerSilent(6, 1))
    job = house.submit()
    assert house.starts() == []
    assert shown(house, job).value["reason"] == "no worker is connected: those that ran tasks may be back"
    house.join(5, session=2)
    assert len(house.starts()) == 1

    house.do(WorkerSilent(5, 1))
    house.do(WorkerSilent(99, 1))
    assert workers(house) == {"host5": "up", "host6": "suspect"}

    house.restart()
    house.do(WorkerSilent(5, 1))
    house.join(5)
    assert workers(house) == {"host5": "up"}


def test_what_a_silent_worker_holds_says_so_and_goes_elsewhere_when_it_is_lost(house: House) -> None:
    job = house.submit()
    (ref,) = house.starts()
    holder, other = (5, 6) if house.engine.live.holds(5, ref) else (6, 5)
    house.started(ref, worker=holder)
    assert not shown(house, job).value.get("reason")

    house.do(WorkerSilent(holder, 1))
    assert house.starts() == []
    assert shown(house, job).value["reason"].startswith("nothing is heard of its worker")
    house.do(WorkerLost(holder, 1))
    (again,) = house.starts()
    assert house.engine.live.holds(other, again)


def test_a_silent_worker_is_not_counted_among_those_that_are_there(house: House) -> None:
    house.do(WorkerSilent(5, 1))
    status = house.do(Status())
    assert isinstance(status, Document)
    assert (status.value["workers"], status.value["slots"], status.value["draining"]) == (1, 1, 0)
    house.do(Drain("host6"))
    status = house.do(Status())
    assert isinstance(status, Document)
    assert (status.value["workers"], status.value["slots"], status.value["draining"]) == (1, 1, 1)


def test_who_is_not_back_yet_after_a_restart_is_named_by_what_it_holds(house: House) -> None:
    house.array(4)
    assert [ref.member for ref in house.starts()] == [0, 1]
    house.restart()
    assert workers(house) == {"host5": "suspect", "host6": "suspect"}


class Reaper(House):
    """A server that starts again and again, each time with other beats."""

    def start(self, beat_ms: int) -> int:
        """Start, and return for how long what was before may go on."""
        self.engine = Engine(self.store, self.bounds)
        answer = self.do(Recover(7, beat_ms))
        assert isinstance(answer, Recovered)
        return answer.held_ms


def test_a_new_store_has_let_nobody_run_anything() -> None:
    house = House()
    assert house.engine.meta is not None
    assert house.engine.meta.held_until_ms <= house.now_ms


def test_a_start_knows_three_beats_of_the_life_before() -> None:
    lives = Reaper()
    lives.start(5_000)
    assert lives.start(100) == 15_000


def test_it_is_so_in_a_store_whose_last_release_did_not_say() -> None:
    lives = Reaper()
    meta = lives.engine.meta
    assert meta is not None
    assert type(meta)(meta.lineage).beat_ms == 5_000


def test_a_life_that_was_short_leaves_the_rest_to_the_next_one() -> None:
    lives = Reaper()
    lives.start(5_000)
    lives.start(100)
    lives.now_ms += 4_000
    lives.submit()
    held_ms = lives.start(100)
    assert 10_000 < held_ms < 11_100
    lives.now_ms += 11_000
    lives.submit()
    assert lives.start(100) == 300


def test_time_that_nobody_has_seen_passing_is_not_taken_off() -> None:
    """The wall's clock says how long the server was down, and may have been set meanwhile."""
    lives = Reaper()
    lives.start(5_000)
    lives.start(100)
    lives.now_ms += 3_600_000
    assert lives.start(100) > 14_000
