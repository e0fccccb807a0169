"""The directory of a worker: who holds it, who lived there, and what lies beside it."""

import errno
import os
import shutil
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.support.worker_state import ref
from tq.core.vocabulary import End
from tq.errors import ConfigurationError, TqError
from tq.store import files
from tq.wire import messages as m
from tq.worker import instructions as i
from tq.worker import state_dir as homes
from tq.worker.spool import Kept, Spool
from tq.worker.state_dir import Last, StateDirectory, settle


def end(job: int) -> End:
    return End(ref(job), 1, 0, 10, b"result")


def report(delivery: int, *jobs: int) -> i.Keep:
    return i.Keep(m.Ended(delivery, tuple(end(job) for job in jobs)))


def test_two_workers_never_share_a_directory(tmp_path: Path) -> None:
    with settle(tmp_path) as first, settle(tmp_path) as second:
        assert (first.path.name, second.path.name) == ("worker", "worker-2")
    with settle(tmp_path) as again:
        assert again.path == first.path


@pytest.mark.parametrize("what", ["removed", "moved", "unlocked"])
def test_what_is_kept_never_comes_into_the_directory_of_another(tmp_path: Path, what: str) -> None:
    with settle(tmp_path) as first:
        spool = Spool(first.directory / "spool")
        spool.keep(7, [report(1, 1)])
        assert first.is_ours
        if what == "removed":
            shutil.rmtree(first.path)
        elif what == "moved":
            first.path.rename(tmp_path / "elsewhere")
        else:
            (first.path / "worker.lock").unlink()
        assert not first.is_ours
        with settle(tmp_path) as second:
            assert (second.path, second.is_ours, first.is_ours) == (first.path, True, False)
            assert second.directory.stat().st_ino != first.directory.stat().st_ino or what == "unlocked"
            lived(second, 2, report(1, 2))
            with suppress(FileNotFoundError):
                spool.keep(7, [report(1, 3), report(2, 3)])
                first.remember(Last(9, 9, 9))
            if what != "unlocked":
                assert Spool(second.directory / "spool").load().kept == {1: Kept(7, (end(2),))}
                assert second.last == Last()
    if what == "moved":
        assert set(Spool(tmp_path / "elsewhere" / "spool").load().kept) == {1, 2}


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOMEM])
def test_a_directory_that_cannot_be_looked_at_is_not_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_: Path) -> os.stat_result:
        raise OSError(number, os.strerror(number))

    with settle(tmp_path) as home, monkeypatch.context() as trouble:
        trouble.setattr(Path, "stat", fail)
        assert home.is_ours


def test_a_directory_that_is_removed_while_it_is_taken_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = homes._open
    times = 1

    def late(path: Path) -> tuple[int, int]:
        nonlocal times
        descriptors = opened(path)
        if times:
            times -= 1
            shutil.rmtree(path)
        return descriptors

    monkeypatch.setattr(homes, "_open", late)
    with settle(tmp_path) as home:
        assert home.is_ours
    times = 100
    with pytest.raises(ConfigurationError, match="again and again"), settle(tmp_path):
        pass


@pytest.mark.parametrize("number, status, hint", [(errno.ENOSPC, 74, "room"), (errno.EACCES, 78, "writable")])
def test_without_room_for_its_lock_no_worker_starts_and_that_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int, hint: str
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as trouble:
        trouble.setattr(Path, "mkdir", fail)
        with pytest.raises(TqError, match=os.strerror(number)) as error, settle(tmp_path):
            pass
    assert error.value.exit_status == status
    assert hint in error.value.hint


def test_a_directory_remembers_who_spoke_last_from_it(tmp_path: Path) -> None:
    with settle(tmp_path) as home:
        assert home.last == Last(0, 0, 0)
        home.remember(Last(5, 6, 7))
    with settle(tmp_path) as home:
        assert home.last == Last(5, 6, 7)


def test_the_names_of_what_is_made_are_durable_before_anything_is_kept_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    sync = files.sync_directory

    def noted(path: Path) -> None:
        synced.append(path.resolve())
        sync(path)

    monkeypatch.setattr(files, "sync_directory", noted)
    with settle(tmp_path / "new" / "state") as home:
        assert synced == [tmp_path / "new" / "state", tmp_path / "new", tmp_path]
        Spool(home.directory / "spool")
        assert synced[3:] == [home.path]
    synced.clear()
    with settle(tmp_path / "new" / "state") as home:
        Spool(home.directory / "spool")
    assert synced == []


def test_a_damaged_memory_is_no_memory(tmp_path: Path) -> None:
    with settle(tmp_path) as home:
        (home.path / "last.json").write_text("{")
    with settle(tmp_path) as home:
        assert home.last == Last(0, 0, 0)


# ---------------------------------------------------------------- what others have left


def lived(home: StateDirectory, worker: int, *kept: i.Keep, lineage: int = 7) -> None:
    """Leave in a directory what a worker leaves that dies."""
    home.remember(Last(worker, lineage, 3))
    Spool(home.path / "spool").keep(lineage, kept)


def test_who_comes_back_first_takes_over_what_lies_beside_its_own(tmp_path: Path) -> None:
    with settle(tmp_path) as first, settle(tmp_path) as second, settle(tmp_path) as third:
        lived(first, 1, report(1, 1), report(2, 2))
        lived(second, 2, report(1, 3))
        lived(third, 3)
    with settle(tmp_path) as heir:
        assert (heir.path, heir.last.workers, heir.last.lineage) == (first.path, (1, 2, 3), 7)
        kept = Spool(heir.path / "spool").load().kept
        assert {number: one.ends[0].attempt.job for number, one in kept.items()} == {1: 1, 2: 2, 3: 3}
        with settle(tmp_path) as other:
            assert (other.path, other.last) == (second.path, Last())
            assert Spool(other.path / "spool").load().kept == {}
    with settle(tmp_path) as again:
        assert again.last.workers == (1, 2, 3), "until it has said so to the server"
        again.remember(Last(9, 7, 4))
    with settle(tmp_path) as last:
        assert last.last.workers == (9,)


def test_where_somebody_lives_nothing_is_taken(tmp_path: Path) -> None:
    with settle(tmp_path) as first, settle(tmp_path) as second:
        lived(first, 1)
        lived(second, 2, report(1, 3))
        with settle(tmp_path) as third:
            lived(third, 3)
        with settle(tmp_path) as heir:
            assert heir.last.workers == (3,)
    assert set(Spool(second.path / "spool").load().kept) == {1}


def test_what_was_meant_for_another_store_stays_where_it_is(tmp_path: Path) -> None:
    with settle(tmp_path) as first, settle(tmp_path) as second:
        lived(first, 1)
        lived(second, 2, report(1, 3), lineage=8)
    with settle(tmp_path) as heir:
        assert heir.last.workers == (1,)
    with settle(tmp_path / "fresh"):
        pass
    assert set(Spool(second.path / "spool").load().kept) == {1}


def test_a_directory_that_cannot_be_taken_over_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with settle(tmp_path) as first, settle(tmp_path) as second:
        lived(first, 1)
        lived(second, 2, report(1, 3))

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Spool, "take_over", fail)
        with settle(tmp_path) as heir:
            assert 1 in heir.last.workers
    assert "cannot_take_over" in capsys.readouterr().err
    with settle(tmp_path) as heir:
        assert heir.last.workers == (1, 2)
        assert set(Spool(heir.path / "spool").load().kept) == {1}


def test_what_served_another_store_by_the_time_it_is_locked_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with settle(tmp_path) as first, settle(tmp_path) as second:
        lived(first, 1)
        lived(second, 2)
    hold = homes._hold

    def late(path: Path) -> StateDirectory | None:
        if path == second.path:
            with closing(hold(path)) as other:  # somebody has lived there since it was looked at
                lived(other, 3, report(1, 3), lineage=8)
        return hold(path)

    monkeypatch.setattr(homes, "_hold", late)
    with settle(tmp_path) as heir:
        assert heir.last.workers == (1,)
    assert set(Spool(second.path / "spool").load().kept) == {1}


def test_what_could_not_be_taken_over_stays_and_what_came_is_presented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with settle(tmp_path) as first, settle(tmp_path) as second:
        lived(first, 1)
        lived(second, 2, report(1, 3), report(2, 4))
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if path.resolve() == second.path / "spool" / "000000000002":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, target)

    with monkeypatch.context() as trouble:
        trouble.setattr(Path, "rename", full)
        with settle(tmp_path) as heir:
            assert heir.last.workers == (1, 2), "the first result is that of 2"
            assert set(Spool(heir.path / "spool").load().kept) == {1}
    assert "cannot_take_over" in capsys.readouterr().err
    with settle(tmp_path) as heir:
        kept = Spool(heir.path / "spool").load().kept
        assert {one.ends[0].attempt.job for one in kept.values()} == {3, 4}


@pytest.mark.parametrize("step", ["remember", "take_over", "rename", "unlink"])
def test_a_worker_that_dies_while_it_takes_over_leaves_all_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*what: object, **__: object) -> None:
        if step != "unlink" or (isinstance(what[0], Path) and what[0].resolve() == second.path / "last.json"):
            raise Killed

    with settle(tmp_path) as first, settle(tmp_path) as second:
        lived(first, 1, report(1, 1))
        lived(second, 2, report(1, 2), report(2, 3))
    owner = {"remember": StateDirectory, "take_over": Spool, "rename": Path, "unlink": Path}[step]
    with monkeypatch.context() as killed:
        killed.setattr(owner, step, die)
        with pytest.raises(Killed), settle(tmp_path):
            pass

    with settle(tmp_path) as heir:
        assert set(heir.last.workers) == {1, 2}
        jobs = {one.ends[0].attempt.job for one in Spool(heir.path / "spool").load().kept.values()}
        assert jobs == {1, 2, 3}


def test_who_spoke_last_is_on_the_disk_or_the_text_before_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with settle(tmp_path) as here:
        here.remember(Last(5, 6, 7))
        with monkeypatch.context() as trouble:
            trouble.setattr(files.os, "fsync", full)
            here.remember(Last(5, 6, 7))  # no news
            with pytest.raises(OSError, match="No space"):
                here.remember(Last(8, 6, 7))
        assert not list(here.path.glob("*.new"))
    with settle(tmp_path) as here:
        assert here.last == Last(5, 6, 7)


def test_a_worker_s_directory_is_its_user_s_alone(tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir(mode=0o755)
    with settle(tmp_path) as home:
        assert home.path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["worker", "."])
def test_a_worker_lives_nowhere_where_others_could_put_results(tmp_path: Path, name: str) -> None:
    """What lies there it would report as its own, and what it keeps there they could take away."""
    (tmp_path / "worker").mkdir()
    (tmp_path / name).chmod(0o777)
    with pytest.raises(ConfigurationError, match=f"other users may write to {tmp_path / name} "), settle(tmp_path):
        pass
    assert list((tmp_path / "worker").iterdir()) == []


def test_a_state_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "worker").write_text("a file")
    with pytest.raises(ConfigurationError, match=os.fspath(tmp_path)), settle(tmp_path):
        pass
