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
        self.lives = Reaper(
            Capture(select.epoll(), Reports(-1, lambda _: None)), lambda attempt, _: self.ended.append(attempt)
        )

    def start(self, pid: int, **fields: object) -> Attempt:
        spawn = protocol.Spawn(1, 1, False, "q", "", body("x", **fields), 0, "0" * 16, ())
        attempt = Attempt(ref(1), 1, Order(spawn, Programs({}).get(spawn.body), None))
        attempt.pid = pid
        self.lives.add(attempt)
        return attempt


def test_a_kill_reaches_what_holds_the_pipe_without_waiting_for_it(monkeypatch):
    clockwork = Clockwork(monkeypatch)
    held, other_end = os.pipe()
    os.set_blocking(held, False)
    os.write(other_end, b"last words")
    with subprocess.Popen(["true"]) as process:
        attempt = clockwork.start(process.pid)
        attempt.fds = [held, -1]
        clockwork.lives.stop(attempt, Cause.CANCELLED, 0.0, 100.0)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        clockwork.lives.reap(100.0)
        clockwork.lives.settle(100.0)

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
        clockwork.lives.reap(100.0)
        clockwork.lives.settle(100.0)
        assert attempt.stage is Stage.DRAINING

        clockwork.lives.stop(attempt, Cause.CANCELLED, None, 100.1)
        clockwork.lives.settle(100.1)
        assert clockwork.ended == [attempt]
        assert (attempt.cause, attempt.code, attempt.output_held) == (Cause.NONE, 0, True)
        assert attempt.run_us == 1_000_000  # of the main process
        process.returncode = 0  # it was reaped above, not by subprocess
    os.close(other_end)


def test_what_cannot_be_killed_marks_the_launcher_degraded_until_it_dies(monkeypatch):
    clockwork = Clockwork(monkeypatch)
    with subprocess.Popen(["sleep", "1000"]) as process:
        attempt = clockwork.start(process.pid, kill_after_ms=10_000)
        lives = clockwork.lives
        lives.stop(attempt, Cause.CANCELLED, None, 100.0)
        assert clockwork.signals == [signal.SIGTERM, signal.SIGCONT]
        lives.tick(109.9)
        assert lives.due() == 110.0
        lives.tick(110.0)
        assert clockwork.signals[2:] == [signal.SIGKILL]
        lives.tick(169.9)
        assert lives.degraded == 0
        lives.tick(170.0)

        assert (lives.degraded, len(lives.attempts), clockwork.ended) == (1, 1, [])

        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        lives.reap(180.0)
        lives.settle(180.0)
        assert (lives.degraded, len(lives.attempts), clockwork.ended) == (0, 0, [attempt])
        process.returncode = attempt.code  # it was reaped above, not by subprocess


def test_timers_of_what_has_ended_do_not_pile_up(monkeypatch):
    clockwork = Clockwork(monkeypatch)
    for _ in range(5000):
        attempt = clockwork.start(1, time_limit_ms=3_600_000)
        attempt.stage = Stage.ENDED
        clockwork.lives.attempts.discard(attempt)

    assert len(clockwork.lives._timers) < 2000


def test_the_number_of_a_main_process_may_be_anothers_before_its_attempt_has_ended(monkeypatch):
    """It is free once nothing bears it: what holds the pipe, or does not die, may be in a session of its own."""
    clockwork = Clockwork(monkeypatch)
    lives = clockwork.lives
    held, other_end = os.pipe()
    os.set_blocking(held, False)
    pids = iter([4242, 0, 4242, 0])
    monkeypatch.setattr(os, "wait4", lambda *_: (next(pids), 0, resource.getrusage(resource.RUSAGE_CHILDREN)))
    first = clockwork.start(4242)
    first.fds = [held, -1]
    lives.reap(100.0)
    assert first.stage is Stage.DRAINING
    second = clockwork.start(4242)
    lives.stop(first, Cause.CANCELLED, None, 100.1)
    lives.settle(100.1)
    assert (clockwork.ended, len(lives.attempts)) == ([first], 1)

    lives.reap(100.2)
    lives.settle(100.2)
    assert (clockwork.ended, len(lives.attempts)) == ([first, second], 0)
    os.close(other_end)
