"""How near the launcher comes to the bare loop that it cannot beat (executor_loop.py): only the ratio counts.

    python bench/launcher_rate.py [N] [K] [ROUNDS]

Both run N times `true`, K at once, in turns, so that what else the machine does hits both; the best and the median of
the rounds are printed. The launcher is driven as a worker does it: over its socket, in spawns of 256, 512 ahead.
"""

import resource
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import os
import socket
import subprocess
import time
from typing import NamedTuple

from bench import executor_loop
from tq.core.vocabulary import Assignment, AttemptRef
from tq.wire import codec
from tq.wire.body import Body
from tq.worker import frames, launcher

BATCH = 256
AHEAD = 512
BODY = codec.dumps(Body((b"/bin/true",), b"/"))


class Measure(NamedTuple):
    """Tasks a second, and CPU of the spawning process in us a task."""

    rate: float
    cpu_us: float


def bare(n: int, k: int) -> Measure:
    before = resource.getrusage(resource.RUSAGE_SELF)
    rate = executor_loop.rate(n, k)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return Measure(rate, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e6 / n)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Driver:
    """A launcher, and the least that a worker does with one."""

    def __init__(self, slots: int) -> None:
        self.socket, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            launcher.command(theirs.fileno()), pass_fds=[theirs.fileno()], start_new_session=True
        )
        theirs.close()
        self.reader = frames.UpReader()
        self.slots = slots
        self.job = 0
        self.socket.sendall(frames.encode(frames.Slots(slots)))
        self.run(50)

    def close(self) -> None:
        self.socket.close()
        self.process.wait()

    def run(self, n: int) -> Measure:
        """Run n tasks; all must succeed."""
        self.job += 1
        cpu = cpu_s(self.process.pid)
        begin = time.perf_counter()
        sent = done = 0
        while done < n:
            while sent < n and sent - done <= AHEAD - BATCH:
                count = min(BATCH, n - sent)
                refs = (AttemptRef(self.job, 0, member, 1, 1) for member in range(sent, sent + count))
                attempts = tuple(Assignment(ref, ref.member + 1) for ref in refs)
                spawn = frames.Spawn(1, self.slots, True, "default", "", BODY, 0, "0" * 16, attempts)
                self.socket.sendall(frames.encode(spawn))
                sent += count
            for message in self.reader.feed(self.socket.recv(1 << 20)):
                if isinstance(message, frames.Ended):
                    assert all(end.code == 0 and end.cause == 1 for end in message.ends), message
                    done += len(message.ends)
        seconds = time.perf_counter() - begin
        return Measure(n / seconds, (cpu_s(self.process.pid) - cpu) * 1e6 / n)


def main() -> None:
    n, k, rounds = (int(a) for a in (sys.argv[1:] + ["3000", "2", "5"][len(sys.argv) - 1 :]))
    driver = Driver(k)
    ratios = []
    try:
        before = bare(n, k)
        for _ in range(rounds):
            ours = driver.run(n)
            after = bare(n, k)
            ratios.append(2 * ours.rate / (before.rate + after.rate))
            print(f"bare {after.rate:5.0f}/s {after.cpu_us:4.0f} us   launcher {ours.rate:5.0f}/s {ours.cpu_us:4.0f} us"
                  f"   ratio {ratios[-1]:.3f}")
            before = after
    finally:
        driver.close()
    print(f"ratio: best {max(ratios):.3f}, median {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
