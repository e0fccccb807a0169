"""One attempt as the launcher holds it, and what all attempts of one `Spawn` have in common.

    QUEUED -> RUNNING -> DRAINING -> SWEEPING -> ENDED
              main is     main is     pipes are   no process
              alive       reaped      closed      is left

Whoever moves an attempt from one stage to the next is named in launcher.py. No I/O here.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Final, Protocol

from tq.core.model.task import Cause
from tq.core.vocabulary import AttemptRef, End
from tq.launcher.cgroups import Cgroup, Memory
from tq.launcher.output import Stream, dropped_bytes
from tq.launcher.program import Names, Program
from tq.launcher.protocol import Output, Spawn
from tq.launcher.scratch import Space
from tq.launcher.spawn import PIPES, Files
from tq.launcher.stored_stdin import StoredInput
from tq.wire.body import Usage, packed
from tq.wire.output_path import expand

error_bytes_max: Final = 400  # a PATH that was searched in vain can be long


class Stage(IntEnum):
    """How far an attempt is in the launcher; what server and worker say of it is its phase (core/model/task.py)."""

    QUEUED = 0
    RUNNING = 1
    DRAINING = 2
    SWEEPING = 3
    ENDED = 4


_QUEUED: Final = Stage.QUEUED
_NONE, _EXIT, _SIGNAL = Cause.NONE, Cause.EXIT, Cause.SIGNAL


class FunctionProcessLike(Protocol):
    """What an attempt and its end need of the process that calls its function (functions/function_process.py)."""

    @property
    def is_ready(self) -> bool:
        """It has started."""

    @property
    def is_importing(self) -> bool:
        """It has not said yet that the function is there."""

    def cut_short(self, attempt: "Attempt") -> None:
        """Its process has ended."""


class Order:
    """What one `Spawn` says about all of its attempts.

    `stdin` is its large input, if it has one; `names` is the environment of its processes. A call has that of the
    process that calls it, and of its own the names alone.
    """

    __slots__ = ("is_array", "lane", "names", "program", "stdin", "worker")

    def __init__(self, spawn: Spawn, program: Program, stdin: StoredInput | None) -> None:
        self.lane = spawn.lane
        self.program = program
        self.stdin = stdin or program.stdin
        self.is_array = spawn.is_array
        self.worker = spawn.worker.encode()
        common = {} if program.function else program.environment.copy()
        common |= {b"TQ_QUEUE": spawn.queue.encode(), b"TQ_WORKER": self.worker}
        if spawn.trace:
            common[b"TRACEPARENT"] = spawn.trace.encode()
        self.names = Names(common, is_array=spawn.is_array, has_text=not program.has_plain_entries)


class Attempt:
    """One attempt.

    `pid` is that of the main process, which leads its group and session. `fds` are the reading ends of stdout and
    stderr, -1 once closed. `streams` are what was read from them, None as long as nothing was, and again after the
    end, when `written` says how much it was. `credit` None = not followed. `space` is what it may write to, as long as
    it runs; `returned` the CBOR of what it returned. Times are those of time.monotonic().
    """

    __slots__ = (
        "begin",
        "caller",
        "cause",
        "cgroup",
        "code",
        "core_dumped",
        "credit",
        "entry",
        "error",
        "fds",
        "has_run",
        "is_followed",
        "is_killed",
        "is_planned",
        "is_stuck",
        "is_swept",
        "is_watched",
        "little_pause",
        "order",
        "output_held",
        "peak_kib",
        "pid",
        "push_pause",
        "pushed_at",
        "ref",
        "returned",
        "run_us",
        "space",
        "stage",
        "streams",
        "system_us",
        "user_us",
        "value",
        "written",
    )  # fmt: skip

    def __init__(
        self, ref: AttemptRef, value: int, order: Order, entry: bytes | None = None, *, has_run: bool = True
    ) -> None:
        self.ref = ref
        self.value = value
        self.entry = entry
        self.has_run = has_run  # an earlier attempt of its task, or it may have
        self.order = order
        self.stage = _QUEUED
        self.pid = 0
        self.fds = [-1, -1]
        self.streams: tuple[Stream, Stream] | None = None
        self.written = (0, 0)
        self.begin = 0.0
        self.run_us = 0
        self.cause: int = _NONE  # why it was asked to stop; the first that asked
        self.code = 0
        self.error = ""
        self.core_dumped = False
        self.user_us = 0
        self.system_us = 0
        self.peak_kib = 0
        self.is_watched = False  # its pipes are in epoll
        self.output_held = False
        self.is_followed = False  # the next call in its process has its place in the lane
        self.is_killed = False  # by the launcher, when its grace was over
        self.is_swept = False  # its leftovers have been killed once
        self.is_stuck = False  # something of it does not die
        self.caller: FunctionProcessLike | None = None  # the process that calls its function, while it does
        self.space: Space | None = None
        self.cgroup: Cgroup | None = None  # its own, if it has one
        self.returned = b""
        self.credit: int | None = None
        self.pushed_at = 0.0
        self.push_pause = 0.0
        self.is_planned = False  # a push of little news is
        self.little_pause = 0.0  # before the next one

    @property
    def cookie(self) -> tuple[bytes, bytes, bytes]:
        """TQ_WORKER, TQ_TASK and TQ_ATTEMPT, as its processes bear them."""
        task = b"%d.%d" % (self.ref.job, self.value) if self.order.is_array else b"%d" % self.ref.job
        return self.order.worker, task, b"%d" % self.ref.attempt

    @property
    def has_succeeded(self) -> bool:
        """Whether its main process ended with 0 and nobody asked it to."""
        return self.code == 0 and self.cause == _NONE

    def files(self) -> Files:
        """Return the files that take its output. What is written there stays when it is tried again."""
        stdout, stderr = self.order.program.outputs
        if not (stdout or stderr):
            return PIPES
        _, task, attempt = self.cookie
        names = {b"j": b"%d" % self.ref.job, b"t": task, b"a": b"%d" % self.value, b"n": attempt}
        is_first = self.ref.attempt == 1 or not self.has_run  # there are servers that do not say who has run
        return Files(expand(stdout, names), expand(stderr, names), is_first)

    def stream(self, index: int) -> Stream:
        """Return what was read of stdout (0) or stderr (1)."""
        if self.streams is None:
            self.streams = Stream(), Stream()
        return self.streams[index]

    def fresh_output(self) -> Iterator[Output]:
        """Take the slots with news, of both streams; each counts as pushed once taken."""
        for number, stream in enumerate(self.streams or (), 1):
            for offset, data in stream.fresh():
                yield Output(self.ref, number, offset, data)

    def take_rest(self) -> list[Output]:
        """Take the output that was not pushed, and let go of all of it; only how much it was stays."""
        rest = list(self.fresh_output())
        if self.streams is not None:
            self.written = self.streams[0].written, self.streams[1].written
            self.streams = None
        return rest

    def note(self, memory: Memory) -> None:
        """Take what its cgroup says of its memory: a failure after something of it was killed for that is for that."""
        self.peak_kib = memory.peak_kib or self.peak_kib
        if memory.is_out and self.code != 0 and not self.cause:
            self.cause = Cause.OOM

    def fail(self, cause: int, code: int = 0, error: str = "") -> None:
        """It ended without having run, and this is why."""
        self.stage = Stage.ENDED
        self.cause = cause
        self.code = code
        self.error = as_text(error)

    def end(self) -> End:
        """Return the report. `take_rest` comes before."""
        cause = self.cause or (_EXIT if self.code >= 0 else _SIGNAL)
        out, err = self.written
        usage = Usage(
            self.user_us,
            self.system_us,
            self.peak_kib,
            self.written,
            (dropped_bytes(out), dropped_bytes(err)) if out or err else self.written,
            self.core_dumped,
            self.output_held,
            self.error,
        )
        return End(self.ref, cause, self.code, self.run_us, packed(usage), self.returned)


def as_text(error: str) -> str:
    """Return an error as a frame takes it: of bounded length, and a path in it that is not text is made one."""
    return error.encode(errors="backslashreplace")[:error_bytes_max].decode(errors="ignore")
