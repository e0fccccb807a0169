"""The same request once more: `tq rerun`, and `tq submit --like` with parts of it changed.

What was uploaded for the old job (its input, the entries of its tasks) stays where it is: the new job shares it.
"""

import os
from typing import TYPE_CHECKING

import msgspec
import typer

from tq.cli import options
from tq.cli.act import Deed, DryRun, Yes
from tq.cli.context import Context
from tq.cli.verb import Verb
from tq.client.expected import expect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tq.cli.request import Wish
    from tq.client.blocking import Client
    from tq.core import vocabulary as v

_DEED = Deed("rerun", "Submit", (), "submitted again", "", "")


def rerun(ctx: typer.Context, ids: options.Ids, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Submit jobs again, each as a new one, and print the new ids.

    Command, environment, directory, input, queue, priority and limits are those of the old job; an array runs as a
    whole. A name, a tag, `@failed` (jobs in which something failed) and `all` mean every such job, ended or not, oldest
    first. To change something: `tq submit --like ID`. To run again what failed, in the same job: `tq retry`.
    """
    from tq.cli import act, selectors
    from tq.cli.submit import deliver, print_submitted
    from tq.core import vocabulary as v

    context: Context = ctx.obj
    with context.client() as client:
        targets = selectors.targets(client, ids)
        targets.left_out.refuse()
        names = selectors.named(client, targets)
        if targets.filters and not (yes or dry_run):
            act.confirm(_DEED.word, len(names), "jobs")
        olds = _fetch_all(client, names)
        if dry_run:
            act.say(context, _DEED, v.Acted(len(olds)), dry_run=True)
            return
        done = 0
        for name, old in olds.items():
            with targets.left_out.noting(name):
                print_submitted(context, deliver(context, client, again(context, old)))
                done += 1
    if targets.filters:
        context.talk(f"tq: {done} {_DEED.done}" if olds else "tq: nothing to rerun")
    targets.left_out.refuse()


def again(context: Context, old: "v.Submit") -> "v.Submit":
    """Return the old request under a key and a trace of its own."""
    from tq.client import submission

    return msgspec.structs.replace(old, key=submission.new_key(), trace=submission.trace(context.environ))


def _fetch_all(client: "Client", names: "Iterable[str]") -> "dict[str, v.Submit]":
    """Return the requests that made jobs, by name; nothing is submitted if one of them is not there."""
    from tq.cli import selectors

    left_out, olds = selectors.LeftOut(), {}
    for name in names:
        with left_out.noting(name):
            olds[name] = fetch(client, name)
    left_out.refuse()
    return olds


def fetch(client: "Client", name: str) -> "v.Submit":
    """Return the request that made a job. Raises TaskNotFound; BadRequest for one task of an array."""
    from tq.cli import selectors
    from tq.core import vocabulary as v

    return expect(v.Requested, client.ask(v.GetRequest(selectors.single(client, name)))).submit


def lend(wish: "Wish", old: "v.Submit") -> None:
    """Give a wish without a command that of the old job, and one without inputs of its own the old columns."""
    from tq.wire import codec
    from tq.wire.body import Body

    body = codec.loads(old.body, Body)
    if not wish.command and not wish.function and body.function:
        wish.function, wish.lent_arguments = body.function, body.arguments
    elif not wish.command and not wish.function:
        wish.command = [os.fsdecode(word) for word in body.argv]
        wish.is_lent = True
    if not wish.columns and wish.array[:1] in ("", "%"):
        wish.columns, wish.has_items = body.columns, body.has_plain_entries
        wish.is_counted = old.is_array


def merged(old: "v.Submit", new: "v.Submit", wish: "Wish", given: set[str]) -> "v.Submit":
    """Return the old request with what the options in `given` say anew. `new` is what `wish` alone makes."""
    from tq.wire import codec
    from tq.wire.body import Body, dump

    was, now = codec.loads(old.body, Body), codec.loads(new.body, Body)
    if not (now.function or was.function):
        now = msgspec.structs.replace(
            now,
            cwd=now.cwd if "cwd" in given else was.cwd,
            environment=now.environment if wish.env_all else {**was.environment, **now.environment},
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
        is_shell=was.is_shell if wish.is_lent else now.is_shell,
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
    if wish.is_counted:
        kept |= {name: getattr(old, name) for name in ("size", "is_array", "array_first", "array_step", "entries_of")}
    if wish.is_counted and "array" not in given:
        kept["throttle"] = old.throttle
    if "demand" in kept:
        kept["demand"] = msgspec.structs.replace(old.demand, module=new.demand.module)
    if "stdin" not in given and not now.function:
        kept["stdin_of"] = old.stdin_of
    return msgspec.structs.replace(new, body=dump(body), **kept)


VERBS = {"rerun": Verb(rerun, ("tq rerun 42", "tq rerun last"))}
