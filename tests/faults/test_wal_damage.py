"""Logs that are cut, flipped or gone: what loses an acknowledged turn is refused with its number; a torn tail is not.

Families with memtables of different size keep several logs alive, and RocksDB itself opens silently when an older one
is short or missing. Here every live log is cut at the end of every record, inside every record, and removed.
"""

import os
import random
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.store import all_rows, commit, disk_store, killed_store, read_store, write
from tests.support.wal import record_ends
from tq.core.model.tables import READY, TASK
from tq.core.model.task import State, Task
from tq.errors import StoreDamaged
from tq.limits import KIB
from tq.store import rocks
from tq.store.check import check_bytes

ACKNOWLEDGED = 60
UNACKNOWLEDGED = 6


class Log(NamedTuple):
    """A live log: its name, where its records end, and the turn that each record is."""

    name: str
    ends: list[int]
    first: int

    @property
    def last(self) -> int:
        return self.first + len(self.ends) - 1


def changes(turn: int) -> dict[object, object]:
    """Return the changes of a turn that is heavy in the family whose memtable is small."""
    ready = {(turn, 100, job, 0): True for job in range(100)}
    return {TASK: {(turn, 0, 0): Task(State.RUNNING, lease=turn)}, READY: ready}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store as a killed server leaves it, with many live logs; the last turns are written but not flushed."""
    data = tmp_path_factory.mktemp("wal") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(rocks.memtable_bytes, "queues", 64 * KIB)
        with killed_store(data) as store:
            for turn in range(1, ACKNOWLEDGED + 1):
                commit(store, changes(turn))
            for turn in range(ACKNOWLEDGED + 1, ACKNOWLEDGED + UNACKNOWLEDGED + 1):
                write(store, changes(turn))
    return data


@pytest.fixture(scope="module")
def logs(template: Path) -> list[Log]:
    found, turn = [], 1
    for path in sorted((template / "db").glob("*.log")):
        found.append(Log(path.name, record_ends(path), turn))
        turn += len(found[-1].ends)
    return [log for log in found if log.ends]


class Copies:
    """Copies of the template, each to be damaged and opened once."""

    def __init__(self, template: Path, place: Path) -> None:
        self.template = template
        self.place = place
        self.count = 0

    def make(self) -> Path:
        """Return a new copy; files of the database are hard links, since RocksDB never changes them in place."""
        self.count += 1
        data = self.place / str(self.count)
        (data / "db").mkdir(parents=True, mode=0o700)
        data.chmod(0o700)
        for path in (self.template / "db").iterdir():
            os.link(path, data / "db" / path.name)
        for name in ("format", "watermark"):
            shutil.copy(self.template / name, data / name)
        return data

    def cut(self, log: Log, size: int) -> Path:
        """Return a copy with a log cut to `size` bytes."""
        data = self.make()
        path = data / "db" / log.name
        raw = path.read_bytes()[:size]
        path.unlink()
        path.write_bytes(raw)
        return data

    def flip(self, log: Log, at: int) -> Path:
        """Return a copy with one bit of a log turned over."""
        data = self.make()
        path = data / "db" / log.name
        raw = bytearray(path.read_bytes())
        raw[at] ^= 0x10
        path.unlink()
        path.write_bytes(raw)
        return data

    def remove(self, log: Log) -> Path:
        """Return a copy without a log."""
        data = self.make()
        (data / "db" / log.name).unlink()
        return data


@pytest.fixture
def copies(template: Path, tmp_path: Path) -> Copies:
    return Copies(template, tmp_path)


def assert_refused(data: Path, first: int, last: int) -> None:
    """Assert that the store is refused and that the turns `first` to `last` are named."""
    with pytest.raises(StoreDamaged) as caught, disk_store(data):
        pass
    named = re.search(r"turn (\d+) is|turns, (\d+) to (\d+), are", caught.value.message)
    assert named is not None, caught.value.message
    begin, end = (named[1], named[1]) if named[1] else (named[2], named[3])
    assert (int(begin), int(end)) == (first, last), caught.value.message


def assert_opens(data: Path, last: int) -> None:
    """Assert that the store opens with the turns up to `last`, every one whole."""
    with disk_store(data) as store:
        assert store.sequence == last
        assert check_bytes(store).problems == []
        assert [key[0] for key, _ in all_rows(store, TASK)] == list(range(1, last + 1))
        assert sum(1 for _ in all_rows(store, READY)) == 100 * last
        commit(store, {})


def places_inside(log: Log, record: int) -> list[int]:
    """Return offsets inside a record: in its first header, in the middle, before its last byte."""
    begin, end = ([0, *log.ends])[record], log.ends[record]
    return [begin + 3, (begin + end) // 2, end - 1]


def lost_by_cut(logs: list[Log], log: Log, kept: int) -> tuple[int, int] | None:
    """Return the turns that a start must name when only `kept` records of a log are left; None = nothing acknowledged.

    The newest log tells only up to the watermark: what was never acknowledged may be missing.
    """
    first = log.first + kept
    last = log.last if log is not logs[-1] else ACKNOWLEDGED
    return (first, last) if first <= last else None


def test_there_are_many_live_logs_and_the_newest_has_the_unacknowledged_turns(logs: list[Log]) -> None:
    assert len(logs) >= 5
    assert logs[-1].last == ACKNOWLEDGED + UNACKNOWLEDGED
    assert logs[-1].first <= ACKNOWLEDGED


def test_undamaged_it_opens_with_every_turn(copies: Copies) -> None:
    assert_opens(copies.make(), ACKNOWLEDGED + UNACKNOWLEDGED)


def test_every_log_that_is_gone_is_noticed(copies: Copies, logs: list[Log]) -> None:
    for log in logs:
        lost = lost_by_cut(logs, log, 0)
        assert lost is not None
        assert_refused(copies.remove(log), *lost)


def test_every_log_cut_at_the_end_of_any_record_is_noticed(copies: Copies, logs: list[Log]) -> None:
    damages = 0
    for log in logs:
        for kept, end in enumerate([0, *log.ends][:-1]):
            if lost := lost_by_cut(logs, log, kept):
                assert_refused(copies.cut(log, end), *lost)
                damages += 1
    assert damages == ACKNOWLEDGED


def test_every_log_cut_inside_any_record_is_noticed(copies: Copies, logs: list[Log]) -> None:
    for log in logs:
        for record in range(len(log.ends)):
            if lost := lost_by_cut(logs, log, record):
                assert_refused(copies.cut(log, places_inside(log, record)[record % 3]), *lost)


def test_no_torn_tail_of_the_newest_log_is_a_false_alarm(copies: Copies, logs: list[Log]) -> None:
    newest = logs[-1]
    for record in range(len(newest.ends)):
        turn = newest.first + record
        if turn > ACKNOWLEDGED:
            for size in places_inside(newest, record):
                assert_opens(copies.cut(newest, size), turn - 1)
            assert_opens(copies.cut(newest, newest.ends[record]), turn)


def test_a_flipped_bit_is_noticed_or_costs_nothing_that_was_acknowledged(copies: Copies, logs: list[Log]) -> None:
    for log in logs:
        for record in range(0, len(log.ends), 3):
            data = copies.flip(log, places_inside(log, record)[record % 3])
            if log.first + record > ACKNOWLEDGED:
                assert_opens(data, log.first + record - 1)
            else:
                refused = pytest.raises(StoreDamaged, match=r"checksum mismatch|are not in all|is not in all")
                with refused, disk_store(data):
                    pass


def test_a_garbled_end_that_was_never_acknowledged_is_dropped_and_told(copies: Copies, logs: list[Log]) -> None:
    newest, dice = logs[-1], random.Random(7)
    for record, end in enumerate(newest.ends):
        turn = newest.first + record
        if turn > ACKNOWLEDGED:
            data = copies.make()
            path = data / "db" / newest.name
            raw = bytearray(path.read_bytes())
            begin = places_inside(newest, record)[1]
            raw[begin:end] = bytes(end - begin) if turn % 2 else dice.randbytes(end - begin)
            path.unlink()
            path.write_bytes(raw)
            with read_store(data) as store:
                assert store.sequence == turn - 1
            with disk_store(data) as store:
                assert "garbled" in store.note or turn == newest.last
            assert_opens(data, turn - 1)


def test_a_refused_store_is_refused_again(copies: Copies, logs: list[Log]) -> None:
    data = copies.remove(logs[1])
    for _ in range(3):
        assert_refused(data, logs[1].first, logs[1].last)
