"""`tq store`: is what is on disk whole, how large is it, and giving back what is not needed."""

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tq.cli.frame.context import Context
from tq.cli.frame.verb import Noun, Verb
from tq.cli.showing.present import counted
from tq.cli.verbs.server import directories
from tq.client.sansio.documents import expect
from tq.errors import ConfigurationError, StoreError, Unauthorised, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tq.store.disk import DiskStore

Data = Annotated[
    str,
    typer.Option("--data", metavar="DIR", help="The data directory; TQ_DATA, or ~/.local/share/tq", show_default=False),
]


def stats(ctx: typer.Context, data: Data = "") -> None:
    """Show sizes, memory and settings of the store, asked of the server, or read when none runs."""
    from tq.cli.showing import output, present
    from tq.client.sansio import documents
    from tq.core import vocabulary as v

    context: Context = ctx.obj
    found = _offline(context, data)
    if found is None:
        with context.client() as client:
            found = expect(v.Document, client.ask(v.StoreStatistics())).value
    item = documents.document(found)
    output.print_one(
        context, item, ((key.replace("_", " "), present.value_text(key, value) or "-") for key, value in item.items())
    )


def check(ctx: typer.Context, data: Data = "") -> None:
    """Check every rule of the store; exits with 1 when one is broken. The server must not be running."""
    from tq.cli.showing import output

    context: Context = ctx.obj
    directory = directories(context.environ, data).data
    problems, summary = _check(directory)
    if context.is_json:
        output.print_json({"ok": not problems, "problems": problems, **summary})
    else:
        for problem in problems:
            output.print_line(problem)
        if not problems:
            context.talk(f"tq: {directory} is whole: {summary['rows']} rows, up to commit {summary['sequence']}")
    if problems:
        raise typer.Exit(1)


def compact(ctx: typer.Context, data: Data = "") -> None:
    """Give the room of forgotten jobs back to the disk now. The server must not be running.

    A running server does the same in the background, bit by bit: this is for who cannot wait.
    """
    from tq.cli.showing import output, present
    from tq.store.directory import hold_directory
    from tq.store.disk import open_store

    context: Context = ctx.obj
    directory = directories(context.environ, data).data
    with hold_directory(directory, create=False) as lock:
        before = _size_bytes(directory)
        store = open_store(lock)
        try:
            store.compact()
        finally:
            store.close()
        after = _size_bytes(directory)
    if context.is_json:
        output.print_json({"before_bytes": before, "after_bytes": after})
    else:
        context.talk(f"tq: {directory} had {present.size(before)}, and has {present.size(after)}")


def salvage(
    ctx: typer.Context,
    data: Data = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be given up, and change nothing")] = False,
    drop_damaged: Annotated[
        bool, typer.Option("--drop-damaged", help="Remove the damaged store, which else stays in DIR/damaged-N")
    ] = False,
) -> None:
    """Make a store that refuses to open whole of what can be read of it. The server must not be running.

    What is given up is said on stdout, a line each: commits, stretches of tables, jobs. Where the record of a task that
    may have run is lost, it does not start again but is a dead letter; a job in doubt is held. The store gets a new
    name: workers stop what they hold of it, and keep its results. A recent backup, if there is one, may be better.
    """
    import secrets
    import time

    from tq.cli.showing import output
    from tq.store import salvage as store_salvage

    context: Context = ctx.obj
    directory = directories(context.environ, data).data
    order = store_salvage.Order(secrets.randbits(63) | 1, time.time_ns() // 1_000_000, dry_run, not drop_damaged)
    try:
        found = store_salvage.salvage(directory, order)
    except OSError as error:
        raise StoreError(f"the store cannot be salvaged: {error}", hint="see to the disk, and try again") from error
    if context.is_json:
        salvaged = found is not None and not dry_run
        shown = {"losses": found.losses, "sequence": found.sequence, **found.counts} if found else {"losses": []}
        output.print_json({"salvaged": salvaged, **shown, "kept": str(found.kept) if found and found.kept else None})
        return
    for loss in found.losses if found else ():
        output.print_line(loss)
    if found is None:
        context.talk(f"tq: {directory} is whole: there is nothing to salvage")
    elif dry_run:
        would = f"this would leave {counted(found.counts['jobs'], 'job')}; " if found.counts else ""
        context.talk(f"tq: {would}nothing was changed")
    else:
        context.talk(f"tq: {directory} is whole again" + (f"; the damaged store is {found.kept}" if found.kept else ""))


def _size_bytes(directory: "Path") -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _offline(context: Context, data: str) -> dict[str, Any] | None:
    """Return the statistics of a store that no server has open; None when a server is to be asked."""
    if context.url or (not data and not context.environ.get("TQ_DATA") and _is_somebody_known(context)):
        return None
    try:
        with _opened(directories(context.environ, data).data) as store:
            return {"served": False, **store.statistics()}
    except ConfigurationError:
        if _is_somebody_known(context):
            return None
        raise


def _is_somebody_known(context: Context) -> bool:
    from tq.client import target

    try:
        target.find({"url": context.url}, context.environ)
    except (Unreachable, Unauthorised, ConfigurationError):
        return False
    return True


@contextmanager
def _opened(data: "Path") -> "Iterator[DiskStore]":
    """Open the store of a directory for reading, under its lock. Raises ConfigurationError when it is served."""
    from tq.store.directory import hold_directory
    from tq.store.disk import open_for_reading

    with hold_directory(data, create=False) as lock:
        store = open_for_reading(lock)
        try:
            yield store
        finally:
            store.close()


def _check(data: "Path") -> tuple[list[str], dict[str, Any]]:
    """Return what is wrong with a store, in words, and how much was looked at."""
    from tq.core.repair import invariants
    from tq.store.check import check_bytes

    with _opened(data) as store:
        checked = check_bytes(store)
        problems = checked.problems or invariants.check(store)
        return problems, {"rows": sum(checked.rows.values()), "sequence": store.statistics()["sequence"]}


VERBS = {
    "store": Noun(
        "Look at the store on disk, and tidy it.",
        {
            "check": Verb(check, ("tq store check", "tq store check --data /srv/tq -o json")),
            "stats": Verb(stats, ("tq store stats",)),
            "salvage": Verb(salvage, ("tq store salvage --dry-run", "tq store salvage --data /srv/tq")),
            "compact": Verb(compact, ("tq store compact", "tq store compact --data /srv/tq")),
        },
        ("tq store check", "tq store stats -o json"),
    )
}
