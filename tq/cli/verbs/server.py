"""`tq server`: options to settings; the server itself is tq.server."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tq import limits
from tq.cli.frame import parent
from tq.cli.frame.verb import Verb
from tq.net.address import DEFAULT_PORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tq.client import target
    from tq.server.settings import Settings

Data = Annotated[
    str,
    typer.Option("--data", metavar="DIR", help="Where the store is; TQ_DATA, or ~/.local/share/tq", show_default=False),
]
Listen = Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen; port 0 = any free one")]
Heartbeat = Annotated[
    str, typer.Option("--heartbeat", metavar="DURATION", help="Beat of all peers; three missed and a worker is lost")
]
Keep = Annotated[
    str, typer.Option("--keep", metavar="DURATION", help="Forget ended jobs after so long; 0 = never; failed ones stay")
]
Retries = Annotated[
    int, typer.Option("--retries", metavar="N", help="How often a failed task is tried again, where nobody says")
]
DEFAULT_LISTEN = f"127.0.0.1:{DEFAULT_PORT}"


def server(
    ctx: typer.Context,
    data: Data = "",
    listen: Listen = DEFAULT_LISTEN,
    heartbeat: Heartbeat = "5s",
    keep: Keep = "7d",
    retries: Retries = limits.retries,
    check: Annotated[bool, typer.Option("--check", help="Look whether it could start, and leave")] = False,
    data_on_network: Annotated[
        bool, typer.Option("--data-on-network", help="Allow a data directory on a network file system")
    ] = False,
    cert: Annotated[
        str,
        typer.Option(
            "--cert",
            metavar="FILE",
            help="Your own certificate chain, PEM: for DNS:tq, its CA last",
            show_default=False,
        ),
    ] = "",
    key: Annotated[str, typer.Option("--key", metavar="FILE", help="The key of --cert, PEM", show_default=False)] = "",
    connections: Annotated[int, typer.Option("--connections", metavar="N", help="How many peers are expected")] = 100,
    log_level: Annotated[
        str, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error")
    ] = "info",
) -> None:
    """Serve one data directory until SIGTERM or Ctrl-C.

    The first start makes its own CA and an admin token for this user; `tq join` lets other machines in. It listens on
    this machine only, unless --listen says otherwise.
    """
    import gc

    from tq.server import serve

    parent.follow(ctx.obj.environ)
    made = settings(
        ctx.obj.environ, data, listen, heartbeat, keep=keep, retries=retries, check=check,
        data_on_network=data_on_network, cert=cert, key=key, connections=connections, log_level=log_level,
    )  # fmt: skip
    gc.enable()
    raise typer.Exit(serve.main(made) or 0)


def settings(
    environ: "Mapping[str, str]",
    data: str,
    listen: str,
    heartbeat: str,
    *,
    keep: str = "7d",
    retries: int = limits.retries,
    check: bool = False,
    data_on_network: bool = False,
    cert: str = "",
    key: str = "",
    connections: int = 100,
    log_level: str = "info",
) -> "Settings":
    """Return the settings of the server that the options ask for."""
    from tq.cli.frame import values
    from tq.server.settings import Settings, check_settings

    where = directories(environ, data)
    host, port = values.listen_address(listen)
    made = Settings(
        data=where.data,
        state=where.state,
        host=host,
        port=port,
        heartbeat_s=values.duration_ms(heartbeat) / 1_000,
        is_check=check,
        data_on_network=data_on_network,
        cert=Path(cert).absolute() if cert else None,
        key=Path(key).absolute() if key else None,
        connections=connections,
        log_level=log_level,
        keep_ms=values.duration_ms(keep),
        retries=retries,
    )
    check_settings(made)
    return made


def directories(environ: "Mapping[str, str]", data: str) -> "target.Directories":
    """Return the directories, with --data before TQ_DATA."""
    from tq.client import target

    return target.directories({**environ, "TQ_DATA": os.path.expanduser(data)} if data else environ)  # noqa: PTH111


VERBS = {"server": Verb(server, ("tq server", "tq server --data /srv/tq --listen 0.0.0.0:7878"), asks_server=False)}
