"""What a program wants, asked of the real engine: uploads that go on, keys, pages."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from tests.support.house import House
from tq import limits
from tq.client.sansio import dialogues, requests
from tq.client.sansio.results import TaskCancelled, TaskFailed, TaskResult
from tq.core import vocabulary as v
from tq.core.engine.engine import Bounds
from tq.core.model.task import Cause
from tq.errors import BadRequest, KeyConflict, Refused, TaskNotFound, TooLarge
from tq.wire import plain


def follow(house: House, flow: dialogues.Flow[Any], seen: Callable[[Any], Any] = lambda _: None) -> Any:
    """Let the engine answer what a flow asks."""
    try:
        command = next(flow)
        while True:
            seen(command)
            try:
                answer = house.do(command.wait if isinstance(command, dialogues.Glance) else command)
            except Refused as refusal:
                command = flow.throw(refusal)
            else:
                command = flow.send(answer)
    except StopIteration as end:
        return end.value


def mapped(items: Any, key: str = "k") -> dialogues.Flow[v.Submitted]:
    return dialogues.submitting(requests.function_for_each("m:f", (), {}, {"key": key}, items))


def entries(house: House) -> list[Any]:
    """Return the entries that the last turn sent to a worker."""
    found = (assignment.entry for effect in house.finished.effects if isinstance(effect, v.Start)
             for assignment in effect.attempts)  # fmt: skip
    return [plain.loads(entry) for entry in found if entry is not None]


def test_items_become_entries_in_their_order():
    house = House()
    house.join(slots=5, modules=("m",))
    items = [1, "x", None, [2.5], {"a": b"b"}]

    submitted = follow(house, mapped(iter(items)))

    assert (submitted.id, submitted.existed) == ("1", False)
    assert entries(house) == items


def test_thousands_of_items_go_in_runs():
    house, asked = House(), []

    follow(house, mapped(range(2_500)), asked.append)

    assert [len(command.items) for command in asked[:-1]] == [1_000, 1_000, 500]
    assert asked[-1].size == 2_500


def test_an_upload_that_was_cut_off_goes_on():
    house = House()
    cut_off = mapped(range(2_500))
    answer = house.do(next(cut_off))
    house.do(cut_off.send(answer))  # and its answer is lost
    cut_off.close()

    assert follow(house, mapped(range(2_500))).id == "1"
    assert follow(house, mapped(range(2_500))).existed


@pytest.mark.parametrize("items", [range(1, 2_501), range(1_500), range(500)])
def test_other_items_under_the_same_key_are_a_conflict(items):
    house = House()
    first = mapped(range(2_500))
    house.do(first.send(house.do(next(first))))
    first.close()

    with pytest.raises((KeyConflict, BadRequest)):
        follow(house, mapped(items))


def test_other_items_after_the_job_are_a_conflict_too():
    house = House()
    follow(house, mapped([1, 2]))

    with pytest.raises(KeyConflict):
        follow(house, mapped([1, 3]))


def test_an_upload_whose_items_come_slowly_is_kept_alive(monkeypatch):
    house = House()

    def slow() -> Iterator[int]:
        yield from range(1_000)
        for number in range(40):
            house.now_ms += 30_000  # of all of them 20 minutes; an upload of which nothing is heard lives for 10
            house.do(v.Tick())
            yield number

    monkeypatch.setattr(dialogues, "monotonic", lambda: house.now_ms / 1_000)
    assert follow(house, mapped(slow())).id == "1"
    assert shown(house, "1")["size"] == 1_040


def test_items_without_an_end_are_refused_at_the_bound(monkeypatch):
    house, asked = House(), []
    monkeypatch.setattr(limits, "array_size_max", 2_500)
    with pytest.raises(TooLarge, match="array_size_max"):
        follow(house, mapped(count()), asked.append)
    assert len(asked) == 2


def test_no_items_and_odd_items_are_refused():
    house = House()
    with pytest.raises(BadRequest, match="no items"):
        follow(house, mapped(()))
    with pytest.raises(BadRequest, match="set is not plain data"):
        follow(house, mapped([1, {2}]))
    assert house.do(v.List()).items == ()  # type: ignore[union-attr]


def test_values_of_an_array_are_a_list_and_the_first_failure_is_raised():
    house = House()
    house.join(slots=3, modules=("m",))
    follow(house, mapped([1, 2, 3]))
    refs = house.starts()
    raised = plain.dumps({"type": "E", "message": "m", "traceback": "t"}, 100, "")
    house.do(v.Report(5, 1, 1, (v.End(refs[0], Cause.EXIT, 0, 1, b"", b"\x01"),)))
    house.do(v.Report(5, 1, 2, (v.End(refs[1], Cause.EXIT, 0, 1, b"", b"\x02"),)))

    found, following = follow(house, dialogues.results("1")(""))
    assert [result.value for result in found] == [1, 2, None]
    assert following == ""
    assert dialogues.values("1", found[:1]) == [1]
    assert dialogues.values("1.1", found[:1]) == 1

    house.do(v.Cancel(("1.3",)))
    house.do(v.Report(5, 1, 3, (v.End(refs[2], Cause.EXCEPTION, 1, 1, b"", raised),)))
    with pytest.raises(Exception, match="was cancelled"):
        dialogues.values("1", follow(house, dialogues.results("1")(""))[0])


def test_the_failure_is_raised_and_not_what_was_cancelled_for_it():
    """`max_fails` cancels what runs and skips what waits, also before it in the order."""
    ends = [("cancelled", "cancelled"), ("dead", "exit"), ("dead", "signal"), ("skipped", "none")]
    found = [TaskResult(v.Result(f"1.{n}", state, 1, 3, cause)) for n, (state, cause) in enumerate(ends, 1)]

    with pytest.raises(TaskFailed, match=r"task 1\.2 exited with 3") as caught:
        dialogues.values("1", found)
    assert caught.value.__notes__[-1] == "3 more of its 4 tasks failed or were cancelled: see results()"
    with pytest.raises(TaskCancelled, match=r"task 1\.1 was cancelled"):
        dialogues.values("1", [found[0], found[3]])


def shown(house: House, job: str) -> dict[str, Any]:
    return follow(house, dialogues.showing(v.Get(job)))


def all_of(house: House, pages: dialogues.Pages[Any]) -> list[Any]:
    """Return what is on all pages, as a client lists it."""
    found: list[Any] = []
    place: str | None = ""
    while place is not None:
        items, following = follow(house, pages(place))
        found += items
        place = following or None
    return found


def act(house: House, kind: type[v.Selected], *ids: str, **more: Any) -> dialogues.Acted:
    return follow(house, dialogues.acting(kind, ids, None, **more))


def test_state_and_cancel_are_one_question_each_and_a_second_cancel_does_nothing():
    house = House()
    follow(house, mapped([1, 2]))

    assert shown(house, "1")["state"] == "queued"
    assert act(house, v.Cancel, "1") == 2
    assert act(house, v.Cancel, "1") == 0
    assert shown(house, "1")["state"] == "cancelled"
    with pytest.raises(TaskNotFound):
        shown(house, "2")
    with pytest.raises(TaskNotFound):
        act(house, v.Cancel, "2")


def test_how_many_tasks_run_at_once_may_change():
    house = House()
    follow(house, mapped([1, 2, 3]))
    assert act(house, v.SetThrottle, "1", throttle=1) == 1
    house.join(slots=3, modules=("m",))
    assert shown(house, "1")["counts"] == {"queued": 2, "running": 1}


@pytest.mark.parametrize(
    "kind, more", [(v.SetPriority, {"priority": "high"}), (v.SetThrottle, {"throttle": 1.5}), (v.Retry, {"force": 1})]
)
def test_what_is_no_number_is_refused_before_it_is_sent(kind, more):
    """A server that cannot read it would end the connection, with all that others ask over it."""
    with pytest.raises(BadRequest, match="cannot be"):
        next(dialogues.acting(kind, ("1",), None, **more))


def test_every_verb_says_on_how_many_it_was_done():
    house = House()
    follow(house, dialogues.submitting(requests.function("m:f", (), {}, {"tags": ["t"], "retries": 0})))
    house.join(modules=())  # which does not allow it

    assert act(house, v.SetPriority, "1", priority=7) == 1
    assert [act(house, v.Hold, "1"), act(house, v.Hold, "1"), shown(house, "1")["state"]] == [1, 0, "held"]
    assert [act(house, v.Release, "1"), shown(house, "1")["priority"]] == [1, 7]
    assert act(house, v.Requeue, "1") == 0
    house.join(6, 1, modules=("m",))
    assert act(house, v.Requeue, "1") == 1
    house.do(v.Handback(6, 1, 1, tuple(house.stops()), int(Cause.REQUEUE)))
    house.report(*house.starts(), code=3, worker=6)
    assert act(house, v.Forget, "1") == 1


def test_a_verb_says_that_it_goes_on_beyond_its_count():
    house = House(Bounds(slice=2))
    for job in range(3):
        house.do(v.Submit(str(job), b"b"))

    cancelled = follow(house, dialogues.acting(v.Cancel, (), dialogues.where({})))
    assert (cancelled, cancelled.goes_on, repr(cancelled)) == (2, True, "2, and it goes on")
    house.do(v.Tick())
    assert shown(house, "3")["state"] == "cancelled"
    again = act(house, v.Hold, "1")
    assert (again, again.goes_on, repr(again)) == (0, False, "0")


def test_dead_letters_are_found_by_their_cause_tried_again_and_purged():
    house = House()
    house.join(slots=3, modules=("m",))
    follow(
        house, dialogues.submitting(requests.function_for_each("m:f", (), {}, {"retries": 0, "tags": ["t"]}, [1, 2]))
    )
    first, second = house.starts()
    house.report(first, code=3)
    house.report(second, code=-9, cause=Cause.SIGNAL)
    signals = dialogues.where({"cause": "signal", "tag": None}, is_letter=True)

    assert [letter["id"] for letter in all_of(house, dialogues.jobs(dialogues.where({}, is_letter=True)))] == [
        "1.1",
        "1.2",
    ]
    (letter,) = all_of(house, dialogues.jobs(signals))
    assert (letter["id"], letter["signal"], letter["exit_code"]) == ("1.2", 9, None)
    assert follow(house, dialogues.acting(v.Retry, (), signals)) == 1
    assert shown(house, "1.2")["state"] == "running"
    assert shown(house, "1.1")["state"] == "dead"
    assert act(house, v.Purge, "1.1") == 1
    assert all_of(house, dialogues.jobs(dialogues.where({}, is_letter=True))) == []


def test_jobs_are_listed_and_acted_on_by_what_they_are():
    house = House()
    for name in ("a", "b", "a"):
        follow(house, dialogues.submitting(requests.function("m:f", (), {}, {"name": name})))
    named = dialogues.where({"name": "a", "state": "queued", "tag": None})

    assert [job["id"] for job in all_of(house, dialogues.jobs(named))] == ["3", "1"]
    assert follow(house, dialogues.acting(v.Cancel, (), named)) == 2
    assert all_of(house, dialogues.jobs(named)) == []
    assert [job["id"] for job in all_of(house, dialogues.jobs(dialogues.where({})))] == ["3", "2", "1"]


@pytest.mark.parametrize(
    "filters", [{"tag": ""}, {"name": 5}, {"state": 5}, {"queue": b"q"}, {"state": ["queued", None]}, {"state": []}]
)
def test_a_filter_that_was_lost_or_is_none_acts_on_nothing(filters):
    with pytest.raises(BadRequest):
        dialogues.where(filters)


def test_a_queue_is_set_as_far_as_it_is_said():
    house = House()
    with pytest.raises(TaskNotFound, match="there is no queue q") as unknown:
        follow(house, dialogues.setting("q", True, 3, None))
    assert unknown.value.hint == "tq queue ls; new=True makes it"
    follow(house, dialogues.setting("q", True, 3, None, new=True))
    follow(house, dialogues.setting("q", False, None, None))
    (queue,) = all_of(house, dialogues.every(v.Queues))

    assert (queue["id"], queue["paused"], queue["max"]) == ("q", False, 3)
    for wrong in (
        dialogues.setting("q", None, None, None),
        dialogues.setting("q", "no", None, None),
        dialogues.setting("q", True, None, None, new=1),
        dialogues.setting(5, True, None, None),
    ):  # type: ignore[arg-type]
        with pytest.raises(BadRequest):
            next(wrong)


def test_a_worker_is_drained_and_goes_on():
    house = House()
    house.join()
    (worker,) = all_of(house, dialogues.every(v.Workers))
    follow(house, dialogues.draining(worker["id"], on=True, deadline_s=5))
    assert [one["state"] for one in all_of(house, dialogues.every(v.Workers))] == ["draining"]
    follow(house, dialogues.draining(worker["id"], on=False))
    assert [one["state"] for one in all_of(house, dialogues.every(v.Workers))] == ["up"]
    for deadline_s in (-1, float("inf"), "5"):
        with pytest.raises(BadRequest):
            next(dialogues.draining(worker["id"], on=True, deadline_s=deadline_s))  # type: ignore[arg-type]


def test_a_large_input_goes_first_in_pieces():
    house, asked = House(), []
    follow(house, dialogues.submitting(requests.command(["cat"], {"stdin": b"x" * 200_000, "key": "k"})), asked.append)

    assert [type(command) for command in asked] == [v.Upload, v.Upload, v.Submit]
    again = follow(house, dialogues.submitting(requests.command(["cat"], {"stdin": b"x" * 200_000, "key": "k"})))
    assert (again.id, again.existed) == ("1", True)


def test_items_of_a_command_stand_in_its_places():
    house = House()
    house.join(slots=5)
    follow(house, dialogues.submitting(requests.command_for_each(["flac", "{}"], {"at_once": 2}, ["a b", b"\xff", ""])))

    found = [one.entry for effect in house.finished.effects if isinstance(effect, v.Start) for one in effect.attempts]
    assert found == [b"a b", b"\xff"]
    assert shown(house, "1")["counts"]["queued"] == 1
