"""The warm processes that call functions: the launcher's, one for each slot at most, each with one attempt at a time.

They are started as any task's process is, and an attempt has one as its main process while it runs: so its limits, its
stop, its output and what it leaves behind are those of every attempt (lives.py), and whatever ends it early ends the
process with it. Only a call that comes to its end leaves the process to the next one. A process without an attempt
waits here, and is spare to `Lives`.
"""

import os
import select
import signal
import sys
from _socket import socketpair  # the module over it takes longer to import than all of ours
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from tq import limits
from tq.core.placement import allows
from tq.wire.body import Body
from tq.worker import calls, functions
from tq.worker.attempt import Attempt
from tq.worker.caller import Caller
from tq.worker.capture import Capture
from tq.worker.frames import Functions
from tq.worker.lives import Lives
from tq.worker.program import Program, base_environment
from tq.worker.spawn import CwdMissing, Spawner

_NEVER: Final = float("inf")


class FunctionNotAllowed(Exception):
    """The worker does not call functions of that module."""


class _Door:
    """The end of a channel that a new process gets as its standard input."""

    def __init__(self, end: int) -> None:
        self._end = end

    def open(self) -> int:
        """Return a descriptor of its own for the spawn, which closes it."""
        return os.dup(self._end)


class Pool:
    """All callers. `poll` is the launcher's epoll, `own` the worker's environment."""

    def __init__(
        self, poll: select.epoll, spawner: Spawner, lives: Lives, capture: Capture, own: Mapping[bytes, bytes]
    ) -> None:
        self._poll: Final = poll
        self._spawner: Final = spawner
        self._lives: Final = lives
        self._capture: Final = capture
        self._environment: Final = base_environment(own)
        self._offer = Functions((), (), "/")
        self._callers: Final[dict[int, Caller]] = {}
        self._idle: Final[list[Caller]] = []  # the one that worked last stands last

    def offer(self, offer: Functions) -> None:
        """Call functions of these modules from now on."""
        self._offer = offer

    # ------------------------------------------------------------ an attempt begins

    def start(self, attempt: Attempt) -> None:
        """Let a process call the function of `attempt`.

        Raises FunctionNotAllowed, or OSError for what is wrong with this machine.
        """
        order, program = attempt.order, attempt.order.program
        module = program.function.partition(":")[0]
        if not allows(self._offer.modules, module):
            raise FunctionNotAllowed(f"this worker does not allow the module {module}")
        call = calls.Call(
            program.function,
            program.packed_arguments,
            order.names(attempt.ref, attempt.value, attempt.entry),
            attempt.value if order.is_array else None,
            attempt.entry,
            program.has_plain_entries,
        )
        frame = calls.encode(call)
        caller = self._take(frame) or self._spawn(order.worker, frame)
        caller.attempt = attempt
        attempt.caller = caller
        attempt.pid, attempt.fds = caller.pid, caller.pipes

    def _take(self, frame: bytes) -> Caller | None:
        """Return an idle process that has been sent `frame`."""
        while self._idle:
            caller = self._idle.pop()
            if caller.pid in self._lives.spare and caller.send(frame):
                self._lives.spare.discard(caller.pid)
                return caller
            self._end(caller)
        return None

    def _spawn(self, worker: bytes, frame: bytes) -> Caller:
        argv = [os.fsencode(word) for word in functions.command(_places())]
        program = Program(Body(tuple(argv), os.fsencode(self._offer.directory)), self._environment)
        # It bears the worker's name (containment.kill_bearers); task and attempt are set for each call.
        environment = {**program.environment, b"TQ_WORKER": worker, b"TQ_TASK": b"", b"TQ_ATTEMPT": b""}
        ours, theirs = (end.detach() for end in socketpair())
        try:
            os.set_blocking(ours, False)
            pid, *pipes = self._spawner.start(program, argv, environment, _Door(theirs))
        except CwdMissing as error:
            os.close(ours)
            raise FileNotFoundError(f"the directory that this worker was started in is gone: {error}") from error
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        caller = Caller(self._poll, self._callers, ours, pid)
        caller.pipes = pipes
        caller.send(calls.encode(calls.Setup(self._offer.path)) + frame)  # if it is gone already, its end will tell
        return caller

    # ------------------------------------------------------------ what they say

    def ready(self, fd: int, events: int, now: float) -> bool:
        """Take an event of `fd`. Return whether that is a channel of ours."""
        caller = self._callers.get(fd)
        if caller is None:
            return False
        answers: list[calls.Ready | calls.Returned] | None = []
        if events & select.EPOLLOUT and not caller.send():
            answers = None
        elif events & ~select.EPOLLOUT:
            answers = caller.receive()
        if answers is None:
            self._hung_up(caller, now)
            return True
        for answer in answers:
            if caller.attempt is None:
                break  # nobody asked
            if isinstance(answer, calls.Returned):
                self._returned(caller, caller.attempt, answer, now)
            else:
                self._lives.begin(caller.attempt, now)
        return True

    def _hung_up(self, caller: Caller, now: float) -> None:
        """It has ended, or talks nonsense: with an attempt, its end is the attempt's."""
        caller.close()
        if caller.attempt is None:
            self._end(caller)
        else:
            self._lives.kill(caller.attempt, now)

    def _returned(self, caller: Caller, attempt: Attempt, answer: calls.Returned, now: float) -> None:
        if attempt.cause:  # it was asked to stop, and does not feel it any more
            caller.answer = answer
            self._lives.kill(attempt, now)
            return
        attempt.take_answer(answer)
        is_whole = self._capture.release(attempt, is_read=answer.has_output)
        caller.attempt = None
        self._lives.returned(attempt, now)
        if answer.is_spent or not is_whole:
            self._end(caller)
        else:
            caller.idle_at = now
            self._idle.append(caller)

    # ------------------------------------------------------------ ends

    def due(self) -> float:
        """Return when `tick` has something to do."""
        return self._idle[0].idle_at + limits.function_idle_s_max if self._idle else _NEVER

    def tick(self, now: float) -> None:
        """End what has been idle for too long."""
        while self.due() <= now:
            self._end(self._idle[0])

    def _end(self, caller: Caller) -> None:
        """KILL a process that serves no attempt."""
        with suppress(ValueError):
            self._idle.remove(caller)
        caller.close()
        for pipe in caller.pipes:
            if pipe >= 0:
                os.close(pipe)
        if caller.pid in self._lives.spare:  # else it was reaped, and the number is somebody else's
            with suppress(ProcessLookupError):
                os.kill(caller.pid, signal.SIGKILL)


def _places() -> list[str]:
    """Return where the libraries are that a caller needs before it is told where else to look."""
    modules = (sys.modules[name] for name in ("tq", "msgspec", "cbor2"))
    return list(dict.fromkeys(str(Path(module.__file__ or "").parents[1]) for module in modules))
