"""Results as they come: each task and each job is told once, over pages, cuts and restarts; and waiting for any."""

import random
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest
import trio

import tq.client
from tests.client.test_dialogues import act, follow, mapped
from tests.support.house import House
from tq import limits
from tq.client.sansio import as_completed
from tq.client.sansio.as_completed import TaskEnds
from tq.client.sansio.results import TaskResult
from tq.core import vocabulary as v
from tq.core.model.task import Cause
from tq.core.read import query
from tq.core.vocabulary.words import AttemptRef
from tq.errors import BadRequest, TaskNotFound, TimedOut, TooLarge
from tq.wire import plain


def looked(house: House, found: TaskEnds) -> list[TaskResult]:
    """Let a client wait and look once, as it does whenever something has changed."""
    pages = found.look(follow(house, asks(found.wait())))
    told: list[TaskResult] = []
    while True:
        some, following = follow(house, pages(""))
        told += some
        if not following:
            return told


def asks(command: Any) -> Any:
    return (yield command)


def report(house: House, refs: list[AttemptRef], *, worker: int = 5) -> None:
    """Report ends with the member's number as what was returned."""
    values = [plain.dumps(ref.member, 100, "") for ref in refs]
    found = tuple(v.End(ref, Cause.EXIT, 0, 1, b"", value) for ref, value in zip(refs, values, strict=True))
    house.delivery += 1
    house.do(v.Report(worker, 1, house.delivery, found))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("left_max", [3, 1_000])
def test_each_task_is_told_once_soon_and_with_its_value(monkeypatch, seed, left_max):
    """Whatever ends first, also where some run for ever, with few places for those that pages leave behind, or many."""
    monkeypatch.setattr(query, "page_keys_max", 20)
    monkeypatch.setattr(as_completed, "_LEFT_MAX", left_max)
    monkeypatch.setattr(as_completed, "_GLANCE_MAX", 2)
    dice = random.Random(seed)
    house = House()
    follow(house, mapped(range(200)))
    house.join(slots=7, modules=("m",))
    found, told = TaskEnds("1"), list[TaskResult]()
    runs = house.starts()
    long = {ref.member for ref in dice.sample(runs, 4)}
    ended = 0
    while runs:
        short = [ref for ref in runs if ref.member not in long]
        some = dice.sample(short, dice.randint(1, len(short))) if short else runs
        report(house, some)
        runs = [ref for ref in runs if ref not in some] + house.starts()
        ended += len(some)
        if dice.random() < 0.7:
            told += looked(house, found)
            if left_max > 7:
                assert len(told) == ended, "what runs is never in the way of what has ended"
            assert len(found._left) <= left_max
            assert len(found._told) <= 100
    told += looked(house, found)

    assert sorted(int(result.id.partition(".")[2]) for result in told) == list(range(1, 201))
    assert all(result.get() == int(result.id.partition(".")[2]) - 1 for result in told)
    assert found.is_over()


def test_what_is_tried_again_by_hand_is_not_told_again_and_what_never_ran_is_told(monkeypatch):
    monkeypatch.setattr(query, "page_keys_max", 2)
    house = House()
    follow(house, mapped(range(6)))
    house.join(slots=2, modules=("m",))
    found = TaskEnds("1")
    first, second = house.starts()
    house.report(second, code=0)
    (third,) = house.starts()
    assert [result.id for result in looked(house, found)] == ["1.2"]
    assert act(house, v.Retry, "1.2", force=True) == 1
    assert looked(house, found) == []
    act(house, v.Cancel, "1")
    house.report(first, third, code=-15, cause=Cause.CANCELLED)
    told = looked(house, found)
    assert sorted(result.id for result in told) == ["1.1", "1.3", "1.4", "1.5", "1.6"]
    assert {result.state for result in told} == {"cancelled"}
    assert found.is_over()


def test_one_task_and_a_job_of_one_are_told_too():
    house = House()
    house.join(slots=1, modules=("m",))
    follow(house, mapped([1, 2]))
    member = TaskEnds("1.2")
    (first,) = house.starts()
    assert looked(house, member) == []
    report(house, [first])
    (second,) = house.starts()
    assert looked(house, member) == []
    report(house, [second])
    assert [(result.id, result.value) for result in looked(house, member)] == [("1.2", 1)]
    assert member.is_over()


# ---------------------------------------------------------------- both clients


def waited(*ended: str, of: tuple[str, ...] = ("41", "42", "43")) -> v.Waited:
    return v.Waited(set(of) <= set(ended), tuple(v.Outcome(job, "", ended=int(job in ended)) for job in of))


def result(task: str, state: str = "succeeded") -> v.Result:
    return v.Result(task, state, 1, 0, "exit", plain.dumps(task, 1_000, "") if state == "succeeded" else b"")


async def ids(ended: Any) -> list[str]:
    return [one.id async for one in ended]


async def test_tasks_are_told_once_over_a_cut_in_the_middle(connect, server):
    def waits() -> int:
        return sum(asked == v.Wait(("42",)) for asked in server.asked)

    def state(task: str) -> str:
        return "succeeded" if task == "42.2" or waits() > 1 else "running"

    def results(asked: v.GetResults) -> v.Answer:
        return v.Results(tuple(result(task, state(task)) for task in ("42.1", "42.2") if asked.id in {"42", task}))

    def wait(asked: v.Wait) -> list[Any]:
        if asked.ids == ("42",):
            return [v.Waited(False, ()), ...] if waits() == 1 else [v.Waited(False, ()), v.Waited(True, ())]
        return [v.Waited(True, tuple(v.Outcome(task, "", ended=int(state(task) != "running")) for task in asked.ids))]

    server.says[v.Wait] = wait
    server.says[v.GetResults] = results
    async with connect() as client:
        assert sorted(await ids(client.job("42").as_completed())) == ["42.1", "42.2"]
    assert waits() == 2


async def test_what_runs_for_long_is_looked_at_where_all_turns_to_wait_are_taken(connect, server, monkeypatch):
    """Who watches holds one of them, and must not need another."""
    monkeypatch.setattr(limits, "waits_max", 2)
    monkeypatch.setattr(as_completed, "_READ_MAX", 1)
    looks = 0

    def results(asked: v.GetResults) -> v.Answer:
        if asked.id == "42.1" or asked.page:
            return v.Results((result("42.2" if asked.page else asked.id),))
        return v.Results((result("42.1", "running"),), "1")

    def wait(asked: v.Wait) -> list[Any]:
        nonlocal looks
        if asked.ids == ("42",):
            return [v.Waited(False, ())] * 3
        looks += 1
        return [v.Waited(False, (v.Outcome("42.1", "", ended=int(looks > 1)),)), None]

    server.says[v.GetResults], server.says[v.Wait] = results, wait
    async with connect() as client:
        with trio.fail_after(20):
            assert await ids(client.job("42").as_completed()) == ["42.2", "42.1"]
    assert looks == 2


async def test_jobs_are_told_as_they_end_and_those_that_are_left_are_asked_for(connect, server):
    says = iter([[waited(), waited("42"), ...], [waited("41", of=("41", "43")), waited("41", "43", of=("41", "43"))]])
    server.says[v.Wait] = lambda _: next(says)
    async with connect() as client:
        assert await ids(client.as_completed([client.job(job) for job in ("41", "42", "43", "42")])) == [
            "42",
            "41",
            "43",
        ]
        assert await ids(client.as_completed([])) == []
    assert [asked.ids for asked in server.asked] == [("41", "42", "43"), ("41", "43")]


async def test_who_waits_for_any_of_some_gets_the_first_and_is_not_told_of_the_rest(connect, server):
    server.says[v.Wait] = lambda _: [waited(), waited("43"), waited("43", "41")]
    server.says[v.Get] = lambda asked: v.Document({"id": asked.id, "state": "running"})
    async with connect() as client:
        jobs = [client.job(job) for job in ("41", "42", "43")]
        assert (await client.wait_any(jobs)).id == "43"
        assert await jobs[0].state() == "running"
        with pytest.raises(BadRequest, match="no jobs to wait for"):
            await client.wait_any([])


@pytest.mark.parametrize("timeout_s", [0, 0.05])
async def test_what_has_ended_comes_before_it_is_said_that_the_rest_has_not(connect, server, timeout_s):
    server.says[v.Wait] = lambda _: [waited("42"), None]
    async with connect() as client:
        ended = client.as_completed([client.job(job) for job in ("41", "42", "43")], timeout_s)
        assert (await anext(ended)).id == "42"
        with pytest.raises(TimedOut, match=r"none of 41, 43 has ended within 0.* s"):
            await anext(ended)
        server.says[v.Wait] = lambda _: [v.Waited(False, (v.Outcome("42", "queued", reason="held"),)), None]
        server.says[v.GetResults] = lambda asked: v.Results((result(asked.id, "running"),))
        with pytest.raises(TimedOut, match=r"42 has not ended within 0.* s: held"):
            await ids(client.job("42").as_completed(timeout_s))


async def test_what_is_no_list_of_jobs_is_refused_before_anything_is_sent(server, environ):
    with tq.client.connect_blocking(environ=environ) as blocking:
        async with tq.client.connect(environ=environ) as client:
            for one in (client, blocking):
                for wrong in (["42"], "42", one.job("42"), None, [blocking.job("1"), client.job("1")]):
                    with pytest.raises(BadRequest, match="jobs, in a list"):
                        one.as_completed(wrong)
                with pytest.raises(TooLarge, match="10001 jobs cannot be waited for at once"):
                    one.as_completed(one.job(str(number)) for number in range(1, 10_002))
                with pytest.raises(BadRequest, match="timeout_s cannot be"):
                    one.job("42").as_completed("5")
    assert server.asked == []


async def test_what_the_server_refuses_comes_out(connect, server):
    def refuse(_: object) -> v.Answer:
        raise TooLarge("wait takes 1 to 10000 ids (wait_ids_max)")

    server.says[v.Wait] = refuse
    async with connect() as client:
        with pytest.raises(TooLarge):
            await ids(client.as_completed([client.job("42")]))
        with pytest.raises(TooLarge):
            await ids(client.job("42").as_completed())


async def test_who_leaves_early_is_told_no_more_and_asks_on(server, environ):
    server.says[v.Wait] = lambda asked: [waited("41", of=asked.ids)] * 3
    async with tq.client.connect(environ=environ) as client:
        async with aclosing(client.as_completed([client.job("41"), client.job("42")])) as ended:
            async for job in ended:
                assert job.id == "41"
                break
        assert not client._asker._line._questions
        assert (await client.job("44").show())["id"] == "44"
    with tq.client.connect_blocking(environ=environ) as direct:
        for one in direct.as_completed([direct.job("41"), direct.job("42")]):
            assert one.id == "41"
            break
        assert direct.job("44").show()["id"] == "44"


async def test_who_takes_slowly_keeps_little_of_what_comes(server, environ, monkeypatch):
    """News of a job that changes all the time are not piled up: where there were many, it is asked how things stand."""
    monkeypatch.setattr("tq.client.drivers.connection._AHEAD_BYTES_MAX", 10_000)
    server.says[v.Wait] = lambda asked: [waited(of=asked.ids)] * 50 + [waited(*asked.ids, of=asked.ids)]
    looks = 0

    def results(asked: v.GetResults) -> v.Answer:
        nonlocal looks
        looks += 1
        return v.Results((result(asked.id, "running" if looks < 10 else "succeeded"),))

    server.says[v.GetResults] = results
    async with tq.client.connect(environ=environ) as client:
        assert await ids(client.job("42").as_completed()) == ["42"]
    assert sum(isinstance(asked, v.Wait) and asked.ids == ("42",) for asked in server.asked) > 1


# ---------------------------------------------------------------- another store


async def test_a_job_of_the_earlier_store_is_never_asked_of_another(connect, server):
    """Its id is another job's there: not the first question alone raises, but every one."""
    server.says[v.Submit] = lambda _: v.Submitted("42")
    server.says[v.Status] = lambda _: v.Document({})
    async with connect() as client:
        job = await client.submit("m:f")
        found = client.job("42.1")
        server.lineage, server.cuts = 8, 1
        await client.status()
        server.asked.clear()
        for old in (job, found):
            lists = (partial(ids, ask()) for ask in (old.as_completed, old.logs))
            for ask in (
                old.state,
                old.wait,
                old.result,
                old.cancel,
                *lists,
                partial(client.wait_any, [old]),
                old.state,
            ):
                with pytest.raises(TaskNotFound, match="another store"):
                    await ask()
        assert server.asked == []
        with pytest.raises(TaskNotFound, match="several stores"):
            await client.wait_any([job, client.job("42")])
        server.says[v.Get] = lambda asked: v.Document({"id": asked.id, "state": "running"})
        assert await client.job("42").state() == "running"
        assert await (await client.submit("m:f")).state() == "running"


def test_a_job_of_the_new_store_is_asked_over_a_connection_that_knew_the_earlier_one(server, environ):
    """Several threads have each left a connection to the earlier store: none of them is taken for that of the job."""
    server.says[v.Status] = lambda _: v.Document({})
    server.says[v.Get] = lambda asked: v.Document({"id": asked.id, "state": "running"})
    with tq.client.connect_blocking(environ=environ) as client:
        with client._pool.lent() as one, client._pool.lent() as other:
            one.connect()
            other.connect()
        server.lineage, server.cuts = 8, 1
        client.status()
        job = client.job("42")
        with client._pool.lent():
            assert job.state() == "running"
            assert len(server.hellos) == 4
