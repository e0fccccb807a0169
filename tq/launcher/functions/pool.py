"""The warm processes that call functions: the launcher's, one for each slot at most.

They are started as any task's process is, and an attempt has one as its main process while it runs: so its limits, its
stop, its output and what it leaves behind are those of every attempt (reaper.py), and whatever ends it early ends the
process with it. Only a call that comes to its end leaves the process to the next one. A process without an attempt
waits here, and is spare to `Reaper`.

Of short calls several are given to a process at once, so that it need not wait for each (two switches between
processes cost more than such a call). To the lanes those behind the first still wait, out of turn. They come back
(`take_back`) before anybody looks at them, or at the pipes, which must be those of one call: when one of them or the
first is to be stopped, recalled or followed, and when the first turns out longer than a moment.
"""

import os
import select
import signal
from _socket import socketpair  # the module over it takes longer to import than all of ours
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from tq import limits
from tq.core.model.task import Cause
from tq.core.placement.fit import allows
from tq.launcher import containment, installed
from tq.launcher.attempt import Attempt
from tq.launcher.capture import Capture, moment_s
from tq.launcher.functions import calls, warm_process
from tq.launcher.functions.function_process import FunctionProcess, take_answer
from tq.launcher.lanes import Lanes
from tq.launcher.program import Program, SpawnError, base_environment
from tq.launcher.protocol import Functions
from tq.launcher.reaper import Reaper
from tq.launcher.reports import Reports
from tq.launcher.spawn import CwdMissing, Spawner
from tq.wire.body import Body

_ahead_us: Final = 1_000.0  # of calls that a process is given
_ahead_max: Final = 16
_ahead_bytes_max: Final = 2 * limits.KIB  # of such a call: it lies in the channel, which takes much more
_RUNS: Final = 8  # over how many calls the mean is taken
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
        self,
        poll: select.epoll,
        spawner: Spawner,
        lanes: Lanes,
        reaper: Reaper,
        capture: Capture,
        reports: Reports,
        own: Mapping[bytes, bytes],
    ) -> None:
        self._poll: Final = poll
        self._spawner: Final = spawner
        self._lanes: Final = lanes
        self._reaper: Final = reaper
        self._capture: Final = capture
        self._reports: Final = reports
        self._environment: Final = base_environment(own)
        self._offer = Functions((), (), b"/")
        self._callers: Final[dict[int, FunctionProcess]] = {}
        self._idle: Final[list[FunctionProcess]] = []  # the one that worked last stands last
        reaper.on_caller_end = self.ended

    def offer(self, offer: Functions) -> None:
        """Call functions of these modules from now on."""
        self._offer = offer

    # ------------------------------------------------------------ an attempt begins

    def start(self, attempt: Attempt) -> None:
        """Let a process call the function of `attempt`, and of what may wait behind it.

        Raises FunctionNotAllowed, or OSError for what is wrong with this machine.
        """
        module = attempt.order.program.function.partition(":")[0]
        if not allows(self._offer.modules, module):
            raise FunctionNotAllowed(f"this worker does not allow the module {module}")
        caller = self._idle.pop() if self._idle else self._spawn(attempt.order.worker)
        caller.lend(attempt)
        caller.give([attempt, *self._lanes.take_behind(attempt, _depth(attempt) - 1)])

    def _spawn(self, worker: bytes) -> FunctionProcess:
        if another := installed.another():
            raise FileNotFoundError(f"cannot start what calls functions: {another}; start the worker again")
        argv = [os.fsencode(word) for word in warm_process.command(installed.libraries())]
        program = Program(Body(tuple(argv), self._offer.directory), self._environment)
        # It bears the worker's name (containment.kill_bearers); task and attempt are set for each call.
        environment = {**program.environment, b"TQ_WORKER": worker, b"TQ_TASK": b"", b"TQ_ATTEMPT": b""}
        ours, theirs = (end.detach() for end in socketpair())
        try:
            os.set_blocking(ours, False)
            pid, *pipes = self._spawner.start(program, argv, environment, _Door(theirs))
        except CwdMissing as error:
            os.close(ours)
            raise FileNotFoundError(f"the directory that this worker was started in is gone: {error}") from error
        except SpawnError as error:  # the interpreter, which no task has chosen
            os.close(ours)
            raise FileNotFoundError(f"cannot start what calls functions: {error}") from error
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        caller = FunctionProcess(self._poll, self._callers, ours, pid)
        caller.pipes = pipes
        caller.send(calls.encode(calls.Setup(self._offer.path)))
        return caller

    # ------------------------------------------------------------ what they say

    def ready(self, fd: int, events: int, now: float) -> bool:
        """Take an event of `fd`. Return whether that is a channel of ours."""
        caller = self._callers.get(fd)
        if caller is None:
            return False
        if events & select.EPOLLOUT and not caller.send():
            self._hung_up(caller, now)
        elif events & ~select.EPOLLOUT:
            self._hear(caller, now)
        if (attempt := caller.attempt) is not None:
            if attempt.is_watched:
                self._take_back(caller, now)
            elif not self._reports.is_full:
                self._give_more(caller, attempt)
        return True

    def _give_more(self, caller: FunctionProcess, attempt: Attempt) -> None:
        room = _depth(attempt) - len(caller.queue)
        if room >= len(caller.queue) and (more := self._lanes.take_behind(attempt, room)):
            caller.give(more)

    def _hear(self, caller: FunctionProcess, now: float) -> None:
        answers = caller.receive()
        if answers is None:
            self._hung_up(caller, now)
        queue = caller.queue
        for answer in answers or ():
            number, attempt = queue[0] if queue else (0, None)
            if isinstance(answer, calls.Returned):
                if attempt is None or answer.number != number:
                    self._hung_up(caller, now)  # nobody asked
                else:
                    self._returned(caller, attempt, answer, now)
            elif attempt is not None:
                if isinstance(answer, calls.Ready):
                    attempt.begin = now  # only now
                else:
                    caller.found.add(attempt.order.program.function)
                self._reaper.limit(attempt, now)

    def _hung_up(self, caller: FunctionProcess, now: float) -> None:
        """It has ended, or talks nonsense: with an attempt, its end is the attempt's."""
        caller.close()
        if caller.attempt is None:
            self._end(caller)
        elif not caller.is_gone:
            if not (caller.attempt.cause or containment.is_ending(caller.pid)):
                caller.attempt.cause = Cause.BAD_RESULT
                caller.attempt.error = "it closed the channel over which tq calls it, or became another program: killed"
            self._reaper.kill(caller.attempt, now)

    def _returned(self, caller: FunctionProcess, attempt: Attempt, answer: calls.Returned, now: float) -> None:
        if attempt.cause:  # it was asked to stop, and does not feel it any more
            caller.answer = answer
            if not caller.is_gone:
                self._reaper.kill(attempt, now)
            return
        take_answer(attempt, answer)
        program = attempt.order.program
        program.mean_us += ((answer.run_us or 1) - program.mean_us) / (_RUNS if program.mean_us else 1)
        is_whole = self._capture.release(attempt, is_read=answer.has_output)
        queue = caller.queue
        queue.popleft()
        is_usable = is_whole and not answer.is_spent
        if not is_usable:
            self._put_back(caller, 0)
        if queue:
            following = queue[0][1]
            following.begin = now
            caller.lend(following)
            self._reaper.go_on(attempt, following, now)
        else:
            self._reaper.returned(attempt, caller, now)
            if is_usable:
                caller.idle_at = now
                self._idle.append(caller)
            else:
                self._end(caller)
        if answer.has_output and is_usable and not caller.is_held:
            caller.go_on()

    # ------------------------------------------------------------ what was given too early

    def take_back(self, now: float) -> None:
        """Leave every process the one call that runs."""
        for caller in list(self._callers.values()):
            self._take_back(caller, now)

    def _take_back(self, caller: FunctionProcess, now: float) -> None:
        if len(caller.queue) > 1:
            caller.hold()
            self._hear(caller, now)
            self._put_back(caller, 1)
            caller.go_on()

    def _put_back(self, caller: FunctionProcess, kept: int) -> None:
        if back := caller.take_back(kept):
            self._lanes.put_back(back[0].order.lane, back)

    # ------------------------------------------------------------ ends

    def ended(self, caller: FunctionProcess, now: float) -> None:
        """Its process was reaped: take the answers that it has left. What it had not begun goes back."""
        caller.is_gone = True
        while caller.is_open and (answers := len(caller.queue)):
            self._hear(caller, now)
            if len(caller.queue) == answers:
                break
        if caller.attempt is None:
            self._end(caller)
        else:
            self._put_back(caller, 1)
            caller.close()
            caller.pipes = [-1, -1]  # they are the attempt's now

    def due(self) -> float:
        """Return when `tick` has something to do."""
        return self._idle[0].idle_at + limits.function_idle_s_max if self._idle else _NEVER

    def tick(self, now: float) -> None:
        """Take back what stands behind a call that is not short. End what has been idle for too long."""
        for caller in list(self._callers.values()):
            queue = caller.queue
            if len(queue) > 1 and queue[0][1].begin + moment_s <= now:
                self._take_back(caller, now)
        while self.due() <= now:
            self._end(self._idle[0])

    def _end(self, caller: FunctionProcess) -> None:
        """KILL a process that serves no attempt."""
        with suppress(ValueError):
            self._idle.remove(caller)
        caller.close()
        caller.close_pipes()
        if not caller.is_gone:  # else the number may be somebody else's
            with suppress(ProcessLookupError):
                os.kill(caller.pid, signal.SIGKILL)


def _depth(attempt: Attempt) -> int:
    """Return how many calls like this one a process may be given at once."""
    program = attempt.order.program
    is_alone = program.is_loud or attempt.credit is not None or not program.mean_us
    if is_alone or len(program.packed_arguments) + len(attempt.entry or b"") > _ahead_bytes_max:
        return 1
    return min(_ahead_max, int(_ahead_us / program.mean_us) + 1)
