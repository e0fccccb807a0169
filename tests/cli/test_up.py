"""The parent of `tq up`: what a signal does, whenever it comes."""

import signal
from pathlib import Path

import pytest

from tq.cli.up import Roles


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
