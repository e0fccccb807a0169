"""What a program wants, asked of the real engine: uploads that go on, keys, pages."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.house import House
from tq.client import flows, requests
from tq.client.results import TaskCancelled, TaskFailed, TaskResult
from tq.core import vocabulary as v
from tq.core.task import Cause
from tq.errors import BadRequest, KeyConflict, TaskNotFound
from tq.wire import plain


def follow(house: House, flow: flows.Flow[Any], seen: Callable[[Any], Any] = lambda _: None) -> Any:
    """Let the engine answer what a flow asks."""
    command = next(flow)
    try:
        while True:
            seen(command)
            command = flow.send(house.do(command))
    except StopIteration as end:
        return end.value


def for_each(key: str, *positional: Any) -> v.Submit:
    return requests.function_for_each("m:f", positional, {}, {"key": key})


def entries(house: House) -> list[Any]:
    """Return the entries that the last turn sent to a worker."""
    found = (assignment.entry for effect in house.finished.effects if isinstance(effect, v.Start)
             for assignment in effect.attempts)  # fmt: skip
    return [plain.loads(entry) for entry in found if entry is not None]


def test_items_become_entries_in_their_order():
    house = House()
    house.join(slots=5, modules=("m",))
    items = [1, "x", None, [2.5], {"a": b"b"}]

    submitted = follow(house, flows.submitting(for_each("k"), iter(items)))

    assert (submitted.id, submitted.existed) == ("1", False)
    assert entries(house) == items


def test_thousands_of_items_go_in_runs():
    house, asked = House(), []

    follow(house, flows.submitting(for_each("k"), range(2_500)), asked.append)

    assert [len(command.items) for command in asked[:-1]] == [1_000, 1_000, 500]
    assert asked[-1].size == 2_500


def test_an_upload_that_was_cut_off_goes_on():
    house = House()
    cut_off = flows.submitting(for_each("k"), range(2_500))
    answer = house.do(next(cut_off))
    house.do(cut_off.send(answer))  # and its answer is lost
    cut_off.close()

    assert follow(house, flows.submitting(for_each("k"), range(2_500))).id == "1"
    assert follow(house, flows.submitting(for_each("k"), range(2_500))).existed


@pytest.mark.parametrize("items", [range(1, 2_501), range(1_500), range(500)])
def test_other_items_under_the_same_key_are_a_conflict(items):
    house = House()
    first = flows.submitting(for_each("k"), range(2_500))
    house.do(first.send(house.do(next(first))))
    first.close()

    with pytest.raises((KeyConflict, BadRequest)):
        follow(house, flows.submitting(for_each("k"), items))


def test_other_items_after_the_job_are_a_conflict_too():
    house = House()
    follow(house, flows.submitting(for_each("k"), [1, 2]))

    with pytest.raises(KeyConflict):
        follow(house, flows.submitting(for_each("k"), [1, 3]))


def test_no_items_and_odd_items_are_refused():
    house = House()
    with pytest.raises(BadRequest, match="no items"):
        follow(house, flows.submitting(for_each("k"), ()))
    with pytest.raises(BadRequest, match="set is no plain data"):
        follow(house, flows.submitting(for_each("k"), [1, {2}]))
    assert house.do(v.List()).items == ()  # type: ignore[union-attr]


def test_values_of_an_array_are_a_list_and_the_first_failure_is_raised():
    house = House()
    house.join(slots=3, modules=("m",))
    follow(house, flows.submitting(for_each("k"), [1, 2, 3]))
    refs = house.starts()
    raised = plain.dumps({"type": "E", "message": "m", "traceback": "t"}, 100, "")
    house.do(v.Report(5, 1, 1, (v.End(refs[0], Cause.EXIT, 0, 1, b"", b"\x01"),)))
    house.do(v.Report(5, 1, 2, (v.End(refs[1], Cause.EXIT, 0, 1, b"", b"\x02"),)))

    found, following = follow(house, flows.page("1", ""))
    assert [result.value for result in found] == [1, 2, None]
    assert following == ""
    assert flows.values("1", found[:1]) == [1]
    assert flows.values("1.1", found[:1]) == 1

    house.do(v.Cancel(("1.3",)))
    house.do(v.Report(5, 1, 3, (v.End(refs[2], Cause.EXCEPTION, 1, 1, b"", raised),)))
    with pytest.raises(Exception, match="was cancelled"):
        flows.values("1", follow(house, flows.page("1", ""))[0])


def test_the_failure_is_raised_and_not_what_was_cancelled_for_it():
    """`max_fails` cancels what runs and skips what waits, also before it in the order."""
    ends = [("cancelled", "cancelled"), ("dead", "exit"), ("dead", "signal"), ("skipped", "none")]
    found = [TaskResult(v.Result(f"1.{n}", state, 1, 3, cause)) for n, (state, cause) in enumerate(ends, 1)]

    with pytest.raises(TaskFailed, match=r"task 1\.2 exited with 3"):
        flows.values("1", found)
    with pytest.raises(TaskCancelled, match=r"task 1\.1 was cancelled"):
        flows.values("1", [found[0], found[3]])


def test_state_and_cancel_are_one_question_each():
    house = House()
    follow(house, flows.submitting(requests.function("m:f", (), {}, {})))

    assert follow(house, flows.peek("1")) == "queued"
    assert follow(house, flows.cancelling("1")) == 1
    assert follow(house, flows.peek("1")) == "cancelled"
    with pytest.raises(TaskNotFound):
        follow(house, flows.peek("2"))
