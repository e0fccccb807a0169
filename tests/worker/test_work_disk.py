"""A real worker whose directory is removed, is another's, or lies on a disk that is full."""

import os
import signal
from pathlib import Path

import msgspec
import pytest
import trio

from tests.support.fake_server import FakeServer, assign, eventually, ref, running_worker
from tq.core.model.task import Cause, Phase
from tq.core.vocabulary import End, Held
from tq.launcher import scratch
from tq.wire import messages as m
from tq.worker import instructions as i
from tq.worker.spool import Spool, unpacked
from tq.worker.state_dir import Last, settle


async def test_a_worker_whose_directory_was_removed_leaves_when_its_launcher_is_gone(
    server: FakeServer, tmp_path: Path
) -> None:
    """It could start no other, and would take attempts for ever that it cannot run."""
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        (tmp_path / "state").rename(tmp_path / "elsewhere")
        peer.send(assign(1, "true"))
        assert (await peer.receive(m.Ended)).ends[0].code == 0
        os.kill(worker.launcher_pid(), signal.SIGKILL)
        assert await worker.exit_status() == 74, "who looks after it starts it again"
        assert "state/worker was removed" in worker.log()


QUICK = "from tq import limits; limits.heartbeat_s = 0.02\n"


async def test_a_worker_whose_directory_is_anothers_by_now_ends_what_runs_and_leaves(
    server: FakeServer, tmp_path: Path
) -> None:
    """What it would keep goes where its own files are; nothing is lost though the server is away."""
    go = tmp_path / "go"
    os.mkfifo(go)
    with running_worker(server, tmp_path, before=QUICK) as worker:
        peer = await server.reconciled()
        peer.acknowledges = False
        peer.send(assign(1, "sh", "-c", f"read x < {go}; exit 3"))
        await peer.receive(m.StartedAttempts)
        (tmp_path / "state" / "worker").rename(tmp_path / "elsewhere")
        with settle(tmp_path / "state") as other:
            assert other.path == tmp_path / "state" / "worker"
            await peer.receive(m.Draining)
            peer.send(assign(2, "true"))
            assert (await peer.receive(m.HandedBack)).attempts == (ref(2),)
            await trio.to_thread.run_sync(go.write_text, "x\n")
            report = await peer.receive(m.Ended)
            peer.cut()
            back = await server.peer()
            await eventually(lambda: len(list((tmp_path / "elsewhere" / "spool").iterdir())) == 2)
            assert [path.name for path in other.path.iterdir()] == ["worker.lock"]
            await back.receive(m.Reconcile)
            assert worker.process.poll() is None, "its results are nowhere else"
            back.send(m.Reconciled((), ()))
            assert (await back.receive(m.Ended)).ends == report.ends
            assert await worker.exit_status() == 74
    assert "state/worker was removed, or replaced" in worker.log()


async def test_no_launcher_is_started_in_a_directory_that_is_anothers_by_now(
    server: FakeServer, tmp_path: Path
) -> None:
    """It would take the other one's scratch directories for leftovers."""
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        peer.send(assign(1, "sleep", "60"))
        await peer.receive(m.StartedAttempts)
        (tmp_path / "state" / "worker").rename(tmp_path / "elsewhere")
        with settle(tmp_path / "state") as other:
            theirs = Path(os.fsdecode(scratch.make_root(other.path).path))
            os.kill(worker.launcher_pid(), signal.SIGKILL)
            assert (await peer.receive(m.Ended)).ends[0].cause == Cause.LOST
            assert await worker.exit_status() == 74
            assert sorted(other.path.iterdir()) == [theirs, other.path / "worker.lock"]


async def test_results_of_another_store_for_which_there_is_no_room_aside_stop_no_worker(
    server: FakeServer, tmp_path: Path
) -> None:
    """They stay under their numbers, which no result of the new store gets."""
    home = tmp_path / "state" / "worker"
    home.mkdir(parents=True, mode=0o700)
    spool = Spool(home / "spool")
    spool.keep(5, [i.Keep(m.Ended(1, (End(ref(8), 1, 0, 10),))), i.Keep(m.Ended(2, (End(ref(9), 1, 0, 10),)))])
    (home / "last.json").write_bytes(msgspec.json.encode(Last(4, server.lineage, 1)))
    (spool.path / "orphaned").write_text("as if there were no room for it")
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        await worker.logged("spool_failed")
        peer.acknowledges = False
        peer.send(assign(1, "true"))
        assert (await peer.receive(m.Ended)).delivery == 3
        peer.cut()
        await server.peer()
        await eventually(lambda: len(list(spool.path.iterdir())) == 4)
    kept = spool.load().kept
    assert {number: (one.lineage, one.ends[0].attempt) for number, one in kept.items()} == {
        1: (5, ref(8)), 2: (5, ref(9)), 3: (server.lineage, ref(1)),
    }  # fmt: skip


@pytest.mark.parametrize("known, newest", [(5, 77), (77, 5), (0, 5), (0, 77)])
async def test_of_the_results_of_several_stores_each_server_gets_its_own(
    server: FakeServer, tmp_path: Path, known: int, newest: int
) -> None:
    """Where the disk was full, what is noted of the last store may be older than the results, or newer."""
    home = tmp_path / "state" / "worker"
    home.mkdir(parents=True, mode=0o700)
    spool = Spool(home / "spool")
    older = 82 - newest
    outputs = tuple(m.Output(ref(job), 1, 0, b"out") for job in (8, 9))
    spool.keep(older, [i.Keep(m.Ended(1, (End(ref(8), 1, 0, 10),)), outputs[:1])])
    spool.keep(newest, [i.Keep(m.Ended(2, (End(ref(9), 1, 0, 10),)), outputs[1:])])
    if known:
        (home / "last.json").write_bytes(msgspec.json.encode(Last(4, known, 1)))
    with running_worker(server, tmp_path):
        peer = await server.peer()
        if (known or newest) != server.lineage:  # it says hello for that one first, and lists nothing then
            peer = await server.peer()
        mine = ref(9) if newest == server.lineage else ref(8)
        assert (await peer.receive(m.Reconcile)).held == (Held(mine, Phase.ENDED),)
        peer.send(m.Reconciled((), ()))
        assert (await peer.receive(m.Output)).attempt == mine
        assert (await peer.receive(m.Ended)).ends[0].attempt == mine
        await eventually(lambda: [path.name for path in spool.path.iterdir()] == ["orphaned"])
    (aside,) = [unpacked(path.read_bytes()) for path in (spool.path / "orphaned").iterdir()]
    assert (aside.lineage, len(aside.ends), len(aside.outputs)) == (5, 1, 1)


async def test_a_worker_that_starts_on_a_full_disk_waits_for_room(server: FakeServer, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.touch()
    before = f"""
import errno, os
from tq.launcher import scratch
make = scratch._make
def make_if(path):
    if os.path.exists({str(full)!r}):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return make(path)
scratch._make = make_if
"""
    with running_worker(server, tmp_path, before=before) as worker:
        await worker.logged("No space left on device")
        await worker.logged("make some room there")
        full.unlink()
        peer = await server.reconciled()
        peer.send(assign(1, "true"))
        assert (await peer.receive(m.Ended)).ends[0].code == 0


async def test_who_kept_a_result_is_named_as_a_predecessor_though_the_note_of_that_is_gone(
    server: FakeServer, tmp_path: Path
) -> None:
    """Else the server would take it for the word of a stranger."""
    home = tmp_path / "state" / "worker"
    home.mkdir(parents=True, mode=0o700)
    Spool(home / "spool", 5).keep(server.lineage, [i.Keep(m.Ended(1, (End(ref(8), 1, 0, 10),)))])
    Spool(home / "spool", 6).keep(server.lineage + 1, [i.Keep(m.Ended(2, (End(ref(9), 1, 0, 10),)))])
    (home / "last.json").write_text("{")
    with running_worker(server, tmp_path):
        other, mine = await server.peer(), await server.peer()
        assert (other.hello.predecessors, mine.hello.predecessors) == ((6,), (5,))
