"""`tq demo`: a tour of tq at work on real input, in under a minute, in a directory of its own that it removes.

It runs the same commands that a person would, and prints them; what it claims it has checked first. The server and
worker are those of `tq up`, in a home of their own; only processes that it started are ended, by their pid.
"""

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from tq.cli.frame.verb import Verb
from tq.errors import InternalError

_START_S: Final = 30.0
_STOP_S: Final = 40.0
_KEPT: Final = ("PATH", "LANG", "TERM", "TZ", "USER", "SHELL", "TMPDIR", "NO_COLOR", "PYTHONPATH")
_STEPS: Final = 'for step in 1 2 3 4 5 6; do echo "step $step of process $$"; sleep 0.5; done'


def demo(ctx: typer.Context) -> None:
    """Show tq at work on real input, in under a minute.

    Starts a server and a worker in a scratch directory, hashes every file of Python's standard library (one task a
    file), lets a task fail, kills the server with SIGKILL while tasks run, and shows that nothing was lost. Removes
    everything it made.
    """
    with tempfile.TemporaryDirectory(prefix="tq-demo-") as scratch:
        tour = Tour(Path(scratch), ctx.obj.environ)
        try:
            tour.start()
            tour.hash_library()
            tour.fail()
            tour.kill_server()
            tour.look_back()
        finally:
            tour.stop()
    _say("Done", "everything is removed again. Next: `tq up` in one terminal, `tq run -- echo hello` in another")


class Tour:
    """The stops of the demo, in order. Every stop raises InternalError if what it shows is not so."""

    def __init__(self, scratch: Path, environ: Mapping[str, str]) -> None:
        self._scratch = scratch
        self._environ = {name: environ[name] for name in _KEPT if name in environ}
        self._environ |= {"HOME": str(scratch), "TQ_DATA": str(scratch / "data")}
        self._up: subprocess.Popen[bytes] | None = None
        self._hashes = ""
        self._files: list[str] = []

    # ------------------------------------------------------------ the stops

    def start(self) -> None:
        """Start server and worker, and wait until a worker is there."""
        _say("A server and a worker", f"in {self._scratch}, on a free port of this machine")
        with (self._scratch / "up.log").open("wb") as log:
            command = [*_program(), "up", "--listen", "127.0.0.1:0", "--slots", "2"]
            self._up = subprocess.Popen(
                command, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        print("$ tq up &", flush=True)
        deadline = time.monotonic() + _START_S
        while b"worker_connected" not in (self._scratch / "up.log").read_bytes():
            if self._up.poll() is not None or time.monotonic() > deadline:
                raise InternalError("`tq up` did not start: " + (self._scratch / "up.log").read_text()[-400:])
            time.sleep(0.05)
        self._show("workers")

    def hash_library(self) -> None:
        """Submit a task for every file of the standard library."""
        library = Path(sysconfig.get_path("stdlib"))
        skipped = {"site-packages", "__pycache__", "dist-packages"}
        found = (path for path in library.rglob("*.py") if path.is_file() and not skipped & set(path.parts))
        self._files = sorted(str(path) for path in found)
        _say("One job, a task for every file of Python's standard library", f"{len(self._files)} files to hash")
        lines = "".join(f"{name}\n" for name in self._files)
        self._hashes = self._show("submit", "--name", "hash", "--each-line", "-", "--", "sha256sum", "{}", stdin=lines)

    def fail(self) -> None:
        """Run a task that fails, beside the job."""
        _say("A task that fails", "its exit code is the exit code of `tq run`, each stream comes out on its own")
        failing = 'echo "the disk is full" >&2; exit 7'
        status = self._run("run", "--priority", "10", "--", "sh", "-c", failing).returncode
        print(f"exit code {status}", flush=True)
        _expect("the exit code of the failed task", 7, status)

    def kill_server(self) -> None:
        """Kill the server while tasks run, one of them followed live."""
        _say("The server is killed with SIGKILL", "while a task runs that is followed live, and the job goes on")
        job = self._show("submit", "--name", "steps", "--priority", "10", "--", "sh", "-c", _STEPS)
        print(f"$ tq logs -f {job}", flush=True)
        command = [*_program(), "logs", "-f", job]
        with subprocess.Popen(command, env=self._environ, stdout=subprocess.PIPE, text=True) as follow:
            stdout: Any = follow.stdout
            processes = set()
            for number, line in enumerate(stdout):
                print(line, end="", flush=True)
                processes.add(line.split()[-1])
                if number == 1:
                    pid = json.loads((self._scratch / "data" / "connection.json").read_text())["pid"]
                    os.kill(pid, signal.SIGKILL)
                    print(f"                      (kill -9 {pid}, the server; `tq up` starts it again)", flush=True)
        _expect("the end of the followed task", 0, self._run("wait", job, quiet=True).returncode)
        task = self._document("show", job)
        print(f"$ tq show {job}\nstate {task['state']}, attempt {task['attempt']}, losses {task['losses']}", flush=True)
        found = len(processes), task["attempt"], task["losses"]
        _expect("the processes that ran it, its attempts and losses", (1, 1, 0), found)

    def look_back(self) -> None:
        """Wait for the job, and compare a result with our own."""
        _say("Nothing was lost", "the job ends with every file hashed, once")
        self._show("wait", self._hashes)
        self._show("ls")
        job = self._document("show", self._hashes)
        _expect("the tasks that succeeded", {"succeeded": len(self._files)}, job["counts"])
        middle = len(self._files) // 2
        shown = self._show("logs", f"{self._hashes}.{middle + 1}")
        own = hashlib.sha256(Path(self._files[middle]).read_bytes()).hexdigest()
        _expect(f"the hash of {self._files[middle]}", own, shown.split()[0])
        print(f"{len(self._files)} tasks succeeded, one for each file; the hash above is the right one", flush=True)

    def stop(self) -> None:
        """End what was started, by its pid, and wait for it."""
        if self._up is None or self._up.poll() is not None:
            return
        self._up.send_signal(signal.SIGINT)
        try:
            self._up.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._up.send_signal(signal.SIGINT)
            self._up.wait()

    # ------------------------------------------------------------ running commands

    def _show(self, *words: str, stdin: str = "") -> str:
        """Print a command, run it, print and return what it said."""
        print(f"$ tq {shlex.join(words)}" + (f" < {stdin.count(chr(10))} lines" if stdin else ""), flush=True)
        done = self._run(*words, stdin=stdin, quiet=True)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            raise InternalError(f"`tq {words[0]}` ended with {done.returncode}: {done.stderr.strip()}")
        return str(done.stdout).strip()

    def _run(self, *words: str, stdin: str = "", quiet: bool = False) -> "subprocess.CompletedProcess[str]":
        pipe = subprocess.PIPE if quiet else None
        if not quiet:
            print(f"$ tq {shlex.join(words)}", flush=True)
        source: dict[str, Any] = {"input": stdin} if stdin else {"stdin": subprocess.DEVNULL}
        return subprocess.run(
            [*_program(), *words], env=self._environ, stdout=pipe, stderr=pipe, text=True, check=False, **source
        )

    def _document(self, *words: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._run("-o", "json", *words, quiet=True).stdout)
        return document


def _program() -> Sequence[str]:
    """Return the words that run this very tq; what lies in the current directory is not imported."""
    return sys.executable, "-P", "-m", "tq"


def _say(title: str, text: str) -> None:
    print(f"\n== {title}: {text}\n", flush=True)


def _expect(what: str, wanted: object, found: object) -> None:
    if wanted != found:
        raise InternalError(f"{what} should be {wanted}, and is {found}", hint="this is a bug; please report it")


VERBS = {"demo": Verb(demo, ("tq demo",), asks_server=False)}
