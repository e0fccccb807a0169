"""The parent of `tq up`: what a signal does, whenever it comes."""

import signal
from pathlib import Path

import pytest

from tq.cli.verbs import up
from tq.cli.verbs.up import Roles


class Recorder:
    """A role that runs, and notes the signals that it is sent."""

    def __init__(self) -> None:
        self.process = object()
        self.sent: list[int] = []
        self.name = "role"
        self.status: int | None = None

    def poll(self) -> int | None:
        return self.status

    def signal(self, number: int) -> None:
        self.sent.append(number)


def test_a_signal_is_only_counted_where_it_comes_and_obeyed_at_the_next_look() -> None:
    roles = Roles(Path("/nowhere"), [], [], {}, is_colored=False)
    worker, server = Recorder(), Recorder()
    roles._worker, roles._server = worker, server  # type: ignore[assignment]  # as if both ran

    roles._on_signal(signal.SIGINT, None)
    assert worker.sent == server.sent == []
    roles._obey()
    assert (worker.sent, server.sent) == ([signal.SIGTERM], [])
    roles._on_signal(signal.SIGINT, None)
    roles._on_signal(signal.SIGINT, None)
    roles._obey()
    assert worker.sent == [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL]
    assert server.sent == [signal.SIGKILL]


def test_of_a_server_that_ends_because_the_worker_cannot_start_no_restart_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    roles = Roles(Path("/nowhere"), [], [], {}, is_colored=False)
    worker, server = Recorder(), Recorder()
    roles._worker, roles._server = worker, server  # type: ignore[assignment]  # as if both ran

    worker.status = 78
    roles._look()
    assert server.sent == [signal.SIGTERM]
    worker.status, server.status = None, 0
    roles._look()
    assert "started again" not in capsys.readouterr().err


def test_of_a_server_that_was_killed_the_restart_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    roles = Roles(Path("/nowhere"), [], [], {}, is_colored=False)
    worker, server = Recorder(), Recorder()
    roles._worker, roles._server = worker, server  # type: ignore[assignment]  # as if both ran

    server.status = -9
    roles._look()
    assert capsys.readouterr().err == "tq: the role was ended by signal 9; it is started again\n"


@pytest.fixture
def roles(monkeypatch: pytest.MonkeyPatch) -> Roles:
    """Both as if they ran, and the server is one that `tq` finds."""
    monkeypatch.setattr(up, "is_found", lambda _data, _environ: True)
    return Roles(Path("/no where"), [], [], {}, is_colored=False)


UP = "tq: up; in another terminal: tq run -- echo hello   (Ctrl-C here drains and stops)\n"


def test_up_is_said_once_and_only_when_the_worker_has_connected(
    roles: Roles, capsys: pytest.CaptureFixture[str]
) -> None:
    roles._say(roles._worker, b"T info worker_started slots=2\nT warning cannot_connect error=x\nconnected\n")
    assert roles._server is not None
    roles._say(roles._server, b"T info connected url=x\n")
    assert "tq: up" not in capsys.readouterr().err
    roles._say(roles._worker, b"T info conn")
    roles._say(roles._worker, b"ected url=x\nT info connected url=x\n")
    said = "worker | T info connected url=x\n"
    assert capsys.readouterr().err == said + UP + said


def test_who_would_find_another_server_is_told_how_to_find_this_one(
    roles: Roles, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "is_found", lambda _data, _environ: False)
    roles._say(roles._worker, b"T info connected url=x\n")
    assert "tq: up; in another terminal: TQ_DATA='/no where' tq run -- echo hello " in capsys.readouterr().err


def test_a_worker_that_does_not_connect_is_told_of_once_with_what_it_said_last(
    roles: Roles, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1_000.0
    monkeypatch.setattr(up.time, "monotonic", lambda: now_s)
    roles._server, started = None, []
    monkeypatch.setattr(roles, "_start", started.append)
    roles._start_due()
    assert started == [roles._worker]
    roles._say_late()
    assert capsys.readouterr().err == ""
    roles._say(roles._worker, b"T warning cannot_connect error=x\n")
    now_s += up._JOIN_S
    roles._say_late()
    roles._say_late()
    said = "T warning cannot_connect error=x"
    assert capsys.readouterr().err == (
        f"worker | {said}\ntq: the worker has not connected after 10 s; it said last: {said}\n"
    )
    roles._say(roles._worker, b"T info connected url=x\n")
    assert capsys.readouterr().err.endswith(UP)
