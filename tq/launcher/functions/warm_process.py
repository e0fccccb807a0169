"""The program of a process that calls functions: started by the launcher's pool, it serves one call after the other.

Modules are imported once and stay. Whatever a function does, the answer is one `Returned`: its value as plain data, or
what became of it instead. What takes the whole process with it (a crash, `os._exit`) the launcher sees as its end.

Between two calls the directory and the `TQ_…` variables are set anew; all else that a function changes stays for the
next ones. A process that a function leaves behind is killed before its call is answered: this process is a subreaper,
so whatever descends from it is its child in the end. The standard streams are the launcher's pipes, which it reads for
the attempt that runs; output is complete before the answer.
"""

import fcntl
import gc
import importlib
import inspect
import os
import resource
import sys
import termios
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from time import perf_counter_ns, time
from types import ModuleType, NoneType, TracebackType
from typing import Any, Final

import msgspec

from tq import limits
from tq.core.model.task import Cause
from tq.launcher import containment
from tq.launcher.functions.calls import Calls, Found, Hold, Keep, Ready, Returned, Setup, encode, words
from tq.launcher.program import Names, Own
from tq.wire import plain

_READ_BYTES: Final = 32 * 1024  # beyond 128 KiB each read maps and unmaps memory: half of the time of a short call
_FD_MIN: Final = 100  # where no program looks for descriptors of its own
_LEFT_S_MAX: Final = 5.0
# What os.environb keeps its values in: a look there costs a tenth. Under another name, the long way is as right.
_ENVIRONMENT: Final[MutableMapping[bytes, bytes]] = getattr(os.environb, "_data", os.environb)
_NOTHING: Final = bytes(4)
_PAGE_KIB: Final = resource.getpagesize() // 1024
_BEGAN_S: Final = time()
_UNCHANGING: Final = frozenset({NoneType, bool, int, float, str, bytes})
_EXIT: Final = Cause.EXIT  # a member costs much more to look up than a global name
FAILED: Final = 1
NOT_FOUND: Final = 127
_BOOT: Final = "import sys; sys.path[1:1] = sys.argv[1:]; from tq.launcher.functions.warm_process import main; main()"


def command(libraries: Sequence[str]) -> list[str]:
    """Return the arguments that start such a process, its channel as standard input, and where tq lies.

    Isolated: neither PYTHON* variables nor the user's directory change it; where to import from comes with `Setup`.
    """
    return [sys.executable, "-I", "-X", "utf8", "-c", _BOOT, *libraries]


class _Unknown(Exception):
    """There is no such function; the text says what is missing."""


class _Given(msgspec.Struct, frozen=True, gc=False):
    """A call that waits: its number, the message that it came with, and what it has of its own."""

    number: int
    calls: Calls
    names: Names
    own: Own


class _Outcome(msgspec.Struct, frozen=True, gc=False):
    cause: Cause
    code: int = 0
    value: bytes = b""
    error: str = ""


class Service:
    """Serves one channel until it ends."""

    def __init__(self, channel: int) -> None:
        self._channel: Final = channel
        self._pid: Final = os.getpid()
        self._home: Final = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._waiting: Final[deque[_Given]] = deque()
        self._is_holding = False
        self._found: Final[dict[str, tuple[Callable[..., Any], bool]]] = {}
        self._environment: dict[bytes, bytes] = {}
        self._arguments: tuple[bytes, list[Any], dict[str, Any]] = b"", [], {}  # the last that nobody can change
        self._unread: Final = bytearray(4)
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self._calls = 0
        self._kib_max = 0

    def serve(self) -> None:
        """Answer calls until the launcher is gone."""
        buffer = bytearray()
        self._send(Ready())
        while True:
            while self._waiting and not self._is_holding and not self._has_word():
                answer = self._answer(self._waiting.popleft())
                self._is_holding = answer.has_output or answer.is_spent
                self._send(answer)
            if not (data := os.read(self._channel, _READ_BYTES)):
                return
            buffer += data
            for message in words(buffer):
                self._take(message)

    def _take(self, message: Setup | Calls | Hold | Keep) -> None:
        match message:
            case Calls():
                names = Names(message.names, is_array=message.is_array, has_text=not message.has_plain_entries)
                numbered = enumerate(message.each, message.first)
                self._waiting.extend([_Given(number, message, names, own) for number, own in numbered])
            case Hold():
                self._is_holding = True
            case Keep():
                while self._waiting and self._waiting[-1].number > message.number:
                    self._waiting.pop()
                self._is_holding = False
            case Setup():
                sys.path[:] = dict.fromkeys([*map(os.fsdecode, message.path), *sys.path])

    def _has_word(self) -> bool:
        """Whether the launcher has said something that was not read yet (calls.py says why that is asked)."""
        fcntl.ioctl(self._channel, termios.FIONREAD, self._unread)
        return self._unread != _NOTHING

    def _send(self, message: Ready | Found | Returned) -> None:
        frame = encode(message)
        while (written := os.write(self._channel, frame)) < len(frame):
            frame = frame[written:]

    def _answer(self, call: _Given) -> Returned:
        self._set_environment(call.names.of(*call.own))
        known = len(self._found)
        before = self._usage
        begin_ns = perf_counter_ns()
        outcome = self._outcome(call)
        run_us = (perf_counter_ns() - begin_ns) // 1_000
        if os.getpid() != self._pid:
            os._exit(outcome.code & 0xFF)  # a fork that ran on to here: the call is the parent's
        after = self._usage = resource.getrusage(resource.RUSAGE_SELF)
        is_broken = self._tidy()
        return Returned(
            call.number,
            run_us,
            outcome.cause,
            outcome.code,
            outcome.value,
            outcome.error,
            int((after.ru_utime - before.ru_utime) * 1e6 + 0.5),
            int((after.ru_stime - before.ru_stime) * 1e6 + 0.5),
            after.ru_maxrss,
            self._has_output(),
            self._is_spent(after.ru_maxrss, is_first=len(self._found) > known) or is_broken,
        )

    # ------------------------------------------------------------ the call

    def _outcome(self, call: _Given) -> _Outcome:
        try:
            function, is_async = self._find(call)
            positional, named = self._unpacked(call.calls.arguments)
            last = _last(call)
            if is_async:
                import trio  # only who has such functions pays for it

                returned = trio.run(partial(function, *positional, *last, **named))
            else:
                returned = function(*positional, *last, **named)
        except _Unknown as unknown:
            return _Outcome(Cause.UNKNOWN_FUNCTION, NOT_FOUND, error=str(unknown))
        except SystemExit as wish:
            return _exited(wish)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the task's
            return _raised(error)
        try:
            return _Outcome(_EXIT, 0, plain.dumps(returned, limits.result_bytes_max, "result_bytes_max"))
        except Exception as error:  # noqa: BLE001 - NotPlain, or what an object of theirs raises when it is looked at
            why = _start_of(_text_of(error), limits.exception_message_bytes_max)
            return _Outcome(Cause.BAD_RESULT, FAILED, error=f"cannot send what {call.calls.function} returned: {why}")

    def _unpacked(self, packed: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments that all calls of a message have, unpacked once where no call can change them."""
        known, positional, named = self._arguments
        if packed != known:
            positional, named = plain.loads(packed)
            if _UNCHANGING.issuperset(map(type, positional)) and _UNCHANGING.issuperset(map(type, named.values())):
                self._arguments = packed, positional, named
        return positional, named

    def _find(self, call: _Given) -> tuple[Callable[..., Any], bool]:
        name = call.calls.function
        known = self._found.get(name)
        if known is None:
            function = find(name)
            known = self._found[name] = function, inspect.iscoroutinefunction(function)
            self._send(Found(call.number))
        return known

    # ------------------------------------------------------------ between calls

    def _set_environment(self, environment: dict[bytes, bytes]) -> None:
        before, self._environment = self._environment, environment
        if [*before] != [*environment]:  # they come in one order (program.py)
            for name in before.keys() - environment.keys():
                os.environb.pop(name, None)
        now = _ENVIRONMENT.get  # not what the last call was given: it may have changed that
        for name, value in environment.items():
            if now(name) != value:
                os.putenv(name, value)
                _ENVIRONMENT[name] = value

    def _tidy(self) -> bool:
        """Leave nothing of a call. Return whether this process should call nothing more."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
            os.fchdir(self._home)
        except (OSError, ValueError, AttributeError):
            return True  # it closed or replaced a stream
        if not containment.reap():
            return False
        containment.kill_all_children(_LEFT_S_MAX)
        return True  # a module may have counted on what was killed

    def _has_output(self) -> bool:
        try:
            for fd in (1, 2):
                fcntl.ioctl(fd, termios.FIONREAD, self._unread)
                if self._unread != _NOTHING:
                    return True
        except OSError:
            return True  # not the pipes any more: let the launcher look
        return False

    def _is_spent(self, peak_kib: int, *, is_first: bool) -> bool:
        """Whether this process has called enough, or has grown too much since its modules were new."""
        self._calls += 1
        if is_first:
            self._kib_max = max(self._kib_max, 2 * peak_kib + limits.function_growth_bytes_max // 1024)
        if self._kib_max and peak_kib > self._kib_max and _resident_kib() > self._kib_max:
            return True
        return self._calls >= limits.function_calls_max


def find(name: str) -> Any:
    """Return what `module:qualname` names. Raises _Unknown, or what the import of the module raises."""
    module_name, _, path = name.partition(":")
    importlib.invalidate_caches()
    try:
        module = found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise _Unknown(f"there is no module {error.name} on this worker") from None
        raise
    except SystemExit as wish:  # a script: nothing was called, however well it ended
        raise ImportError(f"the module {module_name} ended with sys.exit({wish.code!r}) when it was imported") from wish
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            why = "; its file is newer than this process: start the worker anew" if _is_old(module) else ""
            raise _Unknown(f"the module {module_name} has no function {path}{why}") from None
        # Else a module that is allowed would open every one that it imports, and by its loader every file.
        if isinstance(found, ModuleType) or part.startswith("__"):
            raise _Unknown(f"{path} leads out of the module {module_name}")
    if not callable(found):
        raise _Unknown(f"{name} is not a function")
    return found


def _is_old(module: ModuleType) -> bool:
    """Whether a module may be what its file was before somebody changed it."""
    try:
        return os.stat(module.__file__ or "").st_mtime > _BEGAN_S
    except (AttributeError, OSError):  # it has none
        return False


def _last(call: _Given) -> list[Any]:
    """Return what comes behind the positional arguments."""
    _, value, _, _, entry = call.own
    if entry is None:
        return [value] if call.calls.is_array else []
    if call.calls.has_plain_entries:
        return [plain.loads(entry)]
    return [_text(column) for column in entry.split(b"\0")]


def _text(column: bytes) -> str | bytes:
    """Return a column of an entry: text, but for one that is not UTF-8."""
    try:
        return column.decode()
    except UnicodeDecodeError:
        return column


def _exited(wish: SystemExit) -> _Outcome:
    """Return what `sys.exit` means, as for a process."""
    if wish.code is None or isinstance(wish.code, int):
        code = (wish.code or 0) & 0xFF
        return _Outcome(Cause.EXIT, code, b"" if code else plain.NONE)
    _complain(f"{wish.code}\n")
    return _Outcome(Cause.EXIT, FAILED)


def _raised(error: BaseException) -> _Outcome:
    """Return an exception as data: its type, its message, its traceback, each within its bound."""
    import traceback

    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    name = _start_of(name, limits.function_chars_max)
    message = _start_of(_text_of(error), limits.exception_message_bytes_max)
    try:
        text = "".join(traceback.format_exception(kind, error, _inner(error.__traceback__)))
    except Exception:  # noqa: BLE001 - as above
        text = f"{name}: {message}\n"
    text = _end_of(text, limits.exception_traceback_bytes_max)
    _complain(text)
    value = plain.dumps(
        {"type": name, "message": message, "traceback": text}, limits.result_bytes_max, "result_bytes_max"
    )
    return _Outcome(Cause.EXCEPTION, FAILED, value, f"{name}: {message}".partition("\n")[0] if message else name)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - theirs
        return "(it has no text)"


def _inner(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the function on: how this program called it helps nobody."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _complain(text: str) -> None:
    """Write to stderr, as an interpreter that ends would."""
    try:
        sys.stderr.write(text)
    except Exception:  # noqa: BLE001 - closed or replaced; the report says it, too
        return


def _start_of(text: str, bytes_max: int) -> str:
    data = text.encode(errors="backslashreplace")
    return data.decode() if len(data) <= bytes_max else data[:bytes_max].decode(errors="ignore") + "…"


def _end_of(text: str, bytes_max: int) -> str:
    data = text.encode(errors="backslashreplace")
    return data.decode() if len(data) <= bytes_max else "…" + data[-bytes_max:].decode(errors="ignore")


def _resident_kib() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE_KIB


def main() -> None:
    """Serve the channel that is standard input, until it ends."""
    channel = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _FD_MIN)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    sys.argv = [""]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # who follows sees each line at once
    containment.name_process("tq-function")
    containment.become_subreaper()
    gc.freeze()
    Service(channel).serve()
