"""Entries: an array with an input for each member, uploaded in runs before its submit."""

import pytest
from msgspec.structs import replace

from tests.support.house import House
from tq import limits
from tq.core.engine import leases
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.entries import EntryReader
from tq.core.vocabulary import (
    AddEntries,
    Cancel,
    DeadLetters,
    Forget,
    Get,
    GetRequest,
    List,
    Start,
    Submit,
    Tick,
    Times,
    Upload,
    Uploaded,
    WorkerLost,
)
from tq.errors import BadRequest, KeyConflict, NotDone, StoreDamaged, TaskNotFound, TooLarge


@pytest.fixture
def house():
    return House()


def _entries(house):
    """Return (position, entry) of what the last turn started."""
    return [
        (assignment.attempt.member, assignment.entry)
        for effect in house.finished.effects
        if isinstance(effect, Start)
        for assignment in effect.attempts
    ]


def _upload(house, runs, key="u"):
    first = 0
    for run in runs:
        assert house.do(AddEntries(key, first, run)) == Uploaded(first + len(run))
        first += len(run)
    return first


def test_each_member_gets_its_entry_whatever_the_runs(house):
    runs = [(b"a", b"", b"\xff\n"), (b"d",), (b"e", b"f")]
    size = _upload(house, runs)
    house.join(slots=1)
    house.submit(size=size, is_array=True, entries_key="u")
    seen = _entries(house)
    while house.starts():
        house.report(*house.starts(), run_us=10**9)
        seen += _entries(house)
    assert seen == list(enumerate([b"a", b"", b"\xff\n", b"d", b"e", b"f"]))


def test_a_member_that_comes_back_gets_the_same_entry(house):
    size = _upload(house, [(b"a", b"b"), (b"c", b"d")])
    house.join(slots=4)
    house.submit(size=size, is_array=True, entries_key="u")
    first = _entries(house)
    house.do(WorkerLost(5, 1))
    house.join(session=2, slots=4)
    assert _entries(house) == first


def test_a_run_that_is_known_changes_nothing_and_says_where_to_go_on(house):
    house.do(AddEntries("u", 0, (b"a", b"b")))
    assert house.do(AddEntries("u", 0, (b"x",))) == Uploaded(2)
    assert house.do(AddEntries("u", 5, (b"x",))) == Uploaded(2)
    assert house.do(AddEntries("u", 2, ())) == Uploaded(2)
    number = house.submit(size=2, is_array=True, entries_key="u")
    blob = house.store.get(tables.JOB, (number, 0)).entries
    assert house.store.get(tables.ENTRIES, (blob, 0)).items == (b"a", b"b")


def test_a_submit_before_all_entries_have_come_is_refused(house):
    _upload(house, [(b"a", b"b")])
    with pytest.raises(BadRequest):
        house.submit(size=3, is_array=True, entries_key="u")
    with pytest.raises(TaskNotFound):
        house.submit(size=2, is_array=True, entries_key="other")
    assert house.submit(size=2, is_array=True, entries_key="u") == 1


def test_two_clients_that_seal_the_same_upload_make_one_job(house):
    size = _upload(house, [(b"a",)])
    command = Submit("k", b"body", size=size, is_array=True, entries_key="u")
    assert [house.do(command).id, house.do(command).id] == ["1", "1"]


def test_an_upload_of_another_token_can_be_neither_read_nor_extended(house):
    house.do(AddEntries("u", 0, (b"a",)), submitter="owner")
    with pytest.raises(NotDone):
        house.do(AddEntries("u", 1, (b"b",)), submitter="thief")
    with pytest.raises(NotDone):
        house.do(Submit("", b"x", size=1, is_array=True, entries_key="u"), submitter="thief")


@pytest.mark.parametrize(
    "items", [(b"x",) * (limits.entries_items_max + 1), (b"x" * (limits.entry_bytes_max + 1),), (b"x" * 70_000,) * 3]
)
def test_a_run_past_its_bounds_is_refused(house, items):
    with pytest.raises(TooLarge):
        house.do(AddEntries("u", 0, items))
    assert house.store.get(tables.UPLOAD, ("u",)) is None


def test_a_digest_is_bounded(house):
    with pytest.raises(TooLarge):
        house.do(AddEntries("u", 0, (b"x",), b"", b"x" * (limits.digest_bytes_max + 1)))
    house.do(AddEntries("u", 0, (b"x",), b"", b"x" * limits.digest_bytes_max))


def test_command_and_entry_together_fit_a_frame(house):
    _upload(house, [(b"x" * 100_000,)])
    with pytest.raises(TooLarge):
        house.do(Submit("", b"x" * 100_000, size=1, is_array=True, entries_key="u"))


def test_large_entries_are_sent_in_several_parts(house):
    size = _upload(house, [(b"x" * 90_000, b"y" * 90_000), (b"z" * 90_000,)])
    house.join(slots=3)
    house.submit(size=size, is_array=True, entries_key="u")
    starts = [effect for effect in house.finished.effects if isinstance(effect, Start)]
    assert [len(start.attempts) for start in starts] == [2, 1]


@pytest.mark.parametrize("has_entries", [True, False])
def test_however_many_start_at_once_a_part_has_no_more_than_its_bound(house, monkeypatch, has_entries):
    monkeypatch.setattr(leases, "prefetch_max", 2)
    if has_entries:
        _upload(house, [(b"x",) * 5])
    house.join(slots=5)
    house.submit(size=5, is_array=True, entries_key="u" if has_entries else "")
    starts = [effect for effect in house.finished.effects if isinstance(effect, Start)]
    assert [len(start.attempts) for start in starts] == [2, 2, 1]


def test_an_abandoned_upload_of_many_runs_ends_in_slices():
    house = House(Bounds(slice=2))
    _upload(house, [(b"a",)] * 5)
    house.now_ms += limits.upload_ttl_ms
    for _ in range(4):
        house.do(Tick())
    assert house.store.scan(tables.UPLOAD, ("",), ("\U0010ffff",), 5) == []
    assert house.store.scan(tables.ENTRIES, (0,), (1 << 40,), 10) == []
    assert house.store.scan(tables.ENTRY_AT, (0,), (1 << 40,), 10) == []


def test_a_crowd_of_abandoned_uploads_ends_with_nothing_left():
    house = House(Bounds(slice=100))
    last = "\U0010ffff" * limits.key_chars_max
    crowd = [Upload(key, 0, b"x") for key in (*(f"u{number}" for number in range(limits.page_keys_max)), last)]
    house.turn(*crowd)
    house.now_ms += limits.upload_ttl_ms
    for _ in range(30):
        house.do(Tick())
    tables_of = (tables.UPLOAD, ("",), (last + "x",)), (tables.BODY, (0,), (1 << 40,))
    assert [house.store.scan(table, low, high, 9) for table, low, high in tables_of] == [[], []]


def test_uploads_that_are_kept_alive_hide_none_that_was_abandoned(house, monkeypatch):
    monkeypatch.setattr(limits, "page_keys_max", 3)
    alive = [f"a{number}" for number in range(7)]
    house.turn(*(AddEntries(key, 0, (b"x",)) for key in (*alive, "b", "z")))
    for _ in range(2):
        house.now_ms += limits.upload_ttl_ms * 2 // 3
        house.turn(*(AddEntries(key, 1, ()) for key in alive))
    while house.engine.next_due_ms(Times(house.now_ms, 0)) == 0:
        house.do(Tick())
    left = house.store.scan(tables.UPLOAD, ("",), ("~",), 99)
    assert [key[0] for key, _ in left] == alive
    assert house.engine.next_due_ms(Times(left[0][1].expires_ms, 0)) == 0

    house.now_ms += limits.upload_ttl_ms * 2  # the next walk begins at the first again
    for _ in range(30):
        house.do(Tick())
    assert house.store.scan(tables.UPLOAD, ("",), ("~",), 99) == []
    assert house.engine.next_due_ms(Times(house.now_ms, 0)) is None


def test_a_run_joins_only_the_entries_that_its_sender_has_seen(house):
    assert house.do(AddEntries("u", 0, (b"a",), b"", b"A")) == Uploaded(1, b"A")
    assert house.do(AddEntries("u", 1, (b"x",), b"X", b"XX")) == Uploaded(1, b"A")
    assert house.do(AddEntries("u", 1, (b"b",), b"A", b"AB")) == Uploaded(2, b"AB")
    with pytest.raises(BadRequest):
        house.submit(size=2, is_array=True, entries_key="u", entries_digest=b"XX")
    assert house.submit(size=2, is_array=True, entries_key="u", entries_digest=b"AB") == 1


def test_a_key_that_has_made_its_job_takes_no_entries_and_names_the_job(house):
    house.do(AddEntries("u", 0, (b"a",)))
    command = Submit("u", b"body", size=1, is_array=True, entries_key="u")
    house.do(command)
    assert house.do(AddEntries("u", 0, (b"a",))) == Uploaded(0, job="1")
    assert house.store.get(tables.UPLOAD, ("u",)) is None
    with pytest.raises(KeyConflict):
        house.do(replace(command, entries_digest=b"other lines"))


def test_an_upload_whose_sender_asks_now_and_then_stays(house):
    house.do(AddEntries("u", 0, (b"a",)))
    for _ in range(4):
        house.now_ms += limits.upload_ttl_ms * 2 // 3
        house.do(Tick())
        assert house.do(AddEntries("u", 1, ())) == Uploaded(1)
    house.now_ms += limits.upload_ttl_ms
    house.do(Tick())
    assert house.do(AddEntries("u", 1, ())) == Uploaded(0)


def test_a_long_upload_has_one_timer(house):
    for first in range(5):
        house.do(AddEntries("u", first, (b"a",)))
    assert len(house.store.scan(tables.TIMER, (0,), (2,), 10)) == 1


def test_the_same_request_again_shares_its_entries_until_the_last_job_is_forgotten(house):
    house.do(AddEntries("u", 0, (b"a", b"b")))
    first = house.submit(size=2, is_array=True, entries_key="u", name="lines", retries=2)
    blob = house.store.get(tables.JOB, (first, 0)).entries
    asked = house.do(GetRequest(str(first)))
    assert (asked.submit.entries_of, asked.submit.name, asked.submit.retries) == (str(first), "lines", 2)
    second = int(house.do(asked.submit).id)
    assert house.store.get(tables.JOB, (second, 0)).entries == blob
    house.do(Cancel((str(first), str(second))))
    house.do(Forget((str(first),)))
    assert house.store.get(tables.ENTRIES, (blob, 0)) is not None
    house.do(Forget((str(second),)))
    assert house.store.get(tables.ENTRIES, (blob, 0)) is None
    assert house.store.scan(tables.BLOB_USER, (0,), (1 << 40,), 10) == []


def test_entries_of_another_job_need_as_many_members_and_no_others_beside_them(house):
    house.do(AddEntries("u", 0, (b"a", b"b")))
    first = house.submit(size=2, is_array=True, entries_key="u")
    with pytest.raises(BadRequest):
        house.submit(size=3, is_array=True, entries_of=str(first))
    _upload(house, [(b"c", b"d")], key="v")
    with pytest.raises(BadRequest, match="either uploaded or another job's"):
        house.submit(size=2, is_array=True, entries_key="v", entries_of=str(first))
    with pytest.raises(TaskNotFound):
        house.submit(stdin_of="77")
    with pytest.raises(BadRequest):
        house.do(GetRequest(f"{first}.1"))


def test_an_upload_that_is_being_removed_is_neither_continued_nor_sealed():
    house = House(Bounds(slice=1))
    size = _upload(house, [(b"a",), (b"b",), (b"c",)])
    house.now_ms += limits.upload_ttl_ms
    house.do(Tick())
    with pytest.raises(NotDone):
        house.do(AddEntries("u", size, ()))
    with pytest.raises(TaskNotFound):
        house.submit(size=size, is_array=True, entries_key="u")
    for _ in range(size):
        house.do(Tick())
    assert house.do(AddEntries("u", 0, (b"x",))) == Uploaded(1)


def test_a_task_is_shown_with_its_own_entry_and_its_job_with_none(house):
    _upload(house, [(b"a", b"b"), (b"", b"d")])
    number = house.submit(size=4, array_first=10, array_step=5, is_array=True, entries_key="u")
    seen = [house.do(Get(f"{number}.{value}")).value["entry"] for value in (10, 15, 20, 25)]
    assert seen == [b"a", b"b", b"", b"d"]
    assert "entry" not in house.do(Get(str(number))).value
    assert "entry" not in house.do(Get(f"{house.submit(size=2, is_array=True)}.1")).value


def test_lists_show_each_task_with_its_own_entry(house):
    _upload(house, [(b"a", b"b"), (b"", b"d")])
    number = house.submit(size=4, is_array=True, entries_key="u", retries=0)
    (plain,) = house.do(List(str(house.submit()))).items
    house.join(slots=2)
    house.report(house.starts()[1], code=1)
    assert [item["entry"] for item in house.do(List(str(number))).items] == [b"a", b"b", b"", b"d"]
    assert [item["entry"] for item in house.do(List(f"{number}.3")).items] == [b""]
    (letter,) = house.do(DeadLetters()).items
    assert (letter["id"], letter["entry"]) == (f"{number}.2", b"b")
    assert "entry" not in plain
    assert all("entry" not in item for item in house.do(List(str(number), begun=True)).items)  # logs -f asks often


def test_a_page_reads_so_many_runs_of_entries_and_no_more(house):
    size = _upload(house, [(b"%d" % number,) for number in range(limits.page_runs_max + 3)])
    number = house.submit(size=size, is_array=True, entries_key="u")
    first = house.do(List(str(number)))
    second = house.do(List(str(number), page=first.next))
    assert (len(first.items), len(second.items), second.next) == (limits.page_runs_max, 3, "")
    assert [int(item["entry"]) for item in (*first.items, *second.items)] == list(range(size))


def test_a_task_whose_entry_is_lost_or_damaged_is_listed_without_it_and_damage_is_named(house, monkeypatch):
    job = house.store.get(tables.JOB, (house.submit(), 0))
    assert EntryReader(house.store).shown(replace(job, entries=99), 0) == {}

    _upload(house, [(b"a",), (b"b",)])
    number = house.submit(size=2, is_array=True, entries_key="u")
    get = house.store.get

    def damaged(table, key):
        if table is tables.ENTRIES and key[-1] == 0:
            raise StoreDamaged("block checksum mismatch")
        return get(table, key)

    monkeypatch.setattr(house.store, "get", damaged)
    with pytest.raises(StoreDamaged):
        house.do(List(str(number)))
    page = house.do(List(str(number), around=True))
    assert [(item["id"], item.get("entry")) for item in page.items] == [(f"{number}.1", None), (f"{number}.2", b"b")]
    assert page.unread == (f"{number}.1",)
