"""A real worker with a real launcher against a server played by the test, over TLS on loopback."""

import errno
import hashlib
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from tests.support import processes
from tests.support.fake_server import SLEEPER, FakeServer, assign, eventually, ref, running_worker, text, written_pid
from tests.support.processes import is_alive
from tq.core.model.task import Cause, Phase
from tq.core.vocabulary import End, Held
from tq.errors import ConfigurationError
from tq.wire import messages as m
from tq.wire.held import tally
from tq.worker import work
from tq.worker.spool import unpacked


async def test_it_runs_what_it_is_assigned_and_reports_it(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path):
        peer = await server.reconciled()
        peer.send(assign(1, "sh", "-c", "echo out; exit 3"))
        assert await peer.receive(m.Assigned) == m.Assigned(1)
        output = await peer.receive(m.Output)
        (end,) = (await peer.receive(m.Ended)).ends
        assert (end.attempt, end.cause, end.code) == (ref(1), Cause.EXIT, 3)
        assert (output.attempt, output.stream, output.offset, output.data) == (ref(1), 1, 0, b"out\n")


async def test_a_stop_ends_what_runs_and_its_report_has_the_cause(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path):
        peer = await server.reconciled()
        peer.send(assign(1, "sleep", "60"))
        assert await peer.receive(m.StartedAttempts) == m.StartedAttempts((ref(1),))
        peer.send(m.StopAttempts((ref(1),), Cause.CANCELLED))
        (end,) = (await peer.receive(m.Ended)).ends
        assert (end.cause, end.code) == (Cause.CANCELLED, -signal.SIGTERM)


async def test_what_has_not_started_is_handed_back_when_recalled(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path, slots=1):
        peer = await server.reconciled()
        peer.send(assign(1, "sleep", "60", members=3))
        await peer.receive(m.StartedAttempts)
        peer.send(m.RecallAttempts(tuple(ref(1, member) for member in range(3))))
        assert (await peer.receive(m.HandedBack)).attempts == (ref(1, 1), ref(1, 2))


async def test_its_beats_tell_what_it_holds(server: FakeServer, tmp_path: Path) -> None:
    server.beat_ms = 50
    with running_worker(server, tmp_path):
        peer = await server.reconciled()
        beat = await peer.next_beat()
        assert (beat.count, beat.digest, beat.stuck) == (0, 0, 0)
        peer.send(assign(1, "sleep", "60", members=2))
        await peer.receive(m.Assigned)
        later = await peer.next_beat()
        assert (later.count, later.digest) == tally([ref(1, 0), ref(1, 1)])
        assert later.number > beat.number > 0


async def test_a_large_input_is_fetched_before_the_attempt_starts(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path):
        peer = await server.reconciled()
        peer.send(assign(1, "md5sum", stdin=5))
        for piece, data in enumerate([b"a" * 100_000, b"b" * 100_000, b""]):
            assert await peer.receive(m.GetBlob) == m.GetBlob(5, piece)
            peer.send(m.Blob(5, piece, data))
        output = await peer.receive(m.Output)
        assert output.data.split()[0].decode() == hashlib.md5(b"a" * 100_000 + b"b" * 100_000).hexdigest()
        assert (await peer.receive(m.Ended)).ends[0].code == 0


async def test_output_that_somebody_watches_comes_while_the_attempt_runs(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path):
        peer = await server.reconciled()
        go, on = tmp_path / "go", tmp_path / "on"  # of one FIFO the second read might find the first writer still there
        os.mkfifo(go)
        os.mkfifo(on)
        peer.send(assign(1, "sh", "-c", f"read x < {go}; echo seen; read x < {on}; echo done"))
        await peer.receive(m.StartedAttempts)
        peer.send(m.FollowOutput(ref(1), on=True))
        await trio.to_thread.run_sync(go.write_text, "x\n")
        assert (await peer.receive(m.Output)).data == b"seen\n"
        assert not any(isinstance(message, m.Ended) for message in peer.seen)
        await trio.to_thread.run_sync(on.write_text, "x\n")
        assert (await peer.receive(m.Output)).data == b"seen\ndone\n"


# ---------------------------------------------------------------- deaths


async def test_a_killed_launcher_loses_its_attempts_kills_their_processes_and_is_replaced(
    server: FakeServer, tmp_path: Path
) -> None:
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        peer.send(assign(1, "sh", "-c", SLEEPER.format(tmp_path / "pid")))
        pid = await written_pid(tmp_path / "pid")
        await peer.receive(m.StartedAttempts)
        os.kill(worker.launcher_pid(), signal.SIGKILL)
        (end,) = (await peer.receive(m.Ended)).ends
        assert (end.attempt, end.cause) == (ref(1), Cause.LOST)
        assert not is_alive(pid)
        peer.send(assign(2, "true"))
        assert (await peer.receive(m.Ended)).ends[0].code == 0


TWO_STILLBORN = """
from tq.worker import launcher_link
whole, starts = launcher_link.command, iter(range(100))
launcher_link.command = lambda *what: whole(*what) if next(starts) > 1 else ["false"]
"""


async def test_launchers_that_die_while_they_start_lose_nothing(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path, before=TWO_STILLBORN):
        peer = await server.reconciled()
        peer.send(assign(1, "true", members=3))
        assert await peer.receive(m.Assigned) == m.Assigned(1)
        ends: list[End] = []
        while len(ends) < 3:
            ends += (await peer.receive(m.Ended)).ends
    assert {(end.attempt, end.cause, end.code) for end in ends} == {
        (ref(1, member), Cause.EXIT, 0) for member in range(3)
    }


NO_PROCESS_TWICE = """
import errno
from tq.worker import launcher_link
whole, starts = launcher_link.subprocess.Popen, iter(range(100))
def start(*words, **options):
    if 0 < next(starts) < 3:
        raise OSError(errno.EAGAIN, "no more processes")
    return whole(*words, **options)
launcher_link.subprocess.Popen = start
"""


async def test_a_worker_that_cannot_replace_its_launcher_at_once_tries_again(
    server: FakeServer, tmp_path: Path
) -> None:
    with running_worker(server, tmp_path, before=NO_PROCESS_TWICE) as worker:
        peer = await server.reconciled()
        peer.send(assign(1, "true"))
        await peer.receive(m.Ended)
        os.kill(worker.launcher_pid(), signal.SIGKILL)
        await worker.logged("no more processes")
        peer.send(assign(2, "true"))
        assert (await peer.receive(m.Ended)).ends[0].code == 0
    assert len(list((tmp_path / "state" / "worker").glob("scratch*"))) == 1  # that of the one that was killed with it


async def test_a_worker_that_cannot_start_its_first_launcher_says_why_and_ends(
    server: FakeServer, tmp_path: Path
) -> None:
    home = tmp_path / "state" / "worker"
    home.mkdir(parents=True, mode=0o700)
    (home / "scratch.new").write_text("in the way")
    with running_worker(server, tmp_path) as worker:
        assert await worker.exit_status() == 78
        assert "error: cannot make" in worker.log()
        assert "Traceback" not in worker.log()


async def test_what_keeps_a_launcher_from_starting_is_said_once(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interpreter = SimpleNamespace(carry_out=list)
    slots = SimpleNamespace(launcher_died=lambda cause: [cause])
    context = SimpleNamespace(
        interpreter=interpreter, slots=slots, is_over=False, is_hurrying=False, home=SimpleNamespace(is_ours=True)
    )
    errors = ["full"] * 50 + [""] + ["full"] * 50 + ["no memory"] * 50

    async def serve(_: object) -> None:
        error = errors.pop()
        context.is_over = not errors
        if error:
            raise ConfigurationError(error) from OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(work, "_serve_launcher", serve)
    await work.run_launcher(context)  # type: ignore[arg-type]
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition("error=")[2].split(" hint")[0] for line in lines] == ['"no memory"', "full", "full"]


async def test_where_too_few_files_may_be_open_no_worker_starts(server: FakeServer, tmp_path: Path) -> None:
    before = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0}))\n"
    with running_worker(server, tmp_path, before=before.format(39)) as worker:
        assert await worker.exit_status() == 78
        assert "no more than 39 files may be open here (ulimit -n); a worker needs 40" in worker.log()
    with running_worker(server, tmp_path, before=before.format(40), slots=1):
        peer = await server.reconciled()
        peer.send(assign(1, "sh", "-c", "echo $(cat; ls | wc -l)", stdin=5))
        for piece, data in enumerate([b"input", b""]):
            await peer.receive(m.GetBlob)
            peer.send(m.Blob(5, piece, data))
        assert (await peer.receive(m.Ended)).ends[0].code == 0


async def test_nothing_of_a_killed_worker_survives(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        peer.send(assign(1, "sh", "-c", SLEEPER.format(tmp_path / "pid")))
        pid = await written_pid(tmp_path / "pid")
        worker.signal(signal.SIGKILL)
        await eventually(lambda: not is_alive(pid))


async def test_the_next_worker_kills_what_was_left_when_worker_launcher_and_sentry_died_at_once(
    server: FakeServer, tmp_path: Path
) -> None:
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        peer.send(assign(1, "sh", "-c", SLEEPER.format(tmp_path / "pid")))
        pid = await written_pid(tmp_path / "pid")
        await eventually((tmp_path / "state" / "worker" / "last.json").exists)
        launcher = worker.launcher_pid()
        both = (processes.parent(launcher), launcher)
        for one in both:
            os.kill(one, signal.SIGSTOP)  # so that it does not see its worker's end
        worker.signal(signal.SIGKILL)
        for one in both:
            os.kill(one, signal.SIGKILL)
        await worker.exit_status()
        assert is_alive(pid)
    with running_worker(server, tmp_path):
        await server.reconciled()
        assert not is_alive(pid)


async def test_the_next_worker_names_its_predecessor(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path):
        first = (await server.reconciled()).hello
        await eventually((tmp_path / "state" / "worker" / "last.json").exists)
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        second = peer.hello
        await worker.logged("connected")
        peer.cut()
        assert (await server.reconciled()).hello.predecessors == (), "the server knows by now"
    assert first.predecessors == ()
    assert second.predecessors == (first.worker,)
    assert first.worker != second.worker
    assert (second.lineage, second.epoch) == (server.lineage, server.epoch)


async def test_two_workers_on_one_state_directory_live_apart(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path), running_worker(server, tmp_path):
        hellos = [(await server.reconciled()).hello for _ in range(2)]
        assert hellos[0].worker != hellos[1].worker
        assert {hello.predecessors for hello in hellos} == {()}
        assert (tmp_path / "state" / "worker-2" / "worker.lock").exists()


# ---------------------------------------------------------------- the server is away


async def test_what_ends_while_the_server_is_away_is_on_disk_and_presented_at_its_return(
    server: FakeServer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    with running_worker(server, tmp_path):
        peer = await server.reconciled()
        peer.send(assign(1, "sh", "-c", f"read x < {go}; echo late; exit 4"))
        await peer.receive(m.StartedAttempts)
        peer.cut()
        back = await server.peer()  # connected, but its list is not answered yet
        assert (await back.receive(m.Reconcile)).held == (Held(ref(1), Phase.STARTED),)
        await trio.to_thread.run_sync(go.write_text, "x\n")
        spool = tmp_path / "state" / "worker" / "spool"
        await eventually(lambda: list(spool.iterdir()))
        back.send(m.Reconciled((), ()))
        output, report = await back.receive(m.Output), await back.receive(m.Ended)
        assert (output.data, report.ends[0].code) == (b"late\n", 4)
        assert back.seen.index(output) < back.seen.index(report)
        await eventually(lambda: not list(spool.iterdir()))


async def test_output_of_an_unacknowledged_report_comes_again_before_it(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path):
        peer = await server.reconciled()
        peer.acknowledges = False
        peer.send(assign(1, "echo", "once"))
        report = await peer.receive(m.Ended)
        peer.cut()
        back = await server.reconciled()
        output, again = await back.receive(m.Output), await back.receive(m.Ended)
        assert (output.data, again) == (b"once\n", report)
        assert back.seen.index(output) < back.seen.index(again)


async def test_a_result_outlives_its_worker(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        peer.acknowledges = False
        peer.send(assign(1, "sh", "-c", "exit 5"))
        report = await peer.receive(m.Ended)
        peer.cut()
        spool = tmp_path / "state" / "worker" / "spool"
        await server.peer()
        assert len(list(spool.iterdir())) == 1
        worker.signal(signal.SIGKILL)
        await worker.exit_status()
    with running_worker(server, tmp_path):
        peer = await server.peer()
        while peer.hello.predecessors == ():
            peer = await server.peer()
        assert (await peer.receive(m.Reconcile)).held == (Held(ref(1), Phase.ENDED),)
        peer.send(m.Reconciled((), ()))
        assert (await peer.receive(m.Ended)).ends == report.ends


async def test_a_silent_server_is_left_and_found_again(server: FakeServer, tmp_path: Path) -> None:
    server.beat_ms = 50
    with running_worker(server, tmp_path):
        peer = await server.reconciled()
        peer.is_mute = True
        await peer.ended()
        assert peer.beats_sent >= 2
        await server.reconciled()


async def test_a_worker_that_was_frozen_goes_on_in_its_session(server: FakeServer, tmp_path: Path) -> None:
    server.beat_ms = 50
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        peer.send(assign(1, "sleep", "60"))
        await peer.receive(m.StartedAttempts)
        worker.signal(signal.SIGSTOP)
        await peer.beats_pass(10)
        worker.signal(signal.SIGCONT)
        await peer.beats_pass(5)
        peer.send(assign(2, "true"))
        assert (await peer.receive(m.Ended)).ends[0].attempt == ref(2)


async def test_what_the_server_no_longer_wants_is_stopped_at_its_return(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path):
        peer = await server.reconciled()
        peer.send(assign(1, "sleep", "60"))
        await peer.receive(m.StartedAttempts)
        peer.cut()
        back = await server.reconciled(stop=((ref(1), Cause.LOST),))
        (end,) = (await back.receive(m.Ended)).ends
        assert end.cause == Cause.LOST


async def test_another_lineage_gets_nothing_of_the_first_one(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        peer.acknowledges = False
        peer.send(assign(1, "echo", "one"))
        await peer.receive(m.Ended)
        peer.send(assign(2, "sh", "-c", f"echo two; {SLEEPER.format(tmp_path / 'pid')}", kill_after_ms=100))
        pid = await written_pid(tmp_path / "pid")
        server.lineage = 99
        peer.cut()
        refused, back = await server.peer(), await server.peer()
        assert refused.seen == []
        assert (await back.receive(m.Reconcile)).held == ()
        assert not is_alive(pid)
        back.send(m.Reconciled((), ()))
        back.send(assign(3, "echo", "three"))
        await back.receive(m.Ended)
        assert {one.attempt for one in back.seen if isinstance(one, m.Output)} == {ref(3)}
        await worker.logged("results_orphaned")
        orphaned = list((tmp_path / "state" / "worker" / "spool" / "orphaned").iterdir())
        assert {path.name.split("-")[0] for path in orphaned} == {f"{77:016x}"}
        aside = [unpacked(path.read_bytes()) for path in orphaned]
        assert {one.ends[0].attempt: b"".join(out.data for out in one.outputs) for one in aside} == {
            ref(1): b"one\n", ref(2): b"two\n",
        }  # fmt: skip


async def test_who_has_nothing_of_the_other_store_speaks_of_no_error(server: FakeServer, tmp_path: Path) -> None:
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        await worker.logged(" connected ")
        server.lineage = 99
        peer.cut()
        await server.peer()
        await worker.logged("other_lineage")
        assert "info other_lineage" in worker.log()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("code, status", [("unauthorised", 4), ("not_allowed", 4), ("version_mismatch", 78)], ids=str)
async def test_a_worker_that_is_refused_for_good_exits(
    server: FakeServer, tmp_path: Path, code: str, status: int
) -> None:
    server.refusal = m.Refused(code, "no")
    with running_worker(server, tmp_path) as worker:
        assert await worker.exit_status() == status
        assert "error: no" in worker.log()


async def test_a_worker_that_is_refused_for_now_comes_again(server: FakeServer, tmp_path: Path) -> None:
    server.refusal = m.Refused("not_done", "later")
    with running_worker(server, tmp_path) as worker:
        await worker.logged("later")
        server.refusal = None
        await server.reconciled()


async def test_a_join_string_s_hash_is_enough_to_trust_the_server(server: FakeServer, tmp_path: Path) -> None:
    server.tells_ca = True
    known = server.identity.ca_sha256
    with running_worker(server, tmp_path, ca_pem="", ca_sha256=known) as worker:
        await server.reconciled()
        assert text(tmp_path / "state" / "cas" / f"{known}.pem") == server.identity.ca_pem
        worker.signal(signal.SIGTERM)
        assert await worker.exit_status() == 0


async def test_a_kept_ca_that_is_damaged_is_asked_for_again(server: FakeServer, tmp_path: Path) -> None:
    server.tells_ca = True
    known = server.identity.ca_sha256
    kept = tmp_path / "state" / "cas" / f"{known}.pem"
    kept.parent.mkdir(mode=0o700, parents=True)
    kept.write_text(server.identity.ca_pem[:100])
    with running_worker(server, tmp_path, ca_pem="", ca_sha256=known):
        await server.reconciled()
    assert kept.read_text() == server.identity.ca_pem


async def test_a_server_with_another_ca_never_sees_the_token(server: FakeServer, tmp_path: Path) -> None:
    server.tells_ca = True
    with running_worker(server, tmp_path, ca_pem="", ca_sha256="0" * 64) as worker:
        assert await worker.exit_status() == 4
    assert server.hellos == 0
