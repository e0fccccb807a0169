"""`tq token` and `tq join`: access tokens, alone or in the one string with which another machine joins.

A token is shown once, alone on stdout, and never stored.
"""

import os
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tq.cli.frame import options
from tq.cli.frame.context import Context, printing_once
from tq.cli.frame.verb import Noun, Verb
from tq.cli.showing.pages import Items, every
from tq.errors import BadRequest, TaskNotFound

if TYPE_CHECKING:
    from tq.client.drivers.blocking import Client


def create(
    ctx: typer.Context,
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="read, submit, worker or admin")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="A name to tell it by", show_default=False)] = "",
    expires: options.Expires = "",
) -> None:
    """Make a token and print it, alone, once: only its SHA-256 is stored."""
    from tq.cli.showing import output

    context: Context = ctx.obj
    with context.client() as client:
        text, token_id = make(client, role, name, expires)
    with printing(token_id):
        if context.is_json:
            output.print_json({"id": token_id, "role": role, "token": text})
        else:
            output.print_line(text)
    context.talk(f"tq: this is token {token_id}; it is not shown again. To revoke it: tq token revoke {token_id}")


def make(client: "Client", role: str, name: str, expires: str) -> tuple[str, str]:
    """Have the server store a new token; return its text, the secret, and its id."""
    from tq.cli.frame import values
    from tq.core import vocabulary as v
    from tq.core.model.job import ROLES
    from tq.net.token import RANDOM_BYTES, make_token

    if role not in ROLES:
        raise BadRequest(f"{role!r} is not a role", hint=f"one of {', '.join(ROLES)}")
    life_ms = values.duration_ms(expires) if expires else 0
    if expires and life_ms < 1:
        raise BadRequest("a token that expires at once is of no use")
    token = make_token(role, os.urandom(RANDOM_BYTES))
    expires_ms = round(time.time() * 1_000) + life_ms if life_ms else 0
    try:
        client.ask(v.CreateToken(token.id, token.digest, role, values.name(name) if name else "", expires_ms))
    except BadRequest:
        # After a cut the request is asked again: the id is ours by 56 random bits, so "it exists" means done.
        if not client.has_repeated or not _exists(client, token.id):
            raise
    return token.text, token.id


def printing(token_id: str) -> AbstractContextManager[None]:
    """Return the block in which a new token's secret is printed. It goes nowhere else: without it, it is of no use."""
    hint = f"revoke it, and make another one: tq token revoke {token_id}"
    return printing_once(f"token {token_id} is made, but it is not printed", hint)


def _exists(client: "Client", token_id: str) -> bool:
    from tq.core import vocabulary as v

    return any(item.get("id") == token_id for items in every(client, v.Tokens) for item in items)


def ls(ctx: typer.Context) -> None:
    """List the tokens that exist, without their secrets."""
    from tq.cli.showing import output
    from tq.core import vocabulary as v

    context: Context = ctx.obj
    with context.client() as client:
        pages = every(client, v.Tokens)
        output.print_pages(context, pages, lambda: pages.next, _rows, what="tokens")


def _rows(items: Items) -> list[list[str]]:
    from tq.cli.showing import present
    from tq.client.sansio import documents

    rows = [["ID", "ROLE", "NAME", "CREATED", "EXPIRES"]]
    rows.extend(
        [str(item.get("id", "")), str(item.get("role", "")), present.blank(item.get("name")),
         present.blank(documents.instant(item.get("created_ms") or 0)), _expiry(item)]
        for item in items
    )  # fmt: skip
    return rows


def _expiry(item: dict[str, Any]) -> str:
    """Return when a token expires, and that it has, by this machine's clock."""
    from tq.client.sansio import documents

    at_ms = int(item.get("expires_ms") or 0)
    has_expired = 0 < at_ms <= time.time() * 1_000
    return ("expired " if has_expired else "") + (documents.instant(at_ms) or "never")


def revoke(
    ctx: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `tq token ls` shows them", show_default=False)],
) -> None:
    """Revoke tokens; their connections are closed at once."""
    from tq.cli.showing import selectors
    from tq.client import target

    context: Context = ctx.obj
    left_out = selectors.LeftOut()
    own = target.find({"url": context.url}, context.environ).token
    with context.client() as client:
        # Its own one last: after that it is answered no more.
        for token_id in sorted(ids, key=lambda one: f"_{one}_" in own):
            with left_out.noting(token_id):
                _revoke(context, client, token_id, is_own=f"_{token_id}_" in own)
    left_out.refuse()


def _revoke(context: Context, client: "Client", token_id: str, *, is_own: bool) -> None:
    from tq.cli.showing import output
    from tq.core import vocabulary as v

    try:
        client.ask(v.RevokeToken(token_id))
    except TaskNotFound:
        if not client.has_repeated:
            raise
    if context.is_json:
        output.print_json({"id": token_id, "revoked": True})
    else:
        context.talk(f"tq: token {token_id} is revoked")
    if is_own:
        context.talk(
            "tq: that was the token of this program, which cannot connect any more\n"
            "hint: a restart of the server makes one for its own user; others ask for one with `tq join`"
        )


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


VERBS = {
    "join": Verb(join, ("tq join", "tq join --role submit --name laptop --expires 7d")),
    "token": Noun(
        "Make, list and revoke access tokens.",
        {
            "create": Verb(create, ("tq token create --role worker --name rack-7 --expires 30d",)),
            "ls": Verb(ls, ("tq token ls", "tq token ls -o json")),
            "revoke": Verb(revoke, ("tq token revoke k3xw7a2m9q",)),
        },
        ("tq token create --role submit --name ci", "tq token ls"),
    ),
}
