"""A launcher to talk to: a real one, over a socketpair, without trio."""

import os
import secrets
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from tq.core.model.task import Cause
from tq.core.vocabulary import Assignment, AttemptRef, End
from tq.launcher import launcher, protocol, scratch
from tq.wire import codec, plain
from tq.wire.body import Body, Usage, dump

PATIENCE_S: Final = 30.0


def body(*argv: str | bytes, cwd: str = "/", **fields: Any) -> bytes:
    """Return the bytes of a body."""
    return dump(Body(tuple(os.fsencode(word) for word in argv), os.fsencode(cwd), **fields))


def call(function: str, *positional: Any, **named: Any) -> bytes:
    """Return the bytes of a body that calls a function; what is a field of a body is no argument."""
    fields = {name: named.pop(name) for name in list(named) if name in Body.__struct_fields__}
    return dump(Body((), b"", function=function, arguments=packed([list(positional), named]), **fields))


def packed(value: Any) -> bytes:
    """Return the bytes of plain data."""
    return plain.dumps(value, 1 << 20, "")


def ref(job: int, member: int = 0, attempt: int = 1) -> AttemptRef:
    return AttemptRef(job, 0, member, attempt, 1000 + job)


def usage(end: End) -> Usage:
    """Return what a report says beside its cause and code."""
    return codec.loads(end.result, Usage) if end.result else Usage()


def processes(marker: str) -> list[int]:
    """Return the pids of the living whose arguments contain `marker`."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if marker.encode() in (place / "cmdline").read_bytes() and state_of(int(place.name)) not in "ZX":
                found.append(int(place.name))
    return found


def state_of(pid: int) -> str:
    """Return the letter of a process's state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def wait_count(marker: str, count: int) -> None:
    """Wait until so many such processes live."""
    while len(processes(marker)) < count:
        time.sleep(0.005)


def wait_gone(marker: str) -> None:
    """Wait until no such process is left."""
    deadline = time.monotonic() + PATIENCE_S
    while processes(marker):
        assert time.monotonic() < deadline, f"{marker} lives on"
        time.sleep(0.005)


def marker() -> str:
    """Return an argument for `sleep` that no other test uses."""
    return f"987.{secrets.randbelow(10**12):012}"


class Link:
    """One launcher. Collects what it says; `ends` by ref, `outputs` as (ref, stream) -> {offset: data}."""

    def __init__(self, slots: int = 2, environment: dict[str, str] | None = None, cgroup: bytes = b"") -> None:
        ours, theirs = socket.socketpair()
        self.socket = ours
        self.worker = secrets.token_hex(8)
        home = Path(os.environ["HOME"], f"launcher-{self.worker}")  # the home of the tests (conftest.py)
        home.mkdir()
        self.place = scratch.make_root(home)
        self.process = subprocess.Popen(
            launcher.command(theirs.fileno(), self.place.path, cgroup), pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        theirs.close()
        self.unread = bytearray()
        self.ends: dict[AttemptRef, End] = {}
        self.order: list[AttemptRef] = []
        self.outputs: dict[tuple[AttemptRef, int], dict[int, bytes]] = {}
        self.started: list[AttemptRef] = []
        self.recalled: dict[AttemptRef, protocol.Recalled] = {}
        self.pongs: list[protocol.Pong] = []
        self.left: list[scratch.Made] = []
        self.messages: list[protocol.Up] = []
        self.is_closed = False
        self.say(protocol.Slots(slots))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the launcher as a worker's death does, and wait for it."""
        self.socket.close()
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()

    def say(self, message: protocol.Down) -> None:
        self.socket.sendall(protocol.encode(message))

    def spawn(
        self, data: bytes, refs: Iterable[AttemptRef], *, lane: int = 1, width: int = 64, is_array: bool = False,
        queue: str = "default", trace: str = "", stdin: int = 0, has_run: bool = True,
    ) -> None:  # fmt: skip
        attempts = tuple(Assignment(one, one.member + 1, has_run=has_run) for one in refs)
        self.say(protocol.Spawn(lane, width, is_array, queue, trace, data, stdin, self.worker, attempts))

    def hear(self, timeout_s: float = PATIENCE_S) -> bool:
        """Receive once. Return whether anything came."""
        if not select.select([self.socket], [], [], timeout_s)[0]:
            return False
        try:
            data = self.socket.recv(1024 * 1024)
        except ConnectionError:
            data = b""
        if not data:
            self.is_closed = True
            return False
        self.unread += data
        for message in protocol.ups(self.unread):
            self.messages.append(message)
            self._note(message)
        return True

    def _note(self, message: protocol.Up) -> None:
        match message:
            case protocol.Ended(ends, outputs):
                for output in outputs:
                    self._note(output)
                for end in ends:
                    assert end.attempt not in self.ends, "an attempt ended twice"
                    self.ends[end.attempt] = end
                    self.order.append(end.attempt)
            case protocol.Output(attempt, stream, offset, data):
                assert attempt not in self.ends, "output after the end"
                self.outputs.setdefault((attempt, stream), {})[offset] = data
            case protocol.Started(attempts):
                self.started += attempts
            case protocol.Recalled(attempts):
                self.recalled.update(dict.fromkeys(attempts, message))
            case protocol.Left(directory):
                self.left.append(directory)
            case protocol.Pong():
                self.pongs.append(message)

    def until(self, condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
        """Listen until `condition` holds."""
        deadline = time.monotonic() + patience_s
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"still not so after {patience_s} s; heard {self.messages[-5:]}"
            self.hear(left)
            assert not self.is_closed or condition(), "the launcher closed the connection"

    def run(self, data: bytes, job: int = 1, **options: Any) -> End:
        """Run one attempt to its end."""
        one = ref(job)
        self.spawn(data, [one], **options)
        self.until(lambda: one in self.ends)
        return self.ends[one]

    def begin(self, data: bytes, job: int = 1, word: bytes = b"ready", **options: Any) -> AttemptRef:
        """Start one attempt, followed, and return once it has written `word` to stdout."""
        one = ref(job)
        self.spawn(data, [one], **options)
        self.say(protocol.Follow(one, 1 << 20))
        self.until(lambda: word in b"".join(self.outputs.get((one, 1), {}).values()))
        return one

    def stop(self, attempt: AttemptRef, cause: Cause = Cause.CANCELLED, kill_after_ms: int = -1) -> End:
        """Stop an attempt and return its end."""
        self.say(protocol.Stop((attempt,), cause, kill_after_ms))
        self.until(lambda: attempt in self.ends)
        return self.ends[attempt]

    def children(self) -> list[int]:
        """Return the pids of the launcher's children."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def memory_kib(self, field: str) -> int:
        """Return VmRSS or VmHWM of the launcher."""
        return int(Path(f"/proc/{self.process.pid}/status").read_text().partition(f"{field}:")[2].split()[0])

    def ping(self) -> protocol.Pong:
        self.until(lambda: self.pongs)  # its first word was said before it had read anything
        count = len(self.pongs)
        self.say(protocol.Ping())
        self.until(lambda: len(self.pongs) > count)
        return self.pongs[-1]

    def text(self, attempt: AttemptRef, stream: int = 1) -> bytes:
        """Return the output that arrived, which must be whole."""
        text = b""
        for offset, data in sorted(self.outputs.get((attempt, stream), {}).items()):
            assert offset == len(text), "a gap"
            text += data
        return text


def value_of(link: Link, data: bytes) -> Any:
    """Run a call that returns, and return what."""
    end = link.run(data, secrets.randbelow(2**31) + 1)
    assert (end.cause, end.code) == (Cause.EXIT, 0), usage(end).error
    return plain.loads(end.value)
