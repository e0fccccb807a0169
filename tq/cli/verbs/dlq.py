"""`tq dlq`: the dead letter queue: tasks that gave up, why, and what to do with them."""

import time
from typing import Annotated, Any

import typer

from tq.cli.frame import options
from tq.cli.frame.context import Context
from tq.cli.frame.verb import Noun, Verb
from tq.cli.showing.pages import Pages, around
from tq.cli.verbs.act import BulkVerb, Choice, DryRun, Words, Yes, act
from tq.errors import BadRequest, TaskNotFound

_STATES = ("dead",)
_LAST_LINES = 3  # of each letter of an array

OfCause = Annotated[
    str, typer.Option("--cause", metavar="CAUSE", help="Only with this cause: exit, signal, lost…", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="All dead letters")]


def ls(
    ctx: typer.Context,
    queue: options.OfQueue = "",
    cause: OfCause = "",
    name: options.OfName = "",
    tag: options.OfTag = "",
    limit: Annotated[int, typer.Option("-n", "--limit", metavar="N", help="At most so many; 0 = all")] = 50,
    page: Annotated[
        str, typer.Option("--page", metavar="NEXT", help="Go on where -o json said", show_default=False)
    ] = "",
) -> None:
    """List the dead letters, oldest first: tasks that gave up, and why."""
    from tq.cli.showing import output
    from tq.core import vocabulary as v

    context: Context = ctx.obj
    with context.client() as client:
        where = v.Where((), queue, tag, name, cause)
        pages = Pages(lambda items, next_page: around(client, v.DeadLetters(where, items, next_page)), limit, page)
        output.print_pages(context, pages, lambda: pages.next, rows, pages.unread, what="dead letters")
    pages.say_rest(context)


def rows(items: list[dict[str, Any]]) -> list[list[str]]:
    """Return the table of dead letters."""
    from tq.cli.showing import present
    from tq.client.sansio import documents

    now_ms = round(time.time() * 1_000)
    table = [["ID", "CAUSE", "CODE", "FAILED", "LOST", "QUEUE", "NAME", "AGE", "HOST", "COMMAND"]]
    for item in items:
        shown = documents.document(item)
        table.append(
            [
                str(item.get("id", "")),
                present.blank(item.get("cause")),
                present.code_text(shown),
                str(item.get("failures") or "-"),
                str(item.get("losses") or "-"),
                str(item.get("queue", "")),
                present.blank(item.get("name")),
                present.ago(int(item.get("ended_ms") or 0), now_ms),
                present.blank(item.get("host")),
                present.what(shown),
            ]
        )
    return table


def show(ctx: typer.Context, id: options.Id) -> None:  # noqa: A002 - the word in the help
    """Show everything about one dead letter, with the last lines of each of its attempts.

    Of an array it shows the first of its dead letters: which they are, why, and what they wrote last.
    """
    from tq.cli.verbs import show as shown

    context: Context = ctx.obj
    with context.client() as client:
        document = shown.ask(client, id)
        is_whole = shown.is_whole_array(document)
        is_dead = (document.get("counts") or {}).get("dead") if is_whole else document.get("state") == "dead"
        if not is_dead or document.get("purged"):
            name = document.get("id")
            raise TaskNotFound(f"{name} is not a dead letter", hint=f"tq show {name}; tq dlq ls")
        letters = shown.failed(client, document, ("dead",), _LAST_LINES) if is_whole and context.is_table else []
    shown.print_document(context, document, letters)


def _acting(bulk: BulkVerb, help_text: str) -> Any:
    def function(
        ctx: typer.Context,
        ids: Words = None,
        queue: options.OfQueue = "",
        cause: OfCause = "",
        name: options.OfName = "",
        tag: options.OfTag = "",
        is_all: All = False,
        dry_run: DryRun = False,
        yes: Yes = False,
    ) -> None:
        has_filter = bool(queue or cause or name or tag)
        if is_all and (ids or has_filter):
            raise BadRequest("--all is all there are", hint="leave out the ids and the filter")
        choice = Choice(
            ids,
            list(_STATES) if is_all or (has_filter and not ids) else None,
            queue,
            tag,
            name,
            dry_run,
            yes,
            cause,
            True,
        )
        act(ctx.obj, bulk, choice)

    function.__doc__ = help_text
    return function


_RETRY = BulkVerb("dlq retry", "Retry", _STATES, "queued again", "", "no dead letters")
_PURGE = BulkVerb("dlq purge", "Purge", _STATES, "purged", "", "no dead letters")

VERBS = {
    "dlq": Noun(
        "Look at the dead letters, try them again, or purge them.",
        {
            "ls": Verb(ls, ("tq dlq ls", "tq dlq ls --cause lost --queue builds -o json")),
            "show": Verb(show, ("tq dlq show 43.7",)),
            "retry": Verb(
                _acting(
                    _RETRY,
                    """Try dead letters again.

                    A new round begins in the same job, with all its retries. Of a job or a range that is named, only
                    what is in the dead letter queue.
                    """,
                ),
                ("tq dlq retry 43.7", "tq dlq retry --cause lost --yes", "tq dlq retry --all --dry-run"),
            ),
            "purge": Verb(
                _acting(
                    _PURGE,
                    """Take tasks out of the dead letter queue.

                    They stay dead, and can be looked at for as long as their job is kept; `tq server --keep` counts
                    for them again.
                    """,
                ),
                ("tq dlq purge 43.7", "tq dlq purge --all --yes"),
            ),
        },
        ("tq dlq ls", "tq dlq show 43.7", "tq dlq retry --cause lost --yes"),
    )
}
