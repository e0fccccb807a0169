"""`tq show`: everything about one job or task."""

from typing import Any

import typer

from tq.cli import options
from tq.cli.context import Context
from tq.cli.verb import Verb


def show(ctx: typer.Context, id: options.Id) -> None:  # noqa: A002 - the word in the help
    """Show everything about one job or task."""
    from tq.cli import output, present, selectors
    from tq.core import vocabulary as v

    context: Context = ctx.obj
    with context.client() as client:
        answer = client.ask(v.Get(selectors.single(client, id)))
    assert isinstance(answer, v.Document)
    item = present.document(answer.value)
    output.print_one(context, item, lines(item))


def lines(item: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the table of one job or task; what is empty is left out."""
    from tq.cli import present

    pairs: list[tuple[str, str]] = []
    for key, value in item.items():
        if key == "history":
            continue
        shown = present.value_text(key, value)
        if shown:
            pairs.append((key.replace("_", " "), shown))
    for entry in item.get("history") or []:
        parts = [present.value_text(key, value) for key, value in entry.items() if key != "attempt"]
        pairs.append((f"attempt {entry.get('attempt', '')}", "  ".join(part for part in parts if part)))
    return pairs


VERBS = {"show": Verb(show, ("tq show 42", "tq show 43.7 -o json"))}
