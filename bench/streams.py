"""Streams of input: lines that become members of one job, and what others feel while they come."""

import subprocess
import time
from collections.abc import Iterator
from typing import Final

from measures import TQ, Row, quantiles, shown
from rig import Rig

LINES: Final = 1_000_000
LINES_BESIDE: Final = 4_000_000  # about a hundred single tasks go by: of ten, p99 is the worst one
EACH_LINE: Final = (str(TQ), "submit", "--queue", "aside", "--hold", "--each-line", "-", "--", "echo", "{}")


def bulk(rig: Rig, count: int) -> Iterator[Row]:
    """A million distinct lines as members of one array; then single tasks while such a stream comes in."""
    lines = "".join(f"{number}\n" for number in range(1, LINES + 1)).encode()
    rates = [LINES / submit_lines(rig, lines) for _ in range(count)]
    what = f"`tq submit --each-line -` of {LINES:,} distinct lines, durable"
    yield Row(what, f"{shown(rates)} lines/s", wanted="at least 200,000 /s")
    yield from while_it_streams(rig, count)


def submit_lines(rig: Rig, lines: bytes) -> float:
    """Submit lines as one held job, and return how long that took, all of it; the job goes again."""
    begin = time.perf_counter()
    done = subprocess.run(EACH_LINE, input=lines, env=rig.environment, capture_output=True, check=True)
    took_s = time.perf_counter() - begin
    rig.run(str(TQ), "cancel", done.stdout.decode().strip())
    return took_s


def while_it_streams(rig: Rig, count: int) -> Iterator[Row]:
    """Single tasks, one at a time, on an idle server and while a bulk streams in: submit and result."""
    idle = one_by_one(rig, count * 50, lambda: True)
    busy: list[tuple[float, float]] = []
    for _ in range(count):
        with subprocess.Popen(["seq", str(LINES_BESIDE)], stdout=subprocess.PIPE) as feed:
            stream = subprocess.Popen(EACH_LINE, stdin=feed.stdout, env=rig.environment, stdout=subprocess.PIPE)
            time.sleep(0.5)  # beyond the start of the program
            busy += one_by_one(rig, 1_000, lambda stream=stream: stream.poll() is None)
            job = stream.communicate()[0].decode().strip()
            rig.run(str(TQ), "cancel", job)
    for place, what in ((0, "single submit"), (1, "submit of one `true` to its result")):
        calm, loaded = ([pair[place] for pair in pairs] for pairs in (idle, busy))
        wanted = "p99 < 15 ms" if place == 0 else ""
        yield Row(f"{what}, while such a stream comes in", quantiles(loaded), f"idle: {quantiles(calm)}", "", wanted)


def one_by_one(rig: Rig, count: int, may_go_on) -> list[tuple[float, float]]:
    """Return for each of up to `count` single tasks the ms to its id and the ms to its result."""
    took_ms = []
    with rig.client() as client:
        rig.wait(client, rig.submit(client))
        while len(took_ms) < count and may_go_on():
            begin = time.perf_counter()
            job = rig.submit(client)
            submitted = time.perf_counter()
            assert rig.wait(client, job).state == "succeeded"
            took_ms.append(((submitted - begin) * 1_000, (time.perf_counter() - begin) * 1_000))
    return took_ms
