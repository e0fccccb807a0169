"""The grammar of the command line as data: every verb with its examples, help, arguments and options.

Read from the same Typer commands that parse: completions, man pages and docs/cli.md are made from it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple


class Option(NamedTuple):
    """One option: its names, the word for its value ("" for a flag), what it does, what it is when left out."""

    names: tuple[str, ...]
    value: str
    help: str
    default: str


class Entry(NamedTuple):
    """`tq` itself, a verb, or a noun: `path` are its words. `verbs` are the words that may follow."""

    path: tuple[str, ...]
    examples: tuple[str, ...]
    summary: str
    text: str
    arguments: tuple[Option, ...]
    options: tuple[Option, ...]
    verbs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The words as they are typed."""
        return " ".join(self.path)

    @property
    def usage(self) -> str:
        """One line: how it is called."""
        words = [self.name, "[OPTION]..."]
        if self.verbs:
            words.append("[VERB ...]" if len(self.path) == 1 else "VERB ...")
        words.extend(argument.value for argument in self.arguments)
        return " ".join(words)


def entries(group: Any) -> Iterator[Entry]:
    """Yield `tq`, whose group is given, then its verbs in the order of `tq --help`, each noun before its verbs."""
    words = group.list_commands(None)
    yield _entry(("tq",), group, group.examples, tuple(words))
    for word in words:
        command = group.get_command(None, word)
        verbs = getattr(command, "commands", {})
        yield _entry(("tq", word), command, command.examples, tuple(verbs))
        for verb, below in verbs.items():
            yield _entry(("tq", word, verb), below, below.examples, ())


def _entry(path: tuple[str, ...], command: Any, examples: tuple[str, ...], verbs: tuple[str, ...]) -> Entry:
    text = command.help or ""
    summary, _, rest = text.strip().partition("\n\n")
    parameters = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    return Entry(
        path,
        examples,
        " ".join(summary.split()),
        "\n\n".join(" ".join(part.split()) for part in rest.split("\n\n") if part.strip()),
        tuple(_option(parameter) for parameter in parameters if parameter.param_type_name == "argument"),
        tuple(_option(parameter) for parameter in parameters if parameter.param_type_name == "option"),
        verbs,
    )


def _option(parameter: Any) -> Option:
    is_argument = parameter.param_type_name == "argument"
    is_flag = getattr(parameter, "is_flag", False)
    default = parameter.default
    is_plain = isinstance(default, (str, int)) and not isinstance(default, bool) and default != ""
    return Option(
        () if is_argument else (*parameter.opts, *parameter.secondary_opts),
        "" if is_flag else str(parameter.metavar or ""),
        " ".join((parameter.help or "").split()),
        str(default) if is_plain and not is_argument else "",
    )
