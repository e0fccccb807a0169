"""The program `tq`: runs the parser, and turns whatever happens into a sentence and an exit status.

Exit statuses are a contract (docs/cli.md). No traceback reaches a person unless TQ_DEBUG=1.
"""

import errno
import gc
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from tq import __version__
from tq.cli.frame import context
from tq.errors import ConfigurationError, TqError

_BROKEN_PIPE = 141  # 128 + SIGPIPE, what a shell reports of a program that died of it
_INTERRUPTED = 130
_INTERNAL = 70
_NO_MEMORY = b"tq: there is not enough memory for tq\nhint: free some, or raise a limit: ulimit -v unlimited\n"
_MESSAGE_MAX = 4_000  # characters
_IN_OTHER_WORDS = {  # than the parser's
    "is not a valid int": "is not a whole number",
    "got unexpected extra argument(s)": "unexpected argument:",
    "got unexpected extra argument": "unexpected argument:",
    "missing command": "missing verb",
    "no such command": "no such verb",
}
_UNEXPECTED = re.compile(r"(unexpected argument: )\((.*)\)", re.DOTALL)


def main() -> NoReturn:
    """Run the program and leave it."""
    # Nothing that the start allocates is garbage: collecting it costs 3 ms of the 50 that a start has.
    gc.disable()
    _open_standard_streams()
    try:
        status = run(sys.argv[1:])
    except (MemoryError, SystemError):  # not even to say so in other words; or, for Python, to raise the former
        os.write(2, _NO_MEMORY)
        os._exit(ConfigurationError.exit_status)
    if _has_running_parts():
        sys.exit(status)
    os._exit(status)  # everything is flushed; taking the interpreter apart costs 5 ms more


def _open_standard_streams() -> None:
    """Open what was closed of stdin, stdout and stderr: else the next socket takes its number, and its data."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, context.Nowhere(os.fdopen(number, f"{mode}b", closefd=False)))


def run(arguments: Sequence[str]) -> int:
    """Run `tq` with these arguments and return its exit status. Prints; never raises but for bugs in itself."""
    try:
        # Alone it needs no parser, and importing one takes longer than all the rest (docs/adr/0008).
        status = _print_version() if list(arguments) == ["--version"] else _parse(arguments)
        with context.writing_stdout():
            sys.stdout.flush()
    except BrokenPipeError:
        return _end_quietly()
    except context.StdoutFailed as error:
        _forget_stdout()
        return _say_error(error.message, error.hint, error.exit_status)
    except OSError as error:
        return _say_error(*_of_system(error), _INTERNAL)
    return status


def _print_version() -> int:
    with context.writing_stdout():
        print(f"tq {__version__}")
    return 0


def _parse(arguments: Sequence[str]) -> int:
    try:
        from tq.cli import root

        result = root.group().main(args=list(arguments), prog_name="tq", standalone_mode=False)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except context.StdoutFailed:
        raise  # what is still in the buffer would fail again
    except TqError as error:
        _debug()
        return _say_error(error.message, error.hint, error.exit_status)
    except Exception as error:  # noqa: BLE001 - the edge of the program: a bug is a sentence and status 70
        if isinstance(error, context.ReaderGone):
            return _end_quietly()
        from tq.cli.frame import memory

        if missing := memory.lack(error):
            _debug()
            return _say_error(missing.message, missing.hint, missing.exit_status)
        if isinstance(error, OSError):
            _debug()
            return _say_error(*_of_system(error), _INTERNAL)
        if isinstance(error, ImportError):
            _debug()
            return _say_error(f"tq is not installed as a whole: {error}", "install it again, with what it needs", 78)
        usage = _usage_error(error) or _no_text(error)
        if usage:
            return _say_error(*usage, 2)
        _debug()
        return _say_error(
            f"internal error: {type(error).__name__}: {error}", "run it again with TQ_DEBUG=1 and report it", _INTERNAL
        )
    return result if isinstance(result, int) else 0


def _no_text(error: Exception) -> tuple[str, str] | None:
    """Return message and hint where a word of the command line was to be sent as text, and is none."""
    if not isinstance(error, UnicodeEncodeError) or not "\ud800" <= error.object[error.start] <= "\udfff":
        return None
    return f"{error.object!r} is not text in UTF-8", "only a command, its files and its environment may be any bytes"


def _usage_error(error: Any) -> tuple[str, str] | None:
    """Return message and hint of an error of the parser, None for any other. Typer's classes are private: by shape."""
    if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
        return None
    where = getattr(error, "ctx", None)
    path = where.command_path if where else "tq"
    possibilities = getattr(error, "possibilities", None)
    message = error.message if possibilities else error.format_message()
    hint = (
        _familiar(path, error)
        or _of_submit(where, path, error)
        or (_closest(error.option_name, possibilities) if possibilities else getattr(error, "hint", ""))
    )
    message = message[:1].lower() + message[1:].rstrip(".")
    for theirs, ours in _IN_OTHER_WORDS.items():
        message = message.replace(theirs, ours)
    if extra := _UNEXPECTED.fullmatch(message):
        message, hint = extra[1] + extra[2], hint or _place_of(path, extra[2])
    return message, hint or _way_out(where, path)


def _place_of(path: str, word: str) -> str:
    """Return the option that takes what was given as an argument too many, '' if none does."""
    return f"the directory is an option: --data {word}" if path == "tq restore" else ""


def _familiar(path: str, error: Any) -> str:
    """Return what stands for an option that other queues have and this one has not, '' for any other."""
    from tq.cli.frame import foreign_words

    return foreign_words.of_option(path, getattr(error, "option_name", ""))


def _of_submit(where: Any, path: str, error: Any) -> str:
    """Return what to do with an option of `tq submit` that was given to `tq run`, '' for any other."""
    name = getattr(error, "option_name", "")
    if path != "tq run" or not name:
        return ""
    if name in {"--wait", "--follow"}:
        return "leave it out: `tq run` waits and shows the output by itself"
    group = where.parent
    known = any(name in option.opts for option in group.command.get_command(group, "submit").params)
    return "`tq submit` has it, and with --follow shows the output and waits, too" if known else ""


def _way_out(where: Any, path: str) -> str:
    """Return what may be typed instead: the verbs of a noun, else an example and where there is more."""
    command = where.command if where else None
    verbs = getattr(command, "commands", None)
    if verbs:
        return f"one of {', '.join(verbs)}; see `{path} --help`"
    examples = getattr(command, "examples", ()) if where and where.parent else ()  # those of `tq` are other verbs'
    return f"as in `{examples[0]}`; see `{path} --help`" if examples else f"see `{path} --help`"


def _closest(word: str, words: Sequence[str]) -> str:
    """Return which option was probably meant, "" for none: the parser lets the dashes count, too."""
    from difflib import get_close_matches

    found = get_close_matches(word.lstrip("-"), [one.lstrip("-") for one in words], n=1)
    return f"did you mean --{found[0]}?" if found else ""


def _of_system(error: OSError) -> tuple[str, str]:
    """Return what the system says, a full disk under stdout, a file that is not a file; and a hint, if there is one."""
    where = f": {error.filename}" if error.filename else ""
    hint = "raise it: ulimit -n 1024" if error.errno == errno.EMFILE else ""
    return f"{error.strerror or type(error).__name__}{where}", hint


def _say_error(message: str, hint: str, status: int) -> int:
    from tq.cli.showing import escape

    is_safe = not context.is_terminal(sys.stderr)
    if len(message) > _MESSAGE_MAX:  # it repeats a word that is longer than what is said of it
        message = f"{message[: _MESSAGE_MAX // 2]} … {message[-_MESSAGE_MAX // 2 :]}"
    context.say(f"tq: {message if is_safe else escape.line(message)}")
    if hint:
        context.say(f"hint: {hint if is_safe else escape.line(hint)}")
    return status


def _debug() -> None:
    if os.environ.get("TQ_DEBUG") == "1":
        import traceback

        traceback.print_exc()


def _end_quietly() -> int:
    """The reader of stdout is gone."""
    _forget_stdout()
    return _BROKEN_PIPE


def _forget_stdout() -> None:
    """Let nothing more be written to stdout, not even by the interpreter's end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)


def _has_running_parts() -> bool:
    """Whether something runs that wants an orderly end: the roles bring threads, the simple verbs bring none."""
    threading = sys.modules.get("threading")
    return threading is not None and threading.active_count() > 1
