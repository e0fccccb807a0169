"""`tq workers`: who runs tasks."""

import typer

from tq.cli.context import Context
from tq.cli.verb import Verb


def workers(ctx: typer.Context) -> None:
    """List the workers with their state and slots."""
    from tq.cli import output, present
    from tq.core import vocabulary as v

    context: Context = ctx.obj
    with context.client() as client:
        answer = client.ask(v.Workers())
    assert isinstance(answer, v.Page)
    rows = [["ID", "STATE", "HOST", "PID", "SLOTS", "HELD", "CPUS", "CONTAINMENT", "QUEUES"]]
    for item in answer.items:
        cpus = int(item.get("cpus_milli") or 0) / 1_000
        rows.append(
            [
                str(item.get("id", "")),
                str(item.get("state", "")),
                present.blank(item.get("host")),
                present.blank(item.get("pid")),
                f"{item.get('slots_used', 0)}/{item.get('slots', 0)}",
                str(item.get("held", 0)),
                f"{cpus:g}" if cpus else "-",
                present.blank(item.get("level")),
                ",".join(item.get("queues") or []) or "all",
            ]
        )
    output.print_items(context, [present.document(item) for item in answer.items], answer.next, rows)
    if not answer.items and context.format == "table":
        context.talk("hint: start one with `tq worker`, or server and worker at once with `tq up`")


VERBS = {"workers": Verb(workers, ("tq workers", "tq workers -o json"))}
