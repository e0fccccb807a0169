"""Damage of the store that shows while it is served: who asks for it pays, the server and all else go on (ADR 24)."""

import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from tests.server.hall import assigned, given_input, open_hall
from tests.server.rig import Loop, submit
from tests.support.damage import Damaged
from tests.support.house import House
from tq import errors, limits
from tq.core.engine.handlers import CHANGES
from tq.core.model import tables
from tq.core.vocabulary import (
    Acknowledge,
    Cancel,
    Capacity,
    Command,
    Dispatch,
    Done,
    End,
    Get,
    Hold,
    Join,
    List,
    Logs,
    Release,
    Report,
    Tick,
    Times,
)
from tq.errors import StoreDamaged
from tq.server.commit.intake import Look
from tq.server.commit.replay import FailedCommands, files_max
from tq.wire import messages as m
from tq.wire.body import Body
from tq.wire.codec import dumps


def failing(error: errors.StoreError) -> Any:
    def fail(*_: Any) -> Any:
        raise error

    return fail


def test_what_a_client_asks_for_that_is_damaged_costs_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop().start()
    loop.ask("submit", submit())
    fail = failing(errors.StoreDamaged("block checksum mismatch in 000012.sst"))
    monkeypatch.setitem(CHANGES, Cancel, fail)
    loop.ask("look", Look(fail))
    loop.ask("cancel", Cancel(("1",)))
    loop.ask("after", submit("2"))
    loop.settle()

    answers = loop.answers()
    assert [type(answers[name]) for name in ("look", "cancel")] == [errors.StoreDamaged] * 2
    assert "000012.sst" not in str(answers["look"])  # that is for the log
    assert [answers[name].id for name in ("submit", "after")] == ["1", "2"]
    assert (loop.pipeline.counters.damages, loop.pipeline.counters.bugs, len(loop.bugs)) == (2, 0, 2)


def test_what_a_worker_says_that_meets_damage_is_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop().start()
    monkeypatch.setitem(CHANGES, Report, failing(StoreDamaged("a block is damaged")))
    loop.ask("report", Report(5, 1, 1, ()))
    with pytest.raises(StoreDamaged):
        loop.run()
    assert not any(isinstance(left, Acknowledge) for left in loop.left)


def test_a_job_that_cannot_be_read_is_put_off_like_one_that_fails() -> None:
    house = House()
    poison, sound = house.submit(), house.submit()
    get = house.store.get

    def read(table: Any, key: Any) -> Any:
        if (table, key) == (tables.JOB, (poison, 0)):
            raise StoreDamaged("block checksum mismatch")
        return get(table, key)

    house.store.get = read  # type: ignore[method-assign]
    life = Damaged(house.store)
    life.do(Join(5, 1, Capacity(slots=4)))
    assert life.started() == [sound]
    assert [(type(what), type(error)) for what, error in life.bugs] == [(Dispatch, StoreDamaged)]
    house.store.get = get  # type: ignore[method-assign]
    life.now_ms += 1_000
    life.do(Tick())
    assert life.started() == [poison]


@pytest.mark.parametrize("is_whole_index", [False, True])
async def test_a_list_goes_around_what_cannot_be_read_and_names_it(
    monkeypatch: pytest.MonkeyPatch, is_whole_index: bool
) -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        for number in range(1, 151):
            await client.ask(submit(str(number), name="nightly"))
        await client.ask(submit("array", size=5, is_array=True))
        await client.ask(Cancel(("7", "151.3", "151.4")))
        lost = {(tables.JOB, (140, 0)), (tables.PROGRESS, (3, 0)), (tables.TASK, (151, 0, 2))}
        get, scan = hall.store.get, hall.store.scan

        def one(table: Any, key: Any) -> Any:
            if (table, key) in lost:
                raise StoreDamaged("block checksum mismatch")
            return get(table, key)

        def some(table: Any, low: Any, high: Any, limit: int) -> Any:
            rows = scan(table, low, high, limit)
            if any((table, key) in lost for key, _ in rows) or (is_whole_index and table is tables.NAMED):
                raise StoreDamaged("block checksum mismatch")
            return rows

        monkeypatch.setattr(hall.store, "get", one)
        monkeypatch.setattr(hall.store, "scan", some)
        with pytest.raises(StoreDamaged):
            await client.ask(List())
        for command, unread in ((List(), {"140", "3"}), (List(name="nightly", limit=60), {"140", "3"})):
            listed, named = await every_page(client, replace(command, around=True))
            assert set(named) == unread
            assert len(named) == len(unread)
            alive = [*range(150, 140, -1), *range(139, 3, -1), 2, 1]
            assert listed == [*(["151"] if not command.name else []), *map(str, alive)]
        for states, members in (((), ["151.1", "151.2", "151.4", "151.5"]), (("cancelled",), ["151.4"])):
            assert await every_page(client, List("151", states, around=True)) == (members, ["151.3"])
        with pytest.raises(StoreDamaged):
            await client.ask(List("3", around=True))


async def every_page(client: Any, command: List) -> tuple[list[str], list[str]]:
    """Return the ids that are listed, and those that could not be read."""
    items: list[str] = []
    unread: list[str] = []
    page = "begin"
    while page:
        answer = await client.ask(replace(command, page=page.removeprefix("begin")))
        page = answer.next
        items += [item["id"] for item in answer.items]
        unread += answer.unread
    return items, unread


async def test_an_input_that_is_damaged_holds_the_jobs_that_need_it_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_hall() as hall:
        client, worker, assign = await given_input(hall)
        (ref,) = assigned(assign)
        worker.send(m.Assigned(assign.delivery))
        get = hall.store.get

        def damaged(table: Any, key: Any) -> Any:
            if table is tables.BODY:
                raise StoreDamaged("block checksum mismatch")
            return get(table, key)

        monkeypatch.setattr(hall.store, "get", damaged)
        worker.send(m.GetBlob(assign.stdin, 0))
        assert await worker.receive(m.RecallAttempts) == m.RecallAttempts((ref,))
        worker.send(m.GetBlob(assign.stdin, 0))  # as after a reconnect
        worker.send(m.HandedBack(1, (ref,)))
        await worker.receive(m.Acknowledged)
        shown = (await client.ask(Get("1"))).value
        assert shown["state"] == "held"
        assert "its input cannot be read" in shown["reason"]
        assert "tq release 1" in shown["reason"]
        assert hall.failure is None
        assert not any(isinstance(message, m.Blob | m.Refused) for message in worker.seen)

        monkeypatch.setattr(hall.store, "get", get)
        await client.ask(Release(("1",)))
        again = await worker.receive(m.Assign)
        worker.send(m.GetBlob(again.stdin, 0))
        assert await worker.receive(m.Blob) == m.Blob(again.stdin, 0, b"input")
        await client.ask(Hold(("1",)))
        assert "its input" not in (await client.ask(Get("1"))).value["reason"]


@pytest.mark.parametrize("lost", [0, 1])
async def test_no_task_takes_what_is_left_of_its_input_for_all_of_it(
    monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    async with open_hall() as hall:
        client, worker, assign = await given_input(hall, [bytes(limits.piece_bytes_max)] * 3)
        get = hall.store.get

        def salvaged(table: Any, key: Any) -> Any:
            return None if (table, key) == (tables.BODY, (assign.stdin, lost)) else get(table, key)

        monkeypatch.setattr(hall.store, "get", salvaged)
        worker.send(m.GetBlob(assign.stdin, lost))
        assert await worker.receive(m.RecallAttempts) == m.RecallAttempts(tuple(assigned(assign)))
        assert (await client.ask(Get("1"))).value["hold"]
        worker.send(m.GetBlob(assign.stdin, 3))
        assert await worker.receive(m.Blob) == m.Blob(assign.stdin, 3, b""), "that is its end"


async def test_output_that_is_damaged_ends_the_answer_and_not_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_hall() as hall:
        client, worker = await hall.client("submit"), await hall.worker()
        await client.ask(submit())
        assign = await worker.receive(m.Assign)
        (ref,) = assigned(assign)
        worker.send(m.Assigned(assign.delivery))
        worker.send(m.Output(ref, 1, 0, b"out\n"))
        worker.send(m.Ended(1, (End(ref, 1, 0, 100),)))
        await worker.receive(m.Acknowledged)

        def damaged(*_: Any) -> Any:
            raise errors.StoreDamaged("block checksum mismatch")

        monkeypatch.setattr(hall.store, "output", damaged)
        for asked in (Logs("1"), Logs("1", tail_bytes=1)):
            with pytest.raises(errors.StoreDamaged, match="what this is about"):
                await client.ask(asked)
        assert hall.failure is None
        assert (await client.ask(Get("1"))).value["state"] == "succeeded"


SECRET = submit("k", body=dumps(Body((b"x",), b"/", {"PASSWORD": b"hunter2"})))


def test_a_failed_command_can_be_read_back_with_its_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FailedCommands(tmp_path).keep(SECRET, Times(5, 6), ValueError("why"))
    (path,) = (tmp_path / "failed").iterdir()
    steady_ms, wall_ms, command = msgspec.msgpack.decode(path.read_bytes(), type=tuple[int, int, Command])

    assert (steady_ms, wall_ms, command) == (5, 6, SECRET)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    said = capsys.readouterr().err
    assert "internal_error" in said
    assert "ValueError: why" in said
    assert "hunter2" not in said


def test_the_number_of_files_is_bounded(tmp_path: Path) -> None:
    failed = FailedCommands(tmp_path)
    for number in range(files_max + 5):
        failed.keep(submit(str(number)), Times(number, number), ValueError("why"))
    failed.keep(Look(lambda _: Done("")), Times(0, 0), ValueError("why"))

    assert len(list((tmp_path / "failed").iterdir())) == files_max
