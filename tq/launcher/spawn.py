"""Starts one process: the only place that calls posix_spawn.

posix_spawn and not fork: a fork copies the page tables, and nothing may run between fork and exec. What
posix_spawn cannot do (directory, umask, limits) is set in this process before, which is why the launcher is one
single-threaded process of its own. While the child has not reached its program this process stands still and hears
no signal (vfork), so nothing here may open a path that a task names.
"""

import errno
import os
import resource
import time
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from tq.launcher.program import TROUBLE, Program, SpawnError

_DUP2: Final = os.POSIX_SPAWN_DUP2
_files_reserved: Final = 64
_files_by_attempt: Final = 3
# A FIFO must not hold us up, and what somebody put there as a link is not what was named.
_OUTPUT: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_OUTPUT_MODE: Final = 0o666
_busy_look_s: Final = 0.004
_busy_looks_max: Final = 16  # in a second, of all programs: whoever stands still ends nothing that must end


Command = tuple[bytes, list[bytes], dict[bytes, bytes]]  # path, arguments, environment


class CwdMissing(Exception):
    """The task's directory does not exist or cannot be entered; the text says which and why."""


class Source(Protocol):
    """What a process gets as its standard input."""

    def open(self) -> int:
        """Return a descriptor of its own. The caller closes it."""


Streams = tuple[int, int, int]  # descriptors that become 0, 1 and 2


class Files(NamedTuple):
    """The files that take stdout and stderr, b"" = a pipe does; `is_first`: what an earlier run wrote there goes."""

    stdout: bytes = b""
    stderr: bytes = b""
    is_first: bool = False


PIPES: Final = Files()

# The pid of a new process, and the reading ends of its stdout and stderr (non-blocking); -1 where a file takes it.
Spawned = tuple[int, int, int]


class Spawner:
    """Starts processes. Owns the directory, umask and resource limits of this process."""

    def __init__(self) -> None:
        self._null: Final = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._umask = -1
        self._files, self._files_hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._files_raised = False
        self._busy_since = 0.0
        self._busy_looks = 0
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
        self,
        program: Program,
        argv: list[bytes],
        environment: dict[bytes, bytes],
        stdin: Source | None,
        files: Files = PIPES,
    ) -> Spawned:
        """Start `program` with these arguments as the leader of a session of its own.

        Raises CwdMissing or SpawnError for what is wrong with the task, OSError for what is wrong with this machine.
        """
        _enter(program.cwd)
        try:
            command = program.path(argv), argv, environment
            if program.umask != self._umask:
                os.umask(program.umask)
                self._umask = program.umask
            if stdin is None:
                return self._start(program, command, self._null, files)
            source = stdin.open()
            try:
                return self._start(program, command, source, files)
            finally:
                os.close(source)
        finally:
            os.chdir("/")  # nobody could unmount what a task was in

    def _start(self, program: Program, command: Command, source: int, files: Files) -> Spawned:
        out, out_end = _stream(files.stdout, "stdout", files)
        try:
            err, err_end = _stream(files.stderr, "stderr", files)
        except BaseException:
            _close(out, out_end)
            raise
        try:
            pid = self._spawn(program, command, (source, out_end, err_end))
        except BaseException:
            _close(out, err)
            raise
        finally:
            os.close(out_end)
            os.close(err_end)
        return pid, out, err

    def _spawn(self, program: Program, command: Command, streams: Streams) -> int:
        path, argv, environment = command
        if self._files_raised:
            streams = self._lower(streams)
        source, out, err = streams
        try:
            while True:
                try:
                    return os.posix_spawn(
                        path, argv, environment,
                        file_actions=((_DUP2, source, 0), (_DUP2, out, 1), (_DUP2, err, 2)),
                        setsid=True, setsigmask=(),
                    )  # fmt: skip
                except OSError as error:
                    if error.errno != errno.ETXTBSY or not self._wait_for_writer():
                        raise
        except ValueError as error:  # a NUL in an argument, a = in a name
            raise SpawnError(126, f"{os.fsdecode(path)}: {error}") from error
        except OSError as error:
            if error.errno in TROUBLE:
                raise
            raise program.explain(path, error) from error
        finally:
            if self._files_raised:
                self._raise()

    def _wait_for_writer(self) -> bool:
        """Stand still for a moment, if it was not for long already: a program may be submitted before it is closed."""
        now = time.monotonic()
        if now - self._busy_since > 1.0:
            self._busy_since, self._busy_looks = now, 0
        if self._busy_looks >= _busy_looks_max:
            return False
        self._busy_looks += 1
        time.sleep(_busy_look_s)
        return True

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


def _enter(directory: bytes) -> None:
    try:
        os.chdir(directory)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in TROUBLE:
            raise
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        raise CwdMissing(f"{os.fsdecode(directory)}: {reason}") from error


def _stream(path: bytes, what: str, files: Files) -> tuple[int, int]:
    """Return the reading end of a stream, -1 for none, and what the process is to write to."""
    if path:
        return -1, _open_file(path, what, os.O_TRUNC if files.is_first else 0)
    ends = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ends[0], False)
    return ends


def _open_file(path: bytes, what: str, flags: int) -> int:
    try:
        fd = os.open(path, _OUTPUT | flags, _OUTPUT_MODE)
    except ValueError as error:
        raise SpawnError(126, f"{what}: {error}") from error
    except OSError as error:
        if error.errno in TROUBLE:
            raise
        reason = "is a symbolic link" if error.errno == errno.ELOOP else os.strerror(error.errno or 0)
        raise SpawnError(126, f"{what} {os.fsdecode(path)}: {reason}") from error
    os.set_blocking(fd, True)
    return fd


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)
