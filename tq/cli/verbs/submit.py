"""`tq submit`: make a job; its id alone on stdout means that it is on disk."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace

from tq.cli.frame import options
from tq.cli.frame.context import Context, StdoutFailed
from tq.cli.frame.verb import ARGUMENTS, Verb
from tq.cli.submitting.delivery import deliver, print_submitted
from tq.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tq.cli.submitting.entry_sources import Supply
    from tq.cli.submitting.submit_options import SubmitOptions
    from tq.client.drivers.blocking import Client
    from tq.core import vocabulary as v


@options.of_task
def submit(
    ctx: typer.Context,
    stdin: options.Stdin = False,
    function: options.Function = "",
    args: options.Args = "",
    key: options.Key = "",
    array: options.Array = "",
    at_once: options.AtOnce = None,
    each_line: options.EachLine = "",
    colsep: options.ColSep = "",
    csv: options.Csv = False,
    from_json: options.FromJson = "",
    max_fails: options.MaxFails = -1,
    like: options.Like = "",
    hold: Annotated[bool, typer.Option("--hold", help="Start nothing of it before `tq release`")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end and exit as the task did")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Show its output as it comes, and wait")] = False,
    exit_code: options.ExitCode = "any",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all and show it; submit nothing")] = False,
    **task: Any,
) -> None:
    """Submit a command, or the call of a function, and print its job's id.

    The id is printed when the job is on disk: from then on it survives whatever happens to this program, the server
    or a worker. `--` ends the options; the rest is the command, word by word, and no shell reads it. It has PATH, HOME
    and locale of its worker; of the variables here it gets what --env and --env-all name.

    With inputs a job has a task for each entry: the lines of a file (`--each-line`; empty ones, and a CR at the end,
    stay), the items of a JSON array (`--from-json`; a string as its text, anything else as compact JSON), or all
    combinations of lists that follow the command (`::: a b ::: 1 2`). In the command `{}` stands for the entry, `{1}`
    to `{9}` for its columns, `{#}` for the number; with `--shell` write them without quotes. TQ_ENTRY has it, too.
    A line is one column, unless `--colsep` or `--csv` take it apart. `--dry-run` shows the first commands so made.

    A function of a module that a worker allows (`tq worker --allow MODULE`) is called in a process that is warm, with
    the arguments that `--args` names as JSON; what it returns is shown by `tq result`. In an array its last argument is
    the task's number, or its entry: a line as text, an item of JSON as its value, one argument for each list.

    Entries are sent while they are read, and nothing runs before all of them are there. Whatever interrupts that, the
    same command with the same `--key` goes on where it was; left alone, an upload without its end is forgotten after
    ten minutes.
    """
    wanted, source = _wished(ctx, task["command"] or [])
    context: Context = ctx.obj
    with context.client() as client:
        asked, pieces = _asked(ctx, client, wanted, like, takes_input=stdin)
        if dry_run:
            _show_plan(context, wanted, asked, pieces, source)
            return
        _hint(context, wanted)
        submitted = deliver(context, client, asked, pieces, source)
        print_submitted(context, submitted, is_told=bool(key) and not client.has_repeated)
        if wait or follow:
            way, is_array = exit_code, asked.is_array
            raise typer.Exit(finish(context, client, submitted, is_followed=follow, is_array=is_array, way=way))


def _wished(ctx: typer.Context, command: list[str]) -> "tuple[SubmitOptions, Supply | None]":
    """Return what the options say, and where the entries come from."""
    from tq.cli.submitting import entries, entry_sources, submit_options
    from tq.client.sansio import requests

    said = ctx.params
    if "exit_code" in _given(ctx):
        from tq.cli.showing import exits

        exits.check_way(said["exit_code"])
        if not (said["wait"] or said["follow"]):
            raise BadRequest("--exit-code is of a submit that waits", hint="add --wait or --follow, or leave it out")
    has_dashes = is_dashed(ctx, command)
    words, behind = entries.split(command, is_dashed=has_dashes)
    source = entry_sources.chosen(said["each_line"], said["from_json"], behind, said["colsep"], said["csv"])
    if said["stdin"] and source is not None and source.reads_stdin:
        raise BadRequest("standard input is either the entries or the tasks' input", hint="read one from a file")
    wanted = submit_options.read(said, words, is_dashed=has_dashes)
    if source is not None:
        wanted.columns, wanted.has_items = source.columns, source.has_items
    wanted.key = wanted.key or requests.new_key()
    return wanted, source


def _show_plan(
    context: Context, wanted: "SubmitOptions", asked: "v.Submit", pieces: "Sequence[v.Upload]", source: "Supply | None"
) -> None:
    from tq.cli.submitting import command_lint, entry_sources, preview, request

    first = None
    if source:
        found = entry_sources.survey(context, source, request.entries_of(asked), preview.FIRST)
        asked, first = replace(asked, size=found.size), found.first
    stdin_bytes = sum(len(piece.data) for piece in pieces)
    preview.show(context, asked, stdin_bytes, command_lint.hint_for(wanted, context.environ), first)


def _asked(
    ctx: typer.Context, client: "Client", wanted: "SubmitOptions", like: str, *, takes_input: bool
) -> "tuple[v.Submit, list[v.Upload]]":
    """Return the request, but for its entries, and the pieces of its input, which is read once all else is right."""
    from tq.cli.submitting import request, standard_input

    context: Context = ctx.obj
    old = None
    if like:
        from tq.cli.submitting import old_request

        old = old_request.fetch(client, like)
        old_request.lend(wanted, old)
    if takes_input and wanted.function:
        raise BadRequest("a function has no standard input", hint="give it --args")
    asked, _ = request.build(wanted, context.environ)
    if wanted.max_fails >= 0 and not (asked.is_array or wanted.is_counted):
        raise BadRequest("--max-fails is of a job with several tasks", hint="leave it out")
    wanted.stdin = standard_input.read() if takes_input else b""
    asked, pieces = request.build(wanted, context.environ)
    if old is not None:
        asked = old_request.merged(old, asked, wanted, _given(ctx))
    return asked, pieces


def is_dashed(ctx: typer.Context, command: list[str]) -> bool:
    """Whether the command stood behind `--`."""
    words: list[str] = ctx.meta.get(ARGUMENTS, [])
    return len(words) > len(command) and words[len(words) - len(command) - 1] == "--"


def _given(ctx: typer.Context) -> set[str]:
    """Return the names of the options that were written on the command line."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def send(context: Context, client: "Client", wanted: "SubmitOptions") -> "v.Submitted":
    """Check, send and return the answer."""
    from tq.cli.submitting import request

    command, pieces = request.build(wanted, context.environ)
    _hint(context, wanted)
    return deliver(context, client, command, pieces)


def _hint(context: Context, wanted: "SubmitOptions") -> None:
    from tq.cli.submitting import command_lint

    hint = command_lint.hint_for(wanted, context.environ)
    if hint:
        context.talk(hint)


def finish(
    context: Context,
    client: "Client",
    submitted: "v.Submitted",
    *,
    is_followed: bool,
    is_array: bool = False,
    way: str = "any",
) -> int:
    """Wait for a job's end, showing its output if asked to, and return the exit status that stands for it."""
    from tq.cli.showing import exits, waiting
    from tq.cli.verbs import logs

    job = submitted.id
    try:
        if is_followed:
            names = logs.Named([], [job]) if is_array else logs.Named([job], [])
            manner = logs.Manner(is_following=True, every=True, is_json=context.is_json, talk=context.talk)
            logs.follow_all(client, names, manner)
        waited = waiting.until(
            client, [job], is_quiet=context.quiet or is_followed, talk=context.talk, said={submitted.warning}
        )
    except (StdoutFailed, BrokenPipeError):
        context.talk(f"tq: detached; {job} is not cancelled. To cancel it: tq cancel {job}. To see it: tq show {job}")
        raise
    except KeyboardInterrupt:
        look = "logs -f" if is_followed else "show"
        context.talk(f"\ntq: detached; {job} goes on. To cancel it: tq cancel {job}. To see it: tq {look} {job}")
        return exits.CANCELLED
    status, says = exits.of_all(waited.outcomes, way)
    for text in says:
        context.talk(f"tq: {text}{waiting.why(waited.outcomes[0])}")
    return status


VERBS = {
    "submit": Verb(
        submit,
        (
            "tq submit --name nightly -- ./build.sh --all",
            "tq submit --array 1-100%4 -- sh -c 'convert $TQ_MEMBER.pdf $TQ_MEMBER.png'",
            "tq submit --stdin --wait -- wc -l < access.log",
            "find . -name '*.wav' | tq submit --each-line - -- flac {}",
            "tq submit -- ./simulate --seed {1} --model {2} ::: 1 2 3 ::: small large",
            "tq submit -j 4 --each-line table.csv --csv -- ./load --id {1} --name {2}",
            "tq submit --function images:thumbnail --args '[\"in.png\", 128]'",
            "tq submit --like last --priority 10",
        ),
        is_wrapper=True,
        groups=options.GROUPS,
    )
}
