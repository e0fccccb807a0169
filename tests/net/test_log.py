"""Lines about tq itself: whoever writes one never waits for whoever reads it."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import IO, NamedTuple

import pytest

from tests.server.process import ServerProcess
from tests.support import processes
from tests.support.town import TQ
from tq.net import log as logging
from tq.net.log import log


class Pipe(NamedTuple):
    """Standard error, and who reads it."""

    reader: int
    stderr: IO[str]

    def fill(self) -> None:
        os.set_blocking(self.stderr.fileno(), False)
        try:
            while True:
                os.write(self.stderr.fileno(), b"\n" * 4096)
        except BlockingIOError:
            os.set_blocking(self.stderr.fileno(), True)

    def read(self) -> list[str]:
        os.set_blocking(self.reader, False)
        data = b""
        try:
            while piece := os.read(self.reader, 1 << 20):
                data += piece
        except BlockingIOError:
            pass
        return [line for line in data.decode().splitlines() if line]


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    yield from standard_error(monkeypatch, *os.pipe())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    yield from standard_error(monkeypatch, *os.openpty())


def standard_error(monkeypatch: pytest.MonkeyPatch, reader: int, writer: int) -> Iterator[Pipe]:
    with os.fdopen(writer, "w") as stderr:
        monkeypatch.setattr(logging, "sys", SimpleNamespace(stderr=stderr))
        monkeypatch.setattr(logging, "_dropped", 0)
        monkeypatch.setattr(logging, "_begin", "")
        yield Pipe(reader, stderr)
        os.close(reader)


def test_what_nobody_reads_is_dropped_and_counted_in_the_next_line(pipe: Pipe) -> None:
    log("before", port=7878)
    pipe.fill()
    log("one")
    log("two", level="error")
    (first,) = pipe.read()
    assert first.endswith(" info before port=7878")
    log("after")
    dropped, last = pipe.read()
    assert dropped.endswith(" warning log_dropped lines=2")
    assert last.endswith(" info after")
    log("later")
    assert len(pipe.read()) == 1


def test_a_long_line_is_written_as_far_as_there_is_room(pipe: Pipe) -> None:
    log("long", error="x" * 500_000)
    (line,) = pipe.read()
    assert 4096 < len(line) < 500_000
    log("after")
    dropped, last = pipe.read()
    assert dropped.endswith(" warning log_dropped lines=1")
    assert last.endswith(" info after")


def test_a_terminal_that_takes_a_part_of_a_line_is_not_waited_for(terminal: Pipe) -> None:
    for number in range(1000):
        log("line", number=number, text="x" * 150)
    data = b""
    while not data.endswith(b" info after\r\n"):  # a terminal hands on what it has bit by bit
        log("after")
        data += os.read(terminal.reader, 1 << 20)
    lines = data.decode().splitlines()
    assert 0 < sum(line.endswith("x" * 150) for line in lines) < 1000
    assert any(re.fullmatch(r"[0-9-]+T\S+Z warning log_dropped lines=[0-9]+", line) for line in lines)


def test_what_a_full_disk_does_not_take_is_counted(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patched:
        patched.setattr(logging.sys, "stderr", full)
        log("one")
        log("two")
    log("after")
    dropped, last = pipe.read()
    assert dropped.endswith(" warning log_dropped lines=2")
    assert last.endswith(" info after")


def test_a_reader_that_is_gone_costs_nothing(pipe: Pipe) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), pipe.reader)
    log("nobody")


def test_a_server_and_its_worker_go_on_though_nobody_reads_what_they_say(tmp_path: Path, pipe: Pipe) -> None:
    pipe.fill()
    server = ServerProcess(tmp_path)
    words = {"env": server.environ, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": pipe.stderr}
    with ExitStack() as stack:
        server.process = stack.enter_context(subprocess.Popen(server.command, **words))
        stack.callback(server.process.kill)
        processes.until(lambda: server.is_listening, "the server listens")
        worker = stack.enter_context(subprocess.Popen([*TQ, "worker"], **words))
        stack.callback(worker.kill)
        done = subprocess.run([*TQ, "run", "--", "echo", "hi"], env=server.environ, capture_output=True, check=True)
        assert done.stdout == b"hi\n"
        for process in (worker, server.process):
            process.terminate()
            assert process.wait(processes.PATIENCE_S) == 0


def test_tq_up_goes_on_and_obeys_though_nobody_reads_what_it_and_its_roles_say(tmp_path: Path, pipe: Pipe) -> None:
    pipe.fill()
    environ = ServerProcess(tmp_path).environ
    command = [*TQ, "up", "--listen", "127.0.0.1:0", "--slots", "1"]
    with (
        subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stderr=pipe.stderr) as up,
        ExitStack() as stack,
    ):
        stack.callback(up.kill)
        ask = [*TQ, "run", "--", "true"]
        words = {"env": environ, "stderr": subprocess.DEVNULL}
        processes.until(lambda: subprocess.run(ask, check=False, **words).returncode == 0, "it is up")
        up.terminate()
        assert up.wait(processes.PATIENCE_S) == 0


def test_a_name_that_is_no_text_is_said(pipe: Pipe) -> None:
    logging.put("it serves /srv/\udcff\n")
    assert pipe.read() == [r"it serves /srv/\udcff"]
