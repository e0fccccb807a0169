"""`tq cancel`: what has not started never will, what runs is stopped."""

from typing import Annotated

import typer

from tq import limits
from tq.cli import options
from tq.cli.context import Context
from tq.cli.verb import Verb
from tq.errors import AlreadyEnded


def cancel(
    ctx: typer.Context,
    ids: options.Ids,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be cancelled; cancel nothing")] = False,
) -> None:
    """Cancel jobs or tasks.

    What waits ends at once; what runs is sent TERM and, after its --kill-after, KILL. Exits with 1 when all of it
    had ended already.
    """
    from tq.cli import output, selectors
    from tq.core import vocabulary as v

    context: Context = ctx.obj
    cancelled, stopping, ended, sweeping = 0, 0, 0, False
    with context.client() as client:
        names = selectors.expand(client, ids)
        if dry_run:
            for name in names:
                output.print_line(name)
            return
        refused = None
        for start in range(0, len(names), limits.page_items_max):
            try:
                answer = client.ask(v.Cancel(tuple(names[start : start + limits.page_items_max])))
            except AlreadyEnded as error:
                # Asked again after a cut, they may have ended by the first asking: that is what was wanted.
                refused = None if client.has_repeated else error
                continue
            assert isinstance(answer, v.Acted)
            cancelled += answer.done
            stopping += answer.stopping
            ended += answer.unchanged
            sweeping |= answer.sweeping
    if refused is not None and not (cancelled or stopping or sweeping):
        raise refused
    if context.format in {"json", "jsonl"}:
        output.print_json({"cancelled": cancelled, "stopping": stopping, "ended": ended, "sweeping": sweeping})
        return
    parts = [(cancelled, "cancelled"), (stopping, "being stopped"), (ended, "had ended already")]
    text = ", ".join(f"{count} {what}" for count, what in parts if count) or "nothing to cancel"
    context.talk(f"tq: {text}" + ("; the rest follows" if sweeping else ""))


VERBS = {"cancel": Verb(cancel, ("tq cancel 42", "tq cancel 43.1-5", "tq cancel last"))}
