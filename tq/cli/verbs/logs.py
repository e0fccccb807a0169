"""`tq logs`: the output of a task, or of many, stored or as it comes."""

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from tq import limits
from tq.cli.frame import options
from tq.cli.frame.context import Context, say
from tq.cli.frame.verb import Verb
from tq.cli.showing.pages import answers
from tq.errors import BadRequest, TaskNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tq.cli.showing import follow, sinks
    from tq.client.drivers.blocking import Client


_NAMED_MAX: Final = 20  # that the word at Ctrl-C names


def logs(
    ctx: typer.Context,
    id: options.Id,  # noqa: A002 - the word in the help
    is_following: Annotated[
        bool, typer.Option("-f", "--follow", help="Show what comes until the task has ended")
    ] = False,
    tail: Annotated[
        int | None,
        typer.Option("-n", "--tail", metavar="N", help="Only the last N lines of each stream", show_default=False),
    ] = None,
    attempt: Annotated[int, typer.Option("--attempt", metavar="N", help="Of this attempt; 0 = the latest")] = 0,
    stderr: Annotated[bool, typer.Option("--stderr", help="Only the stream stderr")] = False,
    stdout: Annotated[bool, typer.Option("--stdout", help="Only the stream stdout")] = False,
    prefix: Annotated[
        bool | None,
        typer.Option(
            "--prefix/--no-prefix",
            help="Begin each line with the task and the stream; by default where it is an array",
            show_default=False,
        ),
    ] = None,
    raw: options.Raw = False,
) -> None:
    """Show what a task has written.

    Its stdout comes out of stdout, its stderr out of stderr. On a terminal control characters are shown, not obeyed;
    into a file or a pipe go the bytes as they are.

    What a program keeps in a buffer is not there yet, and most do when they write to no terminal: `python -u` and
    `stdbuf -oL` do not.

    With `-o json` or `jsonl` each line is an object, with task, attempt and stream beside its text.

    Of an array all tasks are shown, each line with its task and stream before it: one after the other, with --follow
    as it comes, until the array has ended; with --no-prefix as they are, for a file. --follow of a name or a tag
    follows all its jobs that have not ended. At most 16 tasks are followed at the same time; the others are shown as
    soon as one of those ends.
    """
    if attempt < 0 or (tail is not None and tail < 0):
        raise BadRequest("--attempt and --tail must not be negative")
    context: Context = ctx.obj
    check_format(context)
    if context.is_json and (prefix is not None or raw):
        raise BadRequest(
            "an object of JSON is neither raw nor behind a prefix", hint="it says its task and stream itself"
        )
    wanted = [2] if stderr and not stdout else [1] if stdout and not stderr else [1, 2]
    manner = Manner(wanted, tail, attempt, is_following, prefix, raw, is_json=context.is_json, talk=context.talk)
    shown = [id]
    with context.client() as client:
        try:
            names = _names(context, client, id, manner)
            shown = [*names.tasks, *names.arrays][:_NAMED_MAX]  # `last` may mean another one by the time of a Ctrl-C
            show = follow_all if is_following else partial(_show_all, context)
            running = show(client, names, manner)
        except KeyboardInterrupt:
            context.talk(f"\ntq: detached; no task is touched. To cancel: tq cancel {' '.join(shown)}")
            raise typer.Exit(130) from None
    if running:
        context.talk(f"tq: {running} runs, and its worker may have more of its output: tq logs -f {running}")


class Manner(NamedTuple):
    """How output is to be shown."""

    streams: "Sequence[int]" = (1, 2)
    tail: int | None = None
    attempt: int = 0
    is_following: bool = False
    prefix: bool | None = None  # before each line; False: whole lines with nothing before them; None: bytes
    raw: bool = False
    every: bool = False  # of what is followed all attempts, also those that are over
    is_json: bool = False  # each line an object, on stdout, whatever `prefix` and `raw` say
    talk: "Callable[[str], None]" = say

    def sinks(self, reading: "follow.Reading") -> "dict[int, sinks.Sink]":
        """Return where each stream of a task goes."""
        from tq.cli.showing import sinks

        made: dict[int, sinks.Sink] = {}
        for stream in self.streams:
            if self.is_json:
                made[stream] = sinks.LineSink(sinks.StreamSink(1, is_raw=True), partial(_object, reading, stream))
                continue
            made[stream] = sinks.StreamSink(stream, is_raw=self.raw)
            if self.prefix is not None:
                prefix = f"{reading.task} {'out' if stream == 1 else 'err'}| " if self.prefix else ""
                made[stream] = sinks.LineSink(made[stream], partial(sinks.prefixed, prefix.encode()))
        return made

    def reading(self, task: str, *, is_again: bool = False) -> "follow.Reading":
        """Return a reading of one task, from its beginning or its tail on; `is_again`: what ran before was read."""
        from tq.cli.showing import follow

        every = self.every and not is_again
        return follow.Reading(
            task, self.sinks, attempt=self.attempt, is_following=self.is_following, tail=self.tail, every=every,
            talk=self.talk,
        )  # fmt: skip


def check_format(context: Context) -> None:
    """Refuse the one format that output of tasks does not have. Raises BadRequest."""
    if context.output == "id":
        raise BadRequest(
            "what tasks write is not a list of ids", hint="-o jsonl has it line by line; `tq ls -q` has ids"
        )


def _object(reading: "follow.Reading", stream: int, line: bytes) -> bytes:
    from tq.cli.showing import sinks
    from tq.client.sansio.reading import STREAMS

    return sinks.json_line(reading.task, reading.attempt, STREAMS[stream], line)


class Named(NamedTuple):
    """Tasks by id, and jobs that are arrays."""

    tasks: list[str]
    arrays: list[str]

    @property
    def are_several(self) -> bool:
        """Whether it may be more than one task."""
        return bool(self.arrays) or len(self.tasks) > 1


def follow_all(client: "Client", names: Named, manner: Manner) -> str:
    """Show output as it comes, until all of it has ended."""
    if not names.are_several:
        from tq.cli.showing import follow

        for task in names.tasks:
            follow.follow(client, manner._replace(prefix=manner.prefix or None).reading(task))
        return ""
    from tq.cli.showing import follow_many

    if manner.attempt:
        raise BadRequest("--attempt is of one task, and these are several", hint="name one, as in 43.7")
    follow_many.FollowMany(client, manner._replace(prefix=manner.prefix is not False).reading, *names).run()
    return ""


def _show_all(context: Context, client: "Client", names: Named, manner: Manner) -> str:
    """Show what is stored, one task after the other. Return the first one that may have more."""
    from tq.cli.showing import follow

    are_marked = manner.prefix or (manner.prefix is None and names.are_several)
    manner = manner._replace(prefix=are_marked or None)  # one after the other: bytes stay what they are
    running = task = ""
    is_silent = not manner.attempt
    for task in chain(names.tasks, _begun(client, names.arrays, manner.attempt)):
        reading = manner.reading(task)
        follow.follow(client, reading, is_following=False)
        is_silent = is_silent and reading.is_empty
        if reading.state == "running" and not manner.attempt:
            running = running or task
        elif reading.is_empty and not (names.are_several or manner.attempt):
            _say_why_nothing(context, client, task)
    if manner.attempt and not task:
        raise TaskNotFound(f"no task of {', '.join(names.arrays)} has had an attempt {manner.attempt}")
    for array in names.arrays if is_silent and not running else ():
        _say_why_nothing(context, client, array)
    return running


def _say_why_nothing(context: Context, client: "Client", task: str) -> None:
    """Say why there is no output of a task that does not run: its end, its wait, or files that have it instead."""
    from tq.cli.showing import escape, exits, waiting
    from tq.core import vocabulary as v

    answer = client.ask(v.Wait((task,)))  # the first of its answers says how things stand
    outcome = answer.outcomes[0] if isinstance(answer, v.Waited) and answer.outcomes else None
    if outcome is None:
        return
    if exits.is_ended(outcome):
        for text in exits.of_all([outcome])[1]:
            context.talk(f"tq: {text}{waiting.why(outcome)}")
    elif outcome.reason:
        waiting.Reasons(context.talk).say(task, outcome.reason)
    found = client.ask(v.Get(task))
    document = found.value if isinstance(found, v.Document) else {}
    files = [f"{stream} goes to {document[stream]}" for stream in ("stdout", "stderr") if document.get(stream)]
    if files:
        context.talk(f"tq: its {escape.line(' and its '.join(files))} on the worker's host")


def _names(context: Context, client: "Client", word: str, manner: Manner) -> Named:
    """Return what is shown; of what is followed, say what keeps it from starting."""
    from tq.cli.showing import selectors, waiting
    from tq.core import vocabulary as v

    if manner.is_following:
        ids = selectors.alive(client, word)
    elif manner.prefix:
        ids = selectors.expand(client, [word])
    else:
        ids = [selectors.single(client, word)]
    named = Named([], [])
    reasons = waiting.Reasons(context.talk, are_several=len(ids) > 1)
    for one in ids:
        is_task = "." in one
        if is_task and not manner.is_following:
            named.tasks.append(one)
            continue
        answer = client.ask(v.Get(one))
        found = answer.value if isinstance(answer, v.Document) else {}
        (named.arrays if found.get("is_array") and not is_task else named.tasks).append(one)
        if manner.is_following and found.get("is_stuck"):
            reasons.say(one, found.get("reason", ""))
    return named


def _begun(client: "Client", arrays: "Sequence[str]", attempt: int) -> "Iterator[str]":
    """Yield the tasks of arrays that have had this attempt, or any if it is 0, page by page."""
    from tq.core import vocabulary as v

    for array in arrays:
        for members in answers(client, v.Page, partial(v.List, array, (), "", "", "", limits.page_items_max)):
            yield from (str(item["id"]) for item in members.items if item.get("attempt", 0) >= max(attempt, 1))


VERBS = {"logs": Verb(logs, ("tq logs 42", "tq logs -f last", "tq logs 43.7 --tail 20 --stderr", "tq logs -f nightly"))}
