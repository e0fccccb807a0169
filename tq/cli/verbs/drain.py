"""`tq drain` and `tq undrain`: workers get nothing more to do, or go on."""

from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tq.cli.frame.context import Context
from tq.cli.frame.verb import Verb
from tq.cli.showing.pages import every
from tq.client.sansio.documents import expect
from tq.errors import Refused

if TYPE_CHECKING:
    from tq.cli.showing.selectors import LeftOut
    from tq.client.drivers.blocking import Client

_LOOK_S = 0.2
_DETACHED = 130

Workers = Annotated[
    list[str], typer.Argument(metavar="WORKER...", help="An id, the beginning of one, or a host", show_default=False)
]


def drain(
    ctx: typer.Context,
    workers: Workers,
    deadline: Annotated[
        str,
        typer.Option(
            "--deadline",
            metavar="DURATION",
            help="Stop what still runs there after so long, and let it start anew elsewhere; without, it may end",
            show_default=False,
        ),
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Return once nothing is left there")] = False,
) -> None:
    """Give a worker nothing more to do, or several.

    What has not started goes elsewhere at once; what runs there may end, until the deadline. A worker stays connected
    and drained until `tq undrain`, also when it was cut off or lost, or the server has restarted; one that is started
    anew takes work. Stopped tasks get TERM, and KILL when their time is over; they go back to the queue, and neither a
    retry nor a loss is counted.
    """
    from tq.cli.frame import values

    context: Context = ctx.obj
    deadline_ms = values.duration_ms(deadline) if deadline else -1
    with context.client() as client:
        names, left_out = _ask_all(client, workers, on=True, deadline_ms=deadline_ms)
        if wait:
            for name in names:
                _talk(context, name, "drains")
        for name in names:
            if wait:
                try:
                    _until_empty(client, name)
                except KeyboardInterrupt:
                    context.talk(f"\ntq: detached; it drains on. To let it go on: tq undrain {' '.join(names)}")
                    raise typer.Exit(_DETACHED) from None
            _print(context, name, on=True, is_empty=wait)
    left_out.refuse()


def undrain(ctx: typer.Context, workers: Workers) -> None:
    """Let drained workers go on, and those that are quarantined try again at once."""
    context: Context = ctx.obj
    with context.client() as client:
        names, left_out = _ask_all(client, workers, on=False)
    for name in names:
        _print(context, name, on=False)
    left_out.refuse()


def _ask_all(client: "Client", workers: list[str], **fields: Any) -> "tuple[list[str], LeftOut]":
    """Ask of each, and return their names, as the server says them, and the words that name nothing."""
    from tq.cli.showing.selectors import LeftOut
    from tq.core import vocabulary as v

    names: list[str] = []
    left_out = LeftOut()
    for worker in workers:
        with left_out.noting(worker):
            names.append(expect(v.Done, client.ask(v.Drain(worker, **fields))).text or worker)
    return names, left_out


def _until_empty(client: "Client", name: str) -> None:
    """Wait until a worker holds nothing, or is gone. Raises Refused if it goes on instead."""
    import time

    from tq.core import vocabulary as v

    while True:
        items = chain.from_iterable(every(client, v.Workers))
        shown = next((item for item in items if item.get("id") == name), None)
        if shown is None or not shown.get("held"):
            return
        if not shown.get("draining", True) and shown.get("state") != "suspect":
            raise Refused(f"{name} is not empty: somebody has let it go on", hint="tq workers")
        time.sleep(_LOOK_S)


def _talk(context: Context, name: str, what: str) -> None:
    if context.is_table:
        context.talk(f"tq: {name} {what}")


def _print(context: Context, name: str, *, on: bool, is_empty: bool = False) -> None:
    from tq.cli.showing import output

    if context.is_json:
        output.print_json({"id": name, "draining": on} | ({"held": 0} if is_empty else {}))
    elif context.format == "id":
        output.print_line(name)
    else:
        _talk(context, name, "is empty" if is_empty else "drains: it gets nothing more" if on else "goes on")


VERBS = {
    "drain": Verb(
        drain,
        (
            "tq drain w3fa9",
            "tq drain build-7.example --deadline 10m --wait",
            "tq workers --label room=b -q | xargs tq drain",
        ),
    ),
    "undrain": Verb(undrain, ("tq undrain w3fa9",)),
}
