"""Commands that are probably not meant as they stand: what a shell would have made of them, and nobody here does.

They are submitted all the same, since any word may be meant; a hint says what to do. Looks at this machine only, and
is quick: it runs at every submit.
"""

import os
import re
import sys
from collections.abc import Mapping
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from tq.cli.submitting import entries
from tq.wire import placeholders

if TYPE_CHECKING:
    from tq.cli.submitting.submit_options import SubmitOptions

_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_VARIABLE: Final = re.compile(r"\$\{?TQ_[A-Z]+")
_OPERATORS: Final = frozenset({"&&", "||", "|", ">>", "2>&1", "&"})
_WORDS: Final = frozenset(
    {"cd", "source", ".", "export", "alias", "ulimit", "umask", "set", "eval", "exec", "if", "for", "while", "until",
     "case", "{", "(", "[["}
)  # fmt: skip
_PADDED: Final = re.compile(r"(?:^|-)0[0-9]")  # in --array 001-100
_PLACE: Final = re.compile(r"\{(?:[1-9]?|#)\}")
_FOREIGN_PLACE: Final = re.compile(r"\{(?:\.|//?|/\.|%|[1-9](?:\.|//?|/\.))\}")  # GNU parallel's
_OURS: Final = frozenset(
    {
        "--wait",
        "--follow",
        "--retries",
        "--array",
        "--time-limit",
        "--max-fails",
        "--each-line",
        "--priority",
        "--hold",
        "--queue",
        "--tag",
    }
)  # fmt: skip - options that hardly any program has besides
_READS: Final = re.compile(r"(?:.*/)?(?:(?:a|ba|c|da|fi|k|mk|s|tc|z)?sh|env|xargs|busybox|parallel)")  # words again


def hint_for(wanted: "SubmitOptions", environ: Mapping[str, str]) -> str:
    """Return a hint about a command that is probably not meant as it stands, "" else."""
    if wanted.function:
        return ""
    doubt = "" if wanted.shell or wanted.is_lent or not wanted.command else _of_shell(wanted, environ)
    doubt = doubt or _of_options(wanted) or (_of_inputs(wanted) if wanted.columns else _of_none(wanted))
    return f"hint: {doubt}" if doubt else ""


def _of_options(wanted: "SubmitOptions") -> str:
    """Return a hint about an option that stands behind the command, and was perhaps meant for tq."""
    behind = () if wanted.is_dashed or wanted.is_lent else (word.partition("=")[0] for word in wanted.command[1:])
    found = next((word for word in behind if word in _OURS), "")
    return f"{found} is a word of this command; one for tq stands before it, and -- says that none is" if found else ""


def _of_inputs(wanted: "SubmitOptions") -> str:
    foreign = next((found[0] for word in wanted.command if (found := _FOREIGN_PLACE.search(word))), "")
    if foreign:
        known = "{}, {1} to {9} and {#}"
        return f"nothing stands for {foreign}, only for {known}; a script has TQ_ENTRY to take apart"
    if not any(placeholders.has_any(os.fsencode(word)) or "TQ_ENTRY" in word for word in wanted.command):
        return "the command has no {}: its tasks find their entries in TQ_ENTRY only"
    return ""


def _of_none(wanted: "SubmitOptions") -> str:
    foreign = next((word for word in wanted.command if word in entries.FOREIGN_SEPARATORS), "")
    if foreign:
        return f"{foreign} is a word of this command; {entries.BY_LINES}"
    if entries.SEPARATOR in wanted.command and (wanted.verb == "run" or not wanted.is_dashed):
        if wanted.verb == "run":
            return f"{entries.SEPARATOR} is a word of this command; `tq submit --follow` has lists"
        return f"{entries.SEPARATOR} is a word of this command; to give it lists, write -- before the command"
    place = next((found[0] for word in wanted.command if wanted.array and (found := _PLACE.search(word))), "")
    if place == "{#}":
        return "nothing stands for {#} without inputs: the task's number is TQ_MEMBER, which a shell reads (--shell)"
    if place:
        return (
            f"nothing stands for {place} without inputs: the task's number is TQ_MEMBER, which a shell reads "
            f"(--shell); or list the numbers: -- {wanted.command[0]} {{}} ::: 1 2 3"
        )
    if _PADDED.search(wanted.array):
        return "TQ_MEMBER has no zeros in front; a shell adds them, as in $(printf %03d $TQ_MEMBER)"
    return ""


def _of_shell(wanted: "SubmitOptions", environ: Mapping[str, str]) -> str:
    words = wanted.command
    first, *others = words
    if not others and " " in first.strip():
        return "the command is one word with spaces; leave out the quotes, or add --shell to let a shell read it"
    if first.startswith("-"):
        return f"{first} is not a program; options of tq stand before the --"
    if _ASSIGNMENT.fullmatch(first):
        return f"no shell reads {first}; set it with --env {first}, or add --shell"
    unread = list(takewhile(lambda word: _READS.fullmatch(word) is None, words))[1:]
    read = next((found[0] for word in unread if (found := _VARIABLE.search(word))), "")
    read = read or next((word for word in unread if word in _OPERATORS), "")
    if read:
        return f"no shell reads {read}; add --shell, or write sh -c '…'"
    if "/" in first or not first:
        return ""
    program = _program(first, environ)
    if program:
        return _of_environment(wanted, program, environ)
    if first in _WORDS:
        return f"{first} is a word of the shell; add --shell, or write sh -c '…'"
    if os.path.isfile(os.path.join(os.path.expanduser(wanted.cwd or "."), first)):  # noqa: PTH111, PTH113, PTH118 - no imports
        return f"programs are looked for in PATH; for the file that is here write ./{first}"
    return ""


def _of_environment(wanted: "SubmitOptions", program: str, environ: Mapping[str, str]) -> str:
    """Return a hint about a program of a Python environment that is active here, and perhaps not where it will run."""
    active = environ.get("VIRTUAL_ENV") or environ.get("CONDA_PREFIX")
    if not active or active == sys.prefix or not program.startswith(os.path.join(active, "")):  # noqa: PTH118
        return ""  # a worker here that was started from tq's own has that, too
    if wanted.env_all or any(text.partition("=")[0] == "PATH" for text in wanted.env):
        return ""
    return f"a worker looks in its own PATH, not in {active}: add --env PATH, or write {program}"


def _program(name: str, environ: Mapping[str, str]) -> str:
    """Return where PATH has it here, "" for nowhere. `shutil.which` would be slower to import than all the rest."""
    directories = environ.get("PATH", "").split(os.pathsep)
    paths = (os.path.join(path, name) for path in directories if path)  # noqa: PTH118
    return next((path for path in paths if os.access(path, os.X_OK)), "")
