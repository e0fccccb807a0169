"""`tq join`: what another machine needs to join, in one string: the CA's hash and a new token."""

from typing import Annotated

import typer

from tq.cli.frame import options
from tq.cli.frame.context import Context
from tq.cli.frame.verb import Verb


def join(
    ctx: typer.Context,
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="worker, submit, read or admin")] = "worker",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="A name to tell the token by", show_default=False)
    ] = "",
    expires: options.Expires = "",
) -> None:
    """Print a join string for another machine.

    The line that uses it goes to stderr. The string holds a new token: treat it as a password. It is read from
    TQ_JOIN, never from the command line.
    """
    import socket

    from tq.cli.showing import output
    from tq.cli.verbs.token import make, printing
    from tq.client import target
    from tq.net.join import Join, ca_sha256

    context: Context = ctx.obj
    found = target.find({"url": context.url}, context.environ)
    with context.client() as client:
        text, token_id = make(client, role, name, expires)
    string = str(Join(found.ca_sha256 or ca_sha256(found.ca_pem), text))
    url = target.url_elsewhere(found, socket.gethostname())
    verb = {"worker": "tq worker", "read": "tq ls"}.get(role, "tq submit -- echo hello")
    line = f"TQ_URL={url or found.url} TQ_JOIN={string} {verb}"
    with printing(token_id):
        if context.is_json:
            output.print_json({"id": token_id, "role": role, "url": url or found.url, "join": string, "line": line})
        else:
            output.print_line(string)
    if context.format != "table":
        return
    context.talk(f"tq: on the other machine, run\n\n    {line}\n")
    if not url:
        context.talk("hint: at that address only this machine finds it; start it with --listen 0.0.0.0:7878 for others")
    elif url != found.url:
        context.talk(f"hint: where {url} is not found, write another name or an address of this machine instead")


VERBS = {"join": Verb(join, ("tq join", "tq join --role submit --name laptop --expires 7d"))}
