"""From options to the command `Submit`: what is checked here is never sent, so a wrong request stores nothing.

`run` and `submit` share it. Bounds are those of limits.py. The body is opaque to the server (wire/body.py), so only
the client can refuse an empty command or an environment of 1 MiB with a sentence that says which part is too large.
"""

import os
from collections.abc import Mapping
from typing import Final

from tq import limits
from tq.cli.frame import values
from tq.cli.submitting import entries, function_call
from tq.cli.submitting.entry_sources import Wanted
from tq.cli.submitting.submit_options import SubmitOptions
from tq.client.sansio import requests
from tq.core import vocabulary as v
from tq.core.model.job import Demand
from tq.errors import BadRequest, TooLarge
from tq.wire import codec, output_path, placeholders
from tq.wire.body import Body, check_function, dump

# --env-all passes on everything but what would hand the task the submitter's own rights.
_SECRETS: Final = frozenset({"TQ_TOKEN", "TQ_TOKEN_FILE", "TQ_JOIN"})
_SHELL: Final = "/bin/sh"


def build(wanted: SubmitOptions, environ: Mapping[str, str]) -> tuple[v.Submit, list[v.Upload]]:
    """Return the command, and the pieces of its input that must be sent before it (none when it is small).

    Raises BadRequest or TooLarge.
    """
    key = values.name(wanted.key, "key") if wanted.key else requests.new_key()
    pieces = requests.cut_input(key, wanted.stdin)
    span = _span(wanted)
    command = v.Submit(
        key=key,
        body=_body(wanted, environ, b"" if pieces else wanted.stdin),
        name=values.findable(wanted.name) if wanted.name else "",
        tags=values.tags(wanted.tags),
        queue=values.name(wanted.queue, "queue"),
        priority=values.priority(wanted.priority),
        demand=_demand(wanted),
        size=span.size,
        is_array=bool(wanted.array or wanted.columns),
        array_first=span.first,
        array_step=span.step,
        throttle=span.throttle,
        retries=-1 if wanted.retries is None else values.count(wanted.retries, "--retries"),
        crash_limit=values.count(wanted.crash_limit, "--crash-limit"),
        backoff_ms=values.backoff_ms(wanted.backoff),
        retry_on=values.codes(wanted.retry_on, "--retry-on"),
        no_retry_on=values.codes(wanted.no_retry_on, "--no-retry-on"),
        trace=requests.trace(environ),
        hold=wanted.hold,
        stdin_key=pieces[0].key if pieces else "",
        max_fails=_max_fails(wanted),
    )
    return command, pieces


def _demand(wanted: SubmitOptions) -> Demand:
    module = check_function(wanted.function) if wanted.function else ""
    return Demand(cpus_milli=values.cpus_milli(wanted.cpus) if wanted.cpus else 0, module=module)


def entries_of(command: v.Submit) -> Wanted:
    """Return how the body of this command wants its entries."""
    body = codec.loads(command.body, Body)
    room = placeholders.entry_bytes_max(body.argv, len(command.body))
    return Wanted(room, body.has_plain_entries, placeholders.highest(body.argv))


def _span(wanted: SubmitOptions) -> values.ArrayRange:
    span = _range(wanted)
    if wanted.at_once is None:
        return span
    if not (wanted.array or wanted.columns or wanted.is_counted):
        raise BadRequest("-j is of a job with several tasks", hint="leave it out; `tq queue set` bounds a queue")
    if span.throttle:
        raise BadRequest(f"--array {wanted.array} says how many run at once, and so does -j", hint="say it once")
    if wanted.at_once < 1:
        raise BadRequest(f"-j {wanted.at_once} must be at least 1", hint="leave it out for no bound")
    return span._replace(throttle=wanted.at_once)


def _range(wanted: SubmitOptions) -> values.ArrayRange:
    if wanted.columns or (wanted.is_counted and wanted.array[:1] in ("", "%")):
        return values.ArrayRange(1, 1, 1, entries.throttle(wanted.array) if wanted.array else 0)
    return values.array_range(wanted.array) if wanted.array else values.ArrayRange(1, 1, 1, 0)


def _max_fails(wanted: SubmitOptions) -> int:
    if wanted.max_fails < -1:
        raise BadRequest(f"--max-fails {wanted.max_fails}: a number of failures is not negative")
    return wanted.max_fails


def _body(wanted: SubmitOptions, environ: Mapping[str, str], stdin: bytes) -> bytes:
    if wanted.function:
        what = function_call.fields(wanted)
    else:
        what = {
            "argv": _argv(wanted),
            "cwd": _cwd(wanted.cwd),
            "environment": _environment(wanted, environ),
            "stdin": stdin,
        }
    body = Body(
        **what,
        time_limit_ms=_time_limit_ms(wanted.time_limit),
        kill_after_ms=values.duration_ms(wanted.kill_after) if wanted.kill_after else limits.kill_after_ms,
        umask=requests.umask(),
        columns=wanted.columns,
        is_shell=wanted.shell,
        stops_when_cut=_stops_when_cut(wanted.if_cut),
        has_tmpdir=wanted.tmpdir,
        stop_signal=values.stop_signal(wanted.stop_signal or "TERM", "--stop-signal"),
        stdout=_output(wanted, "stdout"),
        stderr=_output(wanted, "stderr"),
    )
    if wanted.columns and not wanted.function:
        placeholders.check(body.argv, wanted.columns)
    packed = dump(body)
    if len(packed) > limits.body_bytes_max:
        raise _too_large(body, len(packed))
    return packed


def _output(wanted: SubmitOptions, stream: str) -> bytes:
    """Return the file that is to take this stream, b"" for none."""
    path = os.fsencode(getattr(wanted, stream))
    if path:
        is_array = bool(wanted.array or wanted.columns or wanted.is_counted)
        output_path.check(path, f"--{stream}", is_array=is_array)
    return path


def _argv(wanted: SubmitOptions) -> tuple[bytes, ...]:
    if wanted.args:
        raise BadRequest("--args are those of a function", hint="write --function MODULE:NAME, or the command's own")
    words = list(wanted.command)
    if not words or not words[0].strip():
        raise BadRequest("the command is empty", hint=f"write it after --, as in `tq {wanted.verb} -- echo hello`")
    if wanted.shell and not wanted.is_lent:
        words = [_SHELL, "-c", " ".join(words)]
    if len(words) > limits.argv_items_max:
        raise TooLarge(
            f"the command has {len(words)} arguments; argv_items_max is {limits.argv_items_max}",
            hint="pass them by --stdin or in a file",
        )
    argv = tuple(os.fsencode(word) for word in words)
    for position, word in enumerate(argv):
        if b"\0" in word:
            raise BadRequest(f"argument {position} contains a NUL byte")
        if len(word) > limits.argument_bytes_max:
            raise TooLarge(
                f"argument {position} has {len(word)} bytes; argument_bytes_max is {limits.argument_bytes_max}",
                hint="pass it by --stdin or in a file",
            )
    return argv


def _environment(wanted: SubmitOptions, environ: Mapping[str, str]) -> dict[str, bytes]:
    chosen = {name: value for name, value in environ.items() if name not in _SECRETS} if wanted.env_all else {}
    for text in wanted.env:
        name, equals, value = text.partition("=")
        values.variable(name)
        if not equals and name not in environ:
            raise BadRequest(f"the environment has no {name} to pass on", hint=f"write --env {name}=VALUE")
        chosen[name] = value if equals else environ[name]
    if len(chosen) > limits.environment_items_max:
        raise TooLarge(
            f"the environment has {len(chosen)} variables; environment_items_max is {limits.environment_items_max}",
            hint="choose some with --env NAME",
        )
    for name, value in chosen.items():
        if "\0" in value:
            raise BadRequest(f"the environment variable {name} contains a NUL byte")
        if len(name) + len(os.fsencode(value)) + 1 > limits.argument_bytes_max:
            raise TooLarge(
                f"the environment variable {name} has {len(value)} characters; "
                f"argument_bytes_max is {limits.argument_bytes_max}",
                hint="pass it by --stdin or in a file",
            )
    return {_plain(name): os.fsencode(value) for name, value in chosen.items()}


def _plain(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"the name {name!r} of an environment variable is not UTF-8") from None
    return name


def _cwd(text: str) -> bytes:
    try:
        path = os.path.abspath(os.path.expanduser(text or "."))  # noqa: PTH100, PTH111 - bytes that are no UTF-8 stay
    except FileNotFoundError:
        raise BadRequest("the current directory no longer exists", hint="choose another with --cwd") from None
    if "\0" in path:
        raise BadRequest("the working directory contains a NUL byte")
    return os.fsencode(path)


def _time_limit_ms(text: str) -> int:
    if not text:
        return 0
    limit_ms = values.duration_ms(text)
    if limit_ms < 1:
        raise BadRequest(f"the time limit {text!r} must be longer than nothing", hint="leave it out for no limit")
    return limit_ms


def _stops_when_cut(text: str) -> bool:
    if text not in {"run", "stop"}:
        raise BadRequest(f"--if-cut {text!r}: it may run on, or stop", hint="--if-cut stop")
    return text == "stop"


def _too_large(body: Body, size: int) -> TooLarge:
    argv = sum(map(len, body.argv))
    environment = sum(len(name) + len(value) for name, value in body.environment.items())
    what, hint = "the command and its environment have", "pass some of it by --stdin or in a file"
    if environment > argv:
        what, hint = f"the environment has {environment} bytes; with the command", "choose variables with --env NAME"
    elif argv > environment:
        what = f"the command has {argv} bytes; with the environment"
    return TooLarge(f"{what} {size} bytes, and body_bytes_max is {limits.body_bytes_max}", hint=hint)
