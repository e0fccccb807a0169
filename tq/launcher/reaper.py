"""From a main process's exit, or the wish to stop it, to the last process of its attempt.

Owns every wait and every kill of the launcher. The end of an attempt, step by step:

    main exits      reaped by `reap`; its usage is noted; stage DRAINING
    pipes at EOF    or 2 s later, when somebody else still holds them; stage SWEEPING
    sweep           what is left is killed, round after round, each time something was reaped
    nothing left    stage ENDED; `on_end`

A stop is a signal to the group and CONT, later KILL; then the end goes as above. Killing never comes before draining
when the main process left by itself: `exec > >(filter)` would lose its output.

Who an orphan belonged to: its session or group says so, else its cookie. With neither (`env -i setsid`) it is a
*stranger*: one of the attempts that lived when it was first seen must have made it, so it is killed when the last of
these has ended.
"""

import heapq
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from typing import Any, Final

from tq import limits
from tq.core.model.task import Cause
from tq.launcher import containment
from tq.launcher.attempt import Attempt, FunctionProcessLike, Stage
from tq.launcher.capture import Capture

_reaps_by_turn_max: Final = 128
_sweep_again_s: Final = 0.1
_drain_s: Final = limits.output_drain_ms / 1000
_peak_margin_kib: Final = 1024
_timers_spare: Final = 1024
_SIGNALS: Final = signal.valid_signals()
_NEVER: Final = float("inf")
_RUNNING, _DRAINING, _SWEEPING, _ENDED = Stage.RUNNING, Stage.DRAINING, Stage.SWEEPING, Stage.ENDED


class _Timer(IntEnum):
    """What is due."""

    TIME_LIMIT = 0
    KILL = 1
    CUT = 2  # the pipes
    STUCK = 3
    IMPORT = 4  # time for the module of a function to be there


class Reaper:
    """All attempts between their start and their end. `more`: `reap` stopped at its bound."""

    def __init__(self, capture: Capture, on_end: Callable[[Attempt, float], None]) -> None:
        self.more = False
        self.degraded = 0
        self.attempts: Final[set[Attempt]] = set()  # started, and not ended
        self._capture: Final = capture
        self._on_end: Final = on_end
        self.on_caller_end: Callable[[Any, float], None]  # set by the pool, whose processes they are
        # Unreaped processes that call functions, without an attempt, by pid.
        self._spare: Final[dict[int, FunctionProcessLike]] = {}
        self._mains: Final[dict[int, Attempt]] = {}  # by pid, until reaped
        self._by_pid: Final[dict[int, Attempt]] = {}  # of these, by the main's pid: session and group bear it
        self._sweeping: Final[set[Attempt]] = set()
        self._orphans: Final[dict[int, frozenset[Attempt]]] = {}  # by pid: who may have made it
        self._timers: list[tuple[float, int, _Timer, Attempt]] = []
        self._count = 0
        self._children: Final = containment.Children()
        self._swept_at = 0.0
        self._is_dirty = False
        self._own_peak_kib = 0
        self._own_peak_at = 0.0

    # ------------------------------------------------------------ begin and stop

    def add(self, attempt: Attempt) -> None:
        """`attempt` has just been started: its pid and pipes are set."""
        self.attempts.add(attempt)
        self._mains[attempt.pid] = attempt
        self._by_pid[attempt.pid] = attempt
        attempt.stage = _RUNNING
        self._capture.add(attempt)
        if attempt.caller is not None:
            self._spare.pop(attempt.pid, None)
        if attempt.order.program.time_limit_s and (attempt.caller is None or attempt.caller.is_ready):
            self.limit(attempt, attempt.begin)

    def limit(self, attempt: Attempt, now: float) -> None:
        """Its time begins; that of the import before it, as long as the function is not there."""
        limit_s = attempt.order.program.time_limit_s
        if not limit_s:
            return
        if attempt.caller is not None and attempt.caller.is_importing:
            self._set_timer(now + max(limit_s, limits.function_import_s_max), _Timer.IMPORT, attempt)
        else:
            self._set_timer(now + limit_s, _Timer.TIME_LIMIT, attempt)

    def stop(self, attempt: Attempt, cause: int, grace_s: float | None, now: float, number: int = 0) -> None:
        """Begin to end a started attempt. `grace_s` None, and the signal `number` 0, mean as its body says."""
        if attempt.stage is _DRAINING:
            self._cut(attempt)
        if attempt.stage is not _RUNNING:
            return
        program = attempt.order.program
        grace_s = program.kill_after_s if grace_s is None else grace_s
        if number not in _SIGNALS:
            number = 0 if attempt.cause else program.stop_signal
        attempt.cause = attempt.cause or cause
        if grace_s <= 0 or number == signal.SIGKILL:
            self.kill(attempt, now)
            return
        if number:
            containment.signal_group(attempt.pid, number)
            containment.signal_group(attempt.pid, signal.SIGCONT)
        self._set_timer(now + grace_s, _Timer.KILL, attempt)

    def kill(self, attempt: Attempt, now: float) -> None:
        """KILL a started attempt."""
        attempt.is_killed = True
        if attempt.cgroup is not None:
            attempt.cgroup.kill()
        containment.signal_group(attempt.pid, signal.SIGKILL)
        self._set_timer(now + limits.unkillable_s, _Timer.STUCK, attempt)

    # ------------------------------------------------------------ ends

    def reap(self, now: float) -> None:
        """Wait for whatever has ended, at most 128 at a time: a fork bomb must not starve the timers."""
        self.more = False
        stirred = False
        for _ in range(_reaps_by_turn_max):
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            stirred = True
            attempt = self._mains.get(pid)
            caller = self._spare.get(pid) if attempt is None else attempt.caller
            if caller is not None:
                self.on_caller_end(caller, now)  # its last answers come before its end, and it may have got on
            attempt = self._mains.pop(pid, None)
            if attempt is None:
                self._orphans.pop(pid, None)
                self._spare.pop(pid, None)
            else:
                self._exited(attempt, status, usage, now)
        else:
            self.more = True
        if stirred and (self._sweeping or self._orphans):
            self._is_dirty = True

    def _exited(self, attempt: Attempt, status: int, usage: resource.struct_rusage, now: float) -> None:
        attempt.run_us = int((now - attempt.begin) * 1e6)
        if status:
            attempt.code = os.waitstatus_to_exitcode(status)
            attempt.core_dumped = os.WCOREDUMP(status)
        attempt.user_us = int(usage.ru_utime * 1e6)
        attempt.system_us = int(usage.ru_stime * 1e6)
        attempt.peak_kib = self._peak_kib(usage.ru_maxrss, now)
        if attempt.caller is not None:
            attempt.caller.cut_short(attempt)
        attempt.stage = _DRAINING
        if attempt.is_killed:  # and all that is left of it shall be, now
            self._cut(attempt)
        elif self._capture.drain(attempt):
            self.closed(attempt)
        else:
            self._set_timer(now + _drain_s, _Timer.CUT, attempt)

    def returned(self, attempt: Attempt, caller: FunctionProcessLike, now: float) -> None:
        """The call of a function came to its end, and nothing is left of it; its process is spare."""
        attempt.caller = None
        del self._mains[attempt.pid]
        self._spare[attempt.pid] = caller
        self._finish(attempt, now)

    def go_on(self, attempt: Attempt, following: Attempt, now: float) -> None:
        """The call of a function came to its end, and the next in its process begins, in its place."""
        attempt.caller = None
        attempt.is_followed = True
        self.attempts.add(following)
        self._mains[attempt.pid] = self._by_pid[attempt.pid] = following
        following.stage = _RUNNING
        self._capture.add(following)
        if following.order.program.time_limit_s:
            self.limit(following, now)
        self._finish(attempt, now)

    def _peak_kib(self, seen: int, now: float) -> int:
        """Return a child's peak memory, 0 = not known.

        The kernel's figure begins at the peak of this process (vfork), so what is not above it says nothing.
        """
        if seen > self._own_peak_kib + _peak_margin_kib and now - self._own_peak_at > 0.1:
            self._own_peak_at = now
            try:
                with open("/proc/self/status", "rb") as file:
                    self._own_peak_kib = int(file.read().partition(b"VmHWM:")[2].split(None, 1)[0])
            except OSError:  # no descriptor is free
                return 0
        return seen if seen > self._own_peak_kib + _peak_margin_kib else 0

    def _cut(self, attempt: Attempt) -> None:
        if not self._capture.drain(attempt):
            self._capture.cut(attempt)
        self.closed(attempt)

    def closed(self, attempt: Attempt) -> None:
        """The pipes of an attempt are closed; if its main process is gone too, what is left of it goes now."""
        if attempt.stage is _DRAINING:
            attempt.stage = _SWEEPING
            self._sweeping.add(attempt)
            self._is_dirty = True

    def settle(self, now: float) -> None:
        """Sweep if anything has changed that could end an attempt. Once a turn, after all that it brought."""
        if self._is_dirty:
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        """Kill what is left of attempts whose main process has ended; end those of which nothing is left."""
        self._swept_at = now
        self._is_dirty = False
        waiting: set[Attempt] = set()
        children = self._children.read()
        if children.count(b" ") > len(self._mains) + len(self._spare):  # a child that is neither is an orphan
            for pid in map(int, children.split()):
                if pid not in self._mains and pid not in self._spare:
                    waiting |= self._sweep_orphan(pid)
        for attempt in list(self._sweeping):
            if (attempt.cgroup is None or not attempt.cgroup.kill()) and attempt not in waiting:
                self._finish(attempt, now)
            elif not attempt.is_swept:
                attempt.is_swept = True
                self._set_timer(now + limits.unkillable_s, _Timer.STUCK, attempt)

    def _sweep_orphan(self, pid: int) -> frozenset[Attempt]:
        """Kill an orphan if none of its possible makers lives any more; return those who must wait for its end."""
        makers = self._orphans.get(pid)
        if makers is None:
            makers = self._orphans[pid] = self._makers(pid)
        if any(maker.stage is _RUNNING or maker.stage is _DRAINING for maker in makers):
            return frozenset()
        containment.kill_child(pid, self._mains)
        return frozenset(maker for maker in makers if maker.stage is _SWEEPING)

    def _makers(self, pid: int) -> frozenset[Attempt]:
        attempts = frozenset(self.attempts)
        if len(self._sweeping) == len(attempts):  # whose it was decides nothing any more
            return attempts
        with suppress(ProcessLookupError):
            owner = self._by_pid.get(os.getsid(pid)) or self._by_pid.get(os.getpgid(pid))
            if owner is not None:
                return frozenset((owner,))
        found = containment.cookie(pid)
        if found is None or all(attempt.order.worker != found[0] for attempt in attempts):
            return attempts
        return frozenset(attempt for attempt in attempts if attempt.cookie == found)

    def _finish(self, attempt: Attempt, now: float) -> None:
        attempt.stage = _ENDED
        self._sweeping.discard(attempt)
        self.attempts.discard(attempt)
        if self._by_pid.get(attempt.pid) is attempt:  # else its number was free before its end, and is another's
            del self._by_pid[attempt.pid]
        if attempt.is_stuck:
            self.degraded -= 1
        if attempt.cgroup is not None:
            attempt.note(attempt.cgroup.memory())
        self._on_end(attempt, now)

    # ------------------------------------------------------------ time

    def due(self) -> float:
        """Return when `tick` has something to do."""
        timers = self._timers
        while timers and timers[0][3].stage is _ENDED:
            heapq.heappop(timers)
        due = timers[0][0] if timers else _NEVER
        return min(due, self._swept_at + _sweep_again_s) if self._sweeping else due

    def tick(self, now: float) -> None:
        """Do what is due."""
        while self._timers and self._timers[0][0] <= now:
            _, _, what, attempt = heapq.heappop(self._timers)
            if what is _Timer.CUT:
                if attempt.stage is _DRAINING:
                    self._cut(attempt)
            elif what is _Timer.STUCK:
                if attempt.stage is not _ENDED and not attempt.is_stuck:
                    attempt.is_stuck = True
                    self.degraded += 1
            elif attempt.stage is _RUNNING:
                if what is _Timer.KILL:
                    self.kill(attempt, now)
                elif what is _Timer.TIME_LIMIT:
                    self.stop(attempt, Cause.TIME_LIMIT, None, now)
                elif not attempt.cause and attempt.caller is not None and attempt.caller.is_importing:
                    attempt.error = "the import of its module took too long (function_import_s_max)"
                    self.stop(attempt, Cause.TIME_LIMIT, None, now)
        if self._sweeping and self._swept_at + _sweep_again_s <= now:
            self._sweep(now)

    def _set_timer(self, due: float, what: _Timer, attempt: Attempt) -> None:
        self._count += 1
        heapq.heappush(self._timers, (due, self._count, what, attempt))
        if len(self._timers) > 4 * len(self.attempts) + _timers_spare:  # an hour's limit on tasks of a millisecond
            self._timers = [timer for timer in self._timers if timer[3].stage is not _ENDED]
            heapq.heapify(self._timers)
