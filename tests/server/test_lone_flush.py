"""Where a flush runs: in the committer's thread, but for a lone turn on a disk that has been quick."""

import threading
from pathlib import Path

import pytest
import trio

from tests.server.process import ServerProcess, command, wait_until
from tq.errors import StoreError
from tq.server.commit import committer
from tq.server.commit.committer import Committer, quick_runs_min

MAIN = "here"
THREAD = "thread"


class Disk:
    """A store of which only flushes matter: how long they take by a clock in the test's hand, and where they ran."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.took_s = 0.0001
        self.ran: list[str] = []
        self.is_broken = False
        self._main = threading.get_ident()
        patch.setattr(committer.time, "perf_counter", lambda: self.now_s)

    def flush(self, _sequence: int) -> None:
        self.ran.append(MAIN if threading.get_ident() == self._main else THREAD)
        if self.is_broken:
            raise StoreError("the disk is broken")
        self.now_s += self.took_s


class Rig:
    """A committer over that disk, one flush at a time."""

    def __init__(self, disk: Disk) -> None:
        self.failures: list[StoreError] = []
        self.done = 0
        self.news = trio.Event()
        self.committer = Committer(disk, self._flushed, self._failed)  # type: ignore[arg-type]

    async def flush(self, *, is_lone: bool = True) -> None:
        self.news = trio.Event()
        if self.committer.flush(self.done + 1, is_lone=is_lone):
            self._flushed(self.done + 1)
        with trio.fail_after(20):
            await self.news.wait()

    def _flushed(self, sequence: int) -> None:
        self.done = sequence
        self.news.set()

    def _failed(self, error: StoreError) -> None:
        self.failures.append(error)
        self.news.set()


@pytest.fixture
async def rig(monkeypatch):
    disk = Disk(monkeypatch)
    rig = Rig(disk)
    rig.disk = disk
    rig.committer.start()
    yield rig
    assert rig.committer.close()


async def _make_quick(rig) -> None:
    for _ in range(quick_runs_min):
        await rig.flush()
    rig.disk.ran.clear()


async def test_a_disk_must_have_been_quick_for_a_while(rig) -> None:
    for _ in range(quick_runs_min):
        await rig.flush()
    assert set(rig.disk.ran) == {THREAD}
    await rig.flush()
    assert rig.disk.ran[-1] == MAIN
    assert rig.done == quick_runs_min + 1


async def test_a_turn_that_others_wait_beside_goes_to_the_thread(rig) -> None:
    await _make_quick(rig)
    await rig.flush(is_lone=False)
    await rig.flush()
    assert rig.disk.ran == [THREAD, MAIN]


async def test_one_slow_flush_sends_the_next_ones_to_the_thread(rig) -> None:
    await _make_quick(rig)
    rig.disk.took_s = 0.5
    await rig.flush()
    rig.disk.took_s = 0.0001
    await rig.flush()
    assert rig.disk.ran == [MAIN, THREAD]


async def test_a_flush_that_fails_in_place_is_a_failure_like_any_other(rig) -> None:
    await _make_quick(rig)
    rig.disk.is_broken = True
    await rig.flush()
    assert [str(error) for error in rig.failures] == ["the disk is broken"]
    assert rig.done == quick_runs_min


def test_a_server_whose_disk_is_stuck_still_stops(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.program = "tests.support.stuck_server"
    server.start()
    try:
        with server.client() as client:
            client.ask(command("true", key="before"))
            (server.data / "stuck").touch()
            client.post(command("true", key="after"))
            wait_until((server.data / "sticks").exists)
            status = server.stop()
    finally:
        server.kill()

    assert status == StoreError.exit_status, server.log()
    assert "flush_stuck" in server.log()
