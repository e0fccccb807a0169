"""`tq workers`: who runs tasks."""

from typing import Annotated, Any, Final

import typer

from tq.cli.frame.context import Context
from tq.cli.frame.verb import Verb
from tq.cli.showing.pages import Items, every
from tq.errors import BadRequest

STATES: Final = ("up", "suspect", "draining", "degraded", "quarantined")


def workers(
    ctx: typer.Context,
    state: Annotated[
        str,
        typer.Option(
            "--state",
            metavar="CONDITION",
            help="Only those that are up, suspect, draining, degraded or quarantined",
            show_default=False,
        ),
    ] = "",
    queue: Annotated[
        str,
        typer.Option("--queue", metavar="QUEUE", help="Only those that take tasks of this queue", show_default=False),
    ] = "",
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="KEY=VALUE",
            help="Only with this label; repeatable: with all of them",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the workers with their state and slots, by host.

    SLOTS are in use, of those there are; HELD is what it was given, so what waits there for a slot as well: all of that
    is `running`. Their states are up; suspect (cut off, or so many heartbeats missed: it gets nothing more before it is
    heard again, and at three it is lost and leaves the list); draining; degraded (it cannot kill so many of its tasks);
    quarantined (it could not start its last attempts, so often in a row: it is tried again once a minute, or after
    `tq undrain`).
    """
    from tq.cli.showing import output
    from tq.core import vocabulary as v

    if state and state not in STATES:
        raise BadRequest(f"{state!r} is not a state of a worker", hint=f"it is one of {', '.join(STATES)}")

    def is_wanted(item: dict[str, Any]) -> bool:
        queues = item.get("queues") or [queue]
        return (
            item.get("state") == (state or item.get("state"))
            and (not queue or queue in queues)
            and ({*(labels or ())} <= {*(item.get("labels") or ())})
        )

    context: Context = ctx.obj
    with context.client() as client:
        pages = every(client, v.Workers)
        wanted = (kept for page in pages if (kept := [item for item in page if is_wanted(item)]))
        what = "workers like that" if state or queue or labels else "workers"
        output.print_pages(context, wanted, lambda: pages.next, _rows, what=what)
    if not pages.count and context.is_table:
        context.talk("hint: start one with `tq worker`, or server and worker at once with `tq up`")


def _rows(items: Items) -> list[list[str]]:
    from tq.cli.showing import present

    rows = [
        ["ID", "STATE", "HOST", "PID", "SLOTS", "HELD", "CPUS", "CONTAINMENT", "QUEUES", "LABELS", "VERSION", "TROUBLE"]
    ]
    are_alike = len({item.get("software") for item in items}) <= 1  # then tq doctor compares it with the server's
    for item in items:
        cpus = int(item.get("cpus_milli") or 0) / 1_000
        rows.append(
            [
                str(item.get("id", "")),
                _state(item),
                present.blank(item.get("host")),
                present.blank(item.get("pid")),
                f"{item.get('slots_used', 0)}/{item.get('slots', 0)}",
                str(item.get("held", 0)),
                f"{cpus:g}" if cpus else "-",
                present.blank(item.get("level")),
                ",".join(item.get("queues") or []) or "all",
                ",".join(item.get("labels") or []),
                "" if are_alike else present.blank(item.get("software")),
                str(item.get("trouble") or ""),
            ]
        )
    return rows


def _state(item: dict[str, Any]) -> str:
    """Return a worker's state, with the number that makes it so."""
    state = str(item.get("state", ""))
    counts = {"suspect": "missed_beats", "quarantined": "troubles", "degraded": "stuck"}
    count = item.get(counts.get(state, ""))
    return f"{state} ({count})" if count else state


VERBS = {
    "workers": Verb(
        workers, ("tq workers", "tq workers --state suspect -o json", "tq workers --label room=b -q | xargs tq drain")
    )
}
