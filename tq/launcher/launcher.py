"""The launcher: one small single-threaded process that runs the attempts of a worker.

    worker (trio)  ── stream socket, protocol.py ──  launcher  ──  the processes of the attempts

It exists because per-task work must not cross into trio (measured: half the rate), because a big process forks
slowly, and because what the kernel ties to a parent (PDEATHSIG, subreaper, SIGCHLD) wants a parent without threads.
One loop; a turn is

    read      pipes, frames of the worker, which children have ended
    settle    what has ended: its last output, its leftovers, its report
    start     the next ones, in the same turn
    push      output that is due, reports that are due

The parts: lanes.py what waits; guard.py what a cut ends; spawn.py and program.py how a process is started; reaper.py
how it ends; stored_stdin.py what it reads; capture.py and output.py what it writes; scratch.py and result_file.py where
else it may write, and what it returns; reports.py the way up; containment.py and cgroups.py the kernel's part. End of
file on the socket means that the worker is gone: everything is killed, and the launcher exits. So it does when its
parent, the sentry (sentry.py), is gone: without one it could leave something behind. It takes no other orders.
"""

import gc
import os
import select
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tq.core.model.task import Cause
from tq.core.vocabulary import AttemptRef
from tq.launcher import containment, installed, protocol, result_file
from tq.launcher.attempt import Attempt, Order, Stage, as_text
from tq.launcher.capture import Capture
from tq.launcher.cgroups import Cgroups
from tq.launcher.functions import warm_process
from tq.launcher.functions.pool import FunctionNotAllowed, Pool
from tq.launcher.guard import Guard
from tq.launcher.lanes import Lanes
from tq.launcher.program import BeyondThis, Programs, SpawnError
from tq.launcher.reaper import Reaper
from tq.launcher.reports import Reports
from tq.launcher.scratch import Scratch
from tq.launcher.spawn import CwdMissing, Spawner
from tq.launcher.stored_stdin import StoredInputs

_read_bytes: Final = 256 * 1024
_signal_bytes: Final = 128
_starts_by_turn_max: Final = 64
_events_max: Final = 256
_kill_all_s: Final = 10.0
_wait_s_max: Final = 3600.0  # epoll refuses a wait of weeks
_CWD_MISSING_CODE: Final = 125
_BOOT: Final = (
    "import sys; sys.path[1:1] = sys.argv[4:]; from tq.launcher.launcher import main;"
    "main(int(sys.argv[1]), sys.argv[2], sys.argv[3])"
)


def command(fd: int, directory: bytes, cgroup: bytes = b"") -> list[str]:
    """Return the arguments that start a launcher on the socket `fd`, which it inherits (`pass_fds`).

    `directory` is its own, and exists; who made it removes it afterwards (scratch.py). So is `cgroup`, if it may have
    one (cgroups.py).
    The interpreter runs isolated, without `site` and in UTF-8: what a user's environment or locale does to Python does
    not reach it.
    """
    words = (str(fd), os.fsdecode(directory), os.fsdecode(cgroup), *installed.libraries())
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, *words]


_WORKER_TROUBLE: Final = Cause.WORKER_TROUBLE


class Launcher:
    """The loop. `fd` is the launcher's end of the socket, `directory` its own, `cgroups` what it may use."""

    def __init__(self, fd: int, directory: bytes, cgroups: Cgroups | None = None) -> None:
        os.set_blocking(fd, False)
        self._fd: Final = fd
        self._signals: Final = containment.open_child_signals()
        self._poll: Final = select.epoll()
        self._poll.register(fd, select.EPOLLIN)
        self._poll.register(self._signals, select.EPOLLIN)
        self._parent: Final = containment.watch_parent(self._poll)
        self._is_write_watched = False
        self._unread: Final = bytearray()
        self._reports: Final = Reports(fd, self._collect)
        self._capture: Final = Capture(self._poll, self._reports)
        self._reaper: Final = Reaper(self._capture, self._ended)
        self._lanes: Final = Lanes()
        self._spawner: Final = Spawner()
        self._programs: Final = Programs(os.environb)
        self._pool: Final = Pool(
            self._poll, self._spawner, self._lanes, self._reaper, self._capture, self._reports, os.environb
        )
        self._scratch: Final = Scratch(directory)
        self._results: Final = result_file.Reader()
        self._cgroups: Final = cgroups
        self._inputs: Final = StoredInputs()
        self._held: Final[dict[AttemptRef, Attempt]] = {}
        self._guard: Final = Guard()
        self._slots = 0
        self._is_open = True
        self._more = False  # there is work left that no event will announce

    def run(self) -> None:
        """Serve until the worker is gone. Whatever ends the loop, no process is left."""
        try:
            self._tell_standing()  # before the first order is read: a launcher that never spoke has run nothing
            self._send()
            while self._is_open:
                self._turn()
        finally:
            self._poll.close()  # so that one descriptor is free to look with: attempts may have all others
            if self._cgroups is not None:
                self._cgroups.kill()
            containment.kill_all_children(_kill_all_s)
            if self._cgroups is not None:
                self._cgroups.close()

    def _turn(self) -> None:
        # Where much goes on something has happened already, and nobody need know when the next thing is due.
        events = self._poll.poll(0.0, _events_max) or self._poll.poll(self._timeout_s(), _events_max)
        now = time.monotonic()
        reaper, capture, reports = self._reaper, self._capture, self._reports
        if reaper.more:
            reaper.reap(now)
        for fd, what in events:
            if fd == self._signals:
                os.read(fd, _signal_bytes)
                reaper.reap(now)
            elif fd == self._fd:
                self._receive(now)
            elif fd == self._parent:
                self._is_open = False
            elif self._pool.ready(fd, what, now):
                pass
            elif (attempt := capture.ready(fd)) is not None:
                reaper.closed(attempt)
        if not self._is_open:
            return  # what started now would be killed at once
        if self._guard.attempts:
            self._cut_off(now)
        reaper.tick(now)
        reaper.settle(now)
        self._pool.tick(now)
        self._start()
        capture.tick(now)
        reports.tick(now, not (reaper.attempts or self._lanes.queued))
        if reports.unsent_bytes:
            self._send()

    def _timeout_s(self) -> float:
        """Return how long to wait for events: until the next thing is due."""
        if self._more or self._reaper.more:
            return 0.0
        due = min(self._capture.due(), self._reaper.due(), self._pool.due(), self._reports.due())
        wait_s = min(due - time.monotonic(), self._guard.wait_s())
        return -1.0 if wait_s == float("inf") else min(max(0.0, wait_s), _wait_s_max)

    # ------------------------------------------------------------ the socket

    def _receive(self, now: float) -> None:
        try:
            data = os.read(self._fd, _read_bytes)
        except BlockingIOError:
            return  # the event said that it can be written
        except ConnectionError:
            data = b""
        if not data:
            self._is_open = False
            return
        self._unread.extend(data)
        for message in protocol.downs(self._unread):
            self._obey(message, now)

    def _send(self) -> None:
        try:
            is_done = self._reports.write()
        except OSError:  # the worker is gone
            self._is_open = False
            return
        if is_done == self._is_write_watched:
            self._is_write_watched = not is_done
            self._poll.modify(self._fd, select.EPOLLIN if is_done else select.EPOLLIN | select.EPOLLOUT)

    def _obey(self, message: protocol.Down, now: float) -> None:
        match message:
            case protocol.Spawn():
                self._queue(message)
            case protocol.Stop():
                self._pool.take_back(now)
                self._stop(message, now)
            case protocol.Recall():
                self._pool.take_back(now)
                self._recall(message.attempts)
            case protocol.Follow():
                self._pool.take_back(now)
                if attempt := self._held.get(message.attempt):
                    self._capture.follow(attempt, message.credit)
            case protocol.Slots():
                self._slots = message.count
                self._spawner.make_room(message.count)
            case protocol.Input():
                self._inputs.store(message)
            case protocol.Forget():
                self._inputs.forget(message.blob)
            case protocol.Lease():
                self._guard.renew(message.until_s)
            case protocol.Functions():
                self._pool.offer(message)
            case protocol.Ping():
                self._tell_standing()

    def _tell_standing(self) -> None:
        reaper, reports = self._reaper, self._reports
        reports.send(protocol.Pong(len(reaper.attempts), self._lanes.queued, reports.unsent_bytes, reaper.degraded))

    # ------------------------------------------------------------ orders

    def _queue(self, spawn: protocol.Spawn) -> None:
        new = [assignment for assignment in spawn.attempts if assignment.attempt not in self._held]
        refs = tuple(assignment.attempt for assignment in new)
        try:
            order = Order(spawn, self._programs.get(spawn.body), self._inputs.get(spawn.stdin))
        except (OSError, BeyondThis) as error:  # no descriptor, no memory, no input, an old tq: not the task's fault
            self._reports.send(protocol.Recalled(refs, _WORKER_TROUBLE, as_text(str(error))))
            return
        attempts = [Attempt(one.attempt, one.value, order, one.entry, has_run=one.has_run) for one in new]
        self._held.update(zip(refs, attempts, strict=True))
        if order.program.stops_when_cut:
            self._guard.add(attempts)
        self._lanes.add(spawn.lane, spawn.width, attempts)

    def _stop(self, stop: protocol.Stop, now: float) -> None:
        grace_s = None if stop.kill_after_ms < 0 else stop.kill_after_ms / 1000
        for ref in stop.attempts:
            attempt = self._held.get(ref)
            if attempt is None:
                continue
            if attempt.stage is Stage.QUEUED:
                self._drop(attempt)
                attempt.fail(stop.cause)
                self._reports.add(attempt, now)
            else:
                self._reaper.stop(attempt, stop.cause, grace_s, now, stop.signal)

    def _cut_off(self, now: float) -> None:
        """End what may not run while the server cannot hear the worker. What came after the last frame counts too."""
        if over := self._guard.take_over():
            self._pool.take_back(now)
            self._recall([attempt.ref for attempt in over])
            for attempt in over:
                self._reaper.stop(attempt, Cause.CUT_OFF, 0.0, now)

    def _recall(self, refs: Sequence[AttemptRef]) -> None:
        given_back = []
        for ref in refs:
            attempt = self._held.get(ref)
            if attempt is not None and attempt.stage is Stage.QUEUED:
                self._drop(attempt)
                given_back.append(ref)
        if given_back:
            self._reports.send(protocol.Recalled(tuple(given_back)))

    def _drop(self, attempt: Attempt) -> None:
        del self._held[attempt.ref]
        self._guard.discard(attempt)
        self._lanes.drop(attempt)

    # ------------------------------------------------------------ start and end

    def _start(self) -> None:
        """Start what may start: slots, widths and a worker that keeps up with what it is sent."""
        reaper, lanes = self._reaper, self._lanes
        self._more = False
        if self._reports.is_full:
            return
        for _ in range(_starts_by_turn_max):
            if len(reaper.attempts) >= self._slots:
                return
            attempt = lanes.take()
            if attempt is None:
                return
            self._start_one(attempt)
        self._more = True

    def _start_one(self, attempt: Attempt) -> None:
        attempt.begin = time.monotonic()  # a short task has run when posix_spawn returns
        try:
            if attempt.order.program.function:
                self._pool.start(attempt)
            else:
                self._spawn(attempt)
        except FunctionNotAllowed as error:
            self._not_started(attempt, Cause.UNKNOWN_FUNCTION, warm_process.NOT_FOUND, str(error))
        except CwdMissing as error:
            self._not_started(attempt, Cause.CWD_MISSING, _CWD_MISSING_CODE, str(error))
        except SpawnError as error:
            self._not_started(attempt, Cause.SPAWN_FAILED, error.code, str(error))
        except OSError as error:
            self._not_started(attempt, _WORKER_TROUBLE, 0, str(error))
        else:
            self._reaper.add(attempt)

    def _spawn(self, attempt: Attempt) -> None:
        """Start the process of an attempt, with a space to write to. Raises what `Spawner.start` does."""
        program = attempt.order.program
        attempt.space = self._scratch.space(has_directory=program.has_tmpdir)
        ref = attempt.ref
        environment = attempt.order.names.of(ref.job, attempt.value, ref.attempt, ref.lease, attempt.entry)
        attempt.space.tell(environment)
        if program.time_limit_s:
            environment[b"TQ_DEADLINE"] = b"%d" % (time.time() + program.time_limit_s)
        argv = program.arguments(attempt.value, attempt.entry)
        if self._cgroups is not None and not self._lanes.is_brief(attempt.order.lane):
            attempt.cgroup = self._cgroups.enter()
        try:
            attempt.pid, *attempt.fds = self._spawner.start(
                program, argv, environment, attempt.order.stdin, attempt.files()
            )
        finally:
            if self._cgroups is not None and attempt.cgroup is not None:
                self._cgroups.leave(attempt.cgroup)

    def _not_started(self, attempt: Attempt, cause: Cause, code: int, error: str) -> None:
        self._drop_started(attempt)
        if cause is _WORKER_TROUBLE:
            self._collect([attempt])
            self._reports.send(protocol.Recalled((attempt.ref,), cause, as_text(error)))
        else:
            attempt.fail(cause, code, error)
            self._reports.add(attempt, attempt.begin)

    def _ended(self, attempt: Attempt, now: float) -> None:
        self._drop_started(attempt)
        self._lanes.note(attempt.order.lane, attempt.run_us)
        if attempt.streams is not None:
            self._capture.forget(attempt)
        if attempt.cause == _WORKER_TROUBLE:
            self._collect([attempt])
            self._reports.send(protocol.Recalled((attempt.ref,), attempt.cause, attempt.error))
        else:
            self._reports.add(attempt, now)

    def _collect(self, attempts: Sequence[Attempt]) -> None:
        """Take what successes have returned, and clear the spaces of attempts that have ended. Most have nothing there.

        A tree is the worker's to remove: that takes long.
        """
        if len(attempts) > 1 and self._scratch.is_empty():
            return
        for attempt in attempts:
            if (space := attempt.space) is None:
                continue
            attempt.space = None
            has_result = space.has_result()
            if has_result and attempt.has_succeeded:
                try:
                    attempt.returned = self._results.read(space.result)
                except result_file.BadResult as error:  # whoever waits for the value must hear of it
                    attempt.fail(Cause.BAD_RESULT, attempt.code, str(error))
            if (has_result or space.directory is not None) and (left := space.clear()) is not None:
                self._reports.send(protocol.Left(left))

    def _drop_started(self, attempt: Attempt) -> None:
        attempt.stage = Stage.ENDED
        if self._cgroups is not None and attempt.cgroup is not None:
            self._cgroups.forget(attempt.cgroup)
        del self._held[attempt.ref]
        self._guard.discard(attempt)
        if not attempt.is_followed:
            self._lanes.release(attempt.order.lane)


def main(fd: int, directory: str, cgroup: str) -> None:
    """Run a launcher on the inherited socket `fd`, with this directory and maybe this cgroup.

    Returns when the worker is gone.
    """
    os.set_inheritable(fd, False)  # else every task holds the socket: no end of file, and tasks that write frames
    containment.close_inherited(fd)
    with suppress(PermissionError):  # it leads its own session already
        os.setsid()
    containment.name_process(containment.LAUNCHER)
    containment.hold_off_signals()
    containment.become_subreaper()
    cgroups = None
    with suppress(OSError):  # the worker has looked, so this works, or the machine has changed: then without
        cgroups = Cgroups(os.fsencode(cgroup)) if cgroup else None
    launcher = Launcher(fd, os.fsencode(directory), cgroups)
    gc.collect()
    gc.freeze()
    try:
        launcher.run()
    except protocol.FrameError as error:
        sys.exit(f"tq launcher: {error}")
