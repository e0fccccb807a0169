"""`tq worker`: options to settings; the worker itself is tq.worker."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tq.cli.frame import parent
from tq.cli.frame.verb import Verb
from tq.errors import BadRequest

if TYPE_CHECKING:
    from tq.cli.frame.context import Context
    from tq.worker.discovery import Find

Slots = Annotated[int, typer.Option("--slots", metavar="N", help="Tasks at once; 0 = as many as there are CPUs")]
DrainTime = Annotated[
    str, typer.Option("--drain-time", metavar="DURATION", help="At SIGTERM, how long running tasks may take to end")
]
Queues = Annotated[
    list[str] | None,
    typer.Option("--queue", metavar="QUEUE", help="Take tasks of this queue only; repeatable", show_default=False),
]

Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="MODULE",
        help="Call functions of this module, and of those below it; repeatable",
        show_default=False,
    ),
]


Url = Annotated[
    str, typer.Option("--url", metavar="URL", help="The server; TQ_URL, or the one of this user", show_default=False)
]
OfData = Annotated[
    str,
    typer.Option("--data", metavar="DIR", help="The server that runs on this data directory here", show_default=False),
]
Cpus = Annotated[str, typer.Option("--cpus", metavar="N", help="CPUs to offer; as the machine has", show_default=False)]
Mem = Annotated[
    str,
    typer.Option(
        "--mem",
        metavar="SIZE",
        help="Memory to offer, as in 8G; as the machine has; no task can demand it yet",
        show_default=False,
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY=VALUE",
        help="A word to tell it by; no task can demand it yet; repeatable",
        show_default=False,
    ),
]
Name = Annotated[
    str, typer.Option("--name", metavar="NAME", help="What to be called; the machine's name", show_default=False)
]
MaxTasks = Annotated[
    int | None, typer.Option("--max-tasks", metavar="N", help="Leave after at most so many tasks", show_default=False)
]
IdleTimeout = Annotated[
    str, typer.Option("--idle-timeout", metavar="DURATION", help="Leave after so long with no task", show_default=False)
]


def worker(
    ctx: typer.Context,
    url: Url = "",
    data: OfData = "",
    slots: Slots = 0,
    cpus: Cpus = "",
    mem: Mem = "",
    label: Labels = None,
    queue: Queues = None,
    name: Name = "",
    drain_time: DrainTime = "30s",
    max_tasks: MaxTasks = None,
    idle_timeout: IdleTimeout = "",
    allow: Allow = None,
) -> None:
    """Run tasks until SIGTERM or Ctrl-C.

    The first signal drains: nothing new is taken, and what runs may end within the drain time. The second stops now. On
    another machine give it TQ_URL and TQ_JOIN from `tq join`; here it finds the server of this user, and again where
    that comes back at another port. Whoever may submit runs code as this user.

    A worker that leaves by itself (`--max-tasks`, `--idle-timeout`) ends what it has begun, and exits with 0.
    """
    import gc

    from tq.cli.frame import values
    from tq.client import target
    from tq.worker import work
    from tq.worker.settings import Settings, check_options

    context: Context = ctx.obj
    parent.follow(context.environ)
    settings = Settings(
        state=target.directories(context.environ).state,
        slots=slots,
        cpus=_positive("cpus", cpus, values.cpus_milli(cpus)) / 1_000 if cpus else 0.0,
        mem_bytes=_positive("mem", mem, values.size_bytes(mem)) if mem else 0,
        queues=tuple(queue or ()),
        labels=tuple(label or ()),
        name=name,
        modules=tuple(allow or ()),
        drain_s=values.duration_ms(drain_time) / 1_000,
        tasks_max=max_tasks,
        idle_s=values.duration_ms(idle_timeout) / 1_000 if idle_timeout else None,
    )
    check_options(settings)  # what is wrong with the command line is said even where no server is
    find = finder(context, url, data)
    gc.enable()
    raise typer.Exit(work.main(settings, find) or 0)


def _positive(option: str, text: str, value: int) -> int:
    if value <= 0:
        raise BadRequest(f"--{option} {text}: that is nothing to offer", hint="leave it out for what the machine has")
    return value


def finder(context: "Context", url: str, data: str) -> "Find":
    """Return what tells where the server to work for is, each time it is asked: that of a data directory, or any.

    Options and variables say the same each time; a file may not.
    """
    import os

    from tq.client import target
    from tq.net.address import Address
    from tq.worker.settings import Server

    if url and data:
        raise BadRequest("--url and --data name a server each", hint="give one of them")
    flags = {"url": url or context.url}
    # Settings of the user that name another server (TQ_*, config.toml) do not count: the directory says it all.
    path = Path(os.path.expanduser(data)).absolute() if data else None  # noqa: PTH111
    first = target.of_directory(path, context.environ) if path else target.find(flags, context.environ)

    def find() -> Server:
        now = target.of_directory(path, context.environ) if path else target.find_again(first, flags, context.environ)
        return Server(Address(now.host, now.port), now.token, now.ca_pem, now.ca_sha256)

    return find


VERBS = {
    "worker": Verb(
        worker,
        (
            "tq worker",
            "PYTHONPATH=lib tq worker --allow images",
            "tq worker --slots 8 --queue builds --name rack-7",
            "tq worker --max-tasks 1000 --idle-timeout 10m",
            "TQ_URL=tq://queue:7878 TQ_JOIN=tq1.… tq worker",
        ),
        asks_server=False,
    )
}
