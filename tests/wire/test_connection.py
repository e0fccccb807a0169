import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.any_message import messages
from tq import limits
from tq.core import vocabulary as v
from tq.errors import ProtocolError, TooLarge
from tq.wire.codec import decode, encode
from tq.wire.connection import Connection, divided, frames
from tq.wire.messages import Beat, Ended, Goodbye, HandedBack, Message, Output, Reconcile, StopAttempts

REF = v.AttemptRef(42, 0, 6, 1, 7_000)
SOME: list[Message] = [Beat(1, 2), Output(REF, 1, 0, b"line\n" * 40), Goodbye("done"), Beat()]


def lengths(stream: bytes) -> list[int]:
    """Take a stream of frames apart by their lengths."""
    found = []
    while stream:
        found.append(int.from_bytes(stream[:4], "big"))
        stream = stream[4 + found[-1] :]
    return found


def open_connection() -> Connection:
    return Connection(limits.frame_bytes_max)


def test_a_frame_is_its_length_and_its_body() -> None:
    body = encode(SOME)

    assert Connection().send(SOME) == len(body).to_bytes(4, "big") + body


def test_whatever_the_network_cuts_comes_together_again() -> None:
    stream = Connection().send(SOME[:2]) + Connection().send(SOME[2:])

    for cut in range(len(stream) + 1):
        end = open_connection()
        assert end.receive_data(stream[:cut]) + end.receive_data(stream[cut:]) == SOME
        assert end.is_between_frames


def test_one_byte_at_a_time_is_enough() -> None:
    end = open_connection()

    assert [message for byte in Connection().send(SOME) for message in end.receive_data(bytes([byte]))] == SOME


@given(st.lists(st.lists(messages, min_size=1, max_size=3), max_size=4), st.lists(st.integers(1, 60), min_size=1))
def test_any_messages_in_any_pieces_arrive_in_order(batches: list[list[Message]], pieces: list[int]) -> None:
    stream = b"".join(map(Connection().send, batches))
    end, arrived, at = open_connection(), [], 0
    while at < len(stream):
        for size in pieces:
            arrived += end.receive_data(stream[at : at + size])
            at += size

    assert arrived == [message for batch in batches for message in batch]


@pytest.mark.parametrize("bound", [limits.frame_hello_bytes_max, limits.frame_bytes_max])
def test_a_length_past_the_bound_is_refused_before_the_body_comes(bound: int) -> None:
    with pytest.raises(ProtocolError, match=str(bound)):
        Connection(bound).receive_data((bound + 1).to_bytes(4, "big"))

    assert Connection(bound).receive_data(bound.to_bytes(4, "big")) == []


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00", b"\xff" * 4, b"SSH-2.0-x\r\n"])
def test_other_protocols_are_refused_by_their_first_bytes(start: bytes) -> None:
    with pytest.raises(ProtocolError, match="exceeds"):
        Connection(limits.frame_bytes_max).receive_data(start)


def test_the_bound_rises_when_the_peer_is_authenticated() -> None:
    large = Connection().send([Output(REF, 1, 0, b"x" * limits.frame_hello_bytes_max)])
    end = Connection()
    with pytest.raises(ProtocolError):
        Connection().receive_data(large)

    end.frame_bytes_max = limits.frame_bytes_max

    assert len(end.receive_data(large)) == 1


@pytest.mark.parametrize("body", [b"", b"\x80", b"\x81\x81\x63Foo", b"\x81\x81\x64Beat\x00"])
def test_a_frame_that_is_no_frame_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Connection().receive_data(len(body).to_bytes(4, "big") + body)


def test_nothing_is_believed_after_a_protocol_error() -> None:
    end = Connection()
    with pytest.raises(ProtocolError):
        end.receive_data(b"\x00\x00\x00\x01\xff")

    with pytest.raises(ProtocolError):
        end.receive_data(Connection().send([Beat()]))


def test_a_peer_that_closes_inside_a_frame_is_noticed() -> None:
    end, frame = Connection(), Connection().send([Beat()])

    end.receive_data(frame[:3])
    assert not end.is_between_frames
    end.receive_data(frame[3:])
    assert end.is_between_frames


def test_no_bytes_are_kept_that_were_read() -> None:
    end, frame = Connection(), Connection().send([Beat()])
    for _ in range(1_000):
        end.receive_data(frame + frame[:2])
        end.receive_data(frame[2:])

    assert len(end._unread) == 0


@given(st.lists(st.integers(0, 2_000), min_size=1, max_size=40), st.integers(2_100, 9_000))
def test_what_exceeds_one_frame_goes_in_several(sizes: list[int], bound: int) -> None:
    sent: list[Message] = [Output(REF, 1, at, bytes(size)) for at, size in enumerate(sizes)]

    stream = Connection(send_bytes_max=bound).send(sent)

    assert max(lengths(stream)) <= bound
    assert Connection(bound).receive_data(stream) == sent


def test_a_frame_is_as_full_as_it_can_be() -> None:
    stream = Connection(send_bytes_max=1_024).send([Beat(2**62, 2**62)] * 100)  # 24 bytes each

    assert len(lengths(stream)) == 3


def test_no_message_makes_no_frame() -> None:
    assert Connection().send([]) == b""
    assert frames([]) == []


def test_a_message_that_no_frame_can_carry_is_refused_where_it_is_sent() -> None:
    fits = limits.frame_bytes_max - 64
    assert lengths(Connection().send([Output(REF, 1, 0, bytes(fits))]))[0] <= limits.frame_bytes_max

    with pytest.raises(TooLarge, match="frame_bytes_max"):
        Connection().send([Output(REF, 1, 0, bytes(limits.frame_bytes_max))])


def test_a_long_list_of_what_is_held_is_divided_and_says_so() -> None:
    held = tuple(v.Held(v.AttemptRef(2**62, 0, at, 2**62, 2**62), 1) for at in range(10_000))
    whole = Reconcile(v.Capacity(8), held, draining=True)

    parts = divided(whole)

    assert [part.more for part in parts] == [True] * 9 + [False]
    assert tuple(one for part in parts for one in part.held) == held
    assert all(part.capacity == whole.capacity and part.draining for part in parts)
    assert all(len(encode([part])) <= limits.frame_bytes_max for part in parts)


def test_a_list_of_orders_is_divided() -> None:
    parts = divided(StopAttempts((REF,) * 2_500, 3), 1_000)

    assert [(len(part.attempts), part.cause) for part in parts] == [(1_000, 3), (1_000, 3), (500, 3)]


@pytest.mark.parametrize("whole", [Ended(1, (v.End(REF, 0, 0, 1),) * 3), HandedBack(1, (REF,) * 3), Beat()])
def test_what_is_acknowledged_as_a_whole_is_never_divided(whole: Message) -> None:
    assert divided(whole, 1) == [whole]


def test_a_divided_message_is_read_as_it_was_sent() -> None:
    parts = divided(StopAttempts((REF,) * 5, 3), 2)

    assert decode(encode(parts)) == parts
