"""Members that came back to the queue, or wait to, however many: a turn looks at about as many rows as it takes.

A deleted key is slow to pass until compaction has taken it away, so what stood at the head must not be passed again.
"""

from tests.support.ground import Ground
from tests.support.house import House, held
from tq.core.change.stop import ref_of
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.task import State
from tq.core.vocabulary import Cancel, Retry, Tick, Times, WorkerLost

SIZE = 40


def crowd(bounds: Bounds | None = None) -> tuple[House, int]:
    """Return a house with an array all of whose members have failed and are queued again, in several milliseconds."""
    house = House(bounds, Ground())
    house.join(slots=SIZE)
    number = house.array(SIZE, retries=0)
    while refs := house.starts():
        house.report(*refs, code=1, run_us=10**6)
    house.do(WorkerLost(5, 1))
    for member in range(SIZE):
        house.do(Retry((f"{number}.{member + 1}",)))
    house.store.deleted.clear()
    return house, number


def test_a_turn_passes_over_no_more_than_the_last_one_took() -> None:
    house, number = crowd()
    house.join(slots=2)
    done = 0
    while refs := house.starts():
        house.store.passed = 0
        house.report(*refs, run_us=10**6)
        done += len(refs)
        assert house.store.passed <= 4
    assert done == SIZE
    assert house.store.get(tables.PROGRESS, (number, 0)).counts[State.SUCCEEDED] == SIZE


def test_a_turn_reads_a_few_rows_where_a_few_may_start() -> None:
    house, _ = crowd()
    house.join(slots=1)
    house.store.read = 0
    house.report(*house.starts(), run_us=10**6)
    assert len(house.starts()) == 1
    assert house.store.read <= SIZE // 2


def test_the_first_turn_of_a_new_start_passes_over_no_more_either() -> None:
    house, number = crowd()
    house.join(slots=2)
    for _ in range(SIZE // 4):
        house.report(*house.starts(), run_us=10**6)
    refs = house.starts()
    house.restart()
    house.store.passed = 0
    house.join(session=2, slots=2, held=held(*refs), widths=((1, 2),))
    house.report(*refs, run_us=10**6, session=2)
    assert len(house.starts()) == 2
    assert house.store.passed <= 4
    assert house.store.get(tables.PROGRESS, (number, 0)).again == SIZE // 2 - 4


def test_a_slice_of_a_cancel_passes_over_no_more_than_the_last_one_did() -> None:
    house, number = crowd(Bounds(slice=5))
    house.do(Cancel((str(number),)))
    for _ in range(SIZE):
        house.store.passed = 0
        house.do(Tick())
        assert house.store.passed <= 10
    assert house.store.get(tables.PROGRESS, (number, 0)).counts[State.CANCELLED] == SIZE


def test_what_comes_back_in_the_same_millisecond_starts_too_whatever_its_number() -> None:
    house = House(store=Ground())
    house.join(slots=1)
    number = house.array(3, crash_limit=0)
    first = house.starts()
    house.join(worker=6, slots=2)
    others = house.starts()
    assert [ref.member for ref in (*first, *others)] == [0, 1, 2]
    house.do(WorkerLost(6, 1))
    house.now_ms -= 1
    house.join(worker=7, slots=1)
    assert [ref.member for ref in house.starts()] == [1]
    house.now_ms -= 1
    house.do(WorkerLost(5, 1))
    assert house.task(number, 0).since_ms == house.task(number, 2).since_ms
    house.report(ref_of((number, 0, 1), house.task(number, 1)), worker=7)
    assert [ref.member for ref in house.starts()] == [0]
    house.report(*house.starts(), worker=7)
    assert [ref.member for ref in house.starts()] == [2]


def test_a_tick_passes_over_no_more_timers_than_the_last_one_did() -> None:
    house = House(store=Ground(tables.TIMER))
    house.join(slots=SIZE)
    number = house.array(SIZE, retries=1, backoff_ms=(1_000, 1_000))
    for ref in house.starts():
        house.report(ref, code=1, run_us=10**6)
    house.do(WorkerLost(5, 1))
    house.now_ms += 500
    ticks = 0
    while (due_ms := house.engine.next_due_ms(Times(house.now_ms, 0))) is not None:
        house.now_ms += due_ms
        house.store.passed = 0
        house.do(Tick())
        house.engine.next_due_ms(Times(house.now_ms, 0))
        assert house.store.passed <= 8
        ticks += 1
    assert ticks >= SIZE // 4
    assert house.store.get(tables.PROGRESS, (number, 0)).counts[State.QUEUED] == SIZE


def test_a_timer_is_found_though_it_is_earlier_than_what_was_there_at_the_last_look() -> None:
    house = House()
    house.join(slots=1)
    slow = house.submit(retries=1, backoff_ms=(5_000, 5_000))
    house.report(*house.starts(), code=1)
    assert house.engine.next_due_ms(Times(house.now_ms, 0)) == 5_000
    quick = house.submit(retries=1, backoff_ms=(0, 0))
    refs = house.starts()
    assert house.engine.next_due_ms(Times(house.now_ms + 100, 0)) == house.task(slow).due_ms - house.now_ms - 100
    house.report(*refs, code=1)
    assert house.engine.next_due_ms(Times(house.now_ms, 0)) == 0
    house.now_ms -= 1  # in the same millisecond
    house.do(Tick())
    assert house.task(quick).state is State.RUNNING
    house.do(Tick())
    assert house.engine.next_due_ms(Times(house.task(slow).due_ms, 0)) == 0
