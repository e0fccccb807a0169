"""`tq logs`: the output of one task, stored or as it comes."""

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tq import limits
from tq.cli import options
from tq.cli.context import Context
from tq.cli.verb import Verb
from tq.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tq.cli import follow
    from tq.client.blocking import Client


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
    obeyed; into a file or a pipe go the bytes as they are. Of an array, --prefix shows all tasks, one after the other.
    """
    from tq.cli import selectors

    if attempt < 0 or (tail is not None and tail < 0):
        raise BadRequest("--attempt and --tail must not be negative")
    context: Context = ctx.obj
    wanted = [2] if stderr and not stdout else [1] if stdout and not stderr else [1, 2]
    with context.client() as client:
        task, running = id, ""
        try:
            for task in _tasks(client, id, is_following=is_following) if prefix else [selectors.single(client, id)]:
                state = _show(client, task, _Manner(wanted, tail, attempt, is_following, prefix, raw))
                running = running or (task if state == "running" and not attempt else "")
        except KeyboardInterrupt:
            context.talk(f"\ntq: detached; the task is not touched. To cancel it: tq cancel {task}")
            raise typer.Exit(130) from None
    if running:
        context.talk(f"tq: {running} runs, and its worker may have more of its output: tq logs -f {running}")


class _Manner(NamedTuple):
    """How output is to be shown."""

    streams: list[int]
    tail: int | None
    attempt: int
    is_following: bool
    prefix: bool
    raw: bool

    def sinks(self, task: str) -> "dict[int, follow.Sink]":
        """Return where each stream of a task goes."""
        from tq.cli import follow

        made: dict[int, follow.Sink] = {}
        for stream in self.streams:
            made[stream] = follow.StreamSink(stream, is_raw=self.raw)
            if self.prefix:
                made[stream] = follow.PrefixSink(made[stream], f"{task} {'out' if stream == 1 else 'err'}| ")
        return made


def _show(client: "Client", task: str, manner: _Manner) -> str:
    """Show the output of one task. Return the state that the task was in at the end of it."""
    from tq.cli import follow

    position, attempt, is_following = (0, 0), manner.attempt, manner.is_following
    if manner.tail is not None:
        ends: dict[int, follow.Sink] = {
            stream: follow.TailSink(sink, manner.tail) for stream, sink in manner.sinks(task).items()
        }
        end = follow.Follower(client, task, ends, attempt=attempt).run()
        position, attempt = end.totals, end.attempt if not is_following else attempt
    if is_following or manner.tail is None:
        end = follow.Follower(
            client, task, manner.sinks(task), attempt=attempt, is_following=is_following, position=position
        ).run()
    return end.state


def _tasks(client: "Client", word: str, *, is_following: bool) -> "Iterator[str]":
    """Yield the tasks that a word names, of an array those that have begun, page by page. Raises BadRequest."""
    from tq.cli import selectors
    from tq.core import vocabulary as v

    names = selectors.expand(client, [word])
    for name in names:
        answer = None if "." in name else client.ask(v.Get(name))
        is_array = isinstance(answer, v.Document) and answer.value.get("is_array")
        if is_following and (is_array or len(names) > 1):
            raise BadRequest(f"{word} may be several tasks, and one can be followed", hint="name one, as in 43.7")
        if not is_array:
            yield name
            continue
        page: str | None = None
        while page != "":
            members = client.ask(v.List(name, limit=limits.page_items_max, page=page or ""))
            assert isinstance(members, v.Page)
            yield from (str(item["id"]) for item in members.items if item.get("attempt"))
            page = members.next


VERBS = {
    "logs": Verb(logs, ("tq logs 42", "tq logs -f last", "tq logs 43.7 --tail 20 --stderr", "tq logs --prefix 43"))
}
