"""How a request gets to the server, what it uploads first, and what is printed of the job that it has made."""

from typing import TYPE_CHECKING

from msgspec.structs import replace

from tq.cli.frame.context import Context, printing_once
from tq.client.sansio.documents import expect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tq.cli.submitting.entry_sources import Supply
    from tq.client.drivers.blocking import Client
    from tq.core import vocabulary as v


def deliver(
    context: Context,
    client: "Client",
    command: "v.Submit",
    pieces: "Sequence[v.Upload]" = (),
    source: "Supply | None" = None,
) -> "v.Submitted":
    """Send a request and return the answer. A large input goes first, in pieces, and so do entries."""
    from tq.core import vocabulary as v

    for piece in pieces:
        client.ask(piece)
    if source is not None:
        from tq.cli.submitting import entry_sources, request

        sent = entry_sources.upload(context, client, source, command, request.entries_of(command))
        command = replace(command, size=sent.size, entries_key=command.key, entries_digest=sent.digest)
    submitted = expect(v.Submitted, client.ask(command))
    if submitted.warning:
        from tq.cli.showing import waiting

        waiting.Reasons(context.talk).say(submitted.id, submitted.warning)
    return submitted


def print_submitted(context: Context, submitted: "v.Submitted", *, is_told: bool = False) -> None:
    """Print the id alone, or the object of -o json.

    A person who chose the key is told where it made no new job.
    """
    from tq.cli.showing import output

    if submitted.existed and is_told:
        context.talk(f"tq: {submitted.id} was submitted before, with this --key")
    job = submitted.id
    hint = f"see it: tq show {job}; to find it again submit with a --key of your own"
    with printing_once(f"job {job} is submitted, but its id is not printed", hint):
        if context.is_json:
            output.print_json({"id": job, "existed": submitted.existed, "warning": submitted.warning or None})
        else:
            output.print_line(job)
