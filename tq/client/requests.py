"""What a program asks for, as the command `Submit`: a function with its arguments, or a program with its own. Pure but
for the directory, umask and environment of this process, which a command gets as it does from `tq submit`.

Checked here is what the server cannot see into (wire/body.py); names and numbers are checked by the server.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict

from tq import limits
from tq.client.call import pack
from tq.core import vocabulary as v
from tq.core.job import Demand
from tq.errors import BadRequest, TooLarge
from tq.wire import codec
from tq.wire.body import Body, check_function


class Options(TypedDict, total=False):
    """What a job may be given beside what it runs; each is as the option of `tq submit` of that name.

    `name`, `tags` to find it by, none that looks like an id; `queue` (`"default"`), `priority` (-100 to 100).
    `retries` after a failure (as the queue or the server says: 3), `crash_limit` of workers lost with it (3),
    `backoff_s` the first and the longest wait before another attempt.
    `time_limit_s` of an attempt, `kill_after_s` from TERM to KILL (10). `cpus` it needs. `max_fails` of an array: with
    more failures the rest is cancelled. `at_once`: at most so many tasks of an array run. `hold`: nothing starts before
    a release. `key`: the same key makes the same job, once; a random one else.
    """

    name: str
    tags: Sequence[str]
    queue: str
    priority: int
    retries: int
    crash_limit: int
    backoff_s: tuple[float, float]
    time_limit_s: float
    kill_after_s: float
    cpus: float
    max_fails: int
    at_once: int
    hold: bool
    key: str


_S_MAX: Final = 100 * 365 * 86_400.0
_NUMBER_MAX: Final = 1e15  # in thousandths it is still an int of 64 bits
_INT_MAX: Final = 2**63 - 1
_OPTIONS: Final = Options.__annotations__


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _INT_MAX


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _NUMBER_MAX


# Of each annotation in Options: what fits it, and what that is called. A server that cannot read a message ends the
# connection, which looks like one that broke: what has the wrong type must not get that far.
_SHAPES: Final[Mapping[Any, tuple[Callable[[Any], bool], str]]] = {
    str: (_is_text, "text"),
    int: (_is_int, "an int of 64 bits"),
    float: (_is_number, "a number"),
    bool: (lambda value: isinstance(value, bool), "True or False"),
    Sequence[str]: (
        lambda value: isinstance(value, list | tuple | set | frozenset) and all(map(_is_text, value)),
        "a list of texts",
    ),
    tuple[float, float]: (
        lambda value: isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value)),
        "two numbers, the first and the longest wait",
    ),
}


def check_id(id: object) -> str:  # noqa: A002 - the word that everybody uses
    """Return the id of a job or task, or raise BadRequest for what is none; whether there is one the server says."""
    if not isinstance(id, str) or not _is_text(id):
        raise BadRequest(
            f"an id is text, and not {repr(id)[:100]}", hint='as in client.job("42"), or "43.7" for a task'
        )
    return id


def _module(function: object) -> str:
    """Return the module of a function's name, or raise BadRequest."""
    if isinstance(function, str):
        return check_function(function)
    name = f"{getattr(function, '__module__', 'MODULE')}:{getattr(function, '__qualname__', 'FUNCTION')}"
    raise BadRequest(
        f"a function is named, and not given itself: {repr(function)[:100]}", hint=f'write its name as text, "{name}"'
    )


def function(name: str, positional: Sequence[Any], named: Mapping[str, Any], options: Options) -> v.Submit:
    """Return the request to call a function once. Raises BadRequest or TooLarge."""
    module = _module(name)
    return _submit({"argv": (), "cwd": b"", "function": name, "arguments": pack(positional, named)}, module, options)


def function_for_each(name: str, positional: Sequence[Any], named: Mapping[str, Any], options: Options) -> v.Submit:
    """Return the request to call a function with each entry that is uploaded for it, as its last argument."""
    module = _module(name)
    fields = {"argv": (), "cwd": b"", "function": name, "arguments": pack(positional, named)}
    return _submit({**fields, "columns": 1, "has_plain_entries": True}, module, options)


def command(
    argv: Sequence[str | bytes | os.PathLike[str]],
    *,
    cwd: str | os.PathLike[str] | None,
    env: Mapping[str, str] | None,
    stdin: bytes,
    options: Options,
) -> v.Submit:
    """Return the request to run a program. Raises BadRequest or TooLarge."""
    if not isinstance(stdin, bytes):
        raise BadRequest(f"the input is bytes, and not {type(stdin).__name__}", hint='as in stdin="text".encode()')
    if len(stdin) > limits.stdin_inline_bytes_max:
        raise TooLarge(
            f"the input has {len(stdin)} bytes; stdin_inline_bytes_max is {limits.stdin_inline_bytes_max}",
            hint="pass the name of a file",
        )
    mask = os.umask(0o022)
    os.umask(mask)
    place = os.path.abspath(b"" if cwd is None else _bytes(cwd, "cwd"))  # noqa: PTH100 - bytes that are no UTF-8 stay
    fields = {"argv": _words(argv), "cwd": place, "environment": _environment(env or {})}
    return _submit({**fields, "stdin": stdin, "umask": mask}, "", options)


def _words(argv: Any) -> tuple[bytes, ...]:
    if isinstance(argv, str | bytes) or not isinstance(argv, Iterable):
        raise BadRequest("a command is a list of words", hint='write ["make", "test"]; a shell: ["sh", "-c", "…"]')
    return tuple(_bytes(word, "a word of a command") for word in argv)


def _environment(env: Any) -> dict[str, bytes]:
    if not isinstance(env, Mapping) or not all(map(_is_text, env)):
        raise BadRequest(f"env is a map of texts by name, and not {repr(env)[:100]}", hint='as in env={"LANG": "C"}')
    return {name: _bytes(value, f"the variable {name}") for name, value in env.items()}


def _bytes(value: Any, what: str) -> bytes:
    try:
        return os.fsencode(value)
    except (TypeError, UnicodeEncodeError):
        raise BadRequest(f"{what} is text, and not {repr(value)[:100]}", hint="write str(…) around it") from None


def _submit(fields: Mapping[str, Any], module: str, options: Options) -> v.Submit:
    if unknown := set(options) - set(_OPTIONS):
        raise TypeError(f"there is no option {min(unknown)!r}; there are {', '.join(_OPTIONS)}")
    for option, value in options.items():
        fits, shape = _SHAPES[_OPTIONS[option]]
        if not fits(value):
            raise BadRequest(
                f"{option} cannot be {repr(value)[:100]}", hint=f"it is {shape}; leave it out for the usual"
            )
    is_array = fields.get("columns", 0) > 0
    if not is_array and {"max_fails", "at_once"} & set(options):
        raise BadRequest("max_fails and at_once are of a job with several tasks", hint="leave them out")
    time_limit_ms = _ms(options.get("time_limit_s", 0.0), "time_limit_s")
    if "time_limit_s" in options and not time_limit_ms:  # which would be none at all
        raise BadRequest("time_limit_s must be longer than nothing", hint="leave it out for no limit")
    body = codec.dumps(
        Body(
            **fields,
            time_limit_ms=time_limit_ms,
            kill_after_ms=_ms(options.get("kill_after_s", limits.kill_after_ms / 1_000), "kill_after_s"),
        )
    )
    if len(body) > limits.body_bytes_max:
        raise TooLarge(f"what it is called with has {len(body)} bytes; body_bytes_max is {limits.body_bytes_max}")
    first, longest = options.get("backoff_s", tuple(ms / 1_000 for ms in limits.backoff_ms))
    return v.Submit(
        key=options.get("key") or os.urandom(16).hex(),
        body=body,
        name=options.get("name", ""),
        tags=tuple(options.get("tags", ())),
        queue=options.get("queue", "default"),
        priority=options.get("priority", 0),
        demand=Demand(cpus_milli=round(options.get("cpus", 0.0) * 1_000), module=module),
        is_array=is_array,
        retries=options.get("retries", -1),
        crash_limit=options.get("crash_limit", limits.crash_limit),
        backoff_ms=(_ms(first, "backoff_s"), _ms(longest, "backoff_s")),
        max_fails=options.get("max_fails", -1),
        throttle=options.get("at_once", 0),
        hold=options.get("hold", False),
    )


def _ms(time_s: float, what: str) -> int:
    if not 0 <= time_s <= _S_MAX:
        raise BadRequest(f"{what} of {time_s} s is out of range", hint="seconds, from 0 to a hundred years")
    return round(time_s * 1_000)
