"""`tq show`: everything about one job or task."""

import time
from typing import TYPE_CHECKING, Any, Final

import typer

from tq.cli import options
from tq.cli.context import Context
from tq.cli.verb import Verb

if TYPE_CHECKING:
    from tq.client.blocking import Client

# What a person looks for first, in this order; what is not named here follows.
_FIRST: Final = (
    "id", "state", "reason", "name", "command", "function", "arguments", "counts", "exit_code", "signal", "cause",
    "attempt", "failures", "losses", "worker", "host", "submitted_at", "leased_at", "started_at", "ended_at",
    "job_ended_at", "value_bytes", "run_s", "usage", "queue", "priority", "tags",
)  # fmt: skip
_UNSAID: Final = frozenset({"history", "lease", "phase", "max_fails", "last_lines", "purged", "round"})  # for programs


def show(ctx: typer.Context, id: options.Id) -> None:  # noqa: A002 - the word in the help
    """Show everything about one job or task."""
    context: Context = ctx.obj
    with context.client() as client:
        document = ask(client, id)
    print_document(context, document)


def ask(client: "Client", word: str) -> dict[str, Any]:
    """Return the document of one job or task, with the last lines of what failed."""
    from tq.cli import selectors, tail
    from tq.core import vocabulary as v

    answer = client.ask(v.Get(selectors.single(client, word)))
    assert isinstance(answer, v.Document)
    tail.add_last_lines(client, answer.value)
    return answer.value


def print_document(context: Context, document: dict[str, Any]) -> None:
    """Print it in the format asked for."""
    from tq.cli import output, present

    item = present.document(document)
    output.print_one(context, item, lines(item, round(time.time() * 1_000), document))


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
    if item.get("last_lines"):
        pairs.append(("last lines", "\n".join(item["last_lines"])))
    for entry in item.get("history") or []:
        parts = [
            f"{present.label(key)} {text}" if key in {"exit_code", "signal", "started_at", "ended_at"} else text
            for key, value in entry.items()
            if key not in {"attempt", "charged", "last_lines"} and (text := present.value_text(key, value))
        ]
        written = [f"  {text}" for text in entry.get("last_lines") or ()]
        pairs.append((f"attempt {entry.get('attempt', '')}", "\n".join([", ".join(parts), *written])))
    return pairs


VERBS = {"show": Verb(show, ("tq show 42", "tq show 43.7 -o json"))}
