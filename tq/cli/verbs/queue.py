"""`tq queue`: the queues, how many wait in each, and what is set for them."""

from typing import Annotated, Any

import typer

from tq.cli.frame.context import Context
from tq.cli.frame.verb import Noun, Verb
from tq.cli.showing.pages import Items, every
from tq.cli.showing.present import counted
from tq.client.sansio.documents import expect
from tq.errors import BadRequest, TaskNotFound

New = Annotated[bool, typer.Option("--new", help="Also one that has no tasks, settings or workers yet")]

Name = Annotated[str, typer.Argument(metavar="NAME", help="The queue", show_default=False)]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="The queues", show_default=False)]


def ls(ctx: typer.Context) -> None:
    """List the queues that have tasks or settings."""
    from tq.cli.showing import output
    from tq.core import vocabulary as v

    context: Context = ctx.obj
    with context.client() as client:
        pages = every(client, v.Queues)
        output.print_pages(context, pages, lambda: pages.next, _rows, what="queues with tasks or settings")


def _rows(items: Items) -> list[list[str]]:
    from tq.cli.showing import present

    rows = [["QUEUE", "STATE", "MAX", "RETRIES", "RUNNING", "QUEUED", "HELD", "OTHER"]]
    for item in items:
        counts = dict(item.get("counts") or {})
        shown = [counts.pop(state, 0) for state in ("running", "queued", "held")]
        other = sum(counts.get(state, 0) for state in present.ALIVE)
        rows.append(
            [
                str(item.get("id", "")),
                "paused" if item.get("paused") else "open",
                str(item.get("max") or "-"),
                "-" if item.get("retries", -1) < 0 else str(item["retries"]),
                *map(str, shown),
                str(other),
            ]
        )
    return rows


def set_(
    ctx: typer.Context,
    name: Name,
    max_: Annotated[
        int | None,
        typer.Option("--max", metavar="N", help="Run at most so many of it at once; 0 = no bound", show_default=False),
    ] = None,
    retries: Annotated[
        int | None,
        typer.Option(
            "--retries",
            metavar="N",
            help="Try its failed tasks again so often, where their job does not say; -1 = as the server says",
            show_default=False,
        ),
    ] = None,
    new: New = False,
) -> None:
    """Bound how many tasks of a queue run at once, or say how often they are tried again.

    What runs already goes on, also above a new bound; jobs that are there already keep their retries.
    """
    from tq.cli.frame import values

    if max_ is None and retries is None:
        raise BadRequest(f"set what of {name}?", hint=f"tq queue set {name} --max 10")
    if max_ is not None and max_ < 0:
        raise BadRequest(f"--max {max_} must not be negative", hint="0 means no bound")
    says = []
    if max_ is not None:
        says.append(f"runs at most {max_} at once" if max_ else "has no bound")
    if retries is not None:
        says.append("retries as the server says" if retries < 0 else f"retries {counted(retries, 'time')}")
    _set(ctx.obj, values.name(name, "queue"), " and ".join(says), new=new, max=max_, retries=retries)


def pause(ctx: typer.Context, names: Names, new: New = False) -> None:
    """Start nothing more of a queue, or of several; what runs goes on."""
    _set_all(ctx.obj, names, "is paused; what runs goes on", new=new, paused=True)


def resume(ctx: typer.Context, names: Names) -> None:
    """Let paused queues go on."""
    _set_all(ctx.obj, names, "goes on", unchanged="is not paused", paused=False)


def _set_all(context: Context, names: list[str], says: str, **more: Any) -> None:
    from tq.cli.frame import values
    from tq.cli.showing import selectors

    left_out = selectors.LeftOut()
    for name in [values.name(name, "queue") for name in names]:
        with left_out.noting(name):
            _set(context, name, says, **more)
    left_out.refuse()


def _set(
    context: Context, name: str, says: str, unchanged: str = "", *, new: bool | None = None, **fields: Any
) -> None:
    """Set it, and say so; or `unchanged`, where there is such a word, if it was so already. `new` None: it never is."""
    from tq.cli.showing import output
    from tq.core import vocabulary as v

    with context.client() as client:
        try:
            answer = expect(v.Done, client.ask(v.SetQueue(name, known=not new, **fields)))
        except TaskNotFound as unknown:
            hint = unknown.hint if new is None else f"{unknown.hint}; --new makes it"
            raise TaskNotFound(unknown.message, hint=hint) from None
        if unchanged and answer.unchanged and not client.has_repeated:
            says = unchanged
        elif answer.made and not client.has_repeated:
            says = f"is new, and {says}"
    if context.is_json:
        output.print_json({"id": name, **{key: value for key, value in fields.items() if value is not None}})
    elif context.format == "id":
        output.print_line(name)
    else:
        context.talk(f"tq: queue {name} {says}")


VERBS = {
    "queue": Noun(
        "List queues, pause and bound them.",
        {
            "ls": Verb(ls, ("tq queue ls", "tq queue ls -o json")),
            "set": Verb(set_, ("tq queue set builds --max 10", "tq queue set --new nightly --retries 0")),
            "pause": Verb(
                pause,
                ("tq queue pause builds", "tq queue pause --new nightly", "tq queue ls -q | xargs tq queue pause"),
            ),
            "resume": Verb(resume, ("tq queue resume builds",)),
        },
        ("tq queue ls", "tq queue set builds --max 10", "tq queue pause builds"),
    )
}
