"""Output of a task as it is read: how far it is, what to ask for next, and what of each answer is new. Pure.

A cut connection goes on where it was: `Logs.position` says what has been seen. Who asks, and where the bytes go, is
the clients' and the command line's business.
"""

from typing import Final, NamedTuple

from tq.client.sansio.results import ENDED
from tq.core import vocabulary as v

_PAUSE_S: Final = 0.2  # before an ended attempt's task is asked for its next one
STREAMS: Final = {1: "stdout", 2: "stderr"}


class Output(NamedTuple):
    """A piece of what an attempt of a task has written to `stream`, `"stdout"` or `"stderr"`.

    `dropped_bytes` in front of it were not kept: of much output the beginning and the end are. `is_next`: another
    attempt begins with it, behind one that was read.
    """

    task: str
    attempt: int
    stream: str
    data: bytes
    dropped_bytes: int = 0
    is_next: bool = False


class Reading:
    """How far the output of one task was read; `command` is what to ask, `take` and `end` are told the answers.

    `attempt` 0 is the latest, and when following the next ones, too; with `every` also those before it. `state` is the
    task's, once known.
    """

    def __init__(self, task: str, *, attempt: int = 0, is_following: bool = False, every: bool = False) -> None:
        self.task = task
        self.state = ""
        self.attempt = attempt
        self.is_following = is_following
        self._every = every
        self._wanted = attempt
        self._asked = attempt  # the answer is about this attempt alone; 0 = about the latest, and those that come
        self._finished = 0  # attempts up to this one are over, and were shown
        self._position = {1: 0, 2: 0}

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come of the attempt that was read last."""
        return not any(self._position.values())

    def command(self) -> v.Logs:
        """Return what to ask, now and after each reconnection."""
        self._asked = 0 if self._every else self.attempt
        seen = self._position[1], self._position[2]
        return v.Logs(self.task, self.attempt, self.is_following, seen, every=self._every)

    def take(self, chunk: v.Chunk) -> Output | None:
        """Return what is new in a chunk, None if nothing is."""
        if not self._wanted and 0 < chunk.attempt <= self._finished:
            return None
        is_next = False
        if chunk.attempt and chunk.attempt != self.attempt:
            # Of what follows one that was seen: attempts that were handed back have numbers, too, and never ran.
            is_next = bool(self.attempt or self._finished) and not self._wanted and self.is_following
            if self.attempt:
                self._position = {1: 0, 2: 0}
            self.attempt = chunk.attempt
        seen = self._position.get(chunk.stream, 0)
        data = chunk.data[max(0, seen - chunk.offset) :]
        self._position[chunk.stream] = max(seen, chunk.offset + len(chunk.data))
        dropped_bytes = max(0, chunk.offset - seen)
        if not (data or dropped_bytes or is_next):
            return None
        return Output(self.task, self.attempt, STREAMS.get(chunk.stream, "output"), data, dropped_bytes, is_next)

    def end(self, end: v.LogsEnd) -> float | None:
        """Take the end of an answer; return after how many seconds to ask again, None when all was read."""
        self.state = end.state
        is_over = not self.is_following or end.state in ENDED or not end.state
        was_of_one = self.is_following and self._asked > 0
        if self._wanted or (is_over and not was_of_one):
            return None
        # It runs again, or may have done so: what comes next is another attempt's, and this one's is not shown twice.
        self._finished = max(self._finished, end.attempt)
        self.attempt, self._position = 0, {1: 0, 2: 0}
        return 0.0 if is_over else _PAUSE_S

    def follow_from(self, end: v.LogsEnd) -> None:
        """Go on behind what was stored, as it comes."""
        self.is_following = True
        self.attempt, self._position = end.attempt, {1: end.totals[0], 2: end.totals[1]}
