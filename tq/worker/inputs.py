"""Deliveries that wait for their large input, which must be here before the launcher hears of them.

Pure: who gets the bytes is `interpreter.py`. The launcher never sees an attempt that is in here.
"""

from collections.abc import Collection, Iterable

from msgspec.structs import replace

from tq.core.vocabulary import AttemptRef
from tq.wire.messages import Assign
from tq.worker.instructions import Fetch, Instruction


class Inputs:
    """Deliveries by the number of the input that they wait for."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[Assign]] = {}
        self._attempts: set[AttemptRef] = set()

    def __contains__(self, ref: AttemptRef) -> bool:
        return ref in self._attempts

    def wait(self, message: Assign) -> list[Instruction]:
        """Let a delivery wait; the first for its input asks for it."""
        self._attempts.update(item.attempt for item in message.attempts)
        waiting = self._waiting.setdefault(message.stdin, [])
        waiting.append(message)
        return [Fetch(message.stdin)] if len(waiting) == 1 else []

    def ask_again(self) -> list[Instruction]:
        """Ask for every input that somebody waits for: the last session's answers are lost."""
        return [Fetch(blob) for blob in self._waiting]

    def take(self, blob: int) -> list[Assign]:
        """Return the deliveries that waited for this input, with what is still wanted of their attempts."""
        ready = []
        for message in self._waiting.pop(blob, ()):
            attempts = tuple(item for item in message.attempts if item.attempt in self._attempts)
            self.discard(item.attempt for item in attempts)
            if attempts:
                ready.append(replace(message, attempts=attempts))
        return ready

    def discard(self, attempts: Iterable[AttemptRef]) -> None:
        """Let these wait no more, and an input for which nobody waits be forgotten."""
        before = len(self._attempts)
        self._attempts.difference_update(attempts)
        if len(self._attempts) != before:
            self._waiting = {blob: waiting for blob, waiting in self._waiting.items() if self._is_wanted(waiting)}

    def _is_wanted(self, waiting: Collection[Assign]) -> bool:
        return any(item.attempt in self._attempts for message in waiting for item in message.attempts)
