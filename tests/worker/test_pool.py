"""When a process that calls functions is replaced: after many calls, when it has grown, when it was idle for long."""

import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tq import limits
from tq.worker import functions
from tq.worker.caller import Caller
from tq.worker.pool import Pool

MIB_KIB = 1024


@pytest.fixture
def caller() -> Iterator[functions.Caller]:
    one, other = socket.socketpair()
    with one, other:
        yield functions.Caller(one.fileno())


def test_it_has_called_enough_after_so_many_calls(caller):
    spent = [caller._is_spent(20_000, is_first=False) for _ in range(limits.function_calls_max)]

    assert spent.count(True) == 1
    assert spent[-1]


def test_it_has_grown_too_much_beside_what_its_modules_needed(caller, monkeypatch):
    needed, bound = 100 * MIB_KIB, (200 + limits.function_growth_bytes_max // limits.MIB) * MIB_KIB
    monkeypatch.setattr(functions, "_resident_kib", lambda: resident)
    resident = 0

    assert not caller._is_spent(needed, is_first=True)
    assert not caller._is_spent(bound, is_first=False)
    resident = bound - 1
    assert not caller._is_spent(bound + 1, is_first=False)  # a peak that is over
    resident = bound + 1
    assert caller._is_spent(bound + 1, is_first=False)
    assert not caller._is_spent(bound + 1, is_first=True)  # a new module needs more


def test_it_is_ended_when_it_was_idle_for_long():
    lives = SimpleNamespace(spare=set())
    poll = select.epoll()
    pool = Pool(poll, None, None, lives, None, None, {})
    waiting = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    for number, process in enumerate(waiting):
        end, other = os.pipe()
        os.close(other)
        one = Caller(poll, pool._callers, end, process.pid)
        one.idle_at = 100.0 * number
        lives.spare.add(process.pid)
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
