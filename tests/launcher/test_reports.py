"""Reports of ends: how long they wait for company, and when they do not."""

import os
import socket
from collections.abc import Iterator, Sequence

import pytest

from tq.core.vocabulary import AttemptRef
from tq.launcher import protocol, reports
from tq.launcher.attempt import Attempt, Order
from tq.launcher.program import Program
from tq.wire import codec
from tq.wire.body import Body

BODY = Body((b"/bin/true",), b"/")
SPAWN = protocol.Spawn(1, 1, True, "default", "", codec.dumps(BODY), 0, "w", ())


class Way:
    """Reports under a clock of their own, and what has come out of them."""

    def __init__(self) -> None:
        ours, self._theirs = socket.socketpair()
        self._fd = ours.detach()
        os.set_blocking(self._fd, False)
        self._theirs.setblocking(False)
        self._unread = bytearray()
        self._order = Order(SPAWN, Program(BODY, {}), None)
        self.reports = reports.Reports(self._fd, self._complete)
        self.returned = b""  # what each has left, if anything, as is found out when it is reported
        self.now = 100.0
        self._count = 0

    def close(self) -> None:
        os.close(self._fd)
        self._theirs.close()

    def _complete(self, ended: Sequence[Attempt]) -> None:
        for attempt in ended:
            attempt.returned = attempt.returned or self.returned

    def end(self, returned: bytes = b"") -> None:
        self._count += 1
        attempt = Attempt(AttemptRef(1, 0, self._count, 1, 1), self._count, self._order)
        attempt.returned = returned
        self.reports.add(attempt, self.now)

    def tick(self, *, is_idle: bool = False) -> list[int]:
        """Return how many ends are in each report that has left by now."""
        self.reports.tick(self.now, is_idle)
        left: list[int] = []
        while self.reports.unsent_bytes:
            self.reports.write()
            self._unread += self._theirs.recv(1 << 20)
            messages = protocol.ups(self._unread)
            left += [len(message.ends) for message in messages if isinstance(message, protocol.Ended)]
        return left

    def run(self, by_s: int, seconds: float) -> list[int]:
        """Let attempts end at this rate, one by one; return how many were in each report."""
        left: list[int] = []
        for _ in range(int(by_s * seconds)):
            self.now += 1 / by_s
            left += self.tick()
            self.end()
        return left


@pytest.fixture
def way() -> Iterator[Way]:
    way = Way()
    yield way
    way.close()


def test_an_end_leaves_at_once_when_nothing_runs(way: Way) -> None:
    way.end()
    assert way.tick(is_idle=True) == [1]
    assert way.tick(is_idle=True) == []


def test_an_end_waits_a_moment_while_others_run(way: Way) -> None:
    way.end()
    assert way.tick() == []
    way.now += reports.interval_s_min / 2
    assert way.tick() == []
    way.now += reports.interval_s_min
    assert way.tick() == [1]


@pytest.mark.parametrize("by_s", [1_000, 1_400, 2_400])
def test_ends_that_come_quickly_wait_for_the_longest_interval(way: Way, by_s: int) -> None:
    settled = way.run(by_s, 1.0)[-10:]
    wanted = int(by_s * reports.interval_s_max)
    assert all(wanted - 2 <= count <= wanted + 2 for count in settled)


def test_ends_that_come_slowly_hardly_wait_even_after_quick_ones(way: Way) -> None:
    way.run(1_400, 0.5)
    assert way.run(50, 1.0)[-10:] == [1] * 10
    way.now += 2 * reports.interval_s_min
    assert way.tick() == [1]  # the last of them


def test_many_ends_do_not_wait(way: Way) -> None:
    for _ in range(reports.ends_max + 1):
        way.end()
    assert way.tick() == [reports.ends_max]


def test_large_values_do_not_wait(way: Way) -> None:
    way.end(b"x" * (reports.bytes_max - 1))
    assert way.tick() == []
    way.end(b"x")
    assert way.tick() == [2]


def test_values_that_are_found_at_the_end_go_in_as_many_frames_as_they_need(way: Way) -> None:
    way.returned = b"x" * (reports.bytes_max // 2)
    for _ in range(5):
        way.end()
    assert way.tick(is_idle=True) == [2, 1, 2]
