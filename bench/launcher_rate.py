"""How near the launcher comes to the bare loop that it cannot beat (executor_loop.py): only the ratio counts.

    python bench/launcher_rate.py [N] [K] [ROUNDS]

Both run N times `true`, K at once, in turns, so that what else the machine does hits both; the best and the median of
the rounds are printed. The launcher is driven as a worker does it: over its socket, in spawns of 256, 512 ahead.
With other work on the cores rates say little; `by CPU` is the ratio that the CPU of all processes involved allows.
"""

import resource
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import os
import socket
import subprocess
import tempfile
import time
from typing import NamedTuple

from bench import executor_loop
from tq.core.vocabulary import Assignment, AttemptRef
from tq.launcher import launcher, protocol
from tq.wire import codec
from tq.wire.body import Body

BATCH = 256
AHEAD = 512
BODY = codec.dumps(Body((b"/bin/true",), b"/"))


class Measure(NamedTuple):
    """Tasks a second, and CPU in us a task: of the spawning process, of its children, of whoever drives it."""

    rate: float
    cpu_us: float
    children_us: float
    driver_us: float

    @property
    def total_us(self) -> float:
        return self.cpu_us + self.children_us + self.driver_us


def own_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def bare(n: int, k: int) -> Measure:
    own, children = own_s(resource.RUSAGE_SELF), own_s(resource.RUSAGE_CHILDREN)
    rate = executor_loop.rate(n, k)
    own, children = own_s(resource.RUSAGE_SELF) - own, own_s(resource.RUSAGE_CHILDREN) - children
    return Measure(rate, own * 1e6 / n, children * 1e6 / n, 0.0)


def cpu_s(pid: int) -> tuple[float, float]:
    """Return the CPU of a process, to the nanosecond, and that of the children it waited for, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return own, (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


class Driver:
    """A launcher, and the least that a worker does with one."""

    def __init__(self, slots: int, body: bytes = BODY, modules: tuple[str, ...] = ()) -> None:
        self.body = body
        self.socket, theirs = socket.socketpair()
        self.place = tempfile.mkdtemp(prefix="tq-bench-")
        words = launcher.command(theirs.fileno(), os.fsencode(self.place))
        self.process = subprocess.Popen(words, pass_fds=[theirs.fileno()], start_new_session=True)
        theirs.close()
        self.unread = bytearray()
        self.slots = slots
        self.job = 0
        self.socket.sendall(protocol.encode(protocol.Slots(slots)))
        self.socket.sendall(protocol.encode(protocol.Functions(modules, (), b"/")))
        self.run(50)

    def close(self) -> None:
        self.socket.close()
        self.process.wait()
        Path(self.place).rmdir()

    def run(self, n: int) -> Measure:
        """Run n tasks; all must succeed."""
        self.job += 1
        cpu, driver = cpu_s(self.process.pid), own_s(resource.RUSAGE_SELF)
        begin = time.perf_counter()
        sent = done = 0
        while done < n:
            while sent < n and sent - done <= AHEAD - BATCH:
                count = min(BATCH, n - sent)
                refs = (AttemptRef(self.job, 0, member, 1, 1) for member in range(sent, sent + count))
                attempts = tuple(Assignment(ref, ref.member + 1) for ref in refs)
                spawn = protocol.Spawn(1, self.slots, True, "default", "", self.body, 0, "0" * 16, attempts)
                self.socket.sendall(protocol.encode(spawn))
                sent += count
            data = self.socket.recv(1 << 20)
            if not data:
                sys.exit("the launcher ended")
            self.unread += data
            for message in protocol.ups(self.unread):
                if isinstance(message, protocol.Ended):
                    assert all(end.code == 0 and end.cause == 1 for end in message.ends), message
                    done += len(message.ends)
        seconds = time.perf_counter() - begin
        driver = own_s(resource.RUSAGE_SELF) - driver
        own, children = (now - then for now, then in zip(cpu_s(self.process.pid), cpu, strict=True))
        return Measure(n / seconds, own * 1e6 / n, children * 1e6 / n, driver * 1e6 / n)


def main() -> None:
    n, k, rounds = (int(a) for a in (sys.argv[1:] + ["3000", "2", "5"][len(sys.argv) - 1 :]))
    driver = Driver(k)
    ratios, by_cpu = [], []
    try:
        before = bare(n, k)
        for _ in range(rounds):
            ours = driver.run(n)
            after = bare(n, k)
            ratios.append(2 * ours.rate / (before.rate + after.rate))
            by_cpu.append((before.total_us + after.total_us) / 2 / ours.total_us)
            print(f"bare {after.rate:5.0f}/s, {after.cpu_us:4.0f} us + child {after.children_us:4.0f}    "
                  f"launcher {ours.rate:5.0f}/s, {ours.cpu_us:4.0f} us + child {ours.children_us:4.0f} "
                  f"+ driver {ours.driver_us:3.0f}    ratio {ratios[-1]:.3f}, by CPU {by_cpu[-1]:.3f}")  # fmt: skip
            before = after
    finally:
        driver.close()
    print(f"ratio: best {max(ratios):.3f}, median {statistics.median(ratios):.3f}; "
          f"by CPU: best {max(by_cpu):.3f}, median {statistics.median(by_cpu):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
