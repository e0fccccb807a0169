"""The word `tq` itself: the table of verbs, the global options, and what bare `tq` does.

A verb's module is imported when the verb is called for, and not before (a start of `tq` has 50 ms). Whoever adds a
verb writes its module and adds one line here.
"""

from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer

from tq import __version__
from tq.cli.frame.context import Context, ReaderGone, check_color, check_format
from tq.cli.frame.verb import HELP_NAMES, Noun, NounGroup, Verb, build, build_noun, check_options

# As `tq --help` groups them; each is tq/cli/<module>.py and has VERBS[word], a Verb or a Noun.
GROUPS: dict[str, dict[str, str]] = {
    "Submit and follow": {
        "submit": "submit",
        "run": "run",
        "rerun": "rerun",
        "logs": "logs",
        "wait": "wait",
        "result": "result",
    },
    "Look": {"ls": "ls", "show": "show", "workers": "workers", "dlq": "dlq", "doctor": "doctor"},
    "Act": {
        "cancel": "act",
        "hold": "act",
        "release": "act",
        "requeue": "act",
        "retry": "act",
        "set": "act",
        "forget": "act",
        "queue": "queue",
        "drain": "drain",
        "undrain": "drain",
    },
    "Operate": {
        "demo": "demo",
        "up": "up",
        "server": "server",
        "worker": "worker",
        "token": "token",
        "join": "token",
        "backup": "backup",
        "restore": "backup",
        "store": "store",
        "config": "config",
        "completion": "completion",
    },
}
WORDS = {word: module for group in GROUPS.values() for word, module in group.items()}
EXAMPLES = ("tq up", "tq run -- make test", "tq submit --name nightly -- ./build.sh", "tq ls", "tq logs -f last")


class Root(NounGroup):
    """The group of all verbs, imported one by one."""

    examples = EXAMPLES

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Typer's signature
        """Return the words in the order of the table."""
        return list(WORDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write what each verb does, group by group."""
        for title, words in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(word, self.get_command(ctx, word).get_short_help_str()) for word in words], 12)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - Typer's signature
        """Import and return one verb; None when there is no such word."""
        return load(cmd_name) if cmd_name in WORDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb, or say which one may have been meant. `tq help VERB` is `tq VERB --help`."""
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"] if args[1:] else self._help(ctx)
        if args and args[0] not in WORDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            from tq.cli.frame import foreign_words

            word = args[0]
            known = word in foreign_words.VERBS
            close = [foreign_words.VERBS[word]] if known else get_close_matches(word, WORDS, n=2)
            meant = " or ".join(f"`{' '.join(filter(None, ('tq', match)))}`" for match in close)
            error = typer.BadParameter(f"no such verb: {word}", ctx=ctx)
            error.format_message = lambda: f"no such verb: {word}"  # type: ignore[method-assign]
            hint = foreign_words.NOT_YET.get(word, f"did you mean {meant}?" if meant else "")
            if hint:
                error.hint = hint  # type: ignore[attr-defined]
            raise error
        return super().resolve_command(ctx, args)

    def _help(self, ctx: Any) -> NoReturn:
        print(ctx.get_help())
        raise typer.Exit

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Parse. `tq --help` prints here, and its reader may be gone, too."""
        try:
            return super().make_context(*args, **more)
        except BrokenPipeError:
            raise ReaderGone from None

    def invoke(self, ctx: Any) -> Any:
        """Run the verb, or print its help."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGone from None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options that stand before the verb."""
        rest: list[str] = super().parse_args(ctx, args)
        check_options(ctx, self.params)
        return rest


def load(word: str) -> Any:
    """Import the module of a word and return its Typer command."""
    found = import_module(f"tq.cli.verbs.{WORDS[word]}").VERBS[word]
    if isinstance(found, Noun):
        return build_noun(word, found)
    assert isinstance(found, Verb)
    return build(word, found)


def group() -> Any:
    """Return the Typer group of the whole program."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback(
        cls=Root,
        invoke_without_command=True,
        context_settings=HELP_NAMES,
        options_metavar="[OPTIONS]",
        subcommand_metavar="VERB ...",
    )(_root)
    root = typer.main.get_group(app)
    root.name = "tq"
    return root


def _print_version(value: bool) -> None:
    if value:
        print(f"tq {__version__}")
        raise typer.Exit


def _root(
    ctx: typer.Context,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Ask the server at this address")] = "",
    output: Annotated[str, typer.Option("-o", "--output", metavar="FORMAT", help="table, json, jsonl or id")] = "",
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print ids only, and say nothing on stderr")] = False,
    color: Annotated[str, typer.Option("--color", metavar="WHEN", help="auto, always or never")] = "auto",
    connect_timeout: Annotated[
        str, typer.Option("--connect-timeout", metavar="DURATION", help="Re-make a lost connection for so long (60)")
    ] = "",
    version: Annotated[  # noqa: ARG001 - its callback prints and leaves
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version")
    ] = False,
) -> None:
    """A durable, distributed task queue that lives in the shell.

    Without a verb: how the server is doing. `tq VERB --help` explains each verb.
    """
    ctx.obj = Context(url, check_format(output), quiet, check_color(color), connect_timeout)
    if ctx.invoked_subcommand is None:
        from tq.cli.verbs.status import status

        status(ctx.obj)
