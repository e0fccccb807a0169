"""A real `tq server`, and real workers for it, as processes on a directory of the test's own. All are gone afterwards.

with running_server(tmp_path) as server:
    with server.client() as client:
        client.ask(Submit(...))
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tq.client.drivers.blocking import Client
from tq.client.target import of_directory
from tq.core.vocabulary import Logs, Submit, Wait
from tq.wire.body import Body
from tq.wire.codec import dumps

PATIENCE_S = 60.0


class ServerProcess:
    """One data directory, and the server process on it. `start` begins the next life."""

    def __init__(self, directory: Path, *options: str, before: str = "") -> None:
        self.data = directory / "data"
        self.environ = {
            **os.environ,
            "TQ_DATA": str(self.data),
            "XDG_STATE_HOME": str(directory / "state"),
            "PYTHONPATH": str(Path.cwd()),
        }
        self.port = free_port()
        self._log = directory / "server.log"
        self.options = options
        self._before = before  # shell words that run before the server: limits
        self.program = "tq"  # the module that is run
        self.process: subprocess.Popen[bytes]

    @property
    def command(self) -> list[str]:
        listen = f"127.0.0.1:{self.port}"
        server = [sys.executable, "-m", self.program, "server", "--listen", listen, *self.options]
        return ["bash", "-c", f'{self._before}; exec "$@"', "bash", *server] if self._before else server

    def launch(self) -> None:
        """Start it without waiting."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start(self) -> None:
        self.launch()
        wait_until(lambda: self.is_listening or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()

    @property
    def is_listening(self) -> bool:
        try:
            return bool(json.loads((self.data / "connection.json").read_text())["pid"] == self.process.pid)
        except (OSError, ValueError):
            return False

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run another server with the same options until it ends by itself."""
        return subprocess.run(
            self.command, env=self.environ, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )

    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def client(self, patience_s: float | None = PATIENCE_S) -> Client:
        return Client(lambda: of_directory(self.data, self.environ), patience_s=patience_s)


@contextmanager
def running_server(directory: Path, *options: str, before: str = "") -> Iterator[ServerProcess]:
    """Run a server while the block lasts."""
    server = ServerProcess(directory, *options, before=before)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        print(server.log())


@contextmanager
def running_worker(
    server: ServerProcess, *options: str, slots: int = 2, name: str = "worker", place: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker of that server while the block lasts, started in the directory `place`."""
    log = server.data.parent / f"{name}.log"
    state = server.data.parent / name
    state.mkdir(exist_ok=True)
    with ExitStack() as stack:
        stderr = stack.enter_context(log.open("ab"))
        process = subprocess.Popen(
            [sys.executable, "-m", "tq", "worker", "--slots", str(slots), *options],
            cwd=place,
            env={**server.environ, "XDG_STATE_HOME": str(state)},
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
            print(log.read_text())


def command(*argv: str, key: str = "", environment: dict[str, bytes] | None = None, **fields: Any) -> Submit:
    """Return the submit of a command in the root directory."""
    body = Body(tuple(word.encode() for word in argv), b"/", environment or {})
    return Submit(key, dumps(body), **fields)


def wait_for(client: Client, *ids: str, until: str = "done") -> Any:
    """Wait for tasks; return the last answer."""
    return list(client.subscribe(lambda: Wait(ids, until)))[-1]


def output(client: Client, task: str) -> bytes:
    """Return what a task has printed on stdout."""
    chunks = client.subscribe(lambda: Logs(task))
    return b"".join(chunk.data for chunk in chunks if getattr(chunk, "stream", 0) == 1)


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
