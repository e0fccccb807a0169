"""`tq submit`: make a job; its id alone on stdout means that it is on disk."""

from typing import TYPE_CHECKING, Annotated

import typer

from tq.cli import options
from tq.cli.context import Context
from tq.cli.verb import Verb
from tq.errors import BadRequest

if TYPE_CHECKING:
    from tq.cli.request import Wish
    from tq.client.blocking import Client
    from tq.core import vocabulary as v


def submit(
    ctx: typer.Context,
    command: options.Command = None,
    name: options.Name = "",
    tag: options.Tags = None,
    queue: options.Queue = "default",
    priority: options.Priority = 0,
    cwd: options.Cwd = "",
    env: options.Env = None,
    env_all: options.EnvAll = False,
    shell: options.Shell = False,
    time_limit: options.TimeLimit = "",
    kill_after: options.KillAfter = "",
    cpus: options.Cpus = "",
    stdin: Annotated[bool, typer.Option("--stdin", help="Store this program's input as the task's")] = False,
    key: Annotated[
        str, typer.Option("--key", metavar="KEY", help="The same key makes the same job, once", show_default=False)
    ] = "",
    array: Annotated[
        str,
        typer.Option(
            "--array", metavar="A-B[:STEP][%N]", help="One task for each number, in TQ_MEMBER", show_default=False
        ),
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end and exit as the task did")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Show its output as it comes, and wait")] = False,
    exit_code: options.ExitCode = "any",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all and show it; submit nothing")] = False,
) -> None:
    """Submit a command and print its job's id.

    The id is printed when the job is on disk: from then on it survives whatever happens to this program, the server
    or a worker. `--` ends the options; the rest is the command, word by word, and no shell reads it.
    """
    from tq.cli import inputs, request
    from tq.cli.request import Wish

    if follow and array:
        raise BadRequest("--follow shows one task", hint="use --wait, and `tq logs JOB.MEMBER`")
    wish = Wish(
        command or [], name, tag or [], queue, priority, cwd, env or [], env_all, shell, time_limit, kill_after, key,
        array, cpus,
    )  # fmt: skip
    context: Context = ctx.obj
    request.build(wish, context.environ)  # a wrong request is refused before its input is read
    wish.stdin = inputs.read() if stdin else b""
    if dry_run:
        show_plan(context, wish)
        return
    with context.client() as client:
        submitted = send(context, client, wish)
        print_submitted(context, submitted)
        if wait or follow:
            raise typer.Exit(finish(context, client, submitted.id, is_followed=follow, way=exit_code))


def send(context: Context, client: "Client", wish: "Wish") -> "v.Submitted":
    """Check, send and return the answer. A large input goes first, in pieces."""
    from tq.cli import request
    from tq.core import vocabulary as v
    from tq.errors import ProtocolError

    command, pieces = request.build(wish, context.environ)
    hint = request.hint_for(wish)
    if hint:
        context.talk(hint)
    for piece in pieces:
        client.ask(piece)
    submitted = client.ask(command)
    if not isinstance(submitted, v.Submitted):
        raise ProtocolError(f"the server answered Submit with {type(submitted).__name__}")
    if submitted.warning:
        from tq.cli import escape

        context.talk(f"tq: {escape.line(submitted.warning)}")
    return submitted


def print_submitted(context: Context, submitted: "v.Submitted") -> None:
    """Print the id alone, or the object of -o json."""
    from tq.cli import output

    if context.format in {"json", "jsonl"}:
        output.print_json({"id": submitted.id, "existed": submitted.existed, "warning": submitted.warning or None})
    else:
        output.print_line(submitted.id)
        return
    import sys

    sys.stdout.flush()


def show_plan(context: Context, wish: "Wish") -> None:
    """Print what would be submitted."""
    from tq.cli import output, present, request
    from tq.wire import codec
    from tq.wire.body import Body

    command, pieces = request.build(wish, context.environ)
    body = codec.loads(command.body, Body)
    plan = {
        "id": None,
        "command": [present.text(word) for word in body.argv],
        "cwd": present.text(body.cwd),
        "environment": {name: present.text(value) for name, value in sorted(body.environment.items())},
        "name": command.name,
        "tags": list(command.tags),
        "queue": command.queue,
        "priority": command.priority,
        "cpus": command.demand.cpus_milli / 1_000,
        "tasks": command.size,
        "throttle": command.throttle or None,
        "time_limit_s": body.time_limit_ms / 1_000 or None,
        "kill_after_s": body.kill_after_ms / 1_000,
        "stdin_bytes": len(body.stdin) + sum(len(piece.data) for piece in pieces),
    }
    hint = request.hint_for(wish)
    if hint:
        context.talk(hint)
    output.print_one(
        context, plan, ((key, _plan_text(value)) for key, value in plan.items() if value not in (None, ""))
    )
    context.talk("tq: nothing was submitted (--dry-run)")


def _plan_text(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        from shlex import join

        return join(value)
    return str(value)


def finish(context: Context, client: "Client", job: str, *, is_followed: bool, way: str = "any") -> int:
    """Wait for a job's end, showing its output if asked to, and return the exit status that stands for it."""
    from tq.cli import exits, follow, waiting

    exits.check_way(way)
    try:
        if is_followed:
            sinks: dict[int, follow.Sink] = {1: follow.StreamSink(1), 2: follow.StreamSink(2)}
            follow.Follower(client, job, sinks, is_following=True).run()
        waited = waiting.until(client, [job], is_quiet=context.quiet or is_followed)
    except KeyboardInterrupt:
        context.talk(f"\ntq: detached; {job} goes on. To cancel it: tq cancel {job}. To see it: tq logs -f {job}")
        return exits.CANCELLED
    status, says = exits.of_all(waited.outcomes, way)
    for text in says:
        context.talk(f"tq: {text}{_why(waited.outcomes[0])}")
    return status


def _why(outcome: "v.Outcome") -> str:
    """Return what the worker said about an attempt that could not be started, "" else."""
    if outcome.cause not in {"spawn_failed", "cwd_missing"} or not outcome.usage:
        return ""
    from tq.cli import escape
    from tq.errors import ProtocolError
    from tq.wire import codec
    from tq.wire.body import Usage

    try:
        error = codec.loads(outcome.usage, Usage).error
    except ProtocolError:
        return ""
    return f": {escape.line(error)}" if error else ""


VERBS = {
    "submit": Verb(
        submit,
        (
            "tq submit --name nightly -- ./build.sh --all",
            "tq submit --array 1-100%4 -- sh -c 'convert page$TQ_MEMBER.pdf'",
            "tq submit --stdin --wait -- wc -l < access.log",
        ),
        is_wrapper=True,
    )
}
