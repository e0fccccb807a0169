"""A launcher to talk to: a real one, over a socketpair, without trio."""

import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

from tq.core.vocabulary import Assignment, AttemptRef, End
from tq.wire import codec
from tq.wire.body import Body, Usage
from tq.worker import frames, launcher

WORKER: Final = "00c0ffee00c0ffee"
PATIENCE_S: Final = 30.0


def body(*argv: str | bytes, cwd: str = "/", **fields: Any) -> bytes:
    """Return the bytes of a body."""
    return codec.dumps(Body(tuple(os.fsencode(word) for word in argv), os.fsencode(cwd), **fields))


def ref(job: int, member: int = 0, attempt: int = 1) -> AttemptRef:
    return AttemptRef(job, 0, member, attempt, 1000 + job)


def usage(end: End) -> Usage:
    """Return what a report says beside its cause and code."""
    return codec.loads(end.result, Usage) if end.result else Usage()


class Link:
    """One launcher. Collects what it says; `ends` by ref, `outputs` as (ref, stream) -> {offset: data}."""

    def __init__(self, slots: int = 2, environment: dict[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        self.socket = ours
        self.process = subprocess.Popen(
            launcher.command(theirs.fileno()), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            env=environment, start_new_session=True,
        )  # fmt: skip
        theirs.close()
        self.reader = frames.UpReader()
        self.ends: dict[AttemptRef, End] = {}
        self.order: list[AttemptRef] = []
        self.outputs: dict[tuple[AttemptRef, int], dict[int, bytes]] = {}
        self.started: list[AttemptRef] = []
        self.recalled: dict[AttemptRef, frames.Recalled] = {}
        self.pongs: list[frames.Pong] = []
        self.messages: list[frames.Up] = []
        self.is_closed = False
        self.say(frames.Slots(slots))

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

    def say(self, message: frames.Down) -> None:
        self.socket.sendall(frames.encode(message))

    def spawn(
        self, data: bytes, refs: Iterable[AttemptRef], *, lane: int = 1, width: int = 64, is_array: bool = False,
        queue: str = "default", trace: str = "", stdin: int = 0,
    ) -> None:  # fmt: skip
        attempts = tuple(Assignment(one, one.member + 1) for one in refs)
        self.say(frames.Spawn(lane, width, is_array, queue, trace, data, stdin, WORKER, attempts))

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
        for message in self.reader.feed(data):
            self.messages.append(message)
            self._note(message)
        return True

    def _note(self, message: frames.Up) -> None:
        match message:
            case frames.Ended(ends, outputs):
                for output in outputs:
                    self._note(output)
                for end in ends:
                    assert end.attempt not in self.ends, "an attempt ended twice"
                    self.ends[end.attempt] = end
                    self.order.append(end.attempt)
            case frames.Output(attempt, stream, offset, data):
                assert attempt not in self.ends, "output after the end"
                self.outputs.setdefault((attempt, stream), {})[offset] = data
            case frames.Started(attempts):
                self.started += attempts
            case frames.Recalled(attempts):
                self.recalled.update(dict.fromkeys(attempts, message))
            case frames.Pong():
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

    def ping(self) -> frames.Pong:
        count = len(self.pongs)
        self.say(frames.Ping())
        self.until(lambda: len(self.pongs) > count)
        return self.pongs[-1]

    def text(self, attempt: AttemptRef, stream: int = 1) -> bytes:
        """Return the output that arrived, which must be whole."""
        text = b""
        for offset, data in sorted(self.outputs.get((attempt, stream), {}).items()):
            assert offset == len(text), "a gap"
            text += data
        return text
