"""What tasks returned is kept with them, and read page by page."""

import pytest

from tests.support.house import House
from tq import limits
from tq.core.model import tables
from tq.core.model.task import Cause
from tq.core.vocabulary import AttemptRef, End, Forget, GetResults, Report, Results, Retry
from tq.errors import BadRequest, TaskNotFound


def end(
    house: House, value: bytes, cause: int = Cause.EXIT, code: int = 0, refs: list[AttemptRef] | None = None
) -> None:
    """End these attempts, or what the last turn started, with this value."""
    house.delivery += 1
    ends = tuple(End(ref, cause, code, 10, b"u", value) for ref in refs or house.starts())
    house.do(Report(5, 1, house.delivery, ends))


def read(house: House, name: str, page: str = "") -> Results:
    answer = house.do(GetResults(name, page))
    assert isinstance(answer, Results)
    return answer


def test_a_task_without_an_end_has_no_value():
    house = House()
    number = house.submit()

    (item,) = read(house, str(number)).items

    assert (item.id, item.state, item.attempt, item.value) == (str(number), "queued", 0, b"")


@pytest.mark.parametrize("size", [1, limits.result_inline_bytes_max, limits.result_inline_bytes_max + 1, 100_000])
def test_a_value_of_any_size_is_that_of_the_latest_attempt(size):
    house = House()
    house.join()
    number = house.submit()
    end(house, b"v" * size, Cause.EXCEPTION, 1)

    (item,) = read(house, str(number)).items
    assert (item.state, item.cause, item.code, item.value, item.usage) == ("dead", "exception", 1, b"v" * size, b"u")

    house.do(Retry((str(number),)))
    started = house.starts()
    assert read(house, str(number)).items[0].value == b""
    end(house, b"w", refs=started)
    assert read(house, str(number)).items[0].value == b"w"
    assert house.store.get(tables.RESULT, (number, 0, 0)) is None


def test_an_array_is_read_in_pages_none_larger_than_its_bound():
    house = House()
    house.join(slots=20)
    number = house.array(9)
    end(house, b"x" * 60_000)

    seen, page, pages = [], "", 0
    while True:
        answer = read(house, str(number), page)
        assert sum(len(item.value) for item in answer.items) <= limits.page_bytes_max
        seen += [item.id for item in answer.items]
        pages += 1
        page = answer.next
        if not page:
            break

    assert seen == [f"{number}.{member}" for member in range(1, 10)]
    assert pages == 3


def test_one_member_is_one_result_and_untouched_ones_have_none():
    house = House()
    house.join(slots=1)
    number = house.array(3)
    end(house, b"x")

    assert [item.value for item in read(house, f"{number}.1").items] == [b"x"]
    assert read(house, f"{number}.1").next == ""
    assert [item.state for item in read(house, f"{number}.3").items] == ["queued"]


def test_a_forgotten_job_has_no_results_and_leaves_none():
    house = House()
    house.join()
    number = house.submit()
    end(house, b"x" * 50_000)
    house.do(Forget((str(number),)))

    assert house.store.get(tables.RESULT, (number, 0, 0)) is None
    with pytest.raises(TaskNotFound):
        read(house, str(number))


@pytest.mark.parametrize("page", ["x", "-1", "9" * 20])
def test_a_page_that_is_none_is_refused(page):
    house = House()
    number = house.array(3)
    with pytest.raises(BadRequest):
        read(house, str(number), page)
