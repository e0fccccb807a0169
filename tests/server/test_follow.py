"""What a reader of logs is sent, and from which byte on."""

import pytest
from msgspec.structs import replace

from tests.support.house import House
from tests.support.store import commit
from tq.core.model import tables
from tq.core.model.task import State
from tq.core.vocabulary import AttemptRef, Chunk, LogsEnd, WorkerLost
from tq.errors import BadRequest, TaskNotFound
from tq.server.sessions.follow import Follow, Reader, find, look, pending_slots_max
from tq.store.seam import OutputSlot

SLOT = 16 * 1024


def reader(position: tuple[int, int] = (0, 0)) -> Reader:
    return Reader(1, position, lambda: None)


def test_stored_slots_become_chunks() -> None:
    chunks = reader().take([OutputSlot(1, 0, b"abc"), OutputSlot(2, 0, b"err")])

    assert chunks == [Chunk(1, 0, b"abc", 1), Chunk(2, 0, b"err", 1)]


def test_a_repeat_is_not_sent_again_and_growth_is() -> None:
    one = reader()
    one.take([OutputSlot(1, 0, b"abc")])

    assert one.take([OutputSlot(1, 0, b"abc")]) == []
    assert one.take([OutputSlot(1, 0, b"abcdef")]) == [Chunk(1, 3, b"def", 1)]


def test_a_dropped_middle_is_a_jump_of_the_offset() -> None:
    one = reader()
    one.take([OutputSlot(1, 0, b"a" * SLOT)])

    (chunk,) = one.take([OutputSlot(1, 9 * SLOT, b"end")])
    assert chunk.offset == 9 * SLOT


def test_a_reader_that_comes_back_goes_on_where_it_was() -> None:
    one = reader((2, 1))

    assert one.take([OutputSlot(1, 0, b"abc"), OutputSlot(2, 0, b"x")]) == [Chunk(1, 2, b"c", 1)]


def test_a_tail_is_the_last_bytes_of_each_stream() -> None:
    one = reader()
    slots = [OutputSlot(1, 0, b"0123456789"), OutputSlot(2, 0, b"ab")]
    one.skip_to_tail(slots, 3)

    assert one.take(slots) == [Chunk(1, 7, b"789", 1), Chunk(2, 0, b"ab", 1)]


def test_live_slots_are_coalesced_and_bounded() -> None:
    told = []
    one = Reader(1, (0, 0), lambda: told.append(1))
    one.feed(OutputSlot(1, 0, b"a"))
    one.feed(OutputSlot(1, 0, b"ab"))
    assert told == [1, 1]
    assert one.take_live() == [Chunk(1, 0, b"ab", 1)]
    for number in range(pending_slots_max):
        one.feed(OutputSlot(1, number * SLOT, b"x" * SLOT))
    assert not one.is_behind
    one.feed(OutputSlot(2, 0, b"one too many"))

    assert one.is_behind  # so it is read from the store instead
    assert one.take_live() == []
    assert not one.is_behind


def test_followers_get_the_output_of_their_attempt_only() -> None:
    follow, one = Follow(), reader()
    task = (1, 0, 0)
    assert follow.add(task, one)
    assert not follow.add(task, reader())
    follow.feed(AttemptRef(1, 0, 0, 2, 9), OutputSlot(1, 0, b"other"))
    assert one.take_live() == []
    follow.feed(AttemptRef(1, 0, 0, 1, 9), OutputSlot(1, 0, b"mine"))

    assert one.take_live() == [Chunk(1, 0, b"mine", 1)]
    assert not follow.remove(task, one)
    assert follow.has(AttemptRef(1, 0, 0, 1, 9))


def test_changes_of_a_job_wake_who_follows_it() -> None:
    follow, woken = Follow(), []

    def wake() -> None:
        woken.append(1)

    follow.on_change(1, wake)
    follow.changed(1)
    follow.changed(2)
    follow.off_change(1, wake)
    follow.changed(1)

    assert woken == [1]


def test_an_id_names_one_task() -> None:
    house = House()
    house.submit()
    house.array(5)

    assert find(house.store, "1") == (1, 0, 0)
    assert find(house.store, "2.3") == (2, 0, 2)
    with pytest.raises(BadRequest, match="array of 5"):
        find(house.store, "2")
    for unknown in ("3", "2.9", "1.1"):
        with pytest.raises(TaskNotFound):
            find(house.store, unknown)


def test_a_job_that_is_being_forgotten_is_nobody_s_any_more() -> None:
    house = House()
    job = house.array(5)
    house.array(5)
    progress = house.store.get(tables.PROGRESS, (job, 0))
    assert progress is not None
    commit(house.store, {tables.PROGRESS: {(job, 0): replace(progress, forgetting=True)}})

    for text in (str(job), f"{job}.3"):
        with pytest.raises(TaskNotFound, match=f"no job {job}\n"):
            find(house.store, text)
    with pytest.raises(TaskNotFound, match=f"job {job} is gone"):
        look(house.store, (job, 0, 2))


def test_a_task_is_seen_from_before_its_first_attempt_to_its_end() -> None:
    house = House()
    job = house.submit()
    task = (job, 0, 0)
    before = look(house.store, task)
    house.join()
    (attempt,) = house.starts()
    during = look(house.store, task)
    house.report(attempt)
    after = look(house.store, task)

    assert (before.attempt, before.state, before.is_out) == (0, State.QUEUED, False)
    assert (during.attempt, during.worker, during.is_out, during.ref) == (1, 5, True, attempt)
    assert (after.state, after.is_out, after.worker) == (State.SUCCEEDED, False, 0)


def test_a_lost_attempt_may_still_print_until_another_is_leased() -> None:
    house = House()
    job = house.submit()
    house.join()
    house.do(WorkerLost(5, 1))

    assert look(house.store, (job, 0, 0)).is_out


def test_the_end_says_how_much_there_was() -> None:
    house = House()
    job = house.submit()
    sight = look(house.store, (job, 0, 0))
    one = reader()
    one.take([OutputSlot(1, 0, b"abc")])

    assert one.end(sight._replace(attempt=1)) == LogsEnd(1, (3, 0), "queued")
    assert one.end(sight._replace(attempt=1, totals=(30, 4))) == LogsEnd(1, (30, 4), "queued")
