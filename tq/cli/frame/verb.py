"""How a function becomes a verb: its examples, its help, and the global options that may also follow it.

One parser, Typer's. A verb's module has `VERBS`: by word a `Verb(function, examples)`, or for a noun a `Noun(help,
verbs)`; root.py imports it only when it is called for.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from tq.cli.frame.context import Context, check_color, check_format
from tq.errors import BadRequest, TqError

ARGUMENTS = "tq.arguments"  # in Context.meta: the words behind the verb, as they were typed
_TRY_ELSEWHERE = frozenset({2, 4, 69, 74, 75, 78})  # what a caller can do something about keeps its status everywhere
_NUMBER_MAX = 2**63 - 1
HELP_NAMES = {"help_option_names": ["-h", "--help"]}


class Verb(NamedTuple):
    """A verb before Typer has seen it. `is_wrapper`: options end at the first argument, the rest is a command."""

    function: Callable[..., None]
    examples: tuple[str, ...]
    is_wrapper: bool = False
    asks_server: bool = True
    groups: Mapping[str, Sequence[str]] = MappingProxyType({})  # of its options in its help, by title


class Noun(NamedTuple):
    """A word with verbs of its own, `tq token ls`."""

    help: str
    verbs: dict[str, Verb]
    examples: tuple[str, ...]


class FailedItself(TqError):
    """tq failed while it waited for a task, whose code is therefore not known."""

    code = "failed_itself"
    exit_status = 125


def _ends_as_task(ctx: Any) -> bool:
    """Whether this call ends with the code of a task."""
    if ctx.info_name == "submit":
        return bool(ctx.params.get("wait") or ctx.params.get("follow"))
    return ctx.info_name in {"run", "wait"}


def refuse_nothing(what: str, value: Any) -> None:
    """Raise BadRequest if an option, or an argument, was given an empty value.

    It is mostly a variable of a script that is not set: `--tag "$TAG"` must not mean all jobs, nor `--key "$KEY"` none.
    """
    if value == "" or (isinstance(value, list | tuple) and "" in value):
        raise BadRequest(f"the value of {what} is empty", hint="give one, or leave it out")


def check_options(ctx: Any, params: list[Any]) -> None:
    """Refuse what was typed with an empty value, a default may be one, or a number that no message carries.

    Of an argument of several words, a command may have empty ones; ids are looked at where they are read.
    """
    for param in params:
        source = ctx.get_parameter_source(param.name)
        if source is None or source.name != "COMMANDLINE":
            continue
        value, is_option = ctx.params.get(param.name), isinstance(param, TyperOption)
        if is_option or isinstance(value, str):
            refuse_nothing(param.opts[-1] if is_option else param.metavar.strip("[]"), value)
        if isinstance(value, int) and abs(value) > _NUMBER_MAX:
            raise BadRequest(f"the number of {param.opts[-1]} is out of range")


class _Helped:
    """What begins its help with its examples. The other base is Typer's."""

    examples: tuple[str, ...] = ()
    help: str | None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, then what Typer writes."""
        head = "Example: " if len(self.examples) == 1 else "Examples: "
        for number, example in enumerate(self.examples):
            formatter.write(f"{head if number == 0 else ' ' * len(head)}{example}\n")
        formatter.write_paragraph()
        super().format_help(ctx, formatter)  # type: ignore[misc]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - Typer's signature
        """Write what it does, and break no line within a word like `--each-line`."""
        from textwrap import wrap

        for part in (self.help or "").split("\n\n"):
            formatter.write_paragraph()
            with formatter.indentation():
                room = formatter.width - formatter.current_indent
                for line in wrap(" ".join(part.split()), room, break_on_hyphens=False, break_long_words=False):
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")

    def get_short_help_str(self, limit: int = 45) -> str:  # noqa: ARG002 - Typer's signature
        """Return the first sentence, whole: a list of verbs breaks its lines, and cuts none."""
        return " ".join((self.help or "").partition("\n\n")[0].split())


class VerbCommand(_Helped, TyperCommand):
    """A verb, as Typer runs it."""

    groups: Mapping[str, Sequence[str]]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options in their groups; what is in none, and the arguments, as Typer does."""
        params, among = self.params, {name for names in self.groups.values() for name in names}
        self.params = [param for param in params if not among & {*param.opts}]
        try:
            super().format_options(ctx, formatter)
        finally:
            self.params = params
        by_name = {name: param for param in params for name in param.opts}
        for title, names in self.groups.items():
            if rows := [by_name[name].get_help_record(ctx) for name in names if name in by_name]:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and keep the words: the parser takes the `--` away, and with `:::` it matters."""
        ctx.meta[ARGUMENTS] = list(args)
        try:
            rest: list[str] = super().parse_args(ctx, args)
        except Exception as error:
            if getattr(error, "ctx", ctx) is None:  # an option without its value: the hint names the verb all the same
                error.ctx = ctx  # type: ignore[attr-defined]
            raise
        check_options(ctx, self.params)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. Where a task's code is spoken, tq's own failure is 125, and never taken for a task's 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except TqError as error:
            if error.exit_status in _TRY_ELSEWHERE or not _ends_as_task(ctx):
                raise
            raise FailedItself(error.message, hint=error.hint) from error
        except RuntimeError:  # Typer's Exit and Abort
            raise
        except Exception as error:
            from tq.cli.frame import memory

            if not _ends_as_task(ctx) or memory.lack(error):
                raise
            raise FailedItself(f"internal error: {type(error).__name__}: {error}") from error


class NounGroup(_Helped, TyperGroup):
    """A noun, as Typer runs it."""


def _sets(field: str, check: Callable[[Any], Any] = lambda value: value) -> Callable[..., Any]:
    """Return the callback of a global option that stands after the verb: it overrules the one before it."""

    def set_option(ctx: Any, param: Any, value: Any) -> Any:
        refuse_nothing(param.opts[-1], value)
        if value is not None and isinstance(ctx.obj, Context):
            setattr(ctx.obj, field, check(value))
        return value

    return set_option


def shared_options() -> list[Any]:
    """Return the global options, for a verb that asks a server."""

    def option(*names: str, field: str, check: Any = lambda value: value, **more: Any) -> TyperOption:
        return TyperOption(
            param_decls=list(names), callback=_sets(field, check), expose_value=False, default=None, **more
        )

    return [
        option("--url", field="url", metavar="URL", help="Ask the server at this address"),
        option("-o", "--output", field="output", check=check_format, metavar="FORMAT", help="table, json, jsonl or id"),
        option("-q", "--quiet", field="quiet", is_flag=True, help="Print ids only, and say nothing on stderr"),
        option("--color", field="color", check=check_color, metavar="WHEN", help="auto, always or never"),
        option(
            "--connect-timeout",
            field="connect_timeout",
            metavar="DURATION",
            help="Re-make a lost connection for so long (60)",
        ),
    ]


def build(name: str, verb: Verb) -> VerbCommand:
    """Return the Typer command of a verb."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    settings = HELP_NAMES | ({"allow_interspersed_args": False} if verb.is_wrapper else {})
    app.command(name, cls=VerbCommand, context_settings=settings, options_metavar="[OPTIONS]")(verb.function)
    command = typer.main.get_command(app)
    assert isinstance(command, VerbCommand)
    command.examples, command.groups = verb.examples, verb.groups
    if verb.asks_server:
        command.params.extend(shared_options())
    return command


def build_noun(name: str, noun: Noun) -> NounGroup:
    """Return the Typer group of a noun."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback(cls=NounGroup, help=noun.help, context_settings=HELP_NAMES, subcommand_metavar="VERB ...")(_nothing)
    group = typer.main.get_group(app)
    assert isinstance(group, NounGroup)
    group.name = name
    group.examples = noun.examples
    group.commands = {word: build(word, verb) for word, verb in noun.verbs.items()}
    return group


def _nothing() -> None:
    """A noun by itself does nothing."""
