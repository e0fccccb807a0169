"""A page of every list fits a frame, whatever those have said of themselves who are in it, and all pages show all."""

from typing import Any

import pytest
import trio

from tests.server.hall import Hall, assigned, open_hall
from tests.server.rig import submit
from tq import limits
from tq.core.model.job import Demand
from tq.core.vocabulary import Capacity, DeadLetters, End, List
from tq.wire import messages as m
from tq.wire import plain
from tq.wire.body import Body, Usage
from tq.wire.codec import dumps

NAME = "n" * limits.name_chars_max
HOST = "h" * limits.offer_word_bytes_max
TAGS = tuple(f"t{number:02}{'x' * (limits.name_chars_max - 3)}" for number in range(limits.tags_max))
MODULE = "m" * 100
FUNCTION = f"{MODULE}:" + "\N{MATHEMATICAL SCRIPT CAPITAL A}" * (limits.function_chars_max - 101)
USAGE = dumps(Usage(error="e" * 380))


async def listed(hall: Hall, command: type, **fields: Any) -> list[str]:
    """Return the ids on all pages of a list."""
    reader = await hall.client("read")
    found: list[str] = []
    page = ""
    while True:
        answer = await reader.ask(command(limit=limits.page_items_max, page=page, **fields))
        found += [item["id"] for item in answer.items]
        page = answer.next
        if not page:
            return found


async def fail_all(hall: Hall, attempts: int, **offer: Any) -> None:
    """Let a worker with the longest of names fail so many attempts."""
    worker = await hall.bare_worker()
    worker.send(m.Reconcile(Capacity(slots=500, host=HOST, **offer), ()))
    while attempts > 0:
        assign = await worker.receive(m.Assign)
        attempts -= len(assign.attempts)
        worker.send(m.Assigned(assign.delivery))
        worker.send(m.Ended(assign.delivery, tuple(End(ref, 1, 1, 5, USAGE) for ref in assigned(assign))))
    await trio.testing.wait_all_tasks_blocked()


def long_call() -> Any:
    body = dumps(Body((), b"", function=FUNCTION, arguments=plain.dumps([[], {}], 100, "")))
    return submit("", body=body, name=NAME, queue=NAME, demand=Demand(module=MODULE), tags=TAGS, retries=0)


@pytest.mark.parametrize("kind", ["command", "function"])
async def test_jobs_with_the_longest_names_and_tags_are_all_listed(kind: str) -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        body = dumps(Body((b"\xff",) * 300, b"/"))
        command = submit("", body=body, name=NAME, queue=NAME, tags=TAGS)
        for _ in range(120):
            await client.ask(long_call() if kind == "function" else command)

        assert await listed(hall, List) == [str(number) for number in range(120, 0, -1)]
        assert len(await listed(hall, List, name=NAME)) == 120


async def test_tasks_with_the_longest_history_are_all_listed(autojump_clock: Any) -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        members, attempts = 260, limits.history_max + 1
        await client.ask(submit(size=members, is_array=True, retries=limits.history_max, backoff_ms=(0, 0)))
        await fail_all(hall, members * attempts)

        assert await listed(hall, List, job="1") == [f"1.{member}" for member in range(1, members + 1)]


async def test_dead_letters_with_the_longest_names_are_all_listed() -> None:
    async with open_hall() as hall:
        client = await hall.client("submit")
        for _ in range(240):
            await client.ask(long_call())
        await fail_all(hall, 240, modules=(MODULE,))

        assert await listed(hall, DeadLetters) == [str(number) for number in range(1, 241)]
