"""Submit: idempotent by key, checked whole before anything is stored."""

from typing import Any, ClassVar

import msgspec
import pytest
from msgspec.structs import replace

from tests.support.house import House
from tq import limits
from tq.core.model import tables
from tq.core.model.digest import digest_of
from tq.core.model.job import Demand
from tq.core.vocabulary import Cancel, Forget, Release, SetQueue, Submit, Submitted, Tick, Upload, Where, WorkerLost
from tq.errors import BadRequest, KeyConflict, NotDone, Refused, TaskNotFound, TooLarge, TooManyLanes


@pytest.fixture
def house():
    return House()


def test_the_same_key_returns_the_same_job(house):
    first = house.do(Submit("k", b"body"))
    house.restart()
    again = house.do(Submit("k", b"body"))

    assert isinstance(first, Submitted)
    assert isinstance(again, Submitted)
    assert (again.id, again.existed) == (first.id, True)
    assert house.store.get(tables.JOB, (2, 0)) is None


def test_a_key_that_lives_longer_than_its_job_says_that_it_was_forgotten(house):
    first = house.do(Submit("k", b"body"))
    house.do(Cancel((first.id,)))
    assert house.do(Submit("k", b"body")) == Submitted(first.id, existed=True)
    house.do(Forget((first.id,)))
    assert house.do(Submit("k", b"body")) == Submitted(
        first.id, existed=True, warning="job 1 was forgotten; another key makes a new one"
    )


def test_the_same_key_with_another_request_is_a_conflict(house):
    house.do(Submit("k", b"body"))
    with pytest.raises(KeyConflict):
        house.do(Submit("k", b"other"))


def test_who_asks_again_may_do_so_in_another_trace(house):
    """Each request of a web server, and each run of a pipeline, has its own."""
    traces = [f"00-{digit * 32}-{digit * 16}-01" for digit in "ab"]
    first, again = (house.do(Submit("k", b"body", trace=trace)) for trace in traces)

    assert (again.id, again.existed) == (first.id, True)
    assert house.store.get(tables.JOB, (1, 0)).trace == traces[0]


class TestAKeyLivesOverAnUpgrade:
    """The digest of a request is the same in a release that knows more fields."""

    PLAIN: ClassVar = Submit("k", b"body")
    FULL: ClassVar = Submit(
        "k", b"body", name="n", tags=("a", "b"), demand=Demand(1, 2, "m"), size=3, is_array=True,
        backoff_ms=(1, 2), retry_on=(3, -9), no_retry_on=(4,),
    )  # fmt: skip

    @pytest.mark.parametrize(
        "asked, digest", [(PLAIN, "961379f22080e6b823a2cc1fcca6d5dd"), (FULL, "8cd518551b65934c9fddcf3be5371402")]
    )
    def test_it_is_that_of_the_first_release(self, asked, digest):
        assert digest_of(asked).hex() == digest

    def test_a_new_field_counts_where_it_is_not_at_its_default(self):
        later = _later_submit()
        assert digest_of(later("k", b"body")) == digest_of(self.PLAIN)
        assert digest_of(later("k", b"body", more=1)) != digest_of(self.PLAIN)
        assert digest_of(later("k", b"body", more=1)) != digest_of(later("k", b"body", more=2))

    def test_so_does_one_of_its_demand(self):
        demand = msgspec.defstruct("Demand", [("gpus", int, 0)], bases=(Demand,), frozen=True, array_like=True)
        later = _later_submit()
        assert digest_of(later("k", b"body", demand=demand())) == digest_of(self.PLAIN)
        assert digest_of(later("k", b"body", demand=demand(gpus=1))) != digest_of(self.PLAIN)


def _later_submit() -> Any:
    """Return the Submit of a release that knows one field more."""
    fields = [("more", int, 0)]
    return msgspec.defstruct("Submit", fields, bases=(Submit,), frozen=True, array_like=True, tag=True)


def test_jobs_without_a_key_are_all_different(house):
    assert [house.submit(), house.submit()] == [1, 2]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "a b"},
        {"name": "42"},
        {"name": "43.7"},
        {"name": "last"},
        {"name": "last.7"},
        {"name": "last.1-5"},
        {"name": "last."},
        {"name": "43.1-5"},
        {"name": "1-5"},
        {"name": "all"},
        {"name": "x" * 129},
        {"tags": ("ok", "last.7")},
        {"tags": ("42",)},
        {"tags": ("1.4",)},
        {"tags": ("all",)},
        {"queue": ""},
        {"queue": "a/b"},
        {"tags": ("ok", "\x1b[31m")},
        {"priority": 101},
        {"priority": -101},
        {"size": 0},
        {"size": 2},
        {"size": 3, "is_array": True, "array_step": 0},
        {"size": 3, "is_array": True, "array_first": -1},
        {"size": 3, "is_array": True, "array_first": (1 << 63) - 2},
        {"throttle": -1},
        {"trace": "junk"},
        {"demand": Demand(cpus_milli=-1)},
        {"demand": Demand(mem_bytes=-1)},
    ],
)
def test_a_field_out_of_its_range_is_refused_and_nothing_is_stored(house, fields):
    with pytest.raises(BadRequest):
        house.submit(**fields)
    assert house.submit() == 1


@pytest.mark.parametrize(
    "command",
    [
        Submit("k", b""),
        Submit("k" * 129, b"x"),
        Submit("k", b"x" * (limits.body_bytes_max + 1)),
        Submit("k", b"x", tags=("t",) * (limits.tags_max + 1)),
        Submit("k", b"x", size=limits.array_size_max + 1, is_array=True),
        Submit("k", b"x", stdin_key="unknown"),
    ],
)
def test_what_exceeds_a_bound_or_lacks_its_input_is_refused(house, command):
    with pytest.raises(Refused):
        house.do(command)
    assert house.store.get(tables.KEY, ("k",)) is None


def test_ten_million_members_are_a_handful_of_keys(house):
    house.array(10_000_000)
    assert sum(map(len, house.finished.changes.values())) < 12


def test_a_new_combination_of_queue_and_demand_opens_a_lane(house):
    house.submit()
    house.submit(queue="other")
    house.submit(demand=Demand(cpus_milli=2000))
    house.submit(queue="other")
    assert len(house.engine.live.lanes) == 3


def test_a_job_whose_key_was_lost_does_not_take_away_that_of_another(house):
    """A salvage may lose the row of a key; the request is another job then."""
    house.do(Submit("k", b"body"))
    meta = house.store.get(tables.META, ())
    meta = replace(meta, sequence=meta.sequence + 1)
    changes = {tables.META: {(): meta}, tables.KEY: {("k",): None}}
    house.store.write(changes, sequence=meta.sequence, epoch=1, wall_ms=1)
    house.restart()
    assert house.do(Submit("k", b"body")) == Submitted("2", warning="no worker is connected")

    house.do(Cancel(("1",)))
    house.do(Forget(("1",)))
    house.now_ms += 2 * limits.key_ttl_ms
    house.do(Tick())
    assert house.do(Submit("k", b"body")) == Submitted("2", existed=True)


def test_too_many_lanes_are_refused(house, monkeypatch):
    monkeypatch.setattr(limits, "lanes_max", 1)
    house.submit()
    with pytest.raises(TooManyLanes):
        house.submit(queue="other")


@pytest.mark.parametrize("restarts", [False, True])
def test_a_lane_whose_jobs_are_forgotten_serves_another_queue(house, monkeypatch, restarts):
    """Or a queue for each branch would use up all lanes for ever."""
    monkeypatch.setattr(limits, "lanes_max", 2)
    session = 1
    house.join(slots=3)
    kept = house.submit(queue="kept", hold=True)
    for number in range(5):
        old = house.array(2, queue=f"branch-{number}", demand=Demand(cpus_milli=1000 * (number % 2)))
        with pytest.raises(TooManyLanes):
            house.submit(queue="other")
        house.do(Cancel((str(old),)))
        house.report(*house.stops(), session=session)
        house.do(Forget((str(old),)))
        if restarts:
            session += 1
            house.restart()
            house.join(session=session, slots=3)
        assert [house.engine.live.lanes[lane].queue for lane in (1, 2)] == ["kept", f"branch-{number}"]
    assert house.engine.live.lane_names.keys() == {"kept/0/0", "branch-4/0/0"}
    assert house.engine.live.granted.keys() <= {"branch-4"}

    house.do(Release((str(kept),)))
    assert [ref.job for ref in house.starts()] == [kept]


@pytest.mark.parametrize("crash_limit", [1, 2])
def test_so_does_one_for_what_ran_alone(house, monkeypatch, crash_limit):
    """And it is used by nobody else while members of a job stand in it that count in the lane beside it."""
    monkeypatch.setattr(limits, "lanes_max", 2)
    house.join(slots=1)
    for number in range(5):
        job = house.submit(queue=f"branch-{number}", crash_limit=crash_limit)
        if crash_limit == 2:
            house.do(WorkerLost(5, number + 1))
            assert house.submit(queue=f"branch-{number}", hold=True) == job + 1
            with pytest.raises(TooManyLanes):
                house.submit(queue="other")
            house.do(Cancel((str(job + 1),)))
            house.join(session=number + 2)
        [ref] = house.starts()
        assert ref.job == job
        if crash_limit == 2:
            with pytest.raises(TooManyLanes):
                house.submit(queue="other")
        house.report(ref, session=house.engine.live.workers[5].session_number)
        house.do(Forget(where=Where()))
    assert len(house.engine.live.lanes) == 2
    assert len(house.engine.live.lane_names) == 2


def test_what_is_lost_at_once_in_many_lanes_gets_a_lane_each(house, monkeypatch):
    """One that nobody uses any more is given away once."""
    monkeypatch.setattr(limits, "lanes_max", 4)
    house.do(Cancel((str(house.submit(queue="old")),)))
    house.do(Forget(("1",)))
    jobs = [house.submit(queue=queue, crash_limit=2) for queue in "abc"]
    house.join(slots=3)
    house.do(WorkerLost(5, 1))
    house.join(6, slots=3)
    for job in jobs:
        assert [ref.job for ref in house.starts()] == [job]
        house.report(*house.starts(), worker=6)


def test_what_a_lane_knew_of_its_runs_goes_with_its_queue(house, monkeypatch):
    monkeypatch.setattr(limits, "lanes_max", 1)
    house.join(slots=1)
    short = house.array(8, queue="short")
    while house.starts():
        house.report(*house.starts(), run_us=100)
    assert house.engine.live.depth(1) > 1
    house.do(Forget((str(short),)))

    house.array(8, queue="other")
    assert house.engine.live.depth(1) == 1
    assert len(house.starts()) == 1


def test_a_submit_says_when_no_worker_can_run_it(house):
    def warning(**fields):
        return house.do(Submit("", b"x", **fields)).warning

    assert warning() == "no worker is connected"
    house.join(slots=2)
    assert warning() == ""
    assert warning(demand=Demand(cpus_milli=64_000)) == "no connected worker offers 64 CPUs"
    house.do(SetQueue("default", paused=True))
    assert warning() == "queue default is paused"
    house.do(SetQueue("default", paused=False, max=2))
    assert warning() == "", "it gets on when others have ended"


class TestUpload:
    """Pieces of a large input before its submit."""

    PIECE = b"x" * limits.piece_bytes_max

    def test_pieces_become_the_input_of_a_job(self, house):
        assert house.do(Upload("u", 0, self.PIECE)).received == limits.piece_bytes_max
        assert house.do(Upload("u", limits.piece_bytes_max, b"end")).received == limits.piece_bytes_max + 3
        number = house.submit(stdin_key="u")

        blob = house.store.get(tables.JOB, (number, 0)).stdin
        assert house.store.get(tables.BODY, (blob, 1)) == b"end"
        assert house.store.get(tables.UPLOAD, ("u",)) is None

    def test_a_piece_that_is_known_changes_nothing(self, house):
        house.do(Upload("u", 0, self.PIECE))
        assert house.do(Upload("u", 0, self.PIECE)).received == limits.piece_bytes_max
        assert house.do(Upload("u", 2 * limits.piece_bytes_max, b"x")).received == limits.piece_bytes_max

    def test_an_unknown_upload_begins_at_its_beginning(self, house):
        assert house.do(Upload("u", limits.piece_bytes_max, b"x")).received == 0

    def test_input_past_its_bound_is_refused(self, house):
        last = limits.stdin_bytes_max - limits.piece_bytes_max
        assert house.do(Upload("u", last, self.PIECE)).received == 0
        with pytest.raises(TooLarge, match="stdin_bytes_max"):
            house.do(Upload("u", limits.stdin_bytes_max, b"x"))

    @pytest.mark.parametrize("offset, data", [(1, b"x"), (0, PIECE + b"x"), (-limits.piece_bytes_max, b"x")])
    def test_what_is_no_piece_of_an_input_is_refused(self, house, offset, data):
        with pytest.raises(BadRequest, match="piece_bytes_max"):
            house.do(Upload("u", offset, data))

    def test_an_upload_of_another_token_cannot_be_taken(self, house):
        house.do(Upload("u", 0, b"secret"), submitter="owner")
        with pytest.raises(NotDone):
            house.do(Submit("", b"x", stdin_key="u"), submitter="thief")

    def test_an_abandoned_upload_ends_by_itself(self, house):
        house.do(Upload("u", 0, b"data"))
        house.now_ms += limits.upload_ttl_ms
        house.do(Tick())
        assert house.store.get(tables.UPLOAD, ("u",)) is None
        assert house.store.get(tables.BODY, (1, 0)) is None
        with pytest.raises(TaskNotFound):
            house.do(Submit("", b"x", stdin_key="u"))
