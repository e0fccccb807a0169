"""`tq rerun`: the same request once more, as a new job."""

from typing import TYPE_CHECKING

import typer

from tq.cli.frame import options
from tq.cli.frame.context import Context
from tq.cli.frame.verb import Verb
from tq.cli.verbs.act import BulkVerb, DryRun, Yes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tq.client.drivers.blocking import Client
    from tq.core import vocabulary as v

_DEED = BulkVerb("rerun", "Submit", (), "submitted again", "", "")


def rerun(ctx: typer.Context, ids: options.Ids, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Submit jobs again, each as a new one, and print the new ids.

    Command, environment, directory, input, queue, priority and limits are those of the old job; an array runs as a
    whole. A name, a tag, `@failed` (jobs in which something failed) and `all` mean every such job, ended or not, oldest
    first. To change something: `tq submit --like ID`. To run again what failed, in the same job: `tq retry`.
    """
    from tq.cli.showing import selectors
    from tq.cli.submitting import old_request
    from tq.cli.submitting.delivery import deliver, print_submitted
    from tq.cli.verbs import act
    from tq.core import vocabulary as v

    context: Context = ctx.obj
    with context.client() as client:
        targets = selectors.targets(client, ids)
        targets.left_out.refuse()
        names = selectors.named(client, targets)
        if targets.filters and not (yes or dry_run):
            act.confirm(_DEED.word, len(names), "jobs")
        olds = _fetch_all(client, names)
        if dry_run:
            act.say(context, _DEED, v.Acted(len(olds)), dry_run=True)
            return
        done = 0
        for name, old in olds.items():
            with targets.left_out.noting(name):
                print_submitted(context, deliver(context, client, old_request.again(context, old)))
                done += 1
    if targets.filters:
        context.talk(f"tq: {done} {_DEED.done}" if olds else "tq: nothing to rerun")
    targets.left_out.refuse()


def _fetch_all(client: "Client", names: "Iterable[str]") -> "dict[str, v.Submit]":
    """Return the requests that made jobs, by name; nothing is submitted if one of them is not there."""
    from tq.cli.showing import selectors
    from tq.cli.submitting import old_request

    left_out, olds = selectors.LeftOut(), {}
    for name in names:
        with left_out.noting(name):
            olds[name] = old_request.fetch(client, name)
    left_out.refuse()
    return olds


VERBS = {"rerun": Verb(rerun, ("tq rerun 42", "tq rerun last"))}
