"""The floor for process tasks: a bare loop (epoll over pidfds, posix_spawn with setsid, both streams captured, wait4).

    python3 executor_loop.py [N] [K]      prints tasks a second for N runs of /bin/true, K at once

A worker cannot be faster than this on the same cores; how near tq comes is the ratio to report, taken alternately in
one run.
"""

import os
import select
import signal
import sys
import time


def rate(n: int, k: int) -> float:
    poll = select.epoll()
    live: dict[int, tuple[int, int, int]] = {}
    started = done = 0
    null = os.open("/dev/null", os.O_RDONLY)
    begin = time.perf_counter()
    while done < n:
        while started < n and len(live) < k:
            out_r, out_w = os.pipe2(os.O_CLOEXEC)
            err_r, err_w = os.pipe2(os.O_CLOEXEC)
            pid = os.posix_spawn(
                "/bin/true", ["true"], {"PATH": "/usr/bin:/bin"}, setsid=True, setsigdef=(signal.SIGPIPE,),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, out_w, 1), (os.POSIX_SPAWN_DUP2, err_w, 2),
                ],
            )  # fmt: skip
            os.close(out_w)
            os.close(err_w)
            fd = os.pidfd_open(pid)
            poll.register(fd, select.EPOLLIN)
            live[fd] = pid, out_r, err_r
            started += 1
        for fd, _ in poll.poll():
            pid, *pipes = live.pop(fd)
            poll.unregister(fd)
            os.wait4(pid, 0)
            for pipe in pipes:
                os.read(pipe, 65536)
                os.close(pipe)
            os.close(fd)
            done += 1
    return n / (time.perf_counter() - begin)


if __name__ == "__main__":
    n, k = (int(a) for a in (sys.argv[1:] + ["3000", "2"][len(sys.argv) - 1 :]))
    print(f"{rate(n, k):.0f}")
