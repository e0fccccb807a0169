"""Keeps commands that broke the engine, so that the bug can be replayed: DATA/failed/, 0600, a bounded number.

A command may carry a user's environment, so it goes into the data directory and never into a log.
"""

import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final, get_args

import msgspec

from tq.core.vocabulary import Command, Times
from tq.errors import StoreDamaged
from tq.net.log import log
from tq.store import files

files_max: Final = 20
_COMMANDS: Final = get_args(Command)


class FailedCommands:
    """Writes one file for each command that raised something else than Refused."""

    def __init__(self, data: Path) -> None:
        self._directory = data / "failed"
        self._count = 0

    def keep(self, command: object, times: Times, error: Exception) -> None:
        """Log what happened, and keep the command with its times."""
        name = type(command).__name__
        if isinstance(error, StoreDamaged):  # no bug: nothing to replay
            log("store_damaged", level="error", command=name, error=error, hint=error.hint)
            return
        where = "".join(traceback.format_exception(error))
        path = self._directory / f"{times.wall_ms}-{name}-{self._count}"
        log("internal_error", level="error", command=name, kept=path.name, error=where[-4_000:])
        if not isinstance(command, _COMMANDS) or self._count >= files_max:
            return
        self._count += 1
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, exist_ok=True)
            files.write_new(path, [msgspec.msgpack.encode((times.steady_ms, times.wall_ms, command))])
