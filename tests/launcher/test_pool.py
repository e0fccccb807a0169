"""When a process that calls functions is replaced: after many calls, when it has grown, when it was idle for long."""

import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.launcher import packed, ref
from tq import limits
from tq.core.model.task import Cause
from tq.launcher import protocol
from tq.launcher.attempt import Attempt, Order
from tq.launcher.capture import Capture
from tq.launcher.functions import calls, warm_process
from tq.launcher.functions.function_process import FunctionProcess
from tq.launcher.functions.pool import Pool
from tq.launcher.lanes import Lanes
from tq.launcher.program import Program
from tq.launcher.reaper import Reaper
from tq.launcher.reports import Reports
from tq.wire import plain
from tq.wire.body import Body

MIB_KIB = 1024


@pytest.fixture
def service() -> Iterator[warm_process.Service]:
    one, other = socket.socketpair()
    with one, other:
        yield warm_process.Service(one.fileno())


def test_it_has_called_enough_after_so_many_calls(service):
    spent = [service._is_spent(20_000, is_first=False) for _ in range(limits.function_calls_max)]

    assert spent.count(True) == 1
    assert spent[-1]


def test_it_has_grown_too_much_beside_what_its_modules_needed(service, monkeypatch):
    needed, bound = 100 * MIB_KIB, (200 + limits.function_growth_bytes_max // limits.MIB) * MIB_KIB
    monkeypatch.setattr(warm_process, "_resident_kib", lambda: resident)
    resident = 0

    assert not service._is_spent(needed, is_first=True)
    assert not service._is_spent(bound, is_first=False)
    resident = bound - 1
    assert not service._is_spent(bound + 1, is_first=False)  # a peak that is over
    resident = bound + 1
    assert service._is_spent(bound + 1, is_first=False)
    assert not service._is_spent(bound + 1, is_first=True)  # a new module needs more


def test_it_is_ended_when_it_was_idle_for_long():
    poll = select.epoll()
    pool = Pool(poll, None, None, SimpleNamespace(), None, None, {})
    waiting = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    for number, process in enumerate(waiting):
        end, other = os.pipe()
        os.close(other)
        one = FunctionProcess(poll, pool._callers, end, process.pid)
        one.idle_at = 100.0 * number
        pool._idle.append(one)

    pool.tick(limits.function_idle_s_max - 1)
    assert [process.poll() for process in waiting] == [None, None]
    assert pool.due() == limits.function_idle_s_max
    pool.tick(limits.function_idle_s_max + 99)

    assert waiting[0].wait() == -signal.SIGKILL
    assert waiting[1].poll() is None
    assert [one.pid for one in pool._idle] == [waiting[1].pid]
    pool.tick(limits.function_idle_s_max + 100)
    assert waiting[1].wait() == -signal.SIGKILL
    poll.close()


class Taking:
    """A pool with one process, played by the test, that was given calls of one lane; and what has become of them."""

    def __init__(self, poll: select.epoll, count: int, *, is_dead: bool = False, **fields: Any) -> None:
        self.lanes = Lanes()
        self.ended: list[Attempt] = []
        capture = Capture(poll, Reports(-1, lambda _: None))
        self.reaper = Reaper(capture, self._end)
        self.pool = Pool(poll, None, self.lanes, self.reaper, capture, None, {})
        ours, self.process = socket.socketpair()
        ours.setblocking(False)
        self.caller = FunctionProcess(poll, self.pool._callers, ours.detach(), 999_999_999)
        self.writing = [os.pipe2(os.O_NONBLOCK) for _ in range(2)]
        self.caller.pipes = [reading for reading, _ in self.writing]
        self.caller.is_ready = True
        program = Program(Body((), b"/", function="work:f", arguments=packed([[], {}]), **fields), {})
        order = Order(protocol.Spawn(1, 1, True, "q", "", b"", 0, "w", ()), program, None)
        self.attempts = [Attempt(ref(1, member), member, order) for member in range(count)]
        self.lanes.add(1, 1, self.attempts)
        first = self.lanes.take()
        if is_dead:
            self.process.close()
        self.caller.lend(first)
        self.caller.give([first, *self.lanes.take_behind(first, count - 1)])
        self.reaper.add(first)
        if not is_dead:
            self.heard()

    def close(self) -> None:
        self.caller.close()
        self.process.close()
        for fd in sum(self.writing, ()):
            os.close(fd)

    def _end(self, attempt: Attempt, _: float) -> None:
        if not attempt.is_followed:
            self.lanes.release(1)
        self.ended.append(attempt)

    def heard(self) -> list[object]:
        """What the process was told since it was asked last."""
        self.process.setblocking(False)
        buffer = bytearray()
        with suppress(BlockingIOError):
            buffer += self.process.recv(1 << 16)
        return calls.words(buffer)


def test_a_process_that_holds_for_its_output_is_not_let_go_on_before_it_knows_what_was_taken_back():
    with select.epoll() as poll, closing(Taking(poll, 3)) as taking:
        answer = calls.Returned(1, 5, Cause.EXIT, 0, plain.NONE, "", 0, 0, 0, has_output=True, is_spent=False)
        taking.process.sendall(calls.encode(answer))

        taking.pool.take_back(0.0)

        assert taking.ended == taking.attempts[:1]
        assert taking.caller.attempt is taking.attempts[1]
        assert taking.lanes.queued == 1
        assert taking.heard() == [calls.Hold(), calls.Keep(2)]


def test_an_import_has_a_time_of_its_own_and_a_call_its_limit_from_then_on():
    with select.epoll() as poll, closing(Taking(poll, 2, time_limit_ms=5_000)) as taking:
        first, second = taking.attempts
        taking.reaper.tick(limits.function_import_s_max - 1)
        assert first.cause == Cause.NONE

        taking.process.sendall(calls.encode(calls.Found(1)))
        taking.pool._hear(taking.caller, 599.0)
        taking.reaper.tick(limits.function_import_s_max)  # that timer was of the import
        assert first.cause == Cause.NONE

        answer = calls.Returned(1, 5, Cause.EXIT, 0, plain.NONE, "", 0, 0, 0, has_output=False, is_spent=False)
        taking.process.sendall(calls.encode(answer))
        taking.pool._hear(taking.caller, 600.0)
        taking.reaper.tick(604.0)
        assert second.cause == Cause.NONE  # what is imported is not imported again
        taking.reaper.tick(606.0)
        assert (second.cause, second.error) == (Cause.TIME_LIMIT, "")


def test_an_import_that_does_not_end_is_ended():
    with select.epoll() as poll, closing(Taking(poll, 1, time_limit_ms=5_000)) as taking:
        taking.reaper.tick(limits.function_import_s_max + 1)

        assert taking.attempts[0].cause == Cause.TIME_LIMIT
        assert "import of its module" in taking.attempts[0].error


@pytest.mark.parametrize("count", [1, 3])
def test_calls_given_to_a_process_that_is_gone_have_not_begun(count):
    with select.epoll() as poll, closing(Taking(poll, count, is_dead=True)) as taking:
        assert taking.caller.is_untaken


def test_one_given_behind_a_call_that_runs_says_nothing_of_that():
    with select.epoll() as poll, closing(Taking(poll, 1)) as taking:
        taking.process.close()
        taking.caller.give(taking.attempts)

        assert not taking.caller.is_untaken
