"""How attempts come to their end, with the clock in the test's hand (the rest of reaper.py: test_containment.py)."""

import os
import resource
import select
import signal
import subprocess

import pytest

from tests.support.launcher import body, ref
from tq.core.model.task import Cause
from tq.launcher import containment, protocol
from tq.launcher.attempt import Attempt, Order, Stage
from tq.launcher.capture import Capture
from tq.launcher.program import Programs
from tq.launcher.reaper import Reaper
from tq.launcher.reports import Reports


class Clockwork:
    """A launcher's inner part with the clock in the test's hand, and a kernel that kills nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.signals: list[int] = []
        self.ended: list[Attempt] = []
        monkeypatch.setattr(containment, "signal_group", lambda _, number: self.signals.append(number))
        # What other tests have left to this process is none of its launcher's: no child but its own is to be seen.
        monkeypatch.setattr(
            containment.Children, "read", lambda _: b"".join(b"%d " % pid for pid in self.reaper._mains)
        )
        self.reaper = Reaper(
            Capture(select.epoll(), Reports(-1, lambda _: None)), lambda attempt, _: self.ended.append(attempt)
        )

    def start(self, pid: int, **fields: object) -> Attempt:
        spawn = protocol.Spawn(1, 1, False, "q", "", body("x", **fields), 0, "0" * 16, ())
        attempt = Attempt(ref(1), 1, Order(spawn, Programs({}).get(spawn.body), None))
        attempt.pid = pid
        self.reaper.add(attempt)
        return attempt


def test_a_kill_reaches_what_holds_the_pipe_without_waiting_for_it(monkeypatch):
    clockwork = Clockwork(monkeypatch)
    held, other_end = os.pipe()
    os.set_blocking(held, False)
    os.write(other_end, b"last words")
    with subprocess.Popen(["true"]) as process:
        attempt = clockwork.start(process.pid)
        attempt.fds = [held, -1]
        clockwork.reaper.stop(attempt, Cause.CANCELLED, 0.0, 100.0)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        clockwork.reaper.reap(100.0)
        clockwork.reaper.settle(100.0)

        assert clockwork.signals == [signal.SIGKILL]
        assert clockwork.ended == [attempt]
        assert attempt.output_held
        assert attempt.stream(0).written == 10
        process.returncode = 0  # it was reaped above, not by subprocess
    os.close(other_end)


def test_a_stop_while_the_pipe_is_held_does_not_wait_for_it(monkeypatch):
    clockwork = Clockwork(monkeypatch)
    held, other_end = os.pipe()
    os.set_blocking(held, False)
    with subprocess.Popen(["true"]) as process:
        attempt = clockwork.start(process.pid)
        attempt.fds = [held, -1]
        attempt.begin = 99.0
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        clockwork.reaper.reap(100.0)
        clockwork.reaper.settle(100.0)
        assert attempt.stage is Stage.DRAINING

        clockwork.reaper.stop(attempt, Cause.CANCELLED, None, 100.1)
        clockwork.reaper.settle(100.1)
        assert clockwork.ended == [attempt]
        assert (attempt.cause, attempt.code, attempt.output_held) == (Cause.NONE, 0, True)
        assert attempt.run_us == 1_000_000  # of the main process
        process.returncode = 0  # it was reaped above, not by subprocess
    os.close(other_end)


def test_what_cannot_be_killed_marks_the_launcher_degraded_until_it_dies(monkeypatch):
    clockwork = Clockwork(monkeypatch)
    with subprocess.Popen(["sleep", "1000"]) as process:
        attempt = clockwork.start(process.pid, kill_after_ms=10_000)
        reaper = clockwork.reaper
        reaper.stop(attempt, Cause.CANCELLED, None, 100.0)
        assert clockwork.signals == [signal.SIGTERM, signal.SIGCONT]
        reaper.tick(109.9)
        assert reaper.due() == 110.0
        reaper.tick(110.0)
        assert clockwork.signals[2:] == [signal.SIGKILL]
        reaper.tick(169.9)
        assert reaper.degraded == 0
        reaper.tick(170.0)

        assert (reaper.degraded, len(reaper.attempts), clockwork.ended) == (1, 1, [])

        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        reaper.reap(180.0)
        reaper.settle(180.0)
        assert (reaper.degraded, len(reaper.attempts), clockwork.ended) == (0, 0, [attempt])
        process.returncode = attempt.code  # it was reaped above, not by subprocess


def test_timers_of_what_has_ended_do_not_pile_up(monkeypatch):
    clockwork = Clockwork(monkeypatch)
    for _ in range(5000):
        attempt = clockwork.start(1, time_limit_ms=3_600_000)
        attempt.stage = Stage.ENDED
        clockwork.reaper.attempts.discard(attempt)

    assert len(clockwork.reaper._timers) < 2000


def test_the_number_of_a_main_process_may_be_anothers_before_its_attempt_has_ended(monkeypatch):
    """It is free once nothing bears it: what holds the pipe, or does not die, may be in a session of its own."""
    clockwork = Clockwork(monkeypatch)
    reaper = clockwork.reaper
    held, other_end = os.pipe()
    os.set_blocking(held, False)
    pids = iter([4242, 0, 4242, 0])
    monkeypatch.setattr(os, "wait4", lambda *_: (next(pids), 0, resource.getrusage(resource.RUSAGE_CHILDREN)))
    first = clockwork.start(4242)
    first.fds = [held, -1]
    reaper.reap(100.0)
    assert first.stage is Stage.DRAINING
    second = clockwork.start(4242)
    reaper.stop(first, Cause.CANCELLED, None, 100.1)
    reaper.settle(100.1)
    assert (clockwork.ended, len(reaper.attempts)) == ([first], 1)

    reaper.reap(100.2)
    reaper.settle(100.2)
    assert (clockwork.ended, len(reaper.attempts)) == ([first, second], 0)
    os.close(other_end)
