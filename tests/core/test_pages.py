"""Pages of members: bounded, complete, and quick where few of many are wanted."""

from typing import Any

import pytest

from tests.support.house import House
from tq import limits
from tq.core.engine import control
from tq.core.model import tables
from tq.core.model.job import Demand, Lane, Queue, Token
from tq.core.model.task import State
from tq.core.placement.fold import live_of
from tq.core.read import overview
from tq.core.vocabulary import (
    AttemptRef,
    Cancel,
    Capacity,
    CreateToken,
    Get,
    Handback,
    Hold,
    Join,
    List,
    Queues,
    Release,
    SetQueue,
    Status,
    Submit,
    Tokens,
    Workers,
)
from tq.errors import BadRequest
from tq.server.sessions.present import present_worker
from tq.wire.codec import dumps, loads


def every_page(house: House, command: List) -> tuple[list[str], int]:
    """Return the ids of all pages, and how many pages there were."""
    found: list[str] = []
    page, pages = "", 0
    while pages == 0 or page:
        answer = house.do(List(command.job, command.states, limit=command.limit, page=page))
        found += [item["id"] for item in answer.items]
        page, pages = answer.next, pages + 1
    return found, pages


def test_the_few_with_a_record_are_found_among_ten_million_in_one_page() -> None:
    house = House()
    house.array(10_000_000)
    house.do(Cancel(("1.5", "1.7000000")))
    assert every_page(house, List("1", ("cancelled",))) == (["1.5", "1.7000000"], 1)


def test_pages_of_records_go_on_where_the_last_one_ended() -> None:
    house = House()
    house.array(5_000)
    for first in range(1, 3_001, 1_000):
        house.do(Cancel((f"1.{first}-{first + 999}",)))
    found, pages = every_page(house, List("1", ("cancelled",), limit=700))
    assert found == [f"1.{value}" for value in range(1, 3_001)]
    assert pages >= 5


def test_all_members_are_listed_whether_they_have_a_record_or_not() -> None:
    house = House()
    house.array(2_500)
    house.do(Cancel(("1.5",)))
    assert every_page(house, List("1", limit=1_000))[0] == [f"1.{value}" for value in range(1, 2_501)]
    queued, _ = every_page(house, List("1", ("queued",), limit=1_000))
    assert len(queued) == 2_499
    assert "1.5" not in queued


def test_what_came_back_to_a_held_job_counts_as_held() -> None:
    house = House()
    house.join(slots=2)
    house.array(9)
    refs = tuple(house.starts())
    house.do(Hold(("1",)))
    assert house.do(Get("1")).value["counts"] == {"running": 2, "held": 7}
    house.do(Handback(5, 1, 1, refs))
    shown = house.do(Get("1")).value
    assert (shown["state"], shown["counts"]) == ("held", {"held": 9})
    house.do(Release(("1",)))
    assert "held" not in house.do(Get("1")).value["counts"]


def test_who_asks_again_for_what_has_begun_sees_each_member_once() -> None:
    house = House()
    house.join(slots=2)
    house.array(5)
    house.do(Cancel(("1.4",)))
    seen, page = [], "0"
    while page:
        answer = house.do(List("1", page=page, begun=True))
        seen.append([(item["id"], item["state"]) for item in answer.items])
        page = answer.next
        for worker in house.engine.live.workers.values():
            house.report(*[AttemptRef(*task, 1, house.task(1, task[2]).lease) for task in worker.held])
    assert seen == [
        [("1.1", "running"), ("1.2", "running")],
        [("1.3", "running"), ("1.4", "cancelled"), ("1.5", "running")],
        [],
    ]


def test_what_has_begun_of_an_untouched_array_is_nothing_and_it_says_where_to_ask_again() -> None:
    house = House()
    house.array(10_000_000)
    answer = house.do(List("1", begun=True))
    assert (answer.items, answer.next) == ((), "0")
    answer = house.do(List("1", page="9999", begun=True))
    assert (answer.items, answer.next) == ((), "9999")
    house.do(Cancel(("1",)))
    answer = house.do(List("1", begun=True))
    assert (answer.items, answer.next) == ((), "")


def test_pages_of_what_has_begun_are_bounded() -> None:
    house = House()
    house.join(slots=9)
    house.array(20)
    assert every_page(house, List("1", ("running",), limit=4)) == ([f"1.{value}" for value in range(1, 10)], 3)
    first = house.do(List("1", limit=4, begun=True))
    assert [item["id"] for item in first.items] == ["1.1", "1.2", "1.3", "1.4"]
    assert first.next == "4"


def test_what_runs_is_found_by_what_the_workers_hold() -> None:
    """However many members have a record: the store is not walked."""
    house = House()
    house.join(slots=3)
    house.array(5_000)
    house.report(*house.starts())
    house.do(Cancel(("1.1000-1999",)))
    house.array(9)
    house.join(worker=6, slots=2)
    running, pages = every_page(house, List("1", ("running",)))
    assert (running, pages) == (["1.4", "1.5", "1.6", "1.7", "1.8"], 1)
    assert house.do(List("1.5", ("running",))).items[0]["id"] == "1.5"
    assert house.do(List("1.9", ("running",))).items == ()


def all_pages(house: House, command: type[Workers | Queues | Tokens], limit: int) -> list[list[dict[str, Any]]]:
    """Return all pages of a list. Nothing changes between them, so the house is not checked anew for each."""
    answers: dict[Any, Any] = {Workers: overview.workers, Queues: overview.queues, Tokens: overview.tokens}
    pages, page = [], ""
    while page or not pages:
        answer = answers[command](house.store, house.engine.live, command(limit, page))
        pages.append(list(answer.items))
        page = answer.next
    return pages


def test_all_workers_are_listed_however_many_there_are() -> None:
    house = House()
    hosts = {number: f"host{number}" for number in range(1, 2_001)}
    hosts |= {1: "host with a space 7", 2: "host", 3: "host 5", 4: "host 5", 5: ""}
    house.turn(*(Join(2**64 - number, 1, Capacity(1, host=host)) for number, host in hosts.items()))
    by_host = sorted((host, f"w{2**64 - number:016x}") for number, host in hosts.items())
    for limit in (1, 700, 10**6):
        pages = all_pages(house, Workers, limit)
        assert [(item["host"], item["id"]) for page in pages for item in page] == by_host
        assert max(map(len, pages)) <= min(limit, limits.page_items_max)
    assert len(pages) <= 4  # as many as fit


@pytest.mark.parametrize("command", [Workers, Queues, Tokens])
def test_a_client_that_knows_no_pages_gets_all_that_one_holds(command: type[Workers | Queues | Tokens]) -> None:
    """The commands had no fields once."""
    house = House()
    house.turn(*(Join(number, 1, Capacity(1)) for number in range(1, 301)))
    house.turn(*(Submit("", b"body", queue=f"q{number}") for number in range(300)))
    house.turn(*(CreateToken(f"t{number:03}", bytes(32), "read", "name") for number in range(300)))
    answer = house.do(loads(dumps([command.__name__]), command))
    assert (len(answer.items), answer.next) == (300, "")


def test_a_page_of_workers_fits_a_frame_whatever_they_offer() -> None:
    house = House()
    word = "ä" * (limits.offer_word_bytes_max // 2)
    most = 2**63 - 1
    largest = Capacity(
        limits.slots_max, most, most, word, most, word, (word,) * limits.offer_words_max, (), word,
        (word,) * limits.modules_max,
    )  # fmt: skip
    smallest = Capacity(1, queues=("",) * limits.offer_words_max)
    house.turn(*(Join(number, number, smallest if number % 3 else largest) for number in range(1, 400)))
    pages = all_pages(house, Workers, 10**6)
    assert [int(item["id"][1:], 16) for page in pages for item in page] == sorted(
        range(1, 400), key=lambda n: n % 3 == 0
    )
    shown = [tuple(present_worker(item, 3, most) for item in page) for page in pages]
    assert max(len(dumps(page)) for page in shown) <= limits.page_bytes_max


@pytest.mark.parametrize("page", ["w1", "-1", "1" * 21, "٣x"])
def test_what_is_no_page_of_workers_is_refused(page: str) -> None:
    with pytest.raises(BadRequest, match="page"):
        House().do(Workers(page=page))


def test_all_queues_are_listed_and_counted_however_many_there_are() -> None:
    house = House()
    names = [f"q{number:04}" for number in range(1_500)]
    house.turn(*(Submit("", b"body", queue=name) for name in reversed(names[1:])))
    house.do(SetQueue(names[0], max=3))
    for limit in (7, 700, 10**6):
        pages = all_pages(house, Queues, limit)
        items = [item for page in pages for item in page]
        assert [item["id"] for item in items] == names
        assert max(map(len, pages)) <= min(limit, limits.page_items_max)
        assert [item["max"] for item in items] == [3] + [0] * 1_499
        assert all(item["counts"] == {"queued": 1} for item in items[1:])


def test_a_page_of_queues_fits_a_frame_whatever_they_hold() -> None:
    house, most = House(), 2**63 - 1
    live = live_of(house.store)
    for number in range(1_000):
        name = f"{number:0128}"
        live.lanes[number] = Lane(name, Demand(), counts=[most] * len(State))
        live.queues[name] = Queue(paused=True, max=most, retries=limits.retries_max)
    answer = overview.queues(house.store, live, Queues(10**6))
    assert len(dumps(answer.items)) <= limits.page_bytes_max
    assert answer.next == answer.items[-1]["id"]


def test_the_status_fits_a_frame_however_many_queues_there_are() -> None:
    house = House()
    live = live_of(house.store)
    for number in range(limits.lanes_max):
        live.lanes[number] = Lane(f"{number:0128}", Demand(), counts=[1] * len(State))
    answer = overview.status(house.store, live, Status())
    assert answer.value["tasks"] == {state.word: limits.lanes_max for state in State}
    assert len(dumps(answer)) <= limits.page_bytes_max


@pytest.mark.parametrize("command", [Queues(page="a b"), Queues(page="q" * 129), Tokens(page="t" * 129)])
def test_what_is_no_page_of_queues_or_tokens_is_refused(command: Queues | Tokens) -> None:
    with pytest.raises(BadRequest, match="page"):
        House().do(command)


def test_a_page_of_tokens_fits_a_frame_and_all_are_listed() -> None:
    house, most = House(), 2**63 - 1
    names = [f"ä{number:0127}" for number in range(limits.page_items_max)]
    house.turn(*(CreateToken(name, bytes(32), "submit", "n" * 128, most) for name in reversed(names)))
    for limit in (7, 10**6):
        pages = all_pages(house, Tokens, limit)
        assert [item["id"] for page in pages for item in page] == names
        assert max(len(dumps(page)) for page in pages) <= limits.page_bytes_max


def test_tokens_whose_names_an_older_server_did_not_bound_are_listed_beside_the_others() -> None:
    house = House()
    token = Token(bytes(32), "read", "n" * 150_000, 1)
    stored = {tables.TOKEN: {(f"t{number}",): token for number in range(4)}}
    house.store.write(stored, sequence=house.store.sequence + 1, epoch=1, wall_ms=1)
    pages = all_pages(house, Tokens, 100)
    assert [[item["id"] for item in page] for page in pages] == [["t0"], ["t1"], ["t2"], ["t3"]]


def test_tokens_that_have_expired_make_room_for_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "page_items_max", 3)
    house = House()
    for name, expires_ms in (("a", 0), ("b", 1_700_000_000_000 + 5_000), ("c", 1_700_000_000_000 + 90_000)):
        house.do(CreateToken(name, bytes(32), "worker", expires_ms=expires_ms))
    with pytest.raises(BadRequest, match="page_items_max"):
        house.do(CreateToken("d", bytes(32), "worker"))
    house.now_ms += 10_000
    house.do(CreateToken("d", bytes(32), "worker"))
    assert [key[0] for key, _ in house.store.scan(tables.TOKEN, ("",), ("z",), 9)] == ["a", "c", "d"]


@pytest.mark.parametrize("name", ["n" * 129, "ä" * 10, "n" * 150_000, "\x1b[2J"])
def test_a_token_whose_name_is_none_is_refused_with_the_bound(name: str) -> None:
    house = House()
    with pytest.raises(BadRequest, match="name_chars_max"):
        house.do(CreateToken("t", bytes(32), "read", name))
    assert house.do(Tokens()).items == ()
    house.do(CreateToken("t", bytes(32), "read", "n" * 128))


@pytest.mark.parametrize(
    "command",
    [CreateToken("t", b"short", "read"), CreateToken("t", bytes(32), "king"), CreateToken("", bytes(32), "read")],
)
def test_a_token_without_an_id_a_digest_and_a_known_role_is_refused(command: CreateToken) -> None:
    with pytest.raises(BadRequest, match="a role"):
        House().do(command)


def test_no_token_takes_the_place_of_another_or_begins_when_its_time_is_over() -> None:
    house = House()
    house.do(CreateToken("t", bytes(32), "read"))
    with pytest.raises(BadRequest, match="token t exists"):
        house.do(CreateToken("t", b"x" * 32, "admin"))
    with pytest.raises(BadRequest, match="expired already"):
        house.do(CreateToken("u", bytes(32), "read", expires_ms=1_700_000_000_000 + house.now_ms))
    ((key, token),) = house.store.scan(tables.TOKEN, ("",), ("z",), 9)
    assert (key, token.role) == (("t",), "read")
