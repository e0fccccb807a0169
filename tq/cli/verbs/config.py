"""`tq config`: each value and where it came from. Secrets are masked."""

import sys

import typer

from tq import __version__
from tq.cli.frame.context import Context
from tq.cli.frame.verb import Verb


def config(ctx: typer.Context) -> None:
    """Show each setting and where it came from.

    In this order: option, TQ_* variable, config.toml, connection file of a server of this user, default.
    """
    from tq.cli.showing import output
    from tq.client import target

    context: Context = ctx.obj
    environ = context.environ
    where = target.directories(environ)
    found = target.settings({"url": context.url}, environ)
    rows = [("version", __version__, "tq"), ("python", sys.version.split()[0], sys.executable)]
    for key in ("url", "token", "token_file", "ca", "join"):
        setting = found.get(key)
        rows.append((key, _shown(key, setting.value), setting.source) if setting else (key, "", "not set"))
    rows += [
        ("data", str(where.data), "TQ_DATA" if environ.get("TQ_DATA") else "default"),
        ("state", str(where.state), "XDG_STATE_HOME" if environ.get("XDG_STATE_HOME") else "default"),
        (
            "config",
            str(where.config / "config.toml"),
            "XDG_CONFIG_HOME" if environ.get("XDG_CONFIG_HOME") else "default",
        ),
        ("connect_timeout", f"{context.patience_s:g}", _timeout_source(context)),
        ("color", context.color, "default" if context.color == "auto" else "--color"),
    ]
    items = [{"id": key, "value": value or None, "source": source} for key, value, source in rows]
    table = [["SETTING", "VALUE", "FROM"], *([key, value or "-", source] for key, value, source in rows)]
    wide = sum(max(map(len, column)) + 2 for column in zip(*table, strict=True)) - 2
    if context.is_table and 0 < output.terminal_width() < wide:
        # What a value is and where it came from is all that this is for: nothing of it is cut.
        output.print_pairs(
            context, [(key, f"{value}\nfrom {source}" if value else source) for key, value, source in rows]
        )
        return
    output.print_items(context, items, "", table)


def _timeout_source(context: Context) -> str:
    if context.connect_timeout:
        return "--connect-timeout"
    return "TQ_CONNECT_TIMEOUT" if context.environ.get("TQ_CONNECT_TIMEOUT") else "default"


def _shown(key: str, value: str) -> str:
    """Return a value without its secret: of a token its role and id, of a CA its hash."""
    if key == "token":
        parts = value.split("_", 2)
        return f"{parts[0]}_{parts[1]}_…" if len(parts) == 3 else "…"
    if key == "join":
        return value[:12] + "…"
    if key == "ca" and "-----BEGIN" in value:
        from tq.net.join import ca_sha256

        try:
            return f"sha256 {ca_sha256(value)}"
        except ValueError:
            return "damaged"
    return value


VERBS = {"config": Verb(config, ("tq config", "TQ_URL=tq://queue.example tq config -o json"))}
