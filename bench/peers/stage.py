"""Where a peer performs: a scratch directory, its servers and workers as processes, and the entry of its program.

    workload(stage, count) -> figures

What a stage has started ends with it, by pid, the last first.
"""

import json
import os
import pwd
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self

START_S_MAX: Final = 30.0
STOP_S_MAX: Final = 10.0
WORK_S_MAX: Final = 120.0
SLOTS: Final = 2
WARM: Final = 5  # round trips before the first that counts


Figures = dict[str, float]  # {"rate": a second}, or {"p50_ms": …, "p99_ms": …}


class Peer(NamedTuple):
    """What a peer is. `programs` come from the Debian packages, `pypi` goes into the scratch environment."""

    name: str
    durable: str
    captured: str
    workloads: Mapping[str, tuple[Callable[..., Figures], int]]  # and how many tasks a performance has
    programs: tuple[str, ...] = ()
    debian: tuple[str, ...] = ()
    pypi: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()  # a command that tells the version, for what is not from PyPI


class Stage:
    """The directory and the processes of one performance."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._processes:
            end(self._processes.pop())

    def start(self, *arguments: str, user: str | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own; what it says goes into a log."""
        with (self.directory / "peer.log").open("ab") as log:
            process = subprocess.Popen(
                arguments,
                env={**os.environ, **environment},
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
            )
        self._processes.append(process)
        return process

    def serve(self, port: int, *arguments: str, user: str | None = None) -> None:
        """Start a server, and return when it listens."""
        process = self.start(*arguments, user=user)
        until(lambda: listens(port) or process.poll() is not None, START_S_MAX)
        if process.poll() is not None:
            sys.exit(f"{arguments[0]} ended with {process.returncode}:\n{self.log()}")

    def script(self, name: str) -> str:
        """Return the path of a program of the scratch environment."""
        return str(Path(sys.executable).with_name(name))

    def log(self) -> str:
        """Return the end of what the processes said."""
        path = self.directory / "peer.log"
        return path.read_text(errors="replace")[-2_000:] if path.exists() else ""


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it leaves in its session."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                continue
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def free_port() -> int:
    """Return a port of loopback that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody accepts connections."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def until(condition: Callable[[], object], time_s_max: float = WORK_S_MAX, pause_s: float = 0.005) -> None:
    """Wait until a condition holds."""
    begin = time.perf_counter()
    while not condition():
        if time.perf_counter() - begin > time_s_max:
            raise TimeoutError(f"not done within {time_s_max:.0f} s")
        time.sleep(pause_s)


def now() -> float:
    """Return the time by the clock of all that is measured here."""
    return time.perf_counter()


def rate(count: int, begin: float) -> Figures:
    """Return the answer of a workload that did `count` tasks since `begin`."""
    return {"rate": count / (now() - begin)}


def round_trips(count: int, once: Callable[[], object]) -> Figures:
    """Return the answer of a workload that does one task at a time, after a few to warm up."""
    took_ms = []
    for _ in range(count + WARM):
        begin = now()
        once()
        took_ms.append((now() - begin) * 1_000)
    return latency(took_ms[WARM:])


def latency(took_ms: list[float]) -> Figures:
    """Return the middle and the slow end of some times."""
    took_ms.sort()
    return {"p50_ms": statistics.median(took_ms), "p99_ms": took_ms[len(took_ms) * 99 // 100]}


def missing(peer: Peer, *, has_pypi: bool) -> str:
    """Return what a peer needs and this machine lacks, "" if it can perform."""
    lacking = [program for program in peer.programs if shutil.which(program, path=PATH) is None]
    if lacking:
        return f"no {', '.join(lacking)} here (Debian: {' '.join(peer.debian)})"
    if peer.pypi and not has_pypi:
        return f"not installed ({' '.join(peer.pypi)} from PyPI)"
    return ""


# Debian keeps the programs of PostgreSQL beside the usual path.
PATH: Final = os.pathsep.join(
    [os.environ.get("PATH", ""), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]
)


def main(peer: Peer) -> None:
    """Perform one workload, as the command line says, and print what was measured."""
    os.environ["PATH"] = PATH
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # what was started ends on the way out
    workload, count, directory = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    perform = peer.workloads[workload][0]
    told = os.fdopen(os.dup(1), "w")  # the peer may talk on its own standard output
    with Stage(directory) as stage, told:
        try:
            told.write(json.dumps(perform(stage, count)))
        except Exception as error:  # noqa: BLE001 - whatever it is: the others go on, and somebody reads this
            traceback.print_exc()
            sys.exit(f"{stage.log()}\n{type(error).__name__}: {str(error).partition(chr(10))[0]}")
