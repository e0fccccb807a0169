"""Output of a task as it is shown: each piece in its stream's sink, and a word where another attempt begins.

The loop for many tasks at once is follow_many.py; where the bytes go is sinks.py.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tq.cli.frame.context import say
from tq.cli.showing.sinks import Sink, TailSink
from tq.client.sansio import reading
from tq.client.sansio.results import ENDED
from tq.core import vocabulary as v

if TYPE_CHECKING:
    from tq.client.drivers.blocking import Client

Sinks = dict[int, Sink]


class Reading(reading.Reading):
    """A reading that shows what is new.

    With `tail`, its last lines are written first, when what is stored was read; following goes on behind them.
    """

    def __init__(
        self,
        task: str,
        open_sinks: Callable[["Reading"], Sinks],
        *,
        attempt: int = 0,
        is_following: bool = False,
        tail: int | None = None,
        every: bool = False,
        talk: Callable[[str], None] = say,
    ) -> None:
        super().__init__(task, attempt=attempt, is_following=is_following and tail is None, every=every)
        self._open_sinks = open_sinks
        self._is_to_follow = is_following
        self._sinks = open_sinks(self)
        self._talk = talk
        if tail is not None:
            self._sinks = {stream: TailSink(sink, tail) for stream, sink in self._sinks.items()}

    def take(self, chunk: v.Chunk) -> reading.Output | None:
        """Write what is new in a chunk."""
        if 0 < self.attempt < chunk.attempt:  # no line goes on in another attempt
            self._finish()
        new = super().take(chunk)
        if new is None:
            return None
        if new.is_next:
            self._talk(f"tq: {self.task}: attempt {new.attempt} begins")
        if new.dropped_bytes:  # with --quiet, too: what is missing from data is no talk
            what = f"{new.dropped_bytes} bytes in the middle of {new.stream} of {self.task}"
            say(f"tq: {what} were not kept; submitted with --{new.stream} FILE all are")
        sink = self._sinks.get(chunk.stream)
        if new.data and sink is not None:
            sink.write(new.data)
        return new

    def end(self, end: v.LogsEnd) -> float | None:
        """Take the end of an answer; return after how many seconds to ask again, None when all was read."""
        self._finish()
        if self._is_to_follow and not self.is_following and end.state and end.state not in ENDED:
            self._sinks = self._open_sinks(self)
            self.follow_from(end)
            return 0.0
        return super().end(end)

    def _finish(self) -> None:
        for sink in self._sinks.values():
            sink.finish()


def follow(client: "Client", shown: Reading, *, is_following: bool = True) -> None:
    """Read until all was read: when following, until the task has ended, and over every loss of the connection."""
    while True:
        end = v.LogsEnd(shown.attempt, (0, 0))
        for answer in client.subscribe(shown.command, patience_s=None if is_following else -1.0):
            if isinstance(answer, v.Chunk):
                shown.take(answer)
            elif isinstance(answer, v.LogsEnd):
                end = answer
        pause_s = shown.end(end)
        if pause_s is None:
            return
        time.sleep(pause_s)
