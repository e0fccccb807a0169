"""What a task writes: kept within bounds, counted exactly, sent as slots; whatever it does with its streams."""

import os
import select
import sys
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.launcher import Link, body, ref, usage
from tq.launcher import protocol
from tq.launcher.attempt import Attempt, Stage
from tq.launcher.capture import Capture
from tq.launcher.output import HEAD, RING, SLOT, Stream, dropped_bytes
from tq.launcher.reports import Reports
from tq.limits import MIB

KEPT = (HEAD + RING) * SLOT


@pytest.fixture
def link() -> Iterator[Link]:
    with Link() as one:
        yield one


def pattern(offset: int, size: int) -> bytes:
    """Return bytes of a text in which every offset can be told from every other."""
    first = offset // 8
    return b"".join(b"%08d" % number for number in range(first, (offset + size) // 8 + 1))[offset % 8 :][:size]


def kept(written: int) -> list[tuple[int, int]]:
    """Return (offset, size) of the slots that a reader must find after `written` bytes."""
    slots = -(-written // SLOT)
    numbers = [slot for slot in range(slots) if slot < HEAD or slot >= slots - RING]
    return [(slot * SLOT, min(SLOT, written - slot * SLOT)) for slot in numbers]


# ---------------------------------------------------------------- one stream


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 70_000), max_size=60), st.sets(st.integers(0, 60)))
def test_whatever_is_pushed_when_a_reader_ends_up_with_head_and_ring(sizes, pushes):
    stream = Stream()
    reader: dict[int, bytes] = {}
    for turn, size in enumerate(sizes):
        stream.add(pattern(stream.written, size))
        if turn in pushes:
            reader.update(stream.fresh())
    reader.update(stream.fresh())

    for offset, size in kept(stream.written):
        assert reader[offset] == pattern(offset, size)
    assert stream.unpushed_bytes == 0
    assert dropped_bytes(stream.written) == stream.written - sum(size for _, size in kept(stream.written))


def test_nothing_is_dropped_until_the_ring_is_full():
    assert dropped_bytes(0) == 0
    assert dropped_bytes(KEPT) == 0
    assert dropped_bytes(KEPT + 1) == SLOT
    assert dropped_bytes(KEPT + SLOT) == SLOT
    assert dropped_bytes(KEPT + SLOT + 1) == 2 * SLOT


def test_a_slot_with_news_comes_whole_and_again():
    stream = Stream()
    stream.add(b"abc")
    assert list(stream.fresh()) == [(0, b"abc")]
    stream.add(b"def")
    assert list(stream.fresh()) == [(0, b"abcdef")]
    assert list(stream.fresh()) == []


def test_a_full_slot_does_not_come_again():
    stream = Stream()
    stream.add(bytes(SLOT))
    assert [offset for offset, _ in stream.fresh()] == [0]
    stream.add(b"x")
    assert list(stream.fresh()) == [(SLOT, b"x")]


def test_what_was_not_taken_stays_for_the_next_time():
    stream = Stream()
    stream.add(bytes(3 * SLOT))
    assert next(stream.fresh())[0] == 0
    assert [offset for offset, _ in stream.fresh()] == [SLOT, 2 * SLOT]


# ---------------------------------------------------------------- real tasks


def test_binary_output_arrives_as_it_was_written(link):
    end = link.run(body(sys.executable, "-c", "import sys; sys.stdout.buffer.write(bytes(range(256)) * 300)"))

    assert link.text(ref(1)) == bytes(range(256)) * 300
    assert usage(end).written == (76_800, 0)


def test_the_two_streams_are_kept_apart(link):
    link.run(body("sh", "-c", "printf out; printf err >&2"))

    assert (link.text(ref(1), 1), link.text(ref(1), 2)) == (b"out", b"err")


def test_a_task_may_reopen_its_streams(link):
    link.run(body("sh", "-c", "echo one >/dev/stdout; echo two >/dev/stderr"))

    assert (link.text(ref(1), 1), link.text(ref(1), 2)) == (b"one\n", b"two\n")


def test_a_task_that_closes_its_streams_runs_on(link, tmp_path):
    end = link.run(body("sh", "-c", "echo x; exec >&- 2>&-; sleep 0.05; : >made; exit 9", cwd=str(tmp_path)))

    assert end.code == 9
    assert (tmp_path / "made").exists()
    assert link.text(ref(1)) == b"x\n"
    assert not usage(end).output_held


def test_two_hundred_megabytes_cost_bounded_memory_and_are_counted_exactly(link):
    size = 200_000_003
    code = (
        "import os\n"
        "chunk, left = b'%08d' * 8192, 200_000_003\n"
        "number = 0\n"
        "while left:\n"
        "    data = (chunk % tuple(range(number, number + 8192)))[:left]\n"
        "    number += 8192\n"
        "    left -= len(data)\n"
        "    while data: data = data[os.write(1, data):]\n"
    )
    end = link.run(body(sys.executable, "-c", code))

    used = usage(end)
    assert used.written == (size, 0)
    assert used.dropped == (dropped_bytes(size), 0)
    slots = link.outputs[ref(1), 1]
    for offset, length in kept(size):
        assert slots[offset] == pattern(offset, length)
    assert link.memory_kib("VmHWM") < 40_000


def test_pipes_are_watched_after_a_moment_but_those_of_a_loud_program_at_once():
    capture = Capture(select.epoll(), SimpleNamespace(is_behind=False, send=lambda _: None))
    program = SimpleNamespace(is_loud=False)
    read_end, write_end = os.pipe()
    attempts = []
    for _ in range(2):
        attempt = Attempt(ref(1), 1, SimpleNamespace(lane=1, program=program))
        attempt.stage = Stage.RUNNING
        attempt.begin = 100.0
        attempt.fds = [read_end, -1]
        attempts.append(attempt)
    first, second = attempts

    capture.add(first)
    capture.tick(100.019)
    assert not first.is_watched
    os.write(write_end, bytes(40_000))
    capture._read(first, 0)
    first.stage = Stage.ENDED
    capture.add(second)
    assert second.is_watched
    os.close(read_end)
    os.close(write_end)


def test_a_closed_pipe_leaves_epoll_although_a_new_child_still_has_a_copy():
    poll = select.epoll()
    capture = Capture(poll, SimpleNamespace(is_behind=False, send=lambda _: None))
    attempt = Attempt(ref(1), 1, SimpleNamespace(lane=1, program=SimpleNamespace(is_loud=True)))
    attempt.stage = Stage.RUNNING
    read_end, write_end = os.pipe()
    copy = os.dup(read_end)
    attempt.fds = [read_end, -1]
    capture.add(attempt)
    os.close(write_end)

    assert poll.poll(0) == [(read_end, select.EPOLLHUP)]
    assert capture.ready(read_end) is attempt
    assert poll.poll(0) == []
    os.close(copy)


def test_unfollowed_output_is_sent_ever_more_rarely():
    sent: list[protocol.Output] = []
    reports = SimpleNamespace(is_behind=False, send=sent.append)
    capture = Capture(select.epoll(), reports)
    order = SimpleNamespace(lane=1, program=SimpleNamespace(is_loud=False))
    attempt = Attempt(ref(1), 1, order)
    attempt.stage = Stage.RUNNING
    read_end, write_end = os.pipe()
    attempt.fds = [read_end, -1]
    pushes = 0
    for tenth in range(600):  # a minute, 1 MiB a second
        attempt.stream(0).add(bytes(80_000))
        os.write(write_end, bytes(25_000))
        capture._read(attempt, 0)
        capture.tick(tenth / 10)
        pushes += bool(sent)
        sent.clear()
    os.close(read_end)
    os.close(write_end)

    assert 5 < pushes < 16


class Writer:
    """An attempt that nobody follows, and what is pushed of its output."""

    def __init__(self, reports: Any = None) -> None:
        self.sent: list[protocol.Output | protocol.Started] = []
        self.reports = reports or SimpleNamespace(is_behind=False, send=self.sent.append)
        self.capture = Capture(select.epoll(), self.reports)
        self.attempt = self.another(1)
        self.attempt.begin = 100.0
        read_end, self.write_end = os.pipe()
        os.set_blocking(read_end, False)
        self.attempt.fds = [read_end, -1]
        self.capture.add(self.attempt)
        self.capture.tick(100.5)
        self.sent.clear()

    def another(self, number: int) -> Attempt:
        attempt = Attempt(ref(number), number, SimpleNamespace(lane=1, program=SimpleNamespace(is_loud=False)))
        attempt.stage = Stage.RUNNING
        return attempt

    def write(self, now: float, data: bytes = b"x") -> None:
        os.write(self.write_end, data)
        self.capture.ready(self.attempt.fds[0])
        self.capture.tick(now)

    def pushed(self, now: float) -> list[bytes]:
        self.capture.tick(now)
        sent = [output.data for output in self.sent]
        self.sent.clear()
        return sent


def test_little_output_of_a_long_task_is_sent_after_a_second_then_ever_more_rarely():
    writer = Writer()
    writer.write(100.6)
    assert (writer.capture.due(), writer.pushed(100.9), writer.pushed(101.0)) == (101.0, [], [b"x"])
    pushes = []
    for tenth in range(1_011, 4_011):  # a line each tenth of a second for five minutes
        writer.write(tenth / 10, b"y")
        if sent := writer.pushed(tenth / 10):
            pushes.append(tenth / 10)
            assert len(sent) == 1
    pauses = [later - earlier for earlier, later in pairwise([101.0, *pushes])]
    assert [round(pause) for pause in pauses] == [2, 4, 8, 16, *([30] * 9)]


def test_who_was_silent_for_long_is_heard_at_once_and_silence_costs_nothing():
    writer = Writer()
    assert writer.capture.due() == float("inf")
    writer.write(3_700.0)
    assert writer.pushed(3_700.0) == [b"x"]
    assert writer.capture.due() == float("inf")


@pytest.mark.parametrize("size", [10, 70_000])
def test_what_was_beyond_the_credit_of_who_followed_comes_when_nobody_does_any_more(size):
    """Else it waited for the next word of a task that may be silent for hours."""
    writer = Writer()
    writer.capture.follow(writer.attempt, 1)
    writer.write(100.6, b"first")
    assert writer.pushed(101.0) == [b"first"]
    for at in range(0, size, 10_000):
        writer.write(101.2, bytes(min(10_000, size - at)))
    assert writer.pushed(102.0) == []
    assert writer.capture.due() == float("inf")

    writer.capture.follow(writer.attempt, 0)
    assert sum(map(len, writer.pushed(110.0))) == len(b"first") + size


def test_little_news_wait_for_a_worker_that_does_not_read_without_a_busy_loop():
    writer = Writer()
    writer.reports.is_behind = True
    writer.write(100.6)
    assert writer.pushed(102.0) == []
    assert writer.capture.due() == float("inf")
    writer.reports.is_behind = False
    assert writer.pushed(102.1) == [b"x"]


def test_while_the_worker_takes_nothing_little_is_queued_before_the_ends_of_others():
    """On a slow line each push waited behind all earlier ones, and every report behind 8 MiB of old output."""
    worker, fd = os.pipe2(os.O_NONBLOCK)
    reports = Reports(fd, lambda _: None)
    writer = Writer(reports)
    for second in range(200, 400, 10):
        writer.attempt.stream(0).add(bytes(MIB))
        writer.write(second)
        reports.write()
    assert 0 < reports.unsent_bytes < 2 * MIB
    os.close(fd)
    os.close(worker)


def test_who_is_watched_is_pushed_first_then_who_has_waited_longest():
    writer = Writer()
    attempts = [writer.another(number) for number in range(2, 10)]
    attempts[-1].credit = MIB
    for attempt in attempts:
        attempt.pushed_at = 200.0 - attempt.value
        attempt.stream(0).add(bytes(100_000))
        writer.capture._has_news(attempt, attempt.stream(0))
    writer.capture.tick(300.0)
    assert [attempt.job for attempt in dict.fromkeys(output.attempt for output in writer.sent)] == [
        9,
        8,
        7,
        6,
        5,
        4,
        3,
        2,
    ]


def test_little_news_of_what_has_ended_went_with_its_end():
    writer = Writer()
    writer.write(100.6)
    writer.attempt.take_rest()
    writer.attempt.stage = Stage.ENDED
    assert writer.capture.due() == float("inf")
    assert writer.pushed(105.0) == []


def test_the_first_words_of_a_task_arrive_while_it_runs_and_nobody_follows(link):
    link.spawn(body("sh", "-c", "echo early; exec sleep 1000"), [ref(1)])
    link.until(lambda: link.outputs.get((ref(1), 1)) == {0: b"early\n"})

    assert ref(1) not in link.ends
    link.stop(ref(1))


def test_little_output_comes_with_the_end(link):
    link.run(body("echo", "hi"))

    assert not any(isinstance(message, protocol.Output) for message in link.messages)
    assert link.text(ref(1)) == b"hi\n"


def test_unfollowed_output_is_sent_while_the_task_runs_once_it_is_much(link):
    link.spawn(body("sh", "-c", f"head -c {200 * 1024} /dev/zero; exec sleep 1000"), [ref(1)])
    link.until(lambda: sum(map(len, link.outputs.get((ref(1), 1), {}).values())) >= 64 * 1024)

    assert not link.ends


def test_followed_output_comes_as_it_is_written(link):
    text = "echo 1; read x; echo 2; exec sleep 1000"
    one = link.begin(body("sh", "-c", text, stdin=b"\n"), word=b"1\n2\n")

    assert one not in link.ends


def test_followed_output_stops_at_its_credit_and_goes_on_with_more(link):
    link.spawn(body("sh", "-c", "head -c 1000000 /dev/zero; exec sleep 1000"), [ref(1)])
    link.say(protocol.Follow(ref(1), 20_000))
    received = link.outputs.setdefault((ref(1), 1), {})
    link.until(lambda: received)
    while link.hear(0.5):
        pass
    assert sum(map(len, received.values())) <= 20_000 + SLOT

    link.say(protocol.Follow(ref(1), 2_000_000))
    link.until(lambda: sum(map(len, received.values())) >= 1_000_000)


def test_a_follow_without_credit_ends_it(link):
    one = link.begin(body("sh", "-c", "echo ready; read x </dev/zero; exec sleep 1000"))
    link.say(protocol.Follow(one, 0))

    assert link.ping().live == 1


def test_while_the_worker_does_not_read_nothing_new_is_started(link):
    code = body(sys.executable, "-S", "-c", "import os; [os.write(1, b'x' * 65536) for _ in range(40)]")
    link.spawn(code, [ref(1, m) for m in range(40)], is_array=True)
    link.until(lambda: link.outputs)
    while link.children():  # the next is started in the turn in which one ends
        os.sched_yield()
    assert link.memory_kib("VmHWM") < 60_000
    assert len(link.ends) < 20

    link.until(lambda: len(link.ends) == 40)
    assert {usage(end).written for end in link.ends.values()} == {(40 * 65536, 0)}
