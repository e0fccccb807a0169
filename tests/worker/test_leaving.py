"""How a worker leaves, by signals: nothing is lost that it has. A real worker and launcher, a server that is played."""

import os
import signal
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.support.fake_server import SLEEPER, FakeServer, assign, ref, running_worker, written_pid
from tests.support.processes import is_alive
from tq.core.model.task import Cause
from tq.wire import messages as m

IMPATIENT: Final = "import tq.worker.leave; tq.worker.leave._ACKNOWLEDGED_S = {}\n"


async def test_a_worker_that_finds_no_server_can_be_told_to_leave(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path, address=("127.0.0.1", 1)) as worker:
        await worker.logged("cannot_connect")
        worker.signal(signal.SIGTERM)
        assert await worker.exit_status() == 0


async def test_results_that_nobody_acknowledges_are_on_disk_when_the_worker_has_left(
    server: FakeServer, tmp_path: Path
) -> None:
    with running_worker(server, tmp_path, before=IMPATIENT.format(0.2)) as worker:
        peer = await server.reconciled()
        peer.acknowledges = False
        peer.send(assign(1, "true"))
        await peer.receive(m.Ended)
        worker.signal(signal.SIGTERM)
        assert await worker.exit_status() == 0
    assert [path.name for path in (tmp_path / "state" / "worker" / "spool").iterdir()] == ["000000000001"]


async def test_an_idle_worker_leaves_at_once(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        await worker.logged(" connected ")
        worker.signal(signal.SIGTERM)
        await peer.receive(m.Draining)
        await peer.receive(m.Goodbye)
        assert await worker.exit_status() == 0


async def test_what_runs_may_finish_within_the_drain_time(server: FakeServer, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    with running_worker(server, tmp_path, slots=1) as worker:
        peer = await server.reconciled()
        peer.send(assign(1, "sh", "-c", f"read x < {go}", members=2))
        await peer.receive(m.StartedAttempts)
        worker.signal(signal.SIGINT)
        assert (await peer.receive(m.HandedBack)).attempts == (ref(1, 1),)
        await trio.to_thread.run_sync(go.write_text, "x\n")
        assert (await peer.receive(m.Ended)).ends[0].attempt == ref(1, 0)
        assert await worker.exit_status() == 0


async def test_what_runs_longer_than_the_drain_time_is_handed_back(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path, drain_s=0.05) as worker:
        peer = await server.reconciled()
        peer.send(assign(1, "sleep", "60"))
        await peer.receive(m.StartedAttempts)
        worker.signal(signal.SIGTERM)
        handback = await peer.receive(m.HandedBack)
        assert (handback.attempts, handback.cause) == ((ref(1),), Cause.DRAIN)
        assert await worker.exit_status() == 0


async def test_a_second_signal_ends_at_once(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        peer.send(assign(1, "sh", "-c", SLEEPER.format(tmp_path / "pid")))
        pid = await written_pid(tmp_path / "pid")
        await peer.receive(m.StartedAttempts)
        worker.signal(signal.SIGTERM)
        await peer.receive(m.Draining)
        worker.signal(signal.SIGTERM)
        assert (await peer.receive(m.HandedBack)).cause == Cause.DRAIN
        assert await worker.exit_status() == 0
        assert not is_alive(pid)
        assert " error " not in worker.log()  # its launcher died as it was meant to


async def test_a_third_signal_costs_no_result(server: FakeServer, tmp_path: Path) -> None:
    """Who insists gets no more than a worker that leaves now: what is owed is written down before its end."""
    with running_worker(server, tmp_path, before=IMPATIENT.format(2.0)) as worker:
        peer = await server.reconciled()
        peer.acknowledges = False
        peer.send(assign(1, "true"))
        await peer.receive(m.Ended)
        worker.signal(signal.SIGTERM)
        await peer.receive(m.Draining)
        worker.signal(signal.SIGTERM)
        await worker.logged("leaving_now")
        worker.signal(signal.SIGTERM)
        assert await worker.exit_status() == 0
    assert [path.name for path in (tmp_path / "state" / "worker" / "spool").iterdir()] == ["000000000001"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_at_the_very_end_waits_until_results_are_on_disk(
    server: FakeServer, tmp_path: Path, number: signal.Signals
) -> None:
    before = f"""
import os
from tq.worker import leave, work
leave._ACKNOWLEDGED_S = 0.1
finish = work.finish
def late(*what):
    os.kill(os.getpid(), {int(number)})
    finish(*what)
    open({os.fspath(tmp_path / "finished")!r}, "w").close()
work.finish = late
"""
    with running_worker(server, tmp_path, before=before) as worker:
        peer = await server.reconciled()
        await worker.logged(" connected ")
        worker.signal(signal.SIGTERM)
        await peer.receive(m.Goodbye)
        await worker.exit_status()
    assert (tmp_path / "finished").exists()
