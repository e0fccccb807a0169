"""`tq logs`: the output of one task, stored or as it comes."""

from typing import Annotated

import typer

from tq.cli import options
from tq.cli.context import Context
from tq.cli.verb import Verb
from tq.errors import BadRequest


def logs(
    ctx: typer.Context,
    id: options.Id,  # noqa: A002 - the word in the help
    is_following: Annotated[
        bool, typer.Option("-f", "--follow", help="Show what comes until the task has ended")
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", metavar="N", help="Only the last N lines of each stream", show_default=False)
    ] = None,
    attempt: Annotated[int, typer.Option("--attempt", metavar="N", help="Of this attempt; 0 = the latest")] = 0,
    stderr: Annotated[bool, typer.Option("--stderr", help="Only the stream stderr")] = False,
    stdout: Annotated[bool, typer.Option("--stdout", help="Only the stream stdout")] = False,
    prefix: Annotated[bool, typer.Option("--prefix", help="Begin each line with the task and the stream")] = False,
    raw: options.Raw = False,
) -> None:
    """Show what a task has written.

    Its stdout comes out of stdout, its stderr out of stderr. On a terminal control characters are shown, not
    obeyed; into a file or a pipe go the bytes as they are.
    """
    from tq.cli import follow, selectors

    if attempt < 0 or (tail is not None and tail < 0):
        raise BadRequest("--attempt and --tail must not be negative")
    context: Context = ctx.obj
    wanted = [2] if stderr and not stdout else [1] if stdout and not stderr else [1, 2]
    with context.client() as client:
        task = selectors.single(client, id)

        def sinks() -> dict[int, follow.Sink]:
            made: dict[int, follow.Sink] = {}
            for stream in wanted:
                made[stream] = follow.StreamSink(stream, is_raw=raw)
                if prefix:
                    made[stream] = follow.PrefixSink(made[stream], f"{task} {'out' if stream == 1 else 'err'}| ")
            return made

        try:
            position = (0, 0)
            if tail is not None:
                ends: dict[int, follow.Sink] = {stream: follow.TailSink(sink, tail) for stream, sink in sinks().items()}
                end = follow.Follower(client, task, ends, attempt=attempt).run()
                position, attempt = end.totals, end.attempt if not is_following else attempt
            if is_following or tail is None:
                follow.Follower(
                    client, task, sinks(), attempt=attempt, is_following=is_following, position=position
                ).run()
        except KeyboardInterrupt:
            context.talk(f"\ntq: detached; the task is not touched. To cancel it: tq cancel {task}")
            raise typer.Exit(130) from None


VERBS = {"logs": Verb(logs, ("tq logs 42", "tq logs -f last", "tq logs 43.7 --tail 20 --stderr"))}
