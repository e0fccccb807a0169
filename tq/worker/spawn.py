"""Starts one process: the only place that calls posix_spawn.

posix_spawn and not fork: a fork copies the page tables, and nothing may run between fork and exec. What
posix_spawn cannot do (directory, umask, limits) is set in this process before, which is why the launcher is one
single-threaded process of its own. While the child has not reached its program this process stands still and hears
no signal (vfork), so nothing here may open a path that a task names.
"""

import errno
import os
import resource
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from tq.worker.containment import IGNORED
from tq.worker.program import Program, SpawnError

_DUP2: Final = os.POSIX_SPAWN_DUP2
_files_reserved: Final = 64
_files_by_attempt: Final = 3
_TROUBLE: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO})  # not the task's fault


Command = tuple[bytes, list[bytes], dict[bytes, bytes]]  # path, arguments, environment


class CwdMissing(Exception):
    """The task's directory does not exist or cannot be entered; the text says which and why."""


class Source(Protocol):
    """What a process gets as its standard input."""

    def open(self) -> int:
        """Return a descriptor of its own. The caller closes it."""


Streams = tuple[int, int, int]  # descriptors that become 0, 1 and 2


class Spawned(NamedTuple):
    """A new process, and the reading ends of its stdout and stderr (non-blocking)."""

    pid: int
    out: int
    err: int


class Spawner:
    """Starts processes. Owns the directory, umask and resource limits of this process."""

    def __init__(self) -> None:
        self._null: Final = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._umask = -1
        self._files, self._files_hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._files_raised = False
        self._low: Final[Streams] = os.dup(self._null), os.dup(self._null), os.dup(self._null)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))

    def make_room(self, slots: int) -> None:
        """Raise this process's own limit of open files if so many attempts need it; tasks keep the old one."""
        if slots * _files_by_attempt + _files_reserved > self._files != resource.RLIM_INFINITY:
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (self._files_hard, self._files_hard))
                self._files_raised = self._files_hard != self._files

    def start(
        self, program: Program, argv: list[bytes], environment: dict[bytes, bytes], stdin: Source | None
    ) -> Spawned:
        """Start `program` with these arguments as the leader of a session of its own.

        Raises CwdMissing or SpawnError for what is wrong with the task, OSError for what is wrong with this machine.
        """
        try:
            os.chdir(program.cwd)
        except (OSError, ValueError) as error:
            reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            raise CwdMissing(f"{os.fsdecode(program.cwd)}: {reason}") from error
        command = program.path(argv), argv, environment
        if program.umask != self._umask:
            os.umask(program.umask)
            self._umask = program.umask
        if stdin is None:
            return self._start(program, command, self._null)
        source = stdin.open()
        try:
            return self._start(program, command, source)
        finally:
            os.close(source)

    def _start(self, program: Program, command: Command, source: int) -> Spawned:
        out, out_end = os.pipe2(os.O_CLOEXEC)
        try:
            err, err_end = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(out)
            os.close(out_end)
            raise
        is_started = False
        try:
            os.set_blocking(out, False)
            os.set_blocking(err, False)
            pid = self._spawn(program, command, (source, out_end, err_end))
            is_started = True
        finally:
            os.close(out_end)
            os.close(err_end)
            if not is_started:
                os.close(out)
                os.close(err)
        return Spawned(pid, out, err)

    def _spawn(self, program: Program, command: Command, streams: Streams) -> int:
        path, argv, environment = command
        if self._files_raised:
            streams = self._lower(streams)
        source, out, err = streams
        try:
            return os.posix_spawn(
                path, argv, environment,
                file_actions=((_DUP2, source, 0), (_DUP2, out, 1), (_DUP2, err, 2)),
                setsid=True, setsigmask=(), setsigdef=IGNORED,
            )  # fmt: skip
        except ValueError as error:  # a NUL in an argument, a = in a name
            raise SpawnError(126, f"{os.fsdecode(path)}: {error}") from error
        except OSError as error:
            if error.errno in _TROUBLE:
                raise
            raise program.explain(path, error) from error
        finally:
            if self._files_raised:
                self._raise()

    def _lower(self, streams: Streams) -> Streams:
        """Give this process the tasks' limit of open files for a spawn, and the streams numbers below that limit.

        glibc refuses file actions on numbers above the limit that counts at the moment (EBADF), although dup2 works.
        """
        for fd, low in zip(streams, self._low, strict=True):
            os.dup2(fd, low, inheritable=False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._files, self._files_hard))
        return self._low

    def _raise(self) -> None:
        """Undo `_lower`. A pipe's end that stayed here would keep the pipe from its end of file."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._files_hard, self._files_hard))
        for low in self._low:
            os.dup2(self._null, low, inheritable=False)
