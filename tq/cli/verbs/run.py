"""`tq run`: submit, show both streams each on its own, and exit as the task did."""

from typing import Annotated, Any

import typer

from tq.cli.frame import options
from tq.cli.frame.context import Context
from tq.cli.frame.verb import Verb


@options.of_task
def run(
    ctx: typer.Context,
    retries: Annotated[
        int, typer.Option("--retries", metavar="N", help="Try again after a failure, at most N times")
    ] = 0,
    stdin: Annotated[
        bool | None,
        typer.Option(
            "--stdin/--no-stdin",
            help="Pass this program's input on, at most 4 MiB; by default when it is not a terminal",
            show_default=False,
        ),
    ] = None,
    **task: Any,
) -> None:
    """Run a command on a worker as if it ran here.

    Its stdout and stderr come out of this program's, and this program exits with its code: 128+N for a signal, 124 for
    its time limit, 130 when it was cancelled, 125 when it ended without a code of its own. Ctrl-C detaches: the task
    goes on. With --retries the output of every attempt comes out, with `-o jsonl` as of `tq logs`. Input that is no
    terminal is read to its end first, then passed on: within `while read` say --no-stdin. Variables are passed on by
    --env and --env-all only. A task that runs this keeps its slot meanwhile: where all slots wait so, none goes on.

    Of output that comes faster than it is carried here, and is more than 1 MiB, the middle is lost, and said on stderr,
    with -q, too: what must be whole goes into a file of the worker's host (`--stdout`, `--stderr`); that stream does
    not come out here, then.
    """
    from tq.cli.submitting import request, standard_input, submit_options
    from tq.cli.verbs import logs
    from tq.cli.verbs.submit import finish, is_dashed, send

    context: Context = ctx.obj
    logs.check_format(context)
    takes_input = standard_input.has_input() if stdin is None else stdin
    command = task["command"] or []
    wanted = submit_options.read(ctx.params, command, verb="run", is_dashed=is_dashed(ctx, command))
    with context.client() as client:
        request.build(wanted, context.environ)  # a wrong request is refused before its input is read
        client.connect()  # nobody types an input for a server that is not there
        wanted.stdin = standard_input.read() if takes_input else b""
        submitted = send(context, client, wanted)
        raise typer.Exit(finish(context, client, submitted, is_followed=True))


VERBS = {
    "run": Verb(
        run,
        ("tq run -- make test", "tq run --time-limit 10m -- ./simulate --seed 7", "tq run -- wc -l < words"),
        is_wrapper=True,
        groups=options.GROUPS,
    )
}
