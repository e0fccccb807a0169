"""`tq result`: how one task ended, for programs: state, exit code or signal, cause, times, what it used."""

from typing import Any, Final

import typer

from tq.cli import options
from tq.cli.context import Context
from tq.cli.verb import Verb
from tq.errors import BadRequest

_FIELDS: Final = (
    "id", "state", "exit_code", "signal", "cause", "attempt", "host", "submitted_at", "started_at", "ended_at",
    "run_s", "usage",
)  # fmt: skip


def result(ctx: typer.Context, id: options.Id) -> None:  # noqa: A002 - the word in the help
    """Print how one task ended, as JSON unless -o says otherwise.

    Fields that have not come are null: it does not wait (`tq wait` does). Exits with 2 for a whole array.
    """
    from tq.cli import output, present, selectors
    from tq.core import vocabulary as v

    context: Context = ctx.obj
    with context.client() as client:
        answer = client.ask(v.Get(selectors.single(client, id)))
    assert isinstance(answer, v.Document)
    shown = present.document(answer.value)
    if shown.get("is_array") and "attempt" not in shown:
        first = f"{shown['id']}.1"
        raise BadRequest(f"{shown['id']} is an array of {shown.get('size')} tasks", hint=f"name one, as in {first}")
    item = outcome(shown)
    if context.output in {"", "json", "jsonl"} and context.format != "id":
        output.print_json(item)
        return
    pairs = ((present.label(key), present.value_text(key, value)) for key, value in item.items())
    output.print_one(context, item, ((name, text) for name, text in pairs if text))


def outcome(shown: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a shown document that say how it ended, all of them, null for what is not known."""
    item = {field: shown.get(field) for field in _FIELDS}
    if item["cause"] == "none":
        item["cause"] = None
    return item


VERBS = {"result": Verb(result, ("tq result 42", "tq result 43.7 -o table"))}
