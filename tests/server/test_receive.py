"""Frames in parts: nobody has to wait for ten thousand messages of somebody else."""

import weakref
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import trio

from tq.errors import ProtocolError
from tq.server.sessions.receive import part_messages_max, receive_all
from tq.wire import messages as m

FRAME = [m.Beat(number=number) for number in range(10 * part_messages_max + 1)]


async def received(link: Any, *, wants: int = len(FRAME), rest: Sequence[m.Message] = FRAME) -> list[int]:
    """Receive a frame; return how many messages had been taken each time when somebody else had a turn."""
    taken: list[m.Message] = []
    seen: list[int] = []

    async def receive(messages: Sequence[m.Message]) -> bool:
        taken.extend(messages)
        if len(taken) > 5 * part_messages_max:
            link.is_closed_here = link.closes
        return len(taken) <= wants

    async def look() -> None:
        while True:
            seen.append(len(taken))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        assert await receive_all(link, rest, receive) is None
        nursery.cancel_scope.cancel()
    assert taken == list(rest)[: len(taken)]
    return [*seen, len(taken)]


class Link(SimpleNamespace):
    """A link over which nothing more comes."""

    is_closed_here = False
    closes = False

    def __aiter__(self) -> "Link":
        return self

    async def __anext__(self) -> list[m.Message]:
        raise StopAsyncIteration


async def test_others_have_a_turn_between_the_parts_of_a_frame() -> None:
    seen = await received(Link())

    assert max(later - before for before, later in pairwise(seen)) <= 2 * part_messages_max
    assert seen[-1] == len(FRAME)


async def test_a_link_that_was_closed_here_in_between_brings_nothing_more() -> None:
    assert (await received(Link(closes=True)))[-1] == 6 * part_messages_max


async def test_who_wants_no_more_gets_no_more_of_the_frame() -> None:
    assert (await received(Link(), wants=part_messages_max))[-1] == 2 * part_messages_max


async def test_what_is_wrong_in_a_later_part_is_returned() -> None:
    async def receive(messages: Sequence[m.Message]) -> bool:
        if FRAME[-1] in messages:
            raise ProtocolError("no")
        return True

    assert str(await receive_all(Link(), FRAME, receive)) == "no"  # type: ignore[arg-type]


async def test_a_frame_is_not_kept_while_the_next_one_is_waited_for() -> None:
    class Frame(list[m.Message]):
        pass

    kept: list[weakref.ref[Frame]] = []

    class Link:
        is_closed_here = False

        def __aiter__(self) -> "Link":
            return self

        async def __anext__(self) -> Frame:
            if kept:
                assert kept[0]() is None
                raise StopAsyncIteration
            frame = Frame([m.Beat()])
            kept.append(weakref.ref(frame))
            return frame

    async def receive(_: Sequence[m.Message]) -> bool:
        return True

    assert await receive_all(Link(), [], receive) is None  # type: ignore[arg-type]
    assert len(kept) == 1
