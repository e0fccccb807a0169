"""`tq cancel`, `hold`, `release`, `requeue`, `retry`, `set`, `forget`: one way of acting on many, and what each says.

Ids and ranges go to the server as they are, everything else as a filter that the server walks: what is many goes on
there as a sweep, which this program does not wait for. A filter over more than one job is confirmed first.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tq.cli.frame import options
from tq.cli.frame.context import Context, is_terminal
from tq.cli.frame.verb import Verb
from tq.cli.showing.present import ALIVE, TERMINAL
from tq.client.sansio.documents import expect
from tq.errors import AlreadyEnded, BadRequest, TaskNotFound, TqError

if TYPE_CHECKING:
    from tq.cli.showing.selectors import Targets
    from tq.client.drivers.blocking import Client
    from tq.core import vocabulary as v

_COUNTED_MAX = 10_000
_REST = " so far; the rest goes on in the background, and `tq` says how far it is"


class NotConfirmed(TqError):
    """The person did not type what was asked for."""

    code = "not_confirmed"


class BulkVerb(NamedTuple):
    """What a verb does and says. `command` is the word of the vocabulary; `states` are those that it can touch."""

    word: str
    command: str
    states: tuple[str, ...]
    done: str
    stopping: str
    unchanged: str
    elsewhere: str = ""  # a hint where nothing could be done: the verb that was perhaps meant


class Choice(NamedTuple):
    """The arguments that all these verbs share."""

    words: list[str] | None
    states: list[str] | None
    queue: str
    tag: str
    name: str
    dry_run: bool
    yes: bool
    cause: str = ""
    is_letter: bool = False  # only what is in the dead letter queue


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...",
        help="42, 43.7, 43.1-5, last, last.7, all, @failed, a name or a tag, NAME.7",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; do nothing")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask, however many jobs a filter matches")]


def _plain(bulk: BulkVerb, help_text: str) -> Callable[..., None]:
    """Return the function of a verb that takes no options of its own."""

    def verb(
        ctx: typer.Context,
        ids: Words = None,
        state: options.States = None,
        queue: options.OfQueue = "",
        tag: options.OfTag = "",
        name: options.OfName = "",
        dry_run: DryRun = False,
        yes: Yes = False,
    ) -> None:
        act(ctx.obj, bulk, Choice(ids, state, queue, tag, name, dry_run, yes))

    verb.__doc__ = help_text
    return verb


def cancel(
    ctx: typer.Context,
    ids: Words = None,
    state: options.States = None,
    queue: options.OfQueue = "",
    tag: options.OfTag = "",
    name: options.OfName = "",
    signal: Annotated[
        str, typer.Option("--signal", metavar="SIGNAL", help="Send this first: a name or a number", show_default=False)
    ] = "",
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Cancel jobs or tasks.

    What waits ends at once; what runs is sent TERM (or what it was submitted with, --stop-signal) and, after its
    --kill-after, KILL. With --signal, what is being stopped already is sent that signal as well: --signal KILL ends it
    now. Exits with 1 when all of it had ended already.
    """
    from tq.cli.frame import values

    bulk = BulkVerb("cancel", "Cancel", ALIVE, "cancelled", "being stopped", "had ended already")
    number = values.stop_signal(signal, "--signal") if signal else 0
    act(ctx.obj, bulk, Choice(ids, state, queue, tag, name, dry_run, yes), signal=number)


def retry(
    ctx: typer.Context,
    ids: Words = None,
    state: options.States = None,
    queue: options.OfQueue = "",
    tag: options.OfTag = "",
    name: options.OfName = "",
    force: Annotated[bool, typer.Option("--force", help="Run again what succeeded, too")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Run again what failed, was cancelled or expired.

    A new round begins in the same job, with all its retries.
    """
    bulk = BulkVerb("retry", "Retry", TERMINAL if force else TERMINAL[1:], "queued again", "",
                "not ended" if force else "not failed",
                "tq retry is for what failed (--force: what succeeded, too); tq requeue is for what runs")  # fmt: skip
    act(ctx.obj, bulk, Choice(ids, state, queue, tag, name, dry_run, yes), force=force)


def set_(
    ctx: typer.Context,
    ids: Words = None,
    priority: Annotated[
        int | None, typer.Option("--priority", metavar="N", help="-100 (last) to 100 (first)", show_default=False)
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            "--at-once",
            metavar="N",
            help="Run at most so many tasks of an array at once; 0 = no bound",
            show_default=False,
        ),
    ] = None,
    state: options.States = None,
    queue: options.OfQueue = "",
    tag: options.OfTag = "",
    name: options.OfName = "",
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Change what may change of jobs that have not ended: their priority, or how much of an array runs at once.

    What runs goes on, also above a new bound. What a job runs, where, for how long and how often it is tried again is a
    part of its request and stays: submit it anew with that changed (`tq submit --like ID`), and cancel the old one.
    """
    from tq.cli.frame import values

    choice = Choice(ids, state, queue, tag, name, dry_run, yes)
    if (priority is None) is (at_once is None):
        raise BadRequest("set what: --priority or --at-once?", hint="one of them, as in tq set 42 --priority 50")
    if at_once is not None:
        if at_once < 0:
            raise BadRequest(f"--at-once {at_once} must not be negative", hint="0 means no bound")
        bulk = BulkVerb("set", "SetThrottle", ALIVE, "changed", "", "had ended already, or one task")
        act(ctx.obj, bulk, choice, throttle=at_once)
    elif priority is not None:
        bulk = BulkVerb("set", "SetPriority", ALIVE, "changed", "", "had ended already")
        act(ctx.obj, bulk, choice, priority=values.priority(priority))


def act(context: Context, bulk: BulkVerb, choice: Choice, **more: Any) -> None:
    """Do it, and say how many; exit with 1 when nothing of what was named, by id or by name, could be done.

    What of several is not found is named behind that: the others are done.
    """
    from tq.core import vocabulary as v

    total = v.Acted(0)
    refused: TqError | None = None
    with context.client() as client:
        targets = _targets(client, bulk, choice)
        if targets.filters and not (choice.yes or choice.dry_run):
            count = _count(client, bulk, targets, is_letter=choice.is_letter)
            confirm(bulk.word, count, "dead letters" if choice.is_letter else "jobs")
        for command in _commands(bulk, targets, choice, more):
            try:
                answer = expect(v.Acted, client.ask(command))
            except AlreadyEnded as error:
                # Asked again after a cut, it may have been done by the first asking: that is what was wanted.
                refused = None if client.has_repeated else error
                continue
            except TaskNotFound as error:
                if not (client.has_repeated and bulk.command == "Forget"):
                    refused = error
                    targets.left_out.note(command.ids)
                continue
            except TqError:
                if total != v.Acted(0):  # by the commands before this one
                    say(context, bulk, total, targets.left_out.unknown, dry_run=choice.dry_run)
                raise
            targets.left_out.note(answer.unknown)
            total = v.Acted(
                total.done + answer.done,
                total.stopping + answer.stopping,
                total.unchanged + answer.unchanged,
                total.sweeping or answer.sweeping,
            )
        if targets.names and len(targets.names) == len(targets.filters) and not client.has_repeated:
            what = f"{', '.join(targets.names[:5])}: {bulk.unchanged}"
            refused = refused or AlreadyEnded(f"nothing to do: {what}")
    if refused is not None and not (total.done or total.stopping or total.sweeping):
        if isinstance(refused, AlreadyEnded):
            refused.hint = refused.hint or bulk.elsewhere
        raise refused
    say(context, bulk, total, targets.left_out.unknown, dry_run=choice.dry_run)
    targets.left_out.refuse()


def _targets(client: "Client", bulk: BulkVerb, choice: Choice) -> "Targets":
    """Return what is acted on. A filter's states are those the verb can touch, unless the person chose some."""
    from tq.cli.frame import values
    from tq.cli.showing import selectors
    from tq.core import vocabulary as v

    chosen = v.Where(values.states(choice.states), choice.queue, choice.tag, choice.name, choice.cause)
    if choice.words:
        return selectors.targets(client, choice.words, chosen)
    if chosen == v.Where():
        listed = "`tq dlq ls` lists them" if choice.is_letter else "`tq ls` lists jobs"
        raise BadRequest(f"{bulk.word} what?", hint=f"tq {bulk.word} 42, or tq {bulk.word} --tag nightly; {listed}")
    found = selectors.Targets()
    found.filters.append(chosen)
    return found


def _commands(bulk: BulkVerb, targets: "Targets", choice: Choice, more: dict[str, Any]) -> Iterator[Any]:
    from msgspec.structs import replace

    from tq.cli.showing import selectors
    from tq.core import vocabulary as v

    kind = getattr(v, bulk.command)
    among = None if targets.among == v.Where() else targets.among
    if choice.is_letter:
        among = replace(targets.among, states=bulk.states, is_letter=True)
    for group in selectors.groups(list(targets.ids)):
        yield kind(group, among, choice.dry_run, **more)
    for where in targets.filters:
        yield kind((), replace(where, is_letter=choice.is_letter), choice.dry_run, **more)


def confirm(word: str, count: int, what: str) -> None:
    """Have the person type how many a verb is about, when it is more than one. Raises NotConfirmed, BadRequest."""
    if count < 2:
        return
    many = f"{count} {what} or more" if count >= _COUNTED_MAX else f"{count} {what}"
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise BadRequest(
            f"`tq {word}` would touch {many}; say so with --yes", hint="look first: the same with --dry-run"
        )
    sys.stderr.write(f"tq: `tq {word}` would touch {many}. To go on, type {count}: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != str(count):
        raise NotConfirmed("nothing was done", hint="look first: the same with --dry-run")


def _count(client: "Client", bulk: BulkVerb, targets: "Targets", *, is_letter: bool) -> int:
    """Count the jobs, or the dead letters, that filters match and the verb can touch, up to a bound.

    Letters of one job count as that job: 1.
    """
    from tq.cli.showing import selectors

    found: set[str] = set()
    among: set[str] = set()
    for where in targets.filters:
        matching = selectors.letters(client, where) if is_letter else selectors.jobs(client, _touched(bulk, where))
        for one in matching:
            found.add(one)
            among.add(one.partition(".")[0])
            if len(found) >= _COUNTED_MAX:
                break
    return min(len(found), _COUNTED_MAX) if len(among) > 1 else 1


def _touched(bulk: BulkVerb, where: "v.Where") -> "v.Where":
    from msgspec.structs import replace

    return where if where.states else replace(where, states=bulk.states)


def say(context: Context, bulk: BulkVerb, total: "v.Acted", unknown: Sequence[str] = (), *, dry_run: bool) -> None:
    """Say how many it was done to, or would be; for scripts also what was not found."""
    from tq.cli.showing import output

    if context.is_json:
        output.print_json(
            {
                "verb": bulk.word,
                "done": total.done,
                "stopping": total.stopping,
                "unchanged": total.unchanged,
                "sweeping": total.sweeping,
                "not_found": list(unknown),
                "dry_run": dry_run,
            }
        )
        return
    parts = ((total.done, bulk.done), (total.stopping, bulk.stopping), (total.unchanged, bulk.unchanged))
    nothing = f"nothing to {bulk.word.removeprefix('dlq ')}" + (
        " among the oldest jobs" if total.sweeping and dry_run else ""
    )
    text = ", ".join(f"{count} {what}" for count, what in parts if count and what) or nothing
    if dry_run:
        rest = "; it looked at the oldest jobs alone" if total.sweeping else ""
        context.talk(f"tq: nothing is done; without --dry-run: {text}{rest}")
    else:
        context.talk(f"tq: {text}{_REST if total.sweeping else ''}")


def _verb(bulk: BulkVerb, help_text: str, *examples: str) -> Verb:
    return Verb(_plain(bulk, help_text), examples)


VERBS = {
    "cancel": Verb(
        cancel,
        ("tq cancel 42 43.1-5", "tq cancel 43 --state queued", "tq cancel --signal INT 42", "tq cancel --tag x --yes"),
    ),
    "hold": _verb(
        BulkVerb("hold", "Hold", ALIVE, "held", "", "held already, or ended"),
        """Start nothing more of these jobs until they are released.

        What runs goes on. A hold is for whole jobs.
        """,
        "tq hold 42", "tq hold --queue builds --yes",
    ),
    "release": _verb(
        BulkVerb("release", "Release", ALIVE, "released", "", "not held"),
        "Let held jobs go on.",
        "tq release 42", "tq release all --yes",
    ),
    "requeue": _verb(
        BulkVerb("requeue", "Requeue", ("running",), "queued again", "being stopped to run again", "not running",
             "tq requeue is for what runs; tq retry runs again what has ended"),
        """Stop what runs and put it back into the queue.

        It counts as no failure: the attempt is not charged.
        """,
        "tq requeue 42", "tq requeue 43.7",
    ),
    "retry": Verb(retry, ("tq retry 42", "tq retry @failed --yes", "tq retry --force 43.1-5")),
    "set": Verb(set_, ("tq set 42 --priority 50", "tq set 43 --at-once 8", "tq set nightly --priority -10")),
    "forget": _verb(
        BulkVerb("forget", "Forget", TERMINAL, "forgotten", "", "not ended"),
        """Remove ended jobs with their records and output.

        Nothing of them is left to look at. What has not ended stays: cancel it first.
        """,
        "tq forget 42", "tq forget --state succeeded --dry-run",
    ),
}  # fmt: skip
