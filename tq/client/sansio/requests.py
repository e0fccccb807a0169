"""What a program asks for, as the command `Submit`: a function with its arguments, or a program with its own. Pure but
for the directory, umask and environment of this process, which a command gets as it does from `tq submit`.

Checked here is what the server cannot see into (wire/body.py); names and numbers are checked by the server.
"""

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypedDict, TypeVar

from tq import limits
from tq.client.sansio import validate
from tq.client.sansio.function_call import pack, pack_entry
from tq.client.sansio.validate import Codes, Cut, PathLike, Signal, Texts
from tq.core import vocabulary as v
from tq.core.model.ids import is_trace
from tq.core.model.job import Demand
from tq.errors import BadRequest, TooLarge
from tq.wire import codec, output_path, placeholders
from tq.wire.body import Body, check_function, dump


class Options(TypedDict, total=False):
    """What a job may be given beside what it runs; each is as the option of `tq submit` of that name.

    `name`, `tags` to find it by, none that looks like an id; `queue` (`"default"`), `priority` (-100 to 100).
    `retries` after a failure (as the queue or the server says: 3), `crash_limit` of workers lost with it (3),
    `backoff_s` the first and the longest wait before another attempt. `retry_on`: only after these exit codes, and
    signals (`signal.SIGKILL`); `no_retry_on`: never after these. A function that raises ends with 1.
    `time_limit_s` of an attempt, `stop_signal` that stops it (`signal.SIGTERM`), `kill_after_s` from that to KILL (10).
    `if_cut`: when its worker hears no server, `"run"` on or `"stop"`. `cpus` it needs. `max_fails` of an array: with
    more failures the rest is cancelled. `at_once`: at most so many tasks of an array run. `hold`: nothing starts before
    a release. `key`: the same key makes the same job, once; a random one else. `trace`: the W3C traceparent that the
    tasks get as TRACEPARENT; that of this process's environment else.
    """

    name: str
    tags: Texts
    queue: str
    priority: int
    retries: int
    crash_limit: int
    backoff_s: tuple[float, float]
    retry_on: Codes
    no_retry_on: Codes
    time_limit_s: float
    stop_signal: Signal
    kill_after_s: float
    if_cut: Cut
    cpus: float
    max_fails: int
    at_once: int
    hold: bool
    key: str
    trace: str


class CommandOptions(Options, total=False):
    """What a job that runs a program may be given, too.

    It runs in the directory `cwd` (this one), with the variables `env` beside the few that every task gets, and reads
    `stdin`, at most 4 MiB. `tmpdir`: each attempt gets an empty directory, TQ_TMPDIR. `stdout` and `stderr` name files
    on the worker's host that take its output, as `--stdout` does (`%t` the task, `%n` the attempt).
    """

    cwd: PathLike
    env: Mapping[str, str]
    stdin: bytes
    tmpdir: bool
    stdout: PathLike
    stderr: PathLike


class Asked(NamedTuple):
    """A request, what must be uploaded before it, and the entries of an array's tasks, which are uploaded, too."""

    submit: v.Submit
    pieces: Sequence[v.Upload] = ()
    entries: Iterable[bytes] | None = None


Word = str | bytes | os.PathLike[str]
_T = TypeVar("_T", str, int)
_OPTIONS: Final = Options.__annotations__
_COMMAND_OPTIONS: Final = CommandOptions.__annotations__
_OF_ARRAYS: Final = frozenset({"max_fails", "at_once"})


def check_id(id: object) -> str:  # noqa: A002 - the word that everybody uses
    """Return the id of a job or task, or raise BadRequest for what is none; whether there is one the server says."""
    if not isinstance(id, str) or not validate.is_text(id):
        raise BadRequest(
            f"an id is text, and not {validate.shown(id)}", hint='as in client.job("42"), or "43.7" for a task'
        )
    return id


def function(name: str, positional: Sequence[Any], named: Mapping[str, Any] | None, options: Options) -> Asked:
    """Return the request to call a function once. Raises BadRequest or TooLarge."""
    return Asked(_call(name, positional, named, options))


def function_for_each(
    name: str, positional: Sequence[Any], named: Mapping[str, Any] | None, options: Options, items: Iterable[Any]
) -> Asked:
    """Return the request to call a function with each of the items as its last argument."""
    submit = _call(name, positional, named, options, columns=1)
    room = placeholders.entry_bytes_max(codec.loads(submit.body, Body).argv, len(submit.body))
    return Asked(submit, entries=(pack_entry(item, room) for item in _iterated(items)))


def command(argv: Sequence[Word], options: CommandOptions) -> Asked:
    """Return the request to run a program once. Raises BadRequest or TooLarge."""
    return Asked(*_program(argv, options))


def command_for_each(argv: Sequence[Word], options: CommandOptions, items: Iterable[Word]) -> Asked:
    """Return the request to run a program with each of the items in the place of `{}`."""
    submit, pieces = _program(argv, options, columns=1)
    body = codec.loads(submit.body, Body)
    placeholders.check(body.argv, 1)
    room = placeholders.entry_bytes_max(body.argv, len(submit.body))
    return Asked(submit, pieces, (_entry(item, room) for item in _iterated(items)))


def _call(
    name: str, positional: Sequence[Any], named: Mapping[str, Any] | None, options: Options, columns: int = 0
) -> v.Submit:
    module = _module(name)
    _check(options, _OPTIONS, is_array=columns > 0)
    fields: dict[str, Any] = {"argv": (), "cwd": b"", "function": name, "arguments": pack(positional, named)}
    return _submit({**fields, "columns": columns, "has_plain_entries": columns > 0}, module, options)


def _program(argv: Sequence[Word], options: CommandOptions, columns: int = 0) -> tuple[v.Submit, list[v.Upload]]:
    is_array = columns > 0
    _check(options, _COMMAND_OPTIONS, is_array=is_array)
    key, stdin = options.get("key") or new_key(), options.get("stdin", b"")
    if len(stdin) > limits.stdin_bytes_max:
        raise TooLarge(
            f"the input has {len(stdin)} bytes; stdin_bytes_max is {limits.stdin_bytes_max}",
            hint="pass the name of a file",
        )
    pieces = cut_input(key, stdin)
    fields: dict[str, Any] = {
        "argv": _words(argv),
        "cwd": os.path.abspath(_bytes(options.get("cwd", b""), "cwd")),  # noqa: PTH100 - bytes that are no UTF-8 stay
        "environment": {name: _bytes(value, f"the variable {name}") for name, value in options.get("env", {}).items()},
        "stdin": b"" if pieces else stdin,
        "umask": umask(),
        "columns": columns,
        "has_tmpdir": options.get("tmpdir", False),
        **{stream: _output(options, stream, is_array=is_array) for stream in ("stdout", "stderr")},
    }
    return _submit(fields, "", {**options, "key": key}, stdin_key=pieces[0].key if pieces else ""), pieces


def _module(function: object) -> str:
    """Return the module of a function's name, or raise BadRequest."""
    if isinstance(function, str):
        return check_function(function)
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    hint = f'write its name as text, "{name}"'
    try:
        if check_function(name) == "__main__":
            hint = "put it into a module that a worker allows, and write its name as text"
    except BadRequest as nameless:
        hint = nameless.hint
    raise BadRequest(f"a function is named, and not given itself: {validate.shown(function)}", hint=hint)


def _iterated(items: Any) -> Iterable[Any]:
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise BadRequest(f"the items are a list, or whatever has an end, and not {validate.shown(items)}")
    return items


def _words(argv: Any) -> tuple[bytes, ...]:
    if isinstance(argv, str | bytes) or not isinstance(argv, Iterable):
        raise BadRequest("a command is a list of words", hint='write ["make", "test"]; a shell: ["sh", "-c", "…"]')
    return tuple(_bytes(word, "a word of a command") for word in argv)


def _bytes(value: Any, what: str) -> bytes:
    try:
        return os.fsencode(value)
    except (TypeError, UnicodeEncodeError):
        raise BadRequest(f"{what} is text, and not {validate.shown(value)}", hint="write str(…) around it") from None


def _output(options: CommandOptions, stream: str, *, is_array: bool) -> bytes:
    path = _bytes(options.get(stream, b""), stream)
    if path:
        output_path.check(path, stream, is_array=is_array)
    return path


def _entry(item: Any, bytes_max: int) -> bytes:
    entry = _bytes(item, "an item for a command")
    if b"\0" in entry:
        raise BadRequest("an item for a command contains a NUL byte")
    if len(entry) > bytes_max:
        raise TooLarge(f"an item has {len(entry)} bytes; beside this command there is room for {bytes_max}")
    return entry


def _check(options: Mapping[str, Any], known: Mapping[str, Any], *, is_array: bool) -> None:
    if unknown := set(options) - set(known):
        raise TypeError(f"there is no option {min(unknown)!r}; there are {', '.join(known)}")
    validate.check(options, known)
    if not is_array and _OF_ARRAYS & set(options):
        raise BadRequest("max_fails and at_once are of a job with several tasks", hint="leave them out")
    if options.get("stop_signal", signal.SIGTERM) not in signal.valid_signals():
        raise BadRequest(f"stop_signal {options['stop_signal']} is not a signal", hint="write signal.SIGINT")


def _submit(fields: Mapping[str, Any], module: str, options: Mapping[str, Any], *, stdin_key: str = "") -> v.Submit:
    time_limit_ms = validate.ms(options.get("time_limit_s", 0.0), "time_limit_s")
    if "time_limit_s" in options and not time_limit_ms:  # which would be none at all
        raise BadRequest("time_limit_s must be longer than nothing", hint="leave it out for no limit")
    body = dump(
        Body(
            **fields,
            time_limit_ms=time_limit_ms,
            kill_after_ms=validate.ms(options.get("kill_after_s", limits.kill_after_ms / 1_000), "kill_after_s"),
            stop_signal=int(options.get("stop_signal", signal.SIGTERM)),
            stops_when_cut=options.get("if_cut") == "stop",
        )
    )
    if len(body) > limits.body_bytes_max:
        raise TooLarge(f"what it is called with has {len(body)} bytes; body_bytes_max is {limits.body_bytes_max}")
    first, longest = options.get("backoff_s", tuple(ms / 1_000 for ms in limits.backoff_ms))
    return v.Submit(
        key=options.get("key") or new_key(),
        body=body,
        name=options.get("name", ""),
        tags=_listed(options.get("tags", ())),
        queue=options.get("queue", "default"),
        priority=options.get("priority", 0),
        demand=Demand(cpus_milli=round(options.get("cpus", 0.0) * 1_000), module=module),
        is_array=fields.get("columns", 0) > 0,
        retries=options.get("retries", -1),
        crash_limit=options.get("crash_limit", limits.crash_limit),
        backoff_ms=(validate.ms(first, "backoff_s"), validate.ms(longest, "backoff_s")),
        retry_on=_codes(options.get("retry_on", ())),
        no_retry_on=_codes(options.get("no_retry_on", ())),
        trace=options["trace"] if "trace" in options else trace(os.environ),
        max_fails=options.get("max_fails", -1),
        throttle=options.get("at_once", 0),
        hold=options.get("hold", False),
        stdin_key=stdin_key,
    )


def _codes(codes: Codes) -> tuple[int, ...]:
    """Return exit codes as they are, a signal N as -N."""
    return tuple(dict.fromkeys(-code if isinstance(code, signal.Signals) else code for code in _listed(codes)))


def _listed(values: Iterable[_T]) -> tuple[_T, ...]:
    """Return values in an order that is the same in every process, or a key would find another request."""
    return tuple(sorted(values) if isinstance(values, set | frozenset) else values)


def new_key() -> str:
    """Return a key that nobody else has."""
    return os.urandom(16).hex()


def trace(environ: Mapping[str, str]) -> str:
    """Return the trace that this program's caller is in, "" for none."""
    text = environ.get("TRACEPARENT", "")
    return text if is_trace(text) else ""


def umask() -> int:
    """Return the umask of this process. It is looked up: to set it, and back, is seen by every other thread."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))
    except (OSError, StopIteration, ValueError):  # no such file, or a kernel that does not say it
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


def cut_input(key: str, stdin: bytes) -> list[v.Upload]:
    """Cut a large input into uploads, none where it is small. Their key follows from the request: a repeat is one."""
    if len(stdin) <= limits.stdin_inline_bytes_max:
        return []
    from hashlib import sha256

    upload = "in." + sha256(key.encode() + b"\0" + stdin).hexdigest()[:32]
    step = limits.piece_bytes_max
    return [v.Upload(upload, offset, stdin[offset : offset + step]) for offset in range(0, len(stdin), step)]
