"""What every verb is given: the global options, the way to the server, and how to print.

One object, made by `root` for each run of the program and passed as Typer's `ctx.obj`.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING

from tq.errors import BadRequest, TqError

if TYPE_CHECKING:
    from tq.client.drivers.blocking import Client

FORMATS = ("table", "json", "jsonl", "id")
COLORS = ("auto", "always", "never")


class Context:
    """The global options; each may stand before the verb or after it. No dataclass: its import costs a millisecond."""

    def __init__(
        self,
        url: str = "",
        output: str = "",
        quiet: bool = False,
        color: str = "auto",
        connect_timeout: str = "",
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.url = url
        self.output = output
        self.quiet = quiet
        self.color = color
        self.connect_timeout = connect_timeout
        self.environ = environ

    @property
    def format(self) -> str:
        """The format asked for: `id` with -q, else -o, else `table`."""
        return self.output or ("id" if self.quiet else "table")

    @property
    def is_table(self) -> bool:
        """Whether it is for a person."""
        return self.format == "table"

    @property
    def is_json(self) -> bool:
        """Whether it is JSON that was asked for, in one piece or by lines."""
        return self.format in {"json", "jsonl"}

    @property
    def patience_s(self) -> float:
        """For how long a lost connection is re-made."""
        from tq.cli.frame.values import duration_ms

        return duration_ms(self.connect_timeout or self.environ.get("TQ_CONNECT_TIMEOUT") or "60") / 1_000

    @property
    def is_colored(self) -> bool:
        """Whether colour goes to stdout: --color > NO_COLOR > FORCE_COLOR > is it a terminal."""
        if self.color != "auto":
            return self.color == "always"
        if self.environ.get("NO_COLOR"):
            return False
        if self.environ.get("FORCE_COLOR"):
            return True
        return is_terminal(sys.stdout) and self.environ.get("TERM") != "dumb"

    def client(self) -> "Client":
        """Return a client, not yet connected, of the server that these options name."""
        from tq.client import target
        from tq.client.drivers.blocking import Client

        flags = {"url": self.url}
        return Client(
            lambda: target.find(flags, self.environ),
            patience_s=self.patience_s,
            notice=lambda text: self.talk(f"tq: {text}"),
        )

    def talk(self, text: str) -> None:
        """Say something to the person, on stderr, unless --quiet."""
        if not self.quiet:
            say(text)


def say(text: str) -> None:
    """Print one line of talk on stderr; a closed stderr is no reason to fail."""
    with suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr, flush=True)


class ReaderGone(Exception):
    """Whoever read our stdout has closed it. No OSError, because Typer would make status 1 of a broken pipe."""


class StdoutFailed(TqError):
    """What was asked for may have been done, and its answer could not be written to stdout."""

    code = "stdout_failed"
    exit_status = 74


class Nowhere(TextIOWrapper):
    """What stands for a standard stream that was closed before the program began."""


@contextmanager
def printing_once(done: str, hint: str) -> Iterator[None]:
    """Print in the block what nobody can ask for again: the id of a job, a secret. `done` is said, with the hint, where
    stdout does not take it, for whatever reason: that something was made must not be lost with its name.
    """
    if isinstance(sys.stdout, Nowhere):
        raise StdoutFailed(f"{done}: cannot write to stdout: it is closed", hint=hint)
    try:
        with writing_stdout():
            yield
            sys.stdout.flush()
    except BrokenPipeError as error:
        raise StdoutFailed(f"{done}: nobody reads stdout any more", hint=hint) from error
    except StdoutFailed as error:
        raise StdoutFailed(f"{done}: {error.message}", hint=hint) from error


@contextmanager
def writing_stdout() -> Iterator[None]:
    """Name stdout in what the system says of it: a full disk there is no the server's. A reader that is gone stays."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StdoutFailed(f"cannot write to stdout: {error.strerror or error}") from error


def is_terminal(stream: object) -> bool:
    """Whether a stream is a terminal; a closed or replaced one is none."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


def columns(stream: object) -> int:
    """Return the width of the terminal that a stream is, 80 where it does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80  # type: ignore[attr-defined]
    except (AttributeError, ValueError, OSError):
        return 80


def check_format(value: str) -> str:
    """Check -o."""
    if value and value not in FORMATS:
        raise BadRequest(f"{value!r} is not an output format", hint=f"one of {', '.join(FORMATS)}")
    return value


def check_color(value: str) -> str:
    """Check --color."""
    if value not in COLORS:
        raise BadRequest(f"{value!r} is not a choice for --color", hint=f"one of {', '.join(COLORS)}")
    return value
