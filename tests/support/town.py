"""A town: a real server, real workers and real clients, as processes in a place of the test's own.

with town(tmp_path, "--heartbeat", "200ms") as here:
    worker = here.worker()
    job = here.submit("sh", "-c", "exit 7")
    assert here.wait(job) == 7

Everything a test starts ends with the block, by its own pid; what a killed worker's launcher leaves is waited for.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.server.process import ServerProcess
from tests.support import processes
from tq.client.drivers.blocking import Client
from tq.core.vocabulary import Get, Status

TQ = (sys.executable, "-m", "tq")
_COMMAND_S = 120.0


class Done(NamedTuple):
    """What a command said, and its exit status."""

    status: int
    out: str
    err: str


class WorkerProcess:
    """A `tq worker` with a state directory that outlives it: the next one of the same name is its successor."""

    def __init__(
        self,
        here: "Town",
        name: str,
        options: Sequence[str],
        environ: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> None:
        state = here.place / name
        state.mkdir(exist_ok=True)
        self.log = here.place / f"{name}.log"
        self._from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*before, *TQ, "worker", *options],
                env={**here.environ, "XDG_STATE_HOME": str(state), **(environ or {})},
                cwd=here.place,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def launcher(self) -> int:
        """The pid of its launcher; waited for."""
        return int(processes.until(lambda: processes.launcher_of(self.pid), "the worker has a launcher"))

    @property
    def id(self) -> str:
        """Its id as people see it; waited for."""
        return str(self.says(r"worker_started worker=(w[0-9a-f]{16})")[1])

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until its log has `pattern`."""
        found: re.Match[str] = processes.until(
            lambda: re.search(pattern, self.text()), f"the worker says {pattern}: {self.text()}"
        )
        return found

    def text(self) -> str:
        """Return what this one has logged."""
        return self.log.read_bytes()[self._from :].decode()

    def kill(self) -> None:
        """KILL it and wait for its end; a launcher that lives sees the end of its socket and kills what it runs."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to leave."""
        self.process.terminate()
        return self.process.wait(processes.PATIENCE_S)


class Town:
    """See the head of this file."""

    def __init__(self, place: Path, *options: str) -> None:
        self.place = place
        self.server = ServerProcess(place, *options)
        self.environ = dict(self.server.environ)  # of clients and workers
        self.workers: list[WorkerProcess] = []

    def worker(
        self,
        name: str = "worker",
        *options: str,
        slots: int = 2,
        environ: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> WorkerProcess:
        """Start a worker behind the words `before`, and wait until it is connected."""
        worker = self.launch_worker(name, *options, slots=slots, environ=environ, before=before)
        worker.says(" connected ")
        return worker

    def launch_worker(
        self,
        name: str = "worker",
        *options: str,
        slots: int = 2,
        environ: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> WorkerProcess:
        """Start a worker; there may be no server yet."""
        worker = WorkerProcess(self, name, ["--slots", str(slots), *options], environ, before)
        self.workers.append(worker)
        return worker

    def elsewhere(self, url: str) -> dict[str, str]:
        """Return the variables of somebody who knows the server by this address only, as on another machine."""
        connection = json.loads((self.server.data / "connection.json").read_text())
        ca, token = self.place / "ca.pem", self.place / "token"
        ca.write_text(connection["ca"])
        token.write_text(connection["token"])
        return {"TQ_URL": url, "TQ_CA": str(ca), "TQ_TOKEN_FILE": str(token), "TQ_DATA": "/nowhere"}

    # ------------------------------------------------------------ the real program

    def popen(self, *words: str, environ: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Start `tq` with these words."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*TQ, *words], env={**self.environ, **(environ or {})}, cwd=self.place,
                                **{**pipes, **options})  # fmt: skip

    def tq(self, *words: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None) -> Done:
        """Run `tq` with these words to its end."""
        done = subprocess.run(
            [*TQ, *words],
            input=stdin,
            capture_output=True,
            env={**self.environ, **(environ or {})},
            cwd=self.place,
            check=False,
            timeout=_COMMAND_S,
        )
        return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def submit(self, *argv: str, options: Sequence[str] = ()) -> str:
        """Submit a command; return the job's id."""
        done = self.tq("submit", *options, "--", *argv)
        assert done.status == 0, done.err
        return done.out.strip()

    def wait(self, *ids: str, timeout: str = "60") -> int:
        """Wait for tasks with `tq wait`; return its exit status."""
        done = self.tq("wait", "--timeout", timeout, *ids)
        if done.status:
            print(f"tq wait {' '.join(ids)}: {done}")
        return done.status

    def show(self, task: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return what `tq show -o json` says."""
        done = self.tq("show", task, "-o", "json", environ=environ)
        assert done.status == 0, done.err
        value: dict[str, Any] = json.loads(done.out)
        return value

    def status(self) -> dict[str, Any]:
        """Return what bare `tq -o json` says."""
        done = self.tq("-o", "json")
        assert done.status == 0, done.err
        value: dict[str, Any] = json.loads(done.out)
        return value

    def counter(self, name: str) -> int:
        """Return one counter of the server's status."""
        with self.client() as client:
            value: Any = client.ask(Status())
        return int(value.value["counters"].get(name, 0))

    def token(self, role: str, *options: str) -> str:
        """Make a token."""
        done = self.tq("token", "create", "--role", role, *options)
        assert done.status == 0, done.err
        return done.out.strip()

    # ------------------------------------------------------------ the blocking client, where a process each is too slow

    def client(self, patience_s: float | None = processes.PATIENCE_S) -> Client:
        """Return a client of the server, as admin."""
        return self.server.client(patience_s)

    def task(self, client: Client, task: str) -> dict[str, Any]:
        """Return the document of a task."""
        answer: Any = client.ask(Get(task))
        value: dict[str, Any] = answer.value
        return value

    def until_started(self, task: str) -> None:
        """Wait until a worker has said that a task runs."""
        with self.client() as client:
            processes.until(lambda: self.task(client, task).get("phase") == "started", f"{task} has started")

    def running(self, *task: str) -> list[int]:
        """Return the living processes of a task (or of all) that this town's workers have started."""
        cookies = self._cookies()
        return processes.bearers(*(f"TQ_TASK={one}" for one in task), one_of=cookies) if cookies else []

    def _cookies(self) -> set[str]:
        texts = [log.read_text(errors="replace") for log in {worker.log for worker in self.workers}]
        return {f"TQ_WORKER={found}" for text in texts for found in re.findall(r" worker=(w[0-9a-f]{16})", text)}

    def check_store(self) -> None:
        """Stop the server if it runs, and check its store with the real program."""
        if self.server.process.poll() is None:
            assert self.server.stop() == 0, self.server.log()
        done = self.tq("store", "check", "-o", "json")
        assert (done.status, json.loads(done.out)["ok"]) == (0, True), done.out

    def close(self) -> None:
        """End everything that was started here."""
        pids = [pid for worker in self.workers for pid in processes.tree(worker.pid)]
        processes.thaw(pid for pid in pids if processes.is_frozen(pid))
        for worker in self.workers:
            worker.kill()
        if hasattr(self.server, "process"):
            self.server.kill()
        processes.until(lambda: not any(map(processes.is_alive, pids)), "nothing of the workers is left")
        processes.until(lambda: not self.running(), "no process of a task is left")
        for worker in {worker.log: worker for worker in self.workers}.values():
            print(worker.log.read_text(errors="replace")[-20_000:])
        print(self.server.log()[-20_000:])


@contextmanager
def town(place: Path, *options: str, environ: Mapping[str, str] | None = None) -> Iterator[Town]:
    """Start a server with these options (and variables), and end all that is started in the block."""
    here = Town(place, *options)
    here.server.environ.update(environ or {})
    try:
        here.server.start()
        yield here
    finally:
        here.close()


def kill_quietly(pid: int) -> None:
    """KILL one process of a town, which may be gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
