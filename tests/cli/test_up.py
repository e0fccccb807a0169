"""The parent of `tq up`: what a signal does, whenever it comes."""

import signal
from pathlib import Path

from tq.cli.up import Roles


class Recorder:
    """A role that runs, and notes the signals that it is sent."""

    def __init__(self) -> None:
        self.process = object()
        self.sent: list[int] = []

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
