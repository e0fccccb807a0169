"""One process at a time has a data directory, and the others are told who."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tq.errors import ConfigurationError, TqError
from tq.server import serve
from tq.server.settings import Settings
from tq.store import process_limits
from tq.store.directory import hold_directory
from tq.store.lock import NAME, lock_directory

HOLD = """
import sys
from pathlib import Path
from tq.errors import ConfigurationError
from tq.store.directory import hold_directory
try:
    lock = hold_directory(Path(sys.argv[1]))
except ConfigurationError as error:
    print("refused", error, flush=True)
else:
    print("held", flush=True)
    sys.stdin.read()
"""


def start(data: Path) -> subprocess.Popen[str]:
    """Start a process that holds the directory until its input ends; its first line says whether it got it."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, data], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_holder_is_told_who_has_it(tmp_path: Path) -> None:
    with hold_directory(tmp_path / "data"), pytest.raises(ConfigurationError, match=f"pid {os.getpid()} on .* since"):
        hold_directory(tmp_path / "data")


def test_a_lock_is_given_free_on_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as trouble:
        lock = hold_directory(tmp_path / "data")
        trouble.setattr(os, "ftruncate", fail)
        lock.release()
        assert not lock.is_held
    with hold_directory(tmp_path / "data"):
        pass


def test_of_two_first_starts_at_once_one_wins_and_the_other_names_it(tmp_path: Path) -> None:
    processes = [start(tmp_path / "data") for _ in range(4)]
    try:
        lines = [first_line(process) for process in processes]
        winners = [process.pid for process, line in zip(processes, lines, strict=True) if line == "held"]
        assert len(winners) == 1
        refused = [line for line in lines if line != "held"]
        assert all(f"pid {winners[0]} on " in line for line in refused), lines
    finally:
        for process in processes:
            process.communicate()


def test_a_killed_holder_leaves_the_directory_free(tmp_path: Path) -> None:
    process = start(tmp_path / "data")
    assert first_line(process) == "held"
    process.kill()
    process.communicate()
    assert "pid" in (tmp_path / "data" / NAME).read_text()
    with hold_directory(tmp_path / "data") as lock:
        assert lock.is_held


def test_the_text_of_a_dead_holder_is_not_taken_for_the_holders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    with hold_directory(data):
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        text = (data / NAME).read_text().replace(f"pid {os.getpid()}", f"pid {ended.pid}")
        (data / NAME).write_text(text)
        monkeypatch.setattr("tq.store.lock._WAIT_FOR_TEXT_S", 0.0)
        with pytest.raises(ConfigurationError, match="another process"):
            lock_directory(data)


def test_a_released_lock_can_be_taken_again_and_released_twice(tmp_path: Path) -> None:
    lock = hold_directory(tmp_path / "data")
    lock.release()
    lock.release()
    assert not lock.is_held
    hold_directory(tmp_path / "data").release()


def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    with hold_directory(tmp_path / "data"):
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        hold_directory(tmp_path / "data").release()
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("number, status", [(errno.EROFS, 78), (errno.EACCES, 78), (errno.ENOSPC, 74), (errno.EIO, 74)])
@pytest.mark.parametrize("call", ["open", "pwrite"])
def test_a_directory_that_cannot_be_written_is_said_and_what_will_stay_so_is_no_failure_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, status: int
) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(TqError, match=os.strerror(number)) as caught:
            lock_directory(tmp_path)

    assert caught.value.exit_status == status  # `tq up` starts a server that ended with 74 again, not one with 78
    assert caught.value.hint
    lock_directory(tmp_path).release()  # and nothing of it is left behind


@pytest.mark.parametrize("limit", [resource.RLIM_INFINITY, process_limits.server_bytes_min])
def test_as_much_as_it_needs_is_enough(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    process_limits.check_address_space()


def test_with_less_a_server_says_so_before_it_touches_its_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = process_limits.server_bytes_min - 1
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    with pytest.raises(ConfigurationError, match=r"ulimit -v") as caught:
        serve.main(Settings(tmp_path / "data", tmp_path / "state"))
    assert "LimitAS" in caught.value.hint
    assert not (tmp_path / "data").exists()
