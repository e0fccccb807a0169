"""The request that made a job, for a new one: as it was (`tq rerun`), or with parts changed (`tq submit --like`).

What was uploaded for the old job (its input, the entries of its tasks) stays where it is: the new job shares it.
"""

import os
from typing import TYPE_CHECKING

import msgspec

from tq.cli.frame.context import Context
from tq.client.sansio.documents import expect

if TYPE_CHECKING:
    from tq.cli.submitting.submit_options import SubmitOptions
    from tq.client.drivers.blocking import Client
    from tq.core import vocabulary as v


def fetch(client: "Client", name: str) -> "v.Submit":
    """Return the request that made a job. Raises TaskNotFound; BadRequest for one task of an array."""
    from tq.cli.showing import selectors
    from tq.core import vocabulary as v

    return expect(v.Requested, client.ask(v.GetRequest(selectors.single(client, name)))).submit


def again(context: Context, old: "v.Submit") -> "v.Submit":
    """Return the old request under a key and a trace of its own."""
    from tq.client.sansio import requests

    return msgspec.structs.replace(old, key=requests.new_key(), trace=requests.trace(context.environ))


def lend(wanted: "SubmitOptions", old: "v.Submit") -> None:
    """Give options without a command that of the old job, and one without inputs of its own the old columns."""
    from tq.wire import codec
    from tq.wire.body import Body

    body = codec.loads(old.body, Body)
    if not wanted.command and not wanted.function and body.function:
        wanted.function, wanted.lent_arguments = body.function, body.arguments
    elif not wanted.command and not wanted.function:
        wanted.command = [os.fsdecode(word) for word in body.argv]
        wanted.is_lent = True
    if not wanted.columns and wanted.array[:1] in ("", "%"):
        wanted.columns, wanted.has_items = body.columns, body.has_plain_entries
        wanted.is_counted = old.is_array


def merged(old: "v.Submit", new: "v.Submit", wanted: "SubmitOptions", given: set[str]) -> "v.Submit":
    """Return the old request with what the options in `given` say anew. `new` is what `wanted` alone makes."""
    from tq.wire import codec
    from tq.wire.body import Body, dump

    was, now = codec.loads(old.body, Body), codec.loads(new.body, Body)
    if not (now.function or was.function):
        now = msgspec.structs.replace(
            now,
            cwd=now.cwd if "cwd" in given else was.cwd,
            environment=now.environment if wanted.env_all else {**was.environment, **now.environment},
            stdin=now.stdin if "stdin" in given else was.stdin,
        )
    body = msgspec.structs.replace(
        now,
        time_limit_ms=now.time_limit_ms if "time_limit" in given else was.time_limit_ms,
        kill_after_ms=now.kill_after_ms if "kill_after" in given else was.kill_after_ms,
        stops_when_cut=now.stops_when_cut if "if_cut" in given else was.stops_when_cut,
        stdout=now.stdout or was.stdout,
        stderr=now.stderr or was.stderr,
        has_tmpdir=now.has_tmpdir or was.has_tmpdir,
        umask=was.umask,
        stop_signal=now.stop_signal if "stop_signal" in given else was.stop_signal,
        is_shell=was.is_shell if wanted.is_lent else now.is_shell,
    )
    kept = {
        field: getattr(old, field)
        for option, field in (
            ("name", "name"), ("tag", "tags"), ("queue", "queue"), ("priority", "priority"), ("cpus", "demand"),
            ("max_fails", "max_fails"), ("retries", "retries"), ("crash_limit", "crash_limit"),
            ("backoff", "backoff_ms"), ("retry_on", "retry_on"), ("no_retry_on", "no_retry_on"),
        )
        if option not in given
    }  # fmt: skip
    if wanted.is_counted:
        kept |= {name: getattr(old, name) for name in ("size", "is_array", "array_first", "array_step", "entries_of")}
    if wanted.is_counted and not {"array", "at_once"} & given:
        kept["throttle"] = old.throttle
    if "demand" in kept:
        kept["demand"] = msgspec.structs.replace(old.demand, module=new.demand.module)
    if "stdin" not in given and not now.function:
        kept["stdin_of"] = old.stdin_of
    return msgspec.structs.replace(new, body=dump(body), **kept)
