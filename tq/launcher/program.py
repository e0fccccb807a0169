"""A submitted body made ready to run: arguments, environment, where the program is, what it reads.

Making one costs about as much as ten spawns, so launchers keep them by the bytes of the body (`Programs`): all
members of an array share one. Relative paths are seen from the current directory, which is the task's by then.
"""

import errno
import os
import signal
import stat
import time
from collections.abc import Mapping
from typing import Final

from tq import __version__
from tq.errors import ProtocolError
from tq.launcher.stored_stdin import StoredInput
from tq.wire import codec, placeholders
from tq.wire.body import Body, is_beyond

# What an attempt does not share with its order: job, value, attempt, lease (vocabulary.AttemptRef) and entry.
Own = tuple[int, int, int, int, bytes | None]


class Names:
    """Those of all attempts of one order. `common` are the ones that do not differ, and all else that stands beside."""

    __slots__ = ("common", "has_text", "is_array")

    def __init__(self, common: dict[bytes, bytes], *, is_array: bool, has_text: bool) -> None:
        self.common: Final = common
        self.is_array: Final = is_array
        self.has_text: Final = has_text  # an entry is text in columns, and not plain data

    def of(self, job: int, value: int, attempt: int, lease: int, entry: bytes | None) -> dict[bytes, bytes]:
        """Return those of one attempt."""
        names = self.common.copy()
        names[b"TQ_JOB"] = task = b"%d" % job
        if self.is_array:
            names[b"TQ_MEMBER"] = member = b"%d" % value
            task += b"." + member
        names[b"TQ_TASK"] = task
        names[b"TQ_ATTEMPT"] = b"%d" % attempt
        names[b"TQ_FENCE"] = b"%d" % lease
        if entry is not None and self.has_text:
            names[b"TQ_ENTRY"] = entry.replace(b"\0", b" ")
        return names


# Of the worker's own environment a task gets these and nothing else: no loader or interpreter variables, no secrets.
_ALLOWED: Final = frozenset({b"PATH", b"HOME", b"LANG", b"TZ", b"USER", b"SHELL", b"TMPDIR"})
_ALLOWED_PREFIX: Final = b"LC_"
# What attempts are given, some of it only to some: the others must not see that of the task that submitted them.
_GIVEN: Final = frozenset({b"TQ_MEMBER", b"TQ_ENTRY", b"TQ_DEADLINE", b"TQ_RESULT", b"TQ_TMPDIR"})
_PATH_DEFAULT: Final = b"/usr/local/bin:/usr/bin:/bin"
_SIGNALS: Final = signal.valid_signals()
_programs_max: Final = 64
_FIRST_LINE_BYTES: Final = 256  # as the kernel reads
_found_s_max: Final = 1.0
TROUBLE: Final = frozenset(  # not the task's fault
    {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOSPC, errno.EDQUOT}
    | {errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH}  # a mount without its server
)


class SpawnError(Exception):
    """The program cannot be run, and trying again would not help. `code` is what a shell would say: 126 or 127."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class BeyondThis(Exception):
    """The task asks for what only a later version of tq knows: another worker may have that."""


class Program:
    """One body, decoded. `environment` lacks only what differs from attempt to attempt."""

    __slots__ = (
        "_found", "_found_at", "_found_name", "_is_shell", "_is_template", "argv", "cwd", "environment", "flaw",
        "function", "has_plain_entries", "has_tmpdir", "is_loud", "kill_after_s", "mean_us", "outputs",
        "packed_arguments", "stdin", "stop_signal", "stops_when_cut", "time_limit_s", "umask",
    )  # fmt: skip

    def __init__(self, body: Body, base: Mapping[bytes, bytes]) -> None:
        self.argv = list(body.argv)
        self.cwd = body.cwd or b"/"
        chosen = {os.fsencode(name): value for name, value in body.environment.items()}
        self.environment = {name: value for name, value in {**base, **chosen}.items() if name not in _GIVEN}
        self.environment[b"TQ_DIR"] = self.cwd
        self.umask = body.umask & 0o777
        self.time_limit_s = max(0, body.time_limit_ms) / 1000
        self.kill_after_s = max(0, body.kill_after_ms) / 1000
        self.stop_signal = body.stop_signal if body.stop_signal in _SIGNALS else signal.SIGTERM
        self.stdin = StoredInput(body.stdin) if body.stdin else None
        self.function = body.function
        self.packed_arguments = body.arguments
        self.has_plain_entries = body.has_plain_entries
        self.mean_us = 0.0  # of its latest calls; 0 = not known
        self._is_template = body.columns > 0 and any(map(placeholders.has_any, body.argv))
        self._is_shell = body.is_shell
        self.stops_when_cut = body.stops_when_cut
        self.has_tmpdir = body.has_tmpdir
        self.outputs = body.stdout, body.stderr
        self.is_loud = False  # an attempt of it has written much
        self.flaw = "no command"  # why it cannot be run, when there are no arguments
        self._found = self._found_name = b""
        self._found_at = 0.0

    def arguments(self, value: int, entry: bytes | None) -> list[bytes]:
        """Return the arguments of one attempt: those of the body, with the entry in its places."""
        if not self._is_template or entry is None:
            return self.argv
        return placeholders.fill(self.argv, value, entry.split(b"\0"), is_shell=self._is_shell)

    def path(self, argv: list[bytes]) -> bytes:
        """Return the path of what `argv` runs, or raise SpawnError. What the PATH led to is remembered for a second."""
        if not argv:
            raise SpawnError(126, self.flaw)
        name = argv[0]
        if b"/" in name:
            return name
        now = time.monotonic()
        if name != self._found_name or now - self._found_at > _found_s_max:
            self._found_name = b""
            self._found = search(name, self.environment.get(b"PATH", _PATH_DEFAULT))
            self._found_name, self._found_at = name, now
        return self._found

    def explain(self, path: bytes, error: OSError) -> SpawnError:
        """Return what a failed exec of this path means."""
        text = os.fsdecode(path)
        self._found_name = b""  # look for it again next time
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            if os.path.exists(path):
                return SpawnError(127, f"{text}: its interpreter{_interpreter(path)} does not exist")
            return SpawnError(127, f"{text}: no such file")
        if error.errno == errno.EACCES and os.path.isdir(path):
            return SpawnError(126, f"{text}: is a directory")
        if error.errno == errno.ENOEXEC:
            return SpawnError(126, f"{text}: neither a binary for this machine nor a script with a #! line")
        if error.errno == errno.E2BIG:
            return SpawnError(126, f"{text}: arguments and environment are too long for this machine")
        if error.errno == errno.ETXTBSY:
            return SpawnError(126, f"{text}: somebody still has it open to write to it")
        return SpawnError(126, f"{text}: {os.strerror(error.errno or 0)}")


def _interpreter(path: bytes) -> str:
    """Return what a script says that its interpreter is, "" if it is none: nobody sees that a line ends with a CR."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
            line = (file.read(_FIRST_LINE_BYTES) or b"").partition(b"\n")[0]
    except OSError:
        return ""
    words = line[2:].replace(b"\t", b" ").split(b" ") if line.startswith(b"#!") else []
    return next((f" {os.fsdecode(word)!a}" for word in words if word), "")


def search(name: bytes, path: bytes) -> bytes:
    """Return where `name` is in the directories of `path`, as execvp(3) would find it, or raise SpawnError.

    Raises OSError where this machine cannot look: it may be there.
    """
    refused, trouble = b"", None
    for directory in path.split(b":"):
        candidate = os.path.join(directory or b".", name)
        try:
            mode = os.stat(candidate).st_mode
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in TROUBLE:
                trouble = error
            continue
        if stat.S_ISREG(mode) and os.access(candidate, os.X_OK):
            return candidate
        refused = refused or candidate
    if trouble is not None:
        raise trouble
    if refused and name:
        raise SpawnError(126, f"{os.fsdecode(refused)}: not executable")
    raise SpawnError(127, f"{os.fsdecode(name)}: not found in PATH ({os.fsdecode(path)})")


def base_environment(own: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return what of a worker's own environment its tasks get."""
    base = {name: value for name, value in own.items() if name in _ALLOWED or name.startswith(_ALLOWED_PREFIX)}
    base.setdefault(b"PATH", _PATH_DEFAULT)
    return base


class Programs:
    """The programs used last, by the bytes of their bodies."""

    def __init__(self, own: Mapping[bytes, bytes]) -> None:
        self._base: Final = base_environment(own)
        self._kept: Final[dict[bytes, Program]] = {}

    def get(self, body: bytes) -> Program:
        """Return the program of a body. If the body is none, running it raises SpawnError. Raises BeyondThis."""
        program = self._kept.pop(body, None)
        if program is None:
            if is_beyond(body):
                raise BeyondThis(f"it asks for what tq {__version__} does not know yet: install a newer one here")
            try:
                program = Program(codec.loads(body, Body), self._base)
            except ProtocolError as error:
                program = Program(Body((), b"/"), self._base)
                program.flaw = f"the task's body cannot be read: {error}"
            if len(self._kept) >= _programs_max:
                del self._kept[next(iter(self._kept))]
        self._kept[body] = program
        return program
