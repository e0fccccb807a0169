"""A worker's end of its launcher: what is sent, what comes, and a launcher that does not answer."""

import errno
import os
import signal
from pathlib import Path

import pytest
import trio

from tests.support import processes
from tests.support.launcher import body, marker, ref, wait_count, wait_gone
from tests.support.launcher import processes as marked
from tq.core.vocabulary import Assignment
from tq.launcher import protocol
from tq.worker import launcher_link
from tq.worker.connect import pause_s
from tq.worker.launcher_link import LauncherLink, open_launcher


@pytest.fixture(autouse=True)
def nothing_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests have other children than their launchers."""
    monkeypatch.setattr(launcher_link, "kill_all_children", lambda within_s: True)


def spawn(*argv: str) -> protocol.Spawn:
    return protocol.Spawn(1, 1, False, "default", "", body(*argv), 0, "0" * 16, (Assignment(ref(1), 1),))


async def answer(launcher: LauncherLink) -> protocol.Up:
    with trio.fail_after(20):
        (message,) = await anext(launcher)
    return message


async def test_an_attempt_comes_back_with_its_output(tmp_path: Path) -> None:
    async with open_launcher(tmp_path) as launcher:
        launcher.send(protocol.Slots(1))
        launcher.send(spawn("echo", "hi"))
        message = await answer(launcher)
    assert isinstance(message, protocol.Ended)
    assert [end.attempt for end in message.ends] == [ref(1)]
    assert [output.data for output in message.outputs] == [b"hi\n"]


async def test_what_the_socket_does_not_take_at_once_follows_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_launcher(tmp_path) as launcher:
        with monkeypatch.context() as patch:
            patch.setattr(launcher_link.os, "write", lambda fd, data: _no_buffers())
            launcher.send(protocol.Slots(1))
        launcher.send(spawn("true"))
        assert isinstance(await answer(launcher), protocol.Ended)


def _no_buffers() -> int:
    raise OSError(errno.ENOBUFS, "no buffers")


async def test_a_dead_launcher_ends_the_iteration(tmp_path: Path) -> None:
    async with open_launcher(tmp_path) as launcher:
        launcher.kill()
        with trio.fail_after(20):
            assert [messages async for messages in launcher] == []
        launcher.send(protocol.Ping())  # dropped, no error
    assert launcher.process.returncode == -signal.SIGKILL


async def test_a_launcher_is_ready_once_it_has_spoken(tmp_path: Path) -> None:
    async with open_launcher(tmp_path) as launcher:
        with trio.fail_after(20):
            assert await launcher.until_ready()
        launcher.send(protocol.Slots(1))
        launcher.send(spawn("true"))
        assert isinstance(await answer(launcher), protocol.Ended)


async def test_a_launcher_that_ends_before_it_has_spoken_was_never_ready(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launcher_link, "command", lambda *what: ["false"])
    async with open_launcher(tmp_path) as launcher:
        with trio.fail_after(20):
            assert not await launcher.until_ready()
            assert [messages async for messages in launcher] == []


async def test_the_launcher_is_gone_when_the_block_ends(tmp_path: Path) -> None:
    async with open_launcher(tmp_path) as launcher:
        assert await launcher.until_ready()
        (pid,) = processes.children(launcher.process.pid)
    for one in (pid, launcher.process.pid):
        with pytest.raises(ProcessLookupError):
            os.kill(one, 0)


async def test_a_launcher_whose_sentry_is_killed_ends_by_itself_and_all_that_it_ran(tmp_path: Path) -> None:
    async with open_launcher(tmp_path) as launcher:
        assert await launcher.until_ready()
        (pid,) = processes.children(launcher.process.pid)
        mark = marker()
        launcher.send(protocol.Slots(1))
        launcher.send(spawn("sleep", mark))
        await trio.to_thread.run_sync(wait_count, mark, 1)
        launcher.process.kill()
        with trio.fail_after(20):
            assert [messages async for messages in launcher if type(messages[0]) is not protocol.Started] == []
    assert marked(mark) == []
    processes.until(lambda: not processes.is_alive(pid), "it ends")


async def test_what_a_killed_launcher_has_left_its_sentry_kills_whoever_else_is_dead_or_frozen(tmp_path: Path) -> None:
    """Nobody else does it here: the worker sweeps nothing in these tests."""
    async with open_launcher(tmp_path) as launcher:
        assert await launcher.until_ready()
        (pid,) = processes.children(launcher.process.pid)
        mark = marker()
        launcher.send(protocol.Slots(1))
        launcher.send(spawn("sh", "-c", f"(env -i setsid sleep {mark} &); exec sleep {mark}"))
        await trio.to_thread.run_sync(wait_count, mark, 2)
        os.kill(pid, signal.SIGKILL)
        await trio.to_thread.run_sync(wait_gone, mark)
    assert launcher.process.returncode == -signal.SIGKILL


async def test_a_sentry_that_hears_every_signal_but_kill_stays(tmp_path: Path) -> None:
    async with open_launcher(tmp_path) as launcher:
        assert await launcher.until_ready()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGTSTP):
            os.kill(launcher.process.pid, number)
        launcher.send(protocol.Slots(1))
        launcher.send(spawn("true"))
        assert isinstance(await answer(launcher), protocol.Ended)
        assert processes.children(launcher.process.pid) != []


async def test_what_the_block_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with open_launcher(tmp_path):
            raise ValueError("mine")


async def test_a_launcher_that_answers_no_ping_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher_link, "_TICK_S", 0.05)
    async with open_launcher(tmp_path) as launcher:
        assert await launcher.until_ready()
        (pid,) = processes.children(launcher.process.pid)
        os.kill(pid, signal.SIGSTOP)
        with trio.fail_after(20):
            assert [messages async for messages in launcher] == []
    assert launcher.process.returncode == -signal.SIGKILL
    assert f"launcher_silent silent_s=0.3 sentry={launcher.process.pid}" in capsys.readouterr().err


async def test_a_launcher_is_not_deaf_because_nobody_listens_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launcher_link, "_TICK_S", 0.1)
    async with open_launcher(tmp_path) as launcher:
        for _ in range(3 * launcher_link._deaf_ticks):
            await trio.sleep(0.1)  # a tick: we read nothing, so its Pongs wait
        launcher.send(protocol.Slots(1))
        launcher.send(spawn("true"))
        assert isinstance(await answer(launcher), protocol.Ended)


async def test_a_launcher_that_does_not_end_by_itself_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launcher_link, "_END_S", 0.05)
    async with open_launcher(tmp_path) as launcher:
        os.kill(launcher.process.pid, signal.SIGSTOP)
    assert launcher.process.returncode == -signal.SIGKILL


def test_a_worker_that_holds_attempts_comes_back_within_two_seconds_and_any_within_ten() -> None:
    assert max(pause_s(tries, is_holding=True) for tries in range(1, 400)) <= 2
    assert 2 < max(pause_s(tries, is_holding=False) for tries in range(1, 400)) <= 10
    assert max(pause_s(1, is_holding=False) for _ in range(100)) <= 0.4
