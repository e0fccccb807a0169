from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from tq import limits
from tq.core import vocabulary as v
from tq.errors import ProtocolError, TooLarge
from tq.net.link import Link, open_link
from tq.wire.connection import Connection
from tq.wire.messages import Beat, Goodbye, Message, Output, Refused

REF = v.AttemptRef(42, 0, 6, 1, 7_000)
SLOT = limits.output_slot_bytes


def connection() -> Connection:
    return Connection(limits.frame_bytes_max)


def lines(count: int) -> list[Message]:
    return [Output(REF, 1, at * SLOT, bytes(SLOT)) for at in range(count)]


async def frames_of(stream: trio.abc.ReceiveStream) -> list[list[Message]]:
    """Read until the end and return the messages of each frame."""
    data = b"".join([bytes(piece) async for piece in stream])
    found = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        found.append(connection().receive_data(data[:end]))
        data = data[end:]
    return found


async def all_of(link: Link) -> list[Message]:
    return [message async for messages in link for message in messages]


async def test_messages_go_both_ways(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    async with open_link(left, connection()) as here, open_link(right, connection()) as there:
        here.send_nowait(Beat(1))
        assert await anext(there) == [Beat(1)]
        there.send_nowait(Beat(2))
        assert await anext(here) == [Beat(2)]


async def test_what_is_ready_goes_in_one_frame() -> None:
    left, right = memory_stream_pair()
    async with open_link(left, connection()) as link:
        for count in range(100):
            link.send_nowait(Beat(count))
        link.close()
        assert await frames_of(right) == [[Beat(count) for count in range(100)]]
        await right.aclose()


async def test_control_never_waits_behind_output() -> None:
    left, right = lockstep_stream_pair()
    async with open_link(left, connection()) as link:
        for message in lines(12):
            link.send_nowait(message, output=True)
        await wait_all_tasks_blocked()  # the first frame of output is on its way
        link.send_nowait(Beat())
        link.close()
        frames = await frames_of(right)
        await right.aclose()

    assert [type(frame[0]) for frame in frames[:3]] == [Output, Beat, Output]


async def test_output_keeps_its_order_and_what_follows_it_in_its_class_does_not_overtake() -> None:
    left, right = memory_stream_pair()
    async with open_link(left, connection()) as link:
        for message in [*lines(9), Goodbye("after the output")]:
            link.send_nowait(message, output=True)
        link.close()
        frames = await frames_of(right)
        await right.aclose()

    assert [message for frame in frames for message in frame] == [*lines(9), Goodbye("after the output")]


async def test_a_frame_of_output_is_short() -> None:
    left, right = memory_stream_pair()
    async with open_link(left, connection()) as link:
        for message in lines(20):
            link.send_nowait(message, output=True)
        link.close()
        sizes = [sum(len(one.data) for one in frame if isinstance(one, Output)) for frame in await frames_of(right)]
        await right.aclose()

    assert max(sizes) <= limits.output_frame_bytes_max
    assert len(sizes) == 7


async def test_a_peer_that_reads_nothing_ends_the_link_when_too_much_waits_for_it() -> None:
    left, _right = lockstep_stream_pair()
    async with open_link(left, connection(), queue_bytes_max=1_000) as link:
        sent = [link.send_nowait(Beat(2**60, 2**60)) for _ in range(100)]

        assert await all_of(link) == []
        assert "does not read" in link.ended_because
        assert sent == sorted(sent, reverse=True)
        assert 20 < sum(sent) < 50
        assert link.queued_bytes == 0


async def test_a_peer_that_stops_reading_ends_the_link_after_a_while(autojump_clock: MockClock) -> None:
    left, _right = lockstep_stream_pair()
    async with open_link(left, connection()) as link:
        link.send_nowait(Beat())

        assert await all_of(link) == []
        assert "does not read" in link.ended_because
        assert not link.send_nowait(Beat())
        assert not await link.send(Beat())


async def test_send_waits_while_much_output_waits() -> None:
    left, right = lockstep_stream_pair()
    sent = []

    async def follow(link: Link) -> None:
        for message in lines(100):
            await link.send(message)
            sent.append(message)

    async with open_link(left, connection()) as link, trio.open_nursery() as nursery:
        nursery.start_soon(follow, link)
        await wait_all_tasks_blocked()
        assert len(sent) < 25
        assert not link.has_room

        received: list[Message] = []
        end = connection()
        while len(received) < 100:
            received += end.receive_data(await right.receive_some())
        assert received == sent == lines(100)
        await right.aclose()


async def test_whoever_answers_may_wait_until_the_answers_were_read() -> None:
    left, right = lockstep_stream_pair()
    events = []

    async def wait_until_read(link: Link) -> None:
        await link.wait_read(1_000)
        events.append(link.queued_bytes)

    async with open_link(left, connection()) as link, trio.open_nursery() as nursery:
        for message in lines(40):
            link.send_nowait(message)
        nursery.start_soon(wait_until_read, link)
        await wait_all_tasks_blocked()
        assert events == []
        received: list[Message] = []
        end = connection()
        while len(received) < 40:
            received += end.receive_data(await right.receive_some())
        await right.aclose()

    assert events == [0]
    assert received == lines(40)


async def test_waiting_for_room_ends_with_the_link(autojump_clock: MockClock) -> None:
    left, _right = lockstep_stream_pair()
    async with open_link(left, connection()) as link, trio.open_nursery() as nursery:
        for message in lines(30):
            link.send_nowait(message, output=True)
        nursery.start_soon(link.send, lines(1)[0])
        await wait_all_tasks_blocked()
        link.close()
        closed_at = trio.current_time()

    assert trio.current_time() <= closed_at + 2  # not as long as a write may take


@pytest.mark.parametrize("cut,why", [(0, "closed"), (3, "in the middle of a frame"), (7, "in the middle of a frame")])
async def test_a_peer_that_closes_ends_the_iteration(cut: int, why: str) -> None:
    left, right = memory_stream_pair()
    async with open_link(left, connection()) as link:
        await right.send_all(Connection().send([Beat()]) + Connection().send([Beat()])[:cut])
        await right.aclose()

        assert await all_of(link) == [Beat()]
        assert why in link.ended_because


async def test_a_write_that_breaks_ends_the_iteration() -> None:
    left, right = memory_stream_pair()

    async def broken() -> None:
        raise trio.BrokenResourceError

    left.send_stream.send_all_hook = broken
    async with open_link(left, connection()) as link:
        link.send_nowait(Beat())

        assert await all_of(link) == []
        assert "broke" in link.ended_because
        assert right is not None


async def test_a_protocol_error_comes_out_as_itself_and_the_refusal_still_leaves() -> None:
    left, right = memory_stream_pair()
    await right.send_all(Connection().send([Beat()]) + b"\xff\xff\xff\xff")
    with pytest.raises(ProtocolError):  # noqa: PT012 - the block is what it comes out of
        async with open_link(left, connection()) as link:
            link.send_nowait(Refused("protocol_error", "what is this"))
            await right.send_eof()
            await all_of(link)

    assert await frames_of(right) == [[Refused("protocol_error", "what is this")]]


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    left, right = memory_stream_pair()
    await right.send_eof()
    with pytest.raises(KeyError):
        async with open_link(left, connection()):
            raise KeyError


async def test_closing_sends_what_is_queued_and_then_the_goodbye() -> None:
    left, right = memory_stream_pair()
    await right.send_eof()
    async with open_link(left, connection(), goodbye=Goodbye("done")) as link:
        link.send_nowait(Beat())

    assert await frames_of(right) == [[Beat(), Goodbye("done")]]
    assert link.ended_because == "closed here"


async def test_the_peer_learns_of_the_end_at_once(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    async with open_link(left, connection()) as link:
        link.send_nowait(Beat())
        link.close()
        closed_at = trio.current_time()
        assert await frames_of(right) == [[Beat()]]
        assert trio.current_time() == closed_at
        await right.aclose()


async def test_nothing_is_read_after_closing() -> None:
    left, right = memory_stream_pair()
    await right.send_all(Connection().send([Beat()]))
    await right.send_eof()
    async with open_link(left, connection()) as link:
        link.close()

        assert await all_of(link) == []


async def test_what_comes_to_a_reader_that_waits_is_not_read_after_closing() -> None:
    left, right = memory_stream_pair()
    found: list[Message] = []

    async def read(link: Link) -> None:
        found.extend(await all_of(link))

    async with open_link(left, connection()) as link, trio.open_nursery() as nursery:
        nursery.start_soon(read, link)
        await wait_all_tasks_blocked()
        link.close()
        await right.send_all(Connection().send([Beat()]))
        await right.send_eof()

    assert found == []


async def test_closing_does_not_wait_for_ever_for_a_peer_that_does_not_close(autojump_clock: MockClock) -> None:
    left, _right = lockstep_stream_pair()
    async with open_link(left, connection()) as link:
        link.send_nowait(Beat())

    with pytest.raises(trio.ClosedResourceError):
        await left.send_all(b"x")


async def test_closing_takes_a_second_also_for_a_peer_that_reads_little_by_little(autojump_clock: MockClock) -> None:
    left, right = lockstep_stream_pair()

    async def read_slowly() -> None:
        with suppress(trio.BrokenResourceError):
            async for _ in right:
                await trio.sleep(0.4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly)
        async with open_link(left, connection()) as link:
            for message in lines(200):
                link.send_nowait(message, output=True)
            await wait_all_tasks_blocked()
            closed_at = trio.current_time()
        assert trio.current_time() - closed_at <= 1.0


async def test_a_cancelled_link_closes_its_stream() -> None:
    left, right = memory_stream_pair()
    with trio.CancelScope() as scope:
        async with open_link(left, connection()) as link:
            link.send_nowait(Beat())
            scope.cancel()
            await trio.sleep_forever()

    with pytest.raises(trio.ClosedResourceError):
        await left.receive_some()
    assert right is not None


async def test_what_no_frame_can_carry_is_refused_at_the_call() -> None:
    left, right = memory_stream_pair()
    async with open_link(left, connection()) as link:
        with pytest.raises(TooLarge):
            link.send_nowait(Output(REF, 1, 0, bytes(limits.frame_bytes_max)))
        link.send_nowait(Beat())
        link.close()
        assert await frames_of(right) == [[Beat()]]
        await right.aclose()


async def test_messages_arrive_whole_however_the_stream_is_cut() -> None:
    sent = [Beat(at) for at in range(50)]
    left, right = lockstep_stream_pair()

    async def send_in_pieces() -> None:
        stream = Connection().send(sent[:20]) + Connection().send(sent[20:])
        for size in range(1, 40):
            await left.send_all(stream[:size])
            stream = stream[size:]
        assert not stream
        await left.aclose()

    async with trio.open_nursery() as nursery, open_link(right, connection()) as link:
        nursery.start_soon(send_in_pieces)
        arrived = await all_of(link)

    assert arrived == sent
