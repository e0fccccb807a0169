"""Output that is kept until nothing more is owed for its attempt."""

from tq import limits
from tq.core.vocabulary import AttemptRef
from tq.wire.messages import Output
from tq.worker.output_buffer import OutputBuffer

SLOT = limits.output_slot_bytes
HEAD = limits.output_head_slots
RING = limits.output_ring_slots


def ref(job: int) -> AttemptRef:
    return AttemptRef(job, 0, 0, 1, 5)


def output(job: int, slot: int, data: bytes, stream: int = 1) -> Output:
    return Output(ref(job), stream, slot * SLOT, data)


def taken(kept: OutputBuffer) -> list[Output]:
    found = []
    while one := kept.take():
        found.append(one)
    return found


def test_each_slot_goes_out_once_with_its_latest_contents() -> None:
    kept = OutputBuffer()
    kept.put(output(1, 0, b"a"))
    kept.put(output(1, 0, b"ab"))
    kept.put(output(1, 1, b"c"))
    assert taken(kept) == [output(1, 0, b"ab"), output(1, 1, b"c")]
    assert taken(kept) == []
    kept.put(output(1, 1, b"cd"))
    assert taken(kept) == [output(1, 1, b"cd")]


def test_all_of_it_goes_out_again_on_a_new_connection() -> None:
    kept = OutputBuffer()
    kept.put(output(1, 0, b"a"))
    kept.put(output(2, 0, b"b", stream=2))
    first = taken(kept)
    kept.new_connection()
    assert taken(kept) == first


def test_what_is_settled_goes_out_no_more() -> None:
    kept = OutputBuffer()
    kept.put(output(1, 0, b"aa"))
    kept.put(output(2, 0, b"b"))
    kept.forget([ref(1), ref(9)])
    assert not kept.has_any_of([ref(1), ref(9)])
    assert kept.has_any_of([ref(1), ref(2)])
    assert taken(kept) == [output(2, 0, b"b")]
    kept.forget([ref(2)])
    assert kept.held_bytes == 0


def test_slots_behind_the_head_share_the_places_of_a_ring() -> None:
    kept = OutputBuffer()
    for slot in (0, HEAD, HEAD + 1, HEAD + RING):
        kept.put(output(1, slot, b"x" * slot))
    offsets = [one.offset // SLOT for one in taken(kept)]
    assert offsets == [0, HEAD + 1, HEAD + RING]
    assert kept.held_bytes == 0 + (HEAD + 1) + (HEAD + RING)


def test_over_the_bound_the_oldest_places_behind_the_heads_go() -> None:
    kept = OutputBuffer(bytes_max=10)
    kept.put(output(1, 0, b"hhhh"))
    kept.put(output(1, HEAD, b"aaa"))
    kept.put(output(2, HEAD, b"bbb"))
    kept.put(output(2, HEAD + 1, b"ccc"))
    assert [one.data for one in taken(kept)] == [b"hhhh", b"bbb", b"ccc"]
    assert (kept.held_bytes, kept.dropped_bytes) == (10, 3)


def test_the_bound_holds_for_heads_too() -> None:
    kept = OutputBuffer(bytes_max=3)
    for job in range(1, 5):
        kept.put(output(job, 0, b"xx"))
    assert kept.held_bytes <= 3


def test_an_attempt_whose_output_was_dropped_still_counts_as_one_with_output() -> None:
    kept = OutputBuffer(bytes_max=1)
    kept.put(output(1, HEAD, b"xx"))
    assert taken(kept) == []
    assert kept.has_any_of([ref(1)])
    assert kept.of([ref(1)]) == ()
