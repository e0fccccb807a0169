"""Keeps processes from outliving their attempts: who our children are, whose they were, and how they are killed.

The level here is `group`: process groups, a subreaper, and the cookie (TQ_WORKER, TQ_TASK, TQ_ATTEMPT) in the
environment of every process. A process whose parent dies becomes a child of the launcher, because the launcher is a
subreaper: so whatever descends from an attempt's dead main process hangs below one of our own children, and killing
those, round after round, reaches all of it (what forks faster than it is killed needs a cgroup). A pid is only ever
signalled while it is our own unreaped child, or held by a pidfd: it cannot belong to somebody else then.
This module knows processes, not attempts.
"""

import ctypes
import os
import select
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Final

LEVEL: Final = "group"
LAUNCHER: Final = "tq-launcher"  # what a launcher is called (/proc/PID/comm)

_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
_PF_EXITING: Final = 4
_SFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_SIGSET_BYTES: Final = 128
_PAGE: Final = 4096
_libc: Final = ctypes.CDLL(None, use_errno=True)
_waitpid: Final = ctypes.PyDLL(None).waitpid  # os.waitpid raises where there is no child, which costs as much as a call

# What must not end the launcher: the terminal's Ctrl-C and hang-up, and what a task may send to its parent by mistake.
_HELD_OFF: Final = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
    signal.SIGPIPE, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGXFSZ,
)  # fmt: skip


def become_subreaper() -> None:
    """Make orphaned descendants of this process its children. Launcher and worker both are one.

    When the launcher is killed, what it ran comes to the worker.
    """
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def reap() -> bool:
    """Forget the children that have ended. Return whether there are others."""
    while (pid := _waitpid(-1, None, os.WNOHANG)) > 0:
        pass
    return bool(pid == 0)


def name_process(name: str) -> None:
    """Set what `ps` and `top` call this process (15 bytes)."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def close_inherited(keep: int) -> None:
    """Close every inherited descriptor but `keep`. Afterwards 0 to 2 are open, so that no pipe gets such a number."""
    for name in os.listdir("/proc/self/fd"):
        if (other := int(name)) > 2 and other != keep:
            with suppress(OSError):  # the listing's own descriptor
                os.close(other)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    for standard in (1, 2):
        try:
            os.fstat(standard)
        except OSError:
            os.dup2(null, standard)
    if null > 2:
        os.close(null)


def hold_off_signals() -> None:
    """Block what a terminal or a task may send to the launcher; only end of file and KILL end it.

    Blocked and not ignored, and all set to their default, whatever was inherited: so an empty mask, which a task's
    spawn sets anyhow, is all that has to be set back.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_OFF)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)


def open_child_signals() -> int:
    """Block SIGCHLD and return a non-blocking descriptor that becomes readable when a child ends.

    Only for a process without other threads: a thread made earlier would get the signal instead.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    mask = bytearray(_SIGSET_BYTES)
    mask[(signal.SIGCHLD - 1) // 8] |= 1 << (signal.SIGCHLD - 1) % 8
    fd: int = _libc.signalfd(-1, bytes(mask), _SFD_FLAGS)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    return fd


def watch_parent(poll: select.epoll) -> int:
    """Let the end of this process's parent be an event of `poll`; return its descriptor, -1 for none.

    Of a parent in another namespace of pids nobody here can know. One that ended before has left us to its heir.
    """
    with suppress(OSError):
        fd = os.pidfd_open(os.getppid())
        poll.register(fd, select.EPOLLIN)
        return fd
    return -1


class Children:
    """Lists the children of this (single-threaded) process, ended but unreaped ones included. Open as long as it."""

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        pid = os.getpid()
        self._fd = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> bytes:
        """Return their pids as text, with a blank after each.

        Complete, since only our own wait takes one out of the kernel's list.
        """
        text = os.pread(self._fd, _PAGE, 0)
        if len(text) > _PAGE // 2:  # the kernel fills a page at most; a half-empty one was the last
            while more := os.pread(self._fd, _PAGE, len(text)):
                text += more
        return text


def cookie(pid: int) -> tuple[bytes, bytes, bytes] | None:
    """Return (TQ_WORKER, TQ_TASK, TQ_ATTEMPT) of a process, or None: erased, unreadable, gone."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = dict(item.partition(b"=")[::2] for item in file.read().split(b"\0"))
        return pairs[b"TQ_WORKER"], pairs[b"TQ_TASK"], pairs[b"TQ_ATTEMPT"]
    except (OSError, KeyError):
        return None


def signal_group(leader: int, number: int) -> None:
    """Signal the group of an unreaped session leader that is our child."""
    with suppress(ProcessLookupError, PermissionError):  # all of it may be dead, or have become another user's
        os.killpg(leader, number)


def is_ending(pid: int) -> bool:
    """Whether a process has begun to end: it closes its descriptors a moment before it can be reaped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return True
    return fields[0] in b"ZX" or bool(int(fields[6]) & _PF_EXITING)


def kill_child(pid: int, spare: Collection[int] = ()) -> None:
    """KILL an unreaped child of ours, and its process group unless that is one of `spare`."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
        group = os.getpgid(pid)
        if group not in spare and group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)


def kill_all_children(within_s: float) -> bool:
    """KILL every child, whatever it leaves to us, and reap it all. Return whether nothing is left after `within_s`.

    Of all threads of this process, and all of them: who keeps other children must not call it.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with suppress(OSError):  # no descriptor is free for a moment
            for pid in _children_of_all_threads():
                kill_child(pid)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if not _children_of_all_threads():
                return True
        time.sleep(0.001)
    return False


def _children_of_all_threads() -> list[int]:
    pids: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError), open(f"/proc/self/task/{thread}/children", "rb") as file:
            pids += map(int, file.read().split())
    return pids


def kill_bearers(worker: str, within_s: float = 5.0) -> int:
    """KILL every process on this host that bears the cookie of `worker` (16 hex digits); return how many there were.

    For the next worker after one that died together with its launcher. Each round kills what it finds and waits for
    it; it goes on until a round finds nothing.
    """
    killed = 0
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = [fd for name in os.listdir("/proc") if name.isdigit() and (fd := _hold_bearer(int(name), worker)) >= 0]
        if not found:
            break
        for fd in found:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            select.select([fd], [], [], 0.1)
            os.close(fd)
        killed += len(found)
    return killed


def _hold_bearer(pid: int, worker: str) -> int:
    """Return a pidfd of `pid` if it bears the cookie of `worker`, else -1. The pidfd comes first: pids are reused."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return -1
    found = cookie(pid)
    if found is not None and found[0] == worker.encode():
        return fd
    os.close(fd)
    return -1


def abandoned() -> list[int]:
    """Return the processes that bear a worker's cookie with no launcher above them: it died together with its worker.

    Only those that we may look into. One whose launcher has just died is with its worker for a moment, and counts, too.
    """
    parents: dict[int, int] = {}
    launchers: set[int] = set()
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            before, _, after = file.read().rpartition(b") ")
            parents[pid] = int(after.split()[1])
            if before.partition(b"(")[2] == LAUNCHER.encode():
                launchers.add(pid)

    def has_launcher(pid: int) -> bool:
        while pid and pid not in launchers:
            pid = parents.get(pid, 0)
        return pid in launchers

    return [pid for pid in parents if not has_launcher(pid) and cookie(pid) is not None]
