"""The sentry: a process between a worker and its launcher, so that nothing of an attempt outlives its launcher.

    worker  ── the leash, a pipe ──  sentry  ── parent of ──  launcher  ── the processes of the attempts

When a launcher is killed, what it ran becomes the worker's, which ends it. A worker that was killed too, or is frozen,
does not: the attempts would run on while the server gives them to others. So a launcher has a parent that does nothing
but wait. The sentry is a subreaper: what a dead launcher has left becomes *its* children, whatever session, group or
environment they have, and it KILLs them all. It also KILLs a launcher that is still there a moment after the leash was
let go: that one is frozen, or stuck in a spawn, and its worker is dead or has given it up. A launcher whose sentry dies
comes to its end by itself (launcher.py).

It is forked before the launcher has imported anything, so that it stays small; it hears no signal but KILL. It must
never take orders, write to anything, or know of attempts: what does nothing does not fail.
"""

import os
import select
import signal
import sys
from typing import Final

from tq.launcher import containment, installed

NAME: Final = "tq-sentry"

_GRACE_MS: Final = 500  # for a launcher to kill what it has and to exit, once its worker is gone
_KILL_ALL_S: Final = 10.0
_KILLED: Final = 128
_BOOT: Final = (
    "import sys; sys.path[1:1] = sys.argv[5:]; from tq.launcher.sentry import main;"
    "main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])"
)


def command(fd: int, leash: int, directory: bytes, cgroup: bytes = b"") -> list[str]:
    """Return the arguments that start a launcher with a sentry above it; both descriptors are inherited (`pass_fds`).

    `leash` is the reading end of a pipe to which nobody writes; all else is as in `launcher.command`.
    """
    words = (str(fd), str(leash), os.fsdecode(directory), os.fsdecode(cgroup), *installed.libraries())
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, *words]


def main(fd: int, leash: int, directory: str, cgroup: str) -> None:
    """Fork a launcher and stand above it. Ends as the launcher did, when nothing of it is left."""
    containment.name_process(NAME)
    containment.hold_off_signals()
    containment.become_subreaper()
    pid = os.fork()
    if not pid:
        from tq.launcher import launcher  # only here: what this process has in memory stays with it for good

        launcher.main(fd, directory, cgroup)
        return
    containment.close_inherited(leash)
    status = _stand_above(pid, leash)
    containment.kill_all_children(_KILL_ALL_S)
    if status == -signal.SIGKILL:
        os.kill(os.getpid(), signal.SIGKILL)  # so that the worker reads what befell its launcher
    sys.exit(status if status >= 0 else _KILLED - status)


def _stand_above(launcher: int, leash: int) -> int:
    """Wait for the end of the launcher, and bring it about if the leash is let go; return its status."""
    pidfd = os.pidfd_open(launcher)
    ends = select.poll()
    ends.register(pidfd, select.POLLIN)
    ends.register(leash, select.POLLIN)
    ends.poll()
    ends.unregister(leash)
    if not ends.poll(_GRACE_MS):
        os.kill(launcher, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(launcher, 0)[1])
