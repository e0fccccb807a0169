"""A server and a worker of their own, in a scratch directory, on a free loopback port, while something is measured."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from tq.client.drivers.blocking import Client
from tq.client.target import find
from tq.core import vocabulary as v
from tq.errors import TqError
from tq.wire import plain
from tq.wire.body import Body
from tq.wire.codec import dumps

START_S_MAX: Final = 30.0
STOP_S_MAX: Final = 20.0
BODY: Final = dumps(Body(argv=(b"true",), cwd=b"/", environment={"PATH": b"/usr/bin:/bin"}))
NOOP: Final = dumps(Body(argv=(), cwd=b"", function="builtins:bool", arguments=plain.dumps([[], {}], 64, "")))


class Rig:
    """Processes of tq whose home, data and state are in one scratch directory. Leaving the context ends them all."""

    def __init__(self, scratch: str) -> None:
        self.scratch = scratch
        self.directory = Path(tempfile.mkdtemp(prefix="tq-bench-", dir=scratch))
        self.environment: Mapping[str, str] = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.directory),
            "TQ_DATA": str(self.directory / "data"),
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._keys = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("worker", "server"):
            self.stop(name)
        shutil.rmtree(self.directory)

    # ---------------------------------------------------------------- processes

    def start_server(self) -> float:
        """Start the server and return after how many seconds it answered its first question."""
        begin = time.perf_counter()
        self._start("server", "server", "--listen", "127.0.0.1:0")
        self._until_it_answers()
        return time.perf_counter() - begin

    def start_worker(self, slots: int = 2, *, allow: str = "") -> None:
        """Start a worker and wait until the server knows it. `allow` names a module whose functions it may call."""
        self._start("worker", "worker", "--slots", str(slots), *(("--allow", allow) if allow else ()))
        begin = time.perf_counter()
        with self.client() as client:
            while not self.ask(client, v.Workers()).items:
                self._check("worker", begin)
                time.sleep(0.01)

    def stop(self, name: str, how: int = signal.SIGTERM) -> None:
        """End a process, if it runs."""
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            print(f"the {name} did not end within {STOP_S_MAX:.0f} s", file=sys.stderr)
            process.kill()
            process.wait()

    def rss_mib(self, name: str) -> float:
        """Return the resident memory of a process in MiB."""
        return kib(f"/proc/{self._processes[name].pid}/status", "VmRSS") / 1024

    def pss_mib(self, name: str) -> float:
        """Return the proportional memory of a process and all below it in MiB."""
        return sum(kib(f"/proc/{pid}/smaps_rollup", "Pss") for pid in family(self._processes[name].pid)) / 1024

    def cpu_s(self, name: str) -> float:
        """Return how long a process and all below it have been on a processor, to the microsecond."""
        tasks = (path for pid in family(self._processes[name].pid) for path in Path(f"/proc/{pid}/task").iterdir())
        return sum(int((path / "schedstat").read_text().split()[0]) for path in tasks) / 1e9

    # ---------------------------------------------------------------- questions

    def client(self) -> Client:
        """Return a client of the server, not yet connected."""
        return Client(lambda: find({}, self.environment))

    def ask(self, client: Client, command: v.ClientCommand) -> Any:
        """Ask one question."""
        return client.ask(command)

    def submit(self, client: Client, size: int = 1, *, name: str = "", priority: int = 0, body: bytes = BODY) -> str:
        """Submit `true`, or what else `body` says, as an array if there is more than one; return the job's id."""
        self._keys += 1
        key = f"bench-{os.getpid()}-{self._keys}"
        demand = v.Demand(module="builtins" if body is NOOP else "")
        command = v.Submit(
            key=key, body=body, name=name, priority=priority, demand=demand, size=size, is_array=size > 1
        )
        return self.ask(client, command).id

    def wait(self, client: Client, job: str) -> v.Outcome:
        """Wait until a job has ended, and return how."""
        for answer in client.subscribe(lambda: v.Wait((job,))):
            assert isinstance(answer, v.Waited), answer
            if answer.done:
                return answer.outcomes[0]
        raise AssertionError("the server ended the wait")

    def outcome(self, client: Client, job: str) -> v.Outcome:
        """Return how a job stands now."""
        for answer in client.subscribe(lambda: v.Wait((job,))):
            assert isinstance(answer, v.Waited), answer
            return answer.outcomes[0]
        raise AssertionError("the server ended the wait")

    def run(self, *arguments: str) -> str:
        """Run a program with this rig's environment and return what it prints."""
        done = subprocess.run(arguments, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program with this rig's environment; whoever called ends it."""
        pipe = subprocess.PIPE
        return subprocess.Popen(arguments, env=self.environment, stdin=pipe, stdout=pipe, start_new_session=True)

    # ---------------------------------------------------------------- inside

    def _start(self, name: str, *arguments: str) -> None:
        log = (self.directory / f"{name}.log").open("ab")
        with log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "tq", *arguments],
                env=self.environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _until_it_answers(self) -> None:
        begin = time.perf_counter()
        while True:
            try:
                with self.client() as client:
                    client.ask(v.Status())
            except TqError:
                self._check("server", begin)
                time.sleep(0.01)
            else:
                return

    def _check(self, name: str, begin_s: float) -> None:
        """End the program, with the process's own words, when it has died or takes too long."""
        died = self._processes[name].poll() is not None
        if died or time.perf_counter() - begin_s > START_S_MAX:
            sys.exit(
                f"the {name} did not start:\n{(self.directory / f'{name}.log').read_text(errors='replace')[-4000:]}"
            )


def kib(path: str, field: str) -> int:
    """Return a field of one of the kernel's tables about a process, in KiB."""
    return next(int(line.split()[1]) for line in Path(path).read_text().splitlines() if line.startswith(f"{field}:"))


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found
