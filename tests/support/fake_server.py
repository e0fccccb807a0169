"""A server for tests of a real worker: real TLS on loopback, and a test that plays the other end message by message.

async with open_fake_server(tmp_path) as server:
    with running_worker(server, tmp_path) as worker:
        peer = await server.reconciled()
        peer.send(assign(1, ["true"]))
        ended = await peer.receive(m.Ended)
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import trio

from tests.support import processes
from tq import limits
from tq.core.vocabulary import Assignment, AttemptRef
from tq.net.link import Link, open_link
from tq.net.secure import SecureStream
from tq.server.operation.identity import open_identity
from tq.wire import messages as m
from tq.wire.body import Body
from tq.wire.codec import dumps
from tq.wire.connection import Connection
from tq.worker.settings import Server

PATIENCE_S = 20.0
M = TypeVar("M", bound=msgspec.Struct)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until something outside of this process has happened, which no event here can tell."""
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


class Peer:
    """One session of a worker, as its server sees it. Deliveries of the worker are acknowledged unless told not to."""

    def __init__(self, link: Link, hello: m.Hello, rest: list[m.Message]) -> None:
        self.link = link
        self.hello = hello
        self.acknowledges = True
        self.is_mute = False
        self.seen: list[m.Message] = []  # everything but beats, in order
        self.beats: list[m.Beat] = []
        self.beats_sent = 0
        self.has_ended = trio.Event()
        self._unread: list[m.Message] = []
        self._news = trio.Event()
        self._take(rest)

    def send(self, message: m.Message) -> None:
        self.link.send_nowait(message)

    async def receive(self, kind: type[M]) -> M:
        """Return the next message of this kind that the test has not had yet."""
        with trio.fail_after(PATIENCE_S):
            while True:
                for message in self._unread:
                    if isinstance(message, kind):
                        self._unread.remove(message)
                        return message
                if self.has_ended.is_set():
                    raise AssertionError(f"the session ended without {kind.__name__}: {self.link.ended_because}")
                await self._news.wait()

    async def ended(self) -> None:
        with trio.fail_after(PATIENCE_S):
            await self.has_ended.wait()

    async def next_beat(self) -> m.Beat:
        count = len(self.beats)
        with trio.fail_after(PATIENCE_S):
            while len(self.beats) <= count:
                await self._news.wait()
        return self.beats[-1]

    async def beats_pass(self, count: int) -> None:
        """Wait while the server sends this many beats (or, mute, would send them)."""
        until = self.beats_sent + count
        while self.beats_sent < until:
            await self._news.wait()

    def cut(self) -> None:
        """End the connection without a word."""
        self.link._end("cut by the test")

    async def run(self) -> None:
        async for messages in self.link:
            self._take(messages)
        self.has_ended.set()
        self._wake()

    async def beat(self, beat_s: float) -> None:
        while True:
            await trio.sleep(beat_s)
            if not self.is_mute:
                self.send(m.Beat())
            self.beats_sent += 1
            self._wake()

    def _take(self, messages: list[m.Message]) -> None:
        for message in messages:
            if isinstance(message, m.Beat):
                self.beats.append(message)
                continue
            self.seen.append(message)
            self._unread.append(message)
            if isinstance(message, m.Ended | m.HandedBack) and self.acknowledges:
                self.send(m.Acknowledged(message.delivery))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()


class FakeServer:
    """Where workers come to. `refusal` answers their hello, if set, after `before_refusal` was called."""

    def __init__(self, directory: Path) -> None:
        self.identity = open_identity(directory / "identity", datetime.now(UTC))
        self.port = 0
        self.lineage, self.epoch, self.beat_ms = 77, 1, 1_000
        self.refusal: m.Refused | None = None
        self.before_refusal: Callable[[], None] = lambda: None
        self.tells_ca = False
        self.hellos = 0
        self.peers: list[Peer] = []
        self._arrive, self._arrivals = trio.open_memory_channel[Peer](100)

    def found(self) -> dict[str, Any]:
        """Return what a worker is to find of this server, as JSON has it."""
        return {"address": ("127.0.0.1", self.port), "token": "tqw_test", "ca_pem": self.identity.ca_pem}

    async def peer(self) -> Peer:
        """Return the next session that begins."""
        with trio.fail_after(PATIENCE_S):
            return await self._arrivals.receive()

    async def reconciled(self, **answer: Any) -> Peer:
        """Return the next session, with the worker's list answered."""
        peer = await self.peer()
        while (await peer.receive(m.Reconcile)).more:
            pass
        peer.send(m.Reconciled(answer.get("stop", ()), answer.get("settled", ())))
        return peer

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._attend, listeners, task_status=task_status)

    async def _attend(self, raw: trio.SocketStream) -> None:
        async with SecureStream(raw, self.identity.context, server_side=True) as stream:
            try:
                await stream.do_handshake()
            except trio.BrokenResourceError:
                return
            await self._converse(stream)

    async def _converse(self, stream: SecureStream) -> None:
        async with open_link(stream, Connection(limits.frame_bytes_max)) as link:
            hello, *rest = await anext(link, (None,))
            if self.tells_ca and isinstance(hello, m.GetCA):
                link.send_nowait(m.CA(self.identity.ca_pem.encode()))
                return
            if not isinstance(hello, m.Hello):
                return
            self.hellos += 1
            if self.refusal is not None:
                self.before_refusal()
                link.send_nowait(self.refusal)
                return
            link.send_nowait(m.Welcome(1, "fake", self.lineage, self.epoch, 1, self.beat_ms, "worker"))
            peer = Peer(link, hello, rest)
            self.peers.append(peer)
            await self._arrive.send(peer)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.beat, self.beat_ms / 1_000)
                await peer.run()
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_fake_server(directory: Path) -> AsyncIterator[FakeServer]:
    """Run a fake server on any free port while the block lasts."""
    server = FakeServer(directory)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        yield server
        nursery.cancel_scope.cancel()


_RUN = """
import json, sys
from pathlib import Path
from tq.errors import TqError
from tq.net.address import Address
from tq.worker.settings import Server, Settings
from tq.worker.work import main
given, path = json.loads(sys.argv[1]), Path(sys.argv[2])
given["state"] = Path(given["state"])
def find():
    try:
        server = json.loads(path.read_bytes())
    except ValueError as error:
        raise TqError(f"{path}: {error}")
    except OSError as error:
        raise TqError(str(error))
    return Server(**{**server, "address": Address(*server["address"])})
try:
    sys.exit(main(Settings(**given), find))
except TqError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_status)
"""


class WorkerProcess:
    """A real worker. `log()` is its stderr so far; `where`: the file that says where the server is."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, where: Path) -> None:
        self.process = process
        self.where = where
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self._log.read_text()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def logged(self, word: str) -> None:
        """Wait until the worker has logged this."""
        await eventually(lambda: word in self.log())

    def launcher_pid(self) -> int:
        """Return the pid of its launcher; waited for."""
        return int(processes.until(lambda: processes.launcher_of(self.pid), "the worker has a launcher"))

    async def exit_status(self) -> int:
        await eventually(lambda: self.process.poll() is not None)
        return self.process.returncode


@contextmanager
def running_worker(server: FakeServer, tmp_path: Path, *, before: str = "", **settings: Any) -> Iterator[WorkerProcess]:
    """Run a worker process while the block lasts; afterwards it is gone. `before`: code that it runs first."""
    found = server.found() | {key: settings.pop(key) for key in Server._fields if key in settings}
    where = tmp_path / f"server-{len(list(tmp_path.iterdir()))}.json"
    where.write_text(json.dumps(found))
    given = {"state": str(tmp_path / "state"), "slots": 2, **settings}
    log = tmp_path / f"worker-{len(list(tmp_path.iterdir()))}.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", before + _RUN, json.dumps(given), str(where)], stderr=stderr, cwd=Path.cwd()
        )
    try:
        yield WorkerProcess(process, log, where)
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()  # its launcher sees the end of the socket, kills all it has, and exits
        process.wait()
        print(log.read_text())


def body(*argv: str | bytes, **fields: Any) -> bytes:
    words = tuple(word if isinstance(word, bytes) else word.encode() for word in argv)
    return dumps(Body(words, os.fsencode("/"), **fields))


def ref(job: int, member: int = 0, attempt: int = 1, lease: int = 10) -> AttemptRef:
    return AttemptRef(job, 0, member, attempt, lease)


def assign(job: int, *argv: str | bytes, members: int = 1, width: int = 2, stdin: int = 0, **fields: Any) -> m.Assign:
    attempts = tuple(Assignment(ref(job, member), member + 1) for member in range(members))
    return m.Assign(job, 1, width, members > 1, "default", "", body(*argv, **fields), stdin, attempts)


SLEEPER: Final = "echo $$ > {}; trap '' TERM; exec sleep 60"


def text(path: Path) -> str:
    """Return what a file holds, "" if there is none."""
    return path.read_text() if path.exists() else ""


async def written_pid(path: Path) -> int:
    """Return the pid that a task writes into a file."""
    await eventually(lambda: text(path).endswith("\n"))
    return int(text(path))
