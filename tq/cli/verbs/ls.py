"""`tq ls`: jobs, newest first, or the tasks of one job."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tq.cli.frame import options
from tq.cli.frame.context import Context, is_terminal
from tq.cli.frame.verb import Verb
from tq.cli.showing import escape
from tq.cli.showing.pages import Pages, around, first_of
from tq.client.sansio.documents import expect
from tq.errors import BadRequest

if TYPE_CHECKING:
    from tq.client.drivers.blocking import Client


_REASONS_MAX = 3  # that stand under the table


def ls(
    ctx: typer.Context,
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="List the tasks of this job", show_default=False)] = "",
    state: options.States = None,
    queue: options.OfQueue = "",
    tag: options.OfTag = "",
    name: options.OfName = "",
    since: Annotated[
        str, typer.Option("--since", metavar="DURATION", help="Only jobs submitted within so long", show_default=False)
    ] = "",
    limit: Annotated[int, typer.Option("-n", "--limit", metavar="N", help="At most so many; 0 = all")] = 50,
    page: Annotated[
        str, typer.Option("--page", metavar="NEXT", help="Go on where -o json said", show_default=False)
    ] = "",
) -> None:
    """List jobs, newest first, or the tasks of a job."""
    from tq.cli.frame import values
    from tq.cli.showing import output, selectors
    from tq.core import vocabulary as v

    if job and (queue or tag or name or since):
        raise BadRequest("the tasks of one job are chosen by --state alone", hint=f"tq ls {job} --state failed")
    oldest_ms = time.time() * 1_000 - values.duration_ms(since) if since else 0.0
    context: Context = ctx.obj
    with context.client() as client:
        parent = selectors.single(client, job) if job else ""
        where = (parent, values.states(state), queue, tag, name)
        pages = Pages(
            lambda items, next_page: around(client, v.List(*where, items, next_page)),
            limit,
            page,
            # Newest first: behind one that is too old are only older ones.
            lambda item: bool(parent) or item.get("submitted_ms", 0) >= oldest_ms,
        )
        whys: dict[str, list[str]] = {}
        rows = task_rows if parent else job_rows
        what = ("tasks" if parent else "jobs") + (" like that" if any((*where[1:], since)) else "")
        output.print_pages(
            context, pages, lambda: pages.next, lambda items: rows(_noting(whys, items)), pages.unread, what=what
        )
        if context.is_table and not pages.unread:
            _foot(context, client, parent, whys)
    pages.say_rest(context)


def _noting(whys: dict[str, list[str]], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the items as they came; note which ids have which reason, of the first few reasons."""
    for item in items:
        why = item.get("reason")
        if why and (why in whys or len(whys) < _REASONS_MAX):
            whys.setdefault(why, []).append(str(item.get("id", "")))
    return items


def _foot(context: Context, client: "Client", parent: str, whys: dict[str, list[str]]) -> None:
    """Say under the table, on a terminal, how many tasks are in which state, and why some stand still."""
    from tq.core import vocabulary as v

    if not is_terminal(sys.stdout):
        return
    answer = expect(v.Document, client.ask(v.Get(parent.partition(".")[0]) if parent else v.Status()))
    counts = answer.value.get("counts" if parent else "tasks") or {}
    parts = [f"{count} {state}" for state, count in counts.items() if count]
    if parts:
        context.talk(f"tq: {'of its tasks' if parent else 'tasks'}: {', '.join(parts)}")
    for why, ids in whys.items():
        context.talk(f"tq: {first_of(ids)}: {escape.line(why)}")


def job_rows(items: list[dict[str, Any]]) -> list[list[str]]:
    """Return the table of jobs."""
    now_ms = round(time.time() * 1_000)
    rows = [["ID", "STATE", "TASKS", "QUEUE", "NAME", "AGE", "COMMAND"]]
    rows.extend(_job_row(item, now_ms) for item in items)
    return rows


def _job_row(item: dict[str, Any], now_ms: int) -> list[str]:
    from tq.cli.showing import present
    from tq.client.sansio import documents

    shown = documents.document(item)
    counts, size = item.get("counts") or {}, int(item.get("size") or 1)
    ended = sum(counts.get(state, 0) for state in present.TERMINAL)
    failed = counts.get("dead", 0) + counts.get("expired", 0)
    tasks = "1" if size == 1 else f"{ended}/{size} ended" + (f", {failed} failed" if failed else "")
    return [
        str(item.get("id", "")),
        str(item.get("state", "")),
        tasks,
        str(item.get("queue", "")),
        str(item.get("name") or "-"),
        present.ago(int(item.get("submitted_ms") or 0), now_ms),
        present.what(shown),
    ]


def task_rows(items: list[dict[str, Any]]) -> list[list[str]]:
    """Return the table of the tasks of one job."""
    from tq.cli.showing import present
    from tq.client.sansio import documents

    now_ms = round(time.time() * 1_000)
    rows = [["ID", "STATE", "ATTEMPT", "CAUSE", "CODE", "TIME", "HOST", "ENTRY"]]
    for item in items:
        shown = documents.document(item)
        rows.append(
            [
                str(item.get("id", "")),
                str(item.get("state", "")),
                str(item.get("attempt") or "-"),
                present.blank(item.get("cause")),
                present.code_text(shown),
                _run_time(item, now_ms),
                present.blank(item.get("host")),
                present.command_line(shown.get("entry")),
            ]
        )
    return rows


def _run_time(item: dict[str, Any], now_ms: int) -> str:
    """Return how long its latest attempt ran, or has run so far; what was lost ran until nobody knows when."""
    from tq.cli.showing import present

    if item.get("state") == "running":
        return present.ago(int(item.get("started_ms") or 0), now_ms)
    run_us = int(item.get("run_us") or 0)
    return present.seconds(run_us / 1_000_000) if run_us else "-"


VERBS = {"ls": Verb(ls, ("tq ls", "tq ls --state running,queued --tag nightly", "tq ls 43 --state failed -o json"))}
