"""`tq drain` and `tq undrain`: a worker gets nothing more to do, or goes on."""

from typing import Annotated

import typer

from tq.cli.context import Context
from tq.cli.verb import Verb

Worker = Annotated[
    str, typer.Argument(metavar="WORKER", help="Its id, the beginning of it, or its host", show_default=False)
]


def drain(ctx: typer.Context, worker: Worker) -> None:
    """Give a worker nothing more to do.

    What runs there ends; what waits there goes elsewhere.
    """
    _ask(ctx.obj, worker, on=True)


def undrain(ctx: typer.Context, worker: Worker) -> None:
    """Let a drained worker go on."""
    _ask(ctx.obj, worker, on=False)


def _ask(context: Context, worker: str, *, on: bool) -> None:
    from tq.cli import output
    from tq.core import vocabulary as v

    with context.client() as client:
        answer = client.ask(v.Drain(worker, on))
    name = answer.text if isinstance(answer, v.Done) and answer.text else worker
    if context.format in {"json", "jsonl"}:
        output.print_json({"id": name, "draining": on})
    elif context.format == "id":
        output.print_line(name)
    else:
        context.talk(f"tq: {name} {'drains: it gets nothing more' if on else 'goes on'}")


VERBS = {
    "drain": Verb(drain, ("tq drain w3fa9", "tq drain build-7.example")),
    "undrain": Verb(undrain, ("tq undrain w3fa9",)),
}
