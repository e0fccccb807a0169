"""`tq show`: everything about one job or task."""

import time
from typing import Any, Final

import typer

from tq.cli import options
from tq.cli.context import Context
from tq.cli.verb import Verb

# What a person looks for first, in this order; what is not named here follows.
_FIRST: Final = (
    "id", "state", "reason", "name", "command", "counts", "exit_code", "signal", "cause", "attempt", "failures",
    "losses", "worker", "host", "submitted_at", "leased_at", "started_at", "ended_at", "job_ended_at", "run_s", "usage",
    "queue", "priority", "tags",
)  # fmt: skip
_UNSAID: Final = frozenset({"history", "lease", "phase", "max_fails"})  # for programs


def show(ctx: typer.Context, id: options.Id) -> None:  # noqa: A002 - the word in the help
    """Show everything about one job or task."""
    from tq.cli import output, present, selectors
    from tq.core import vocabulary as v

    context: Context = ctx.obj
    with context.client() as client:
        answer = client.ask(v.Get(selectors.single(client, id)))
    assert isinstance(answer, v.Document)
    item = present.document(answer.value)
    output.print_one(context, item, lines(item, round(time.time() * 1_000), answer.value))


def lines(item: dict[str, Any], now_ms: int, raw: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the table of one job or task; what is empty is left out. `raw` has the instants in ms."""
    from tq.cli import present

    unsaid = {*_UNSAID, *({"job_ended_at"} if item.get("ended_at") else ())}
    if item.get("size") == 1:
        unsaid |= {"size", "counts"}
    keys = [*(key for key in _FIRST if key in item), *(key for key in item if key not in _FIRST)]
    pairs: list[tuple[str, str]] = []
    for key in keys:
        shown = present.value_text(key, item[key])
        if not shown or key in unsaid:
            continue
        ms = raw.get(key.removesuffix("_at") + "_ms") if key.endswith("_at") else 0
        pairs.append((present.label(key), f"{shown} ({present.ago(ms, now_ms)} ago)" if ms else shown))
    for entry in item.get("history") or []:
        parts = [
            f"{present.label(key)} {text}" if key in {"exit_code", "signal", "started_at", "ended_at"} else text
            for key, value in entry.items()
            if key not in {"attempt", "charged"} and (text := present.value_text(key, value))
        ]
        pairs.append((f"attempt {entry.get('attempt', '')}", ", ".join(parts)))
    return pairs


VERBS = {"show": Verb(show, ("tq show 42", "tq show 43.7 -o json"))}
