"""What the options of `submit` and `run` say, as text: request.py makes a command of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from tq import limits


class SubmitOptions(msgspec.Struct):
    """What the options of `submit` and `run` say, as text, unchecked."""

    command: Sequence[str]
    verb: str = "submit"
    name: str = ""
    tags: list[str] = []
    queue: str = "default"
    priority: int = 0
    cwd: str = ""
    env: list[str] = []
    env_all: bool = False
    shell: bool = False
    time_limit: str = ""
    kill_after: str = ""
    key: str = ""
    array: str = ""
    at_once: int | None = None
    cpus: str = ""
    retries: int | None = None
    crash_limit: int = limits.crash_limit
    backoff: str = "1s..5m"
    retry_on: list[str] = []
    no_retry_on: list[str] = []
    stdin: bytes = b""
    max_fails: int = -1
    hold: bool = False
    if_cut: str = "run"
    stdout: str = ""
    stderr: str = ""
    stop_signal: str = ""
    tmpdir: bool = False
    function: str = ""
    args: str = ""
    columns: int = 0  # of the entries that are uploaded beside it
    is_counted: bool = False  # another job says how many tasks there are
    is_dashed: bool = False  # the command stood behind `--`
    is_lent: bool = False  # the command is another job's, made ready for its shell already
    lent_arguments: bytes = b""  # of a function that is another job's
    has_items: bool = False  # the entries are items of JSON


_NOT_OPTIONS: Final = frozenset({"command", "stdin"})  # options of these names mean something else


def read(options: Mapping[str, Any], command: Sequence[str], **more: Any) -> SubmitOptions:
    """Return what the options of a verb say: those that are named like its fields, and `tag`."""
    fields = (field for field in SubmitOptions.__struct_fields__ if field not in _NOT_OPTIONS)
    said = {field: options[field] for field in fields if options.get(field) is not None}
    return SubmitOptions(command, tags=options.get("tag") or [], **said, **more)
