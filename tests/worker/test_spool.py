"""Results on the disk, and the directory of a worker."""

import os
from pathlib import Path

import pytest

from tq.core.vocabulary import AttemptRef, End
from tq.errors import ConfigurationError
from tq.worker import instructions as i
from tq.worker.disk import write_down
from tq.worker.home import Last, settle
from tq.worker.spool import Report, Spool


def end(job: int) -> End:
    return End(AttemptRef(job, 0, 0, 1, 5), 1, 0, 10, b"result")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def test_what_is_kept_is_found_by_the_next_one_until_it_is_forgotten(spool: Spool) -> None:
    spool.keep(7, [(3, (end(1), end(2))), (11, (end(3),))])
    assert Spool(spool.path).load().reports == {3: Report(7, (end(1), end(2))), 11: Report(7, (end(3),))}
    spool.forget(3)
    spool.forget(3)
    assert Spool(spool.path).load().reports == {11: Report(7, (end(3),))}


def test_a_half_written_file_is_no_result(spool: Spool) -> None:
    (spool.path / "000000000004.new").write_bytes(b"half")
    assert spool.load().reports == {}
    assert list(spool.path.iterdir()) == []


def test_a_damaged_file_costs_itself_only_and_stays_for_people_to_look_at(spool: Spool) -> None:
    spool.keep(7, [(1, (end(1),)), (2, (end(2),))])
    damaged = spool.path / "000000000001"
    damaged.write_bytes(damaged.read_bytes()[:-3])
    left = spool.load()
    assert (set(left.reports), left.damaged) == ({2}, ["000000000001"])
    assert (spool.path / "orphaned" / "damaged-000000000001").exists()
    assert spool.load().damaged == []


def test_results_of_another_lineage_are_kept_apart(spool: Spool) -> None:
    paths = [spool.orphan(7, (end(job),)) for job in (1, 2)]
    assert len(set(paths)) == 2
    assert all(path.parent.name == "orphaned" for path in paths)
    assert spool.load().reports == {}


def test_the_disk_is_written_in_the_order_of_the_instructions(spool: Spool) -> None:
    kept, gone = i.Keep(1, (end(1),)), i.Forget(1)
    write_down(spool, [(7, kept), (7, gone)])
    assert spool.load().reports == {}
    write_down(spool, [(7, gone), (7, kept), (7, i.Keep(2, (end(2),))), (7, i.Aside((end(3),)))])
    assert set(spool.load().reports) == {1, 2}
    assert len(list((spool.path / "orphaned").iterdir())) == 1


def test_a_disk_that_fails_is_said_and_stops_nothing(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    spool.path.rmdir()
    write_down(spool, [(7, i.Keep(1, (end(1),)))])
    assert "spool_failed" in capsys.readouterr().err


def test_two_workers_never_share_a_directory(tmp_path: Path) -> None:
    with settle(tmp_path) as first, settle(tmp_path) as second:
        assert (first.path.name, second.path.name) == ("worker", "worker-2")
    with settle(tmp_path) as again:
        assert again.path == first.path


def test_a_directory_remembers_who_spoke_last_from_it(tmp_path: Path) -> None:
    with settle(tmp_path) as home:
        assert home.last == Last(0, 0, 0)
        home.remember(Last(5, 6, 7))
    with settle(tmp_path) as home:
        assert home.last == Last(5, 6, 7)


def test_a_damaged_memory_is_no_memory(tmp_path: Path) -> None:
    with settle(tmp_path) as home:
        (home.path / "last.json").write_text("{")
    with settle(tmp_path) as home:
        assert home.last == Last(0, 0, 0)


def test_a_worker_s_directory_is_its_user_s_alone(tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir(mode=0o755)
    with settle(tmp_path) as home:
        assert home.path.stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "worker").write_text("a file")
    with pytest.raises(ConfigurationError, match=os.fspath(tmp_path)), settle(tmp_path):
        pass
