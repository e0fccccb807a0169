"""`tq wait`: until jobs or tasks have ended, and the exit status that stands for how."""

from typing import TYPE_CHECKING, Annotated

import typer

from tq.cli.frame import options
from tq.cli.frame.context import Context
from tq.cli.frame.verb import Verb
from tq.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tq.core import vocabulary as v

_UNTIL = ("done", "ok", "running")
_NAMED_MAX = 20  # that the word at Ctrl-C names


def wait(
    ctx: typer.Context,
    ids: options.Ids,
    any_: Annotated[bool, typer.Option("--any", help="Until one of them has ended; exit as that one did")] = False,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="DURATION", help="Give up after so long, with 124", show_default=False)
    ] = "",
    until: Annotated[
        str, typer.Option("--for", metavar="WHAT", help="done; ok (give up at the first failure); or running")
    ] = "done",
    exit_code: options.ExitCode = "any",
) -> None:
    """Wait until jobs or tasks have ended and exit as they did.

    One task: its own code, 128+N for a signal, 124 for its time limit, 130 when it was cancelled, 125 when it ended
    without a code of its own. Several: 0 if all succeeded, else 1. Ctrl-C stops waiting, not the tasks.
    """
    from tq.cli.frame import values
    from tq.cli.showing import exits, pages, present, selectors, waiting
    from tq.core.read.waits import is_there

    if until not in _UNTIL:
        raise BadRequest(f"{until!r} is nothing to wait for", hint=f"one of {', '.join(_UNTIL)}")
    exits.check_way(exit_code)
    timeout_s = values.duration_ms(timeout) / 1_000 if timeout else None
    context: Context = ctx.obj

    def is_enough(waited: "v.Waited") -> bool:
        if any_ and any(map(exits.is_ended, waited.outcomes)):
            return True
        return waited.done or (until == "ok" and any(map(exits.is_failed, waited.outcomes)))

    with context.client() as client:
        names = selectors.expand(client, ids, "waited_ids_max")
        if not names:
            context.talk("tq: nothing to wait for: no job of these is left")
            return
        try:
            waited = waiting.until_all(
                client,
                names,
                is_enough,
                looks_at_all=any_ or until == "ok",
                for_running=until == "running",
                timeout_s=timeout_s,
                is_quiet=context.quiet,
                talk=context.talk,
            )
        except waiting.WaitTimedOut as late:
            _print(context, late.outcomes, is_done=False)
            what = "start" if until == "running" else "end"
            there = {outcome.id for outcome in late.outcomes if is_there(outcome, until)}
            left = pages.first_of([name for name in names if name not in there])
            context.talk(f"tq: {left} did not {what} within {present.seconds(timeout_s or 0)}")
            raise typer.Exit(waiting.TIMED_OUT) from None
        except KeyboardInterrupt:
            # By id: what `last` or a name means may be another one meanwhile.
            known = names if len(names) <= _NAMED_MAX else ids[:_NAMED_MAX]
            context.talk(f"\ntq: no longer waiting; to cancel: tq cancel {' '.join(known)}")
            raise typer.Exit(exits.CANCELLED) from None
    outcomes = [outcome for outcome in waited.outcomes if not any_ or exits.is_ended(outcome)]
    _print(context, outcomes, is_done=True)
    if until == "running" and not all(map(exits.is_ended, outcomes)):
        return
    status, says = exits.of_all(outcomes, exit_code)
    for text in says:
        context.talk(f"tq: {text}{waiting.why(outcomes[0]) if len(outcomes) == 1 else ''}")
    raise typer.Exit(status)


def _print(context: Context, outcomes: "Sequence[v.Outcome]", *, is_done: bool) -> None:
    """Print the outcomes, where a format for scripts was asked for."""
    if not context.is_json:
        return
    from tq.cli.showing import exits, output

    items = [
        {
            "id": outcome.id,
            "state": outcome.state,
            "size": outcome.size,
            "ended": outcome.ended,
            "succeeded": outcome.succeeded,
            "cause": outcome.cause or None,
            "exit_status": exits.of_one(outcome)[0] if exits.is_ended(outcome) else None,
        }
        for outcome in outcomes
    ]
    if context.format == "json":
        output.print_json({"done": is_done, "items": items})
    else:
        for item in items:
            output.print_json(item)


VERBS = {"wait": Verb(wait, ("tq wait 42", "tq wait --timeout 10m 42 43", "tq wait --any 43.1-5"))}
