"""`tq up`: server and worker on this machine until Ctrl-C.

A small parent without trio. Both roles run in sessions of their own, so that the terminal's Ctrl-C reaches only this
program: the first drains the worker and then stops the server, the second stops both now. A role that dies is started
again, with a growing pause. What they say comes out on stderr, each line with its role before it, where that takes it
at once (net/log.py).
"""

import gc
import os
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from tq import limits
from tq.cli.frame import context as talk
from tq.cli.frame import parent
from tq.cli.frame.verb import Verb
from tq.cli.verbs.server import DEFAULT_LISTEN, Data, Heartbeat, Keep, Listen, Retries, directories, settings
from tq.cli.verbs.worker import Allow, DrainTime, Queues, Slots
from tq.errors import TqError
from tq.net import log
from tq.net.address import joined
from tq.store import lock, trust

_PAUSE_S, _PAUSE_S_MAX, _STEADY_S = 0.2, 10.0, 1.0
_USAGE, _CONFIGURATION = 2, 78
_LINE_BYTES_MAX = 1 << 16
_TICK_S = 0.1
_JOIN_S = 10.0  # after so long it is said that the worker has not connected


def up(
    ctx: typer.Context,
    data: Data = "",
    listen: Listen = DEFAULT_LISTEN,
    heartbeat: Heartbeat = "5s",
    keep: Keep = "7d",
    retries: Retries = limits.retries,
    slots: Slots = 0,
    queue: Queues = None,
    drain_time: DrainTime = "30s",
    allow: Allow = None,
) -> None:
    """Run a server and a worker on this machine until Ctrl-C.

    It says `up` when the worker has connected. The first Ctrl-C takes nothing new and lets what runs end, within the
    drain time; the second stops now. If this program is killed, both end too, the worker as after one Ctrl-C. If a
    server serves the data directory already, only a worker is started.
    """
    from tq.cli.frame import values
    from tq.worker.settings import Settings as WorkerSettings
    from tq.worker.settings import check_options

    environ = ctx.obj.environ
    # What is wrong is said before anything starts.
    checked = settings(environ, data, listen, heartbeat, keep=keep, retries=retries)
    options = WorkerSettings(
        Path(),
        slots=slots,
        queues=tuple(queue or ()),
        drain_s=values.duration_ms(drain_time) / 1_000,
        modules=tuple(allow or ()),
    )
    check_options(options)
    directory = directories(environ, data).data
    try:
        trust.check(directory, named=directory if data or environ.get("TQ_DATA") else None)
    except OSError:  # the server says it better
        pass
    port = checked.port or _free_port(checked.host)
    server = ["server", "--data", str(directory), "--listen", joined(checked.host, port), "--heartbeat", heartbeat]
    server += ["--keep", keep, "--retries", str(retries)]
    worker = ["worker", "--data", str(directory), "--slots", str(slots), "--drain-time", drain_time]
    worker += [word for name in queue or [] for word in ("--queue", name)]
    worker += [word for module in allow or [] for word in ("--allow", module)]
    gc.enable()  # off since the start of the program; this runs for weeks
    roles = Roles(directory, server, worker, dict(environ), is_colored=talk.is_terminal(sys.stderr))
    raise typer.Exit(roles.run())


def serving_pid(data: Path) -> int:
    """Return the process that serves a directory, by its connection file; 0 when it is gone or never was."""
    import msgspec

    try:
        pid = msgspec.json.decode((data / "connection.json").read_bytes())["pid"]
        os.kill(pid, 0)
    except (OSError, msgspec.DecodeError, KeyError, TypeError, OverflowError):
        return 0
    return int(pid)


def is_found(data: Path, environ: Mapping[str, str]) -> bool:
    """Whether `tq` in an environment like this one finds the server of a directory without being told."""
    from tq.client import target

    try:
        return target.find({}, environ).data == data
    except TqError:
        return False


def _free_port(host: str) -> int:
    """Choose a port once, so that a server that is started again listens where its worker looks for it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _say(text: str) -> None:
    """Say a line on stderr, and never wait for who reads it: a signal must be obeyed, and a role started, meanwhile."""
    log.put(f"{text}\n")


class Role:
    """One of the two programs: started, watched, started again."""

    def __init__(self, name: str, arguments: list[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.start_at_s = 0.0
        # -P: what lies in the current directory is not imported, as it is not by the program `tq` itself.
        self._command = [sys.executable, "-P", "-m", "tq", *arguments]
        self._environ = environ
        self._pause_s = _PAUSE_S
        self._started_s = 0.0
        self.rest = b""
        self.said = ""  # its last line

    def start(self) -> Any:
        """Start the program in a session of its own; return the pipe that carries what it says."""
        self._started_s = time.monotonic()
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**self._environ, parent.VARIABLE: str(os.getpid())},
            start_new_session=True,
        )
        return self.process.stdout

    def poll(self) -> int | None:
        """Return the exit status if the program ended since the last look, and plan the next start."""
        if self.process is None or self.process.poll() is None:
            return None
        status, self.process = self.process.returncode, None
        now_s = time.monotonic()
        if now_s - self._started_s > _STEADY_S:
            self._pause_s = _PAUSE_S
        self.start_at_s = now_s + self._pause_s
        self._pause_s = min(self._pause_s * 2, _PAUSE_S_MAX)
        return status

    def signal(self, number: int) -> None:
        """Send a signal, if the program runs."""
        if self.process is not None:
            self.process.send_signal(number)


class Roles:
    """Server and worker, and how far their end is: 0 none asked for, then one more for each signal."""

    def __init__(
        self, data: Path, server: list[str], worker: list[str], environ: Mapping[str, str], *, is_colored: bool
    ) -> None:
        self._data = data
        self._server: Role | None = Role("server", server, environ)
        self._worker = Role("worker", worker, environ)
        self._is_colored = is_colored
        self._selector = selectors.DefaultSelector()
        self._signals = 0
        self._signals_seen = 0
        self._status = 0
        self._is_server_asked = False
        self._environ = environ
        self._is_welcomed = False
        self._late_at_s = 0.0  # when a worker is late that has started and not connected; 0: none has started yet

    def run(self) -> int:
        """Run both until they are asked to end, and return the exit status."""
        # The lock too: a killed server leaves its file, and its number may be another program's by now.
        pid = serving_pid(self._data) if lock.is_held(self._data) else 0
        if pid:
            _say(f"tq: a server serves {self._data} already (pid {pid}): only a worker is started here")
            self._server = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            while not self._is_over():
                self._obey()
                self._start_due()
                self._say_news()
                self._say_late()
                self._look()
        finally:
            self._kill()
        return self._status

    def _on_signal(self, _number: int, _frame: object) -> None:
        """Only count: this comes between any two steps, also of a start, or of a line that is being written."""
        self._signals_seen += 1

    def _obey(self) -> None:
        """Do what the signals since the last look ask for."""
        while self._signals < self._signals_seen:
            self._signals += 1
            self._end_more()

    def _end_more(self) -> None:
        if self._signals == 1:
            _say("\ntq: nothing new is taken; what runs may end (once more: stop now)")
            self._worker.signal(signal.SIGTERM)
        else:
            _say("\ntq: stopping now")
            # The server stays until the worker is gone (_start_due): else nobody takes back what the worker stops.
            self._worker.signal(signal.SIGTERM if self._signals == 2 else signal.SIGKILL)
            if self._server is not None and self._signals > 2:
                self._server.signal(signal.SIGKILL)

    def _is_over(self) -> bool:
        is_server_running = self._server is not None and self._server.process is not None
        is_running = is_server_running or self._worker.process is not None
        return not is_running and (self._signals > 0 or self._status != 0)

    def _start_due(self) -> None:
        """Start what is due; the worker waits until the server listens. Stop the server once the worker is gone."""
        if self._signals or self._status:
            if self._worker.process is None and self._server is not None and not self._is_server_asked:
                self._is_server_asked = True
                self._server.signal(signal.SIGTERM)
            return
        now_s = time.monotonic()
        if self._server is not None and self._server.process is None and now_s >= self._server.start_at_s:
            self._start(self._server)
        if self._worker.process is None and now_s >= self._worker.start_at_s and self._is_served():
            self._start(self._worker)
            self._late_at_s = self._late_at_s or now_s + _JOIN_S

    def _welcome(self) -> None:
        """Say once, when the worker has connected, what can be done now."""
        if not (self._is_welcomed or self._signals):
            self._is_welcomed = True
            with_data = "" if is_found(self._data, self._environ) else f"TQ_DATA={shlex.quote(str(self._data))} "
            _say(f"tq: up; in another terminal: {with_data}tq run -- echo hello   (Ctrl-C here drains and stops)")

    def _say_late(self) -> None:
        """Say once that the worker has not connected, and what it said last."""
        if not self._late_at_s or self._is_welcomed or time.monotonic() < self._late_at_s:
            return
        self._late_at_s = float("inf")
        why = f"; it said last: {self._worker.said}" if self._worker.said else ", and says nothing"
        _say(f"tq: the worker has not connected after {_JOIN_S:g} s{why}")

    def _is_served(self) -> bool:
        if self._server is None:
            return True
        process = self._server.process
        return process is not None and serving_pid(self._data) == process.pid

    def _start(self, role: Role) -> None:
        pipe = role.start()
        os.set_blocking(pipe.fileno(), False)
        self._selector.register(pipe, selectors.EVENT_READ, role)

    def _say_news(self) -> None:
        for key, _ in self._selector.select(_TICK_S):
            role, pipe = key.data, key.fileobj
            assert isinstance(role, Role)
            try:
                data = os.read(key.fd, _LINE_BYTES_MAX)
            except BlockingIOError:
                continue
            if not data:
                self._selector.unregister(pipe)
                pipe.close()  # type: ignore[union-attr]
            self._say(role, data)

    def _say(self, role: Role, data: bytes) -> None:
        """Say whole lines; the rest waits for its end, or for the end of the program."""
        from tq.cli.showing import escape

        *lines, role.rest = (role.rest + data).split(b"\n")
        if role.rest and (not data or len(role.rest) > _LINE_BYTES_MAX):
            lines.append(role.rest)
            role.rest = b""
        paint, plain = ("\x1b[2m", "\x1b[0m") if self._is_colored else ("", "")
        for line in lines:
            role.said = escape.line(line.decode("utf-8", "backslashreplace"))
            _say(f"{paint}{role.name} |{plain} {role.said}")
            if role is self._worker and log.event_of(role.said) == "connected":
                self._welcome()

    def _look(self) -> None:
        """See who has ended. What is set up wrongly is not started again: it would end the same way."""
        for role in (self._server, self._worker):
            status = role.poll() if role is not None else None
            if role is None or status is None or self._signals:
                continue
            if status in (_USAGE, _CONFIGURATION):
                self._status = self._status or status
                other = self._worker if role is self._server else self._server
                if other is not None:
                    other.signal(signal.SIGTERM)
                continue
            if self._status:
                continue  # asked to end, because the other one cannot start
            how = f"was ended by signal {-status}" if status < 0 else f"ended with {status}"
            _say(f"tq: the {role.name} {how}; it is started again")

    def _kill(self) -> None:
        """Leave nothing behind, whatever went wrong here: the roles have sessions of their own."""
        for role in (self._worker, self._server):
            if role is not None and role.process is not None:
                role.signal(signal.SIGTERM)
                try:
                    role.process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    role.process.kill()
                    role.process.wait()
        for key in list(self._selector.get_map().values()):
            self._say_last(key)
        self._selector.close()

    def _say_last(self, key: selectors.SelectorKey) -> None:
        try:
            data = os.read(key.fd, _LINE_BYTES_MAX)
        except OSError:
            data = b""
        self._say(key.data, data)
        self._say(key.data, b"")


VERBS = {"up": Verb(up, ("tq up", "tq up --slots 4 --data ./scratch"), asks_server=False)}
