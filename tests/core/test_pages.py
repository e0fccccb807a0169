"""Pages of members: bounded, complete, and quick where few of many are wanted."""

from tests.support.house import House
from tq.core.vocabulary import Cancel, Get, Handback, Hold, List, Release


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
