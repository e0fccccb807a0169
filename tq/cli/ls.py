"""`tq ls`: jobs, newest first, or the tasks of one job."""

import time
from typing import Annotated, Any

import typer

from tq.cli.context import Context
from tq.cli.verb import Verb
from tq.errors import BadRequest

_PAGE_ITEMS = 100


def ls(
    ctx: typer.Context,
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="List the tasks of this job", show_default=False)] = "",
    state: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="STATE", help="Only in this state; repeatable; failed = dead or expired"),
    ] = None,
    queue: Annotated[str, typer.Option("--queue", metavar="QUEUE", help="Only of this queue", show_default=False)] = "",
    tag: Annotated[str, typer.Option("--tag", metavar="TAG", help="Only with this tag", show_default=False)] = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Only of this name", show_default=False)] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="DURATION", help="Only jobs submitted within so long", show_default=False)
    ] = "",
    limit: Annotated[int, typer.Option("-n", "--limit", metavar="N", help="At most so many; 0 = all")] = 50,
    page: Annotated[
        str, typer.Option("--page", metavar="NEXT", help="Go on where -o json said", show_default=False)
    ] = "",
) -> None:
    """List jobs, newest first, or the tasks of a job."""
    from tq.cli import output, selectors, values
    from tq.core import vocabulary as v

    if limit < 0:
        raise BadRequest(f"-n {limit} must not be negative", hint="0 lists all")
    oldest_ms = time.time() * 1_000 - values.duration_ms(since) if since else 0.0
    context: Context = ctx.obj
    states = tuple(word for text in state or [] for word in text.lower().split(","))
    with context.client() as client:
        parent = selectors.single(client, job) if job else ""
        items: list[dict[str, Any]] = []
        while True:
            wanted = min(limit - len(items), _PAGE_ITEMS) if limit else _PAGE_ITEMS
            answer = client.ask(v.List(parent, states, queue, tag, name, wanted, page))
            assert isinstance(answer, v.Page)
            young = [item for item in answer.items if job or item.get("submitted_ms", 0) >= oldest_ms]
            items.extend(young)
            page = answer.next if len(young) == len(answer.items) else ""  # newest first: the rest is older
            if not page or (limit and len(items) >= limit):
                break
    rows = task_rows(items) if parent else job_rows(items)
    from tq.cli import present

    output.print_items(context, [present.document(item) for item in items], page, rows)
    if page and context.format == "table":
        context.talk(f"tq: there are more; see them with -n {limit * 2} or -n 0")


def job_rows(items: list[dict[str, Any]]) -> list[list[str]]:
    """Return the table of jobs."""
    now_ms = round(time.time() * 1_000)
    rows = [["ID", "STATE", "TASKS", "QUEUE", "NAME", "AGE", "COMMAND"]]
    rows.extend(_job_row(item, now_ms) for item in items)
    return rows


def _job_row(item: dict[str, Any], now_ms: int) -> list[str]:
    from tq.cli import present

    shown = present.document(item)
    counts, size = item.get("counts") or {}, int(item.get("size") or 1)
    ended = sum(counts.get(state, 0) for state in present.TERMINAL)
    failed = ended - counts.get("succeeded", 0)
    tasks = "1" if size == 1 else f"{ended}/{size}" + (f" ({failed} failed)" if failed else "")
    return [
        str(item.get("id", "")),
        str(item.get("state", "")),
        tasks,
        str(item.get("queue", "")),
        str(item.get("name") or "-"),
        present.ago(int(item.get("submitted_ms") or 0), now_ms),
        present.command_line(shown.get("command")),
    ]


def task_rows(items: list[dict[str, Any]]) -> list[list[str]]:
    """Return the table of the tasks of one job."""
    from tq.cli import present

    rows = [["ID", "STATE", "ATTEMPT", "CAUSE", "CODE", "TIME", "HOST"]]
    for item in items:
        shown = present.document(item)
        rows.append(
            [
                str(item.get("id", "")),
                str(item.get("state", "")),
                str(item.get("attempt") or "-"),
                present.blank(item.get("cause")),
                present.code_text(shown),
                present.seconds(shown.get("run_s") or 0) if item.get("ended_ms") else "-",
                present.blank(item.get("host")),
            ]
        )
    return rows


VERBS = {"ls": Verb(ls, ("tq ls", "tq ls --state running,queued --tag nightly", "tq ls 43 --state failed -o json"))}
