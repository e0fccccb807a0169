"""`tq queue`: the queues, how many wait in each, and what is set for them."""

from typing import Annotated

import typer

from tq.cli.context import Context
from tq.cli.verb import Noun, Verb
from tq.errors import BadRequest

Name = Annotated[str, typer.Argument(metavar="NAME", help="The queue", show_default=False)]


def ls(ctx: typer.Context) -> None:
    """List the queues that have tasks or settings."""
    from tq.cli import output, present
    from tq.core import vocabulary as v

    context: Context = ctx.obj
    with context.client() as client:
        answer = client.ask(v.Queues())
    assert isinstance(answer, v.Page)
    rows = [["QUEUE", "STATE", "MAX", "RUNNING", "QUEUED", "HELD", "OTHER"]]
    for item in answer.items:
        counts = dict(item.get("counts") or {})
        shown = [counts.pop(state, 0) for state in ("running", "queued", "held")]
        other = sum(counts.get(state, 0) for state in present.ALIVE)
        rows.append(
            [
                str(item.get("id", "")),
                "paused" if item.get("paused") else "open",
                str(item.get("max") or "-"),
                *map(str, shown),
                str(other),
            ]
        )
    output.print_items(context, [present.document(item) for item in answer.items], answer.next, rows)
    if not answer.items and context.format == "table":
        context.talk("tq: no queue has tasks or settings")


def set_(
    ctx: typer.Context,
    name: Name,
    max_: Annotated[
        int | None,
        typer.Option("--max", metavar="N", help="Run at most so many of it at once; 0 = no bound", show_default=False),
    ] = None,
) -> None:
    """Bound how many tasks of a queue run at once.

    What runs already goes on, also above a new bound.
    """
    if max_ is None:
        raise BadRequest(f"set what of {name}?", hint=f"tq queue set {name} --max 10")
    if max_ < 0:
        raise BadRequest(f"--max {max_} must not be negative", hint="0 means no bound")
    _set(ctx.obj, name, f"runs at most {max_} at once" if max_ else "has no bound", None, max_)


def pause(ctx: typer.Context, name: Name) -> None:
    """Start nothing more of a queue; what runs goes on."""
    _set(ctx.obj, name, "is paused; what runs goes on", True, None)


def resume(ctx: typer.Context, name: Name) -> None:
    """Let a paused queue go on."""
    _set(ctx.obj, name, "goes on", False, None)


def _set(context: Context, name: str, says: str, paused: bool | None, max_: int | None) -> None:
    from tq.cli import output, values
    from tq.core import vocabulary as v

    checked = values.name(name, "queue")
    with context.client() as client:
        client.ask(v.SetQueue(checked, paused, max_))
    if context.format in {"json", "jsonl"}:
        fields = {"paused": paused, "max": max_}
        output.print_json({"id": checked, **{key: value for key, value in fields.items() if value is not None}})
    elif context.format == "id":
        output.print_line(checked)
    else:
        context.talk(f"tq: queue {checked} {says}")


VERBS = {
    "queue": Noun(
        "List queues, pause and bound them.",
        {
            "ls": Verb(ls, ("tq queue ls", "tq queue ls -o json")),
            "set": Verb(set_, ("tq queue set builds --max 10", "tq queue set builds --max 0")),
            "pause": Verb(pause, ("tq queue pause builds",)),
            "resume": Verb(resume, ("tq queue resume builds",)),
        },
        ("tq queue ls", "tq queue set builds --max 10", "tq queue pause builds"),
    )
}
