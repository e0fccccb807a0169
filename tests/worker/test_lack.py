"""A worker and its launcher that lack a thread, a descriptor, or a newer tq: nothing is lost, nothing lives on."""

import os
import resource
import signal
from pathlib import Path

import pytest
import trio

from tests.support.fake_server import FakeServer, assign, eventually, ref, running_worker
from tests.support.launcher import Link, body, marker, wait_count, wait_gone
from tests.support.launcher import ref as of_launcher
from tq.core.model.task import Cause
from tq.errors import Unreachable
from tq.launcher import containment, scratch
from tq.net import dial, tls
from tq.net.address import Address
from tq.wire import codec
from tq.wire import messages as m
from tq.wire.body import Body
from tq.worker import launcher_link

LACK = "can't start new thread"
NO_THREADS = """
import os, threading
start = threading.Thread.start
def refuse(self):
    if os.path.exists({!r}):
        raise RuntimeError("can't start new thread")
    start(self)
threading.Thread.start = refuse
"""


def refuse(*_: object, **__: object) -> None:
    raise RuntimeError(LACK)


async def test_without_a_thread_results_are_kept_and_the_worker_goes_on(server: FakeServer, tmp_path: Path) -> None:
    go, lack = tmp_path / "go", tmp_path / "lack"
    os.mkfifo(go)
    lack.touch()
    with running_worker(server, tmp_path, before=NO_THREADS.format(str(lack))) as worker:
        peer = await server.reconciled()
        peer.send(assign(1, "sh", "-c", f"read x < {go}; exit 4"))
        await peer.receive(m.StartedAttempts)
        peer.cut()
        back = await server.peer()
        await trio.to_thread.run_sync(go.write_text, "x\n")
        await eventually(lambda: list((tmp_path / "state" / "worker" / "spool").iterdir()))
        os.kill(worker.launcher_pid(), signal.SIGKILL)
        await worker.logged("launcher_died")
        lack.unlink()
        back.send(m.Reconciled((), ()))
        assert (await back.receive(m.Ended)).ends[0].code == 4
        back.send(assign(2, "true"))
        assert (await back.receive(m.Ended)).ends[0].attempt == ref(2)


async def test_without_a_thread_a_name_is_not_looked_up_and_a_tree_stays_for_the_next_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = scratch.make_root(tmp_path)
    with monkeypatch.context() as lack:
        lack.setattr(trio.to_thread, "run_sync", refuse)
        lack.setattr(trio, "open_tcp_stream", refuse)
        with pytest.raises(Unreachable, match="cannot be looked up"):
            await dial.dial(Address("localhost", 1), tls.pinning_context())
        await launcher_link._remove(made)
    assert LACK in capsys.readouterr().err
    assert list(scratch.leftovers(tmp_path)) == [made]


def test_a_launcher_without_a_descriptor_to_spare_leaves_nothing_alive() -> None:
    mark = marker()
    with Link(slots=4) as link:
        both = body("sh", "-c", f"setsid sleep {mark} & exec sleep {mark}")
        link.spawn(both, [of_launcher(job) for job in range(1, 5)])
        wait_count(mark, 8)
        pid = link.process.pid
        taken = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
        files = next(number for number in range(1_000) if number not in taken)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, files))
    wait_gone(mark)


def test_children_are_killed_once_there_is_a_descriptor_to_see_them_with(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [OSError(24, "Too many open files")] * 3

    def look() -> list[int]:
        if looks:
            raise looks.pop()
        return []

    monkeypatch.setattr(containment, "_children_of_all_threads", look)
    assert containment.kill_all_children(60.0)
    assert not looks
    looks.append(OSError(24, "Too many open files"))
    assert not containment.kill_all_children(0.0)


def test_what_a_later_version_asks_for_is_handed_back() -> None:
    """It would run otherwise than it was meant: without what this version does not know."""
    refs = [of_launcher(number) for number in range(1, 5)]
    known = codec.unpack(codec.dumps(Body((b"true",), b"/")))
    bodies = codec.pack([*known, True]), codec.pack([*known, *range(300)]), codec.pack({"argv": []}), codec.pack(known)
    with Link() as link:
        for ref_of_it, one in zip(refs, bodies, strict=True):
            link.spawn(one, [ref_of_it])
        link.until(lambda: len(link.recalled) == len(link.ends) == 2)

    assert [link.recalled[one].cause for one in refs[:2]] == [Cause.WORKER_TROUBLE] * 2
    assert "install a newer one" in link.recalled[refs[0]].error
    assert [link.ends[one].cause for one in refs[2:]] == [Cause.SPAWN_FAILED, Cause.EXIT]
