"""Answers to a client that has not read those before them: none is lost, and none overtakes another."""

import trio
from trio.testing import lockstep_stream_pair

from tq import limits
from tq.core.vocabulary import Document
from tq.net.link import Link, open_link
from tq.server.sessions.reply_queue import ReplyQueue
from tq.wire import messages as m
from tq.wire.connection import Connection

LARGE = Document({"text": "x" * 200_000})
SMALL = Document({})


async def numbers(link: Link, count: int) -> list[int]:
    """Read so many replies; return their numbers."""
    seen: list[int] = []
    async for messages in link:
        seen += [message.request for message in messages if isinstance(message, m.Reply | m.Failed)]
        if len(seen) >= count:
            break
    return seen


def connection() -> Connection:
    return Connection(limits.frame_bytes_max)


async def test_what_does_not_fit_waits_and_nothing_overtakes_it() -> None:
    ours, theirs = lockstep_stream_pair()
    async with open_link(ours, connection()) as link, open_link(theirs, connection()) as peer:
        replies = ReplyQueue(link)
        for number in range(30):
            replies.put(number, LARGE)
        assert replies.is_full
        assert link.queued_bytes < limits.send_queue_bytes_max
        seen = await numbers(peer, 6)
        await trio.testing.wait_all_tasks_blocked()
        assert link.queued_bytes == 0
        replies.put(30, SMALL)  # there is room for it: but others were before it

        async with trio.open_nursery() as nursery:
            nursery.start_soon(replies.run)
            nursery.start_soon(replies.wait_room)
            seen += await numbers(peer, 31 - len(seen))
            await replies.wait_room()
            nursery.cancel_scope.cancel()
        assert seen == list(range(31))
        assert not replies.is_full


async def test_what_no_frame_could_carry_is_an_error_also_where_it_waited() -> None:
    ours, theirs = lockstep_stream_pair()
    async with open_link(ours, connection()) as link, open_link(theirs, connection()) as peer:
        replies = ReplyQueue(link)
        for number in range(6):
            replies.put(number, LARGE)
        replies.put(6, Document({"text": "x" * limits.frame_bytes_max}))
        replies.put(7, SMALL)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(replies.run)
            assert await numbers(peer, 8) == list(range(8))
            nursery.cancel_scope.cancel()


async def test_a_link_that_ends_lets_everybody_go_on() -> None:
    ours, theirs = lockstep_stream_pair()
    async with open_link(ours, connection()) as link:
        replies = ReplyQueue(link)
        for number in range(30):
            replies.put(number, LARGE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(replies.run)
            await trio.testing.wait_all_tasks_blocked()
            await trio.aclose_forcefully(theirs)
            with trio.fail_after(20):
                await replies.wait_room()
            nursery.cancel_scope.cancel()
        assert not replies.is_full
