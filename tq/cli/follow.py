"""Output of a task as it is read: how far it is, what to ask for next, and the loop that does it for one task.

A cut connection goes on where it was: `Logs.position` says what has been seen. The loop for many tasks at once is
gather.py; where the bytes go is sinks.py.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tq.cli.context import say
from tq.cli.present import TERMINAL
from tq.cli.sinks import Sink, TailSink
from tq.core import vocabulary as v

if TYPE_CHECKING:
    from tq.client.blocking import Client

Sinks = dict[int, Sink]
_PAUSE_S: Final = 0.2  # before an ended attempt's task is asked for its next one
_NAMES: Final = {1: "stdout", 2: "stderr"}


class Reading:
    """How far the output of one task was read; `command` is what to ask, `take` and `end` are told the answers.

    `attempt` 0 follows the latest attempt, and the next one when there is a retry. With `tail`, its last lines are
    written first, when what is stored was read; following goes on behind them. `state` is the task's, once known.
    """

    def __init__(
        self,
        task: str,
        open_sinks: Callable[[str], Sinks],
        *,
        attempt: int = 0,
        is_following: bool = False,
        tail: int | None = None,
    ) -> None:
        self.task = task
        self.state = ""
        self.attempt = attempt
        self._open_sinks = open_sinks
        self._wanted = attempt
        self._asked = attempt  # the answer is about this attempt alone; 0 = about the latest, and those that come
        self._finished = 0  # attempts up to this one are over, and were shown
        self._position = {1: 0, 2: 0}
        self._is_following = is_following
        self._is_tail = tail is not None
        self._sinks = open_sinks(task)
        if tail is not None:
            self._sinks = {stream: TailSink(sink, tail) for stream, sink in self._sinks.items()}

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come of the attempt that was read last."""
        return not any(self._position.values())

    def command(self) -> v.Logs:
        """Return what to ask, now and after each reconnection."""
        self._asked = self.attempt
        follow = self._is_following and not self._is_tail
        return v.Logs(self.task, self.attempt, follow, (self._position[1], self._position[2]))

    def take(self, chunk: v.Chunk) -> None:
        """Write what is new in a chunk."""
        if not self._wanted and 0 < chunk.attempt <= self._finished:
            return
        if chunk.attempt and chunk.attempt != self.attempt:
            # Of what follows one that was seen: attempts that were handed back have numbers, too, and never ran.
            if (self.attempt or self._finished) and not self._wanted and self._is_following and not self._is_tail:
                say(f"tq: {self.task}: attempt {chunk.attempt} begins")
            if self.attempt:
                self._position = {1: 0, 2: 0}
            self.attempt = chunk.attempt
        seen = self._position.get(chunk.stream, 0)
        data = chunk.data[max(0, seen - chunk.offset) :] if chunk.offset < seen else chunk.data
        if chunk.offset > seen:
            name = _NAMES.get(chunk.stream, "output")
            say(f"tq: {chunk.offset - seen} bytes in the middle of {name} of {self.task} were not kept")
        self._position[chunk.stream] = max(seen, chunk.offset + len(chunk.data))
        sink = self._sinks.get(chunk.stream)
        if data and sink is not None:
            sink.write(data)

    def end(self, end: v.LogsEnd) -> float | None:
        """Take the end of an answer; return after how many seconds to ask again, None when all was read."""
        self.state = end.state
        is_over = not self._is_following or end.state in TERMINAL or not end.state
        if self._is_tail and not is_over:
            self._finish()
            self._is_tail = False
            self._sinks = self._open_sinks(self.task)
            self.attempt, self._position = end.attempt, {1: end.totals[0], 2: end.totals[1]}
            return 0.0
        was_of_one = self._is_following and self._asked > 0
        if self._wanted or (is_over and not was_of_one):
            self._finish()
            return None
        # It runs again, or may have done so: what comes next is another attempt's, and this one's is not shown twice.
        self._finished = max(self._finished, end.attempt)
        self.attempt, self._position = 0, {1: 0, 2: 0}
        return 0.0 if is_over else _PAUSE_S

    def _finish(self) -> None:
        for sink in self._sinks.values():
            sink.finish()


def follow(client: "Client", reading: Reading, *, is_following: bool = True) -> None:
    """Read until all was read: when following, until the task has ended, and over every loss of the connection."""
    while True:
        end = v.LogsEnd(reading.attempt, (0, 0))
        for answer in client.subscribe(reading.command, patience_s=None if is_following else -1.0):
            if isinstance(answer, v.Chunk):
                reading.take(answer)
            elif isinstance(answer, v.LogsEnd):
                end = answer
        pause_s = reading.end(end)
        if pause_s is None:
            return
        time.sleep(pause_s)
