"""The output of many tasks at once, over one connection, as it comes: `logs -f` of an array, or of several jobs.

The server gives a connection so many streams and no more: what began first is followed first, the rest waits in line,
and of what ends meanwhile the store has all. An array is looked at from where the last look ended (`List.begun`), so
that each member is seen once; beside it, what runs again because of a retry by hand is found by the running ones.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from tq import limits
from tq.cli.frame.context import say
from tq.cli.showing.follow import Reading
from tq.client.drivers.transport import ConnectionLost
from tq.core import vocabulary as v
from tq.errors import NotDone, ProtocolError, TaskNotFound, TimedOut, TqError, from_code
from tq.wire import messages as m

if TYPE_CHECKING:
    from tq.client.drivers.blocking import Client

_LINE_MAX: Final = 1_000  # tasks that wait to be read, before an array is asked for more
_ENDED_MAX: Final = 10_000  # of those read last it is known which attempt it was
_PAGE_ITEMS: Final = 250
_LOOK_S: Final = 0.25
_ARRAYS_A_LOOK: Final = 8


class _Array:
    """An array, and how far its members were seen."""

    def __init__(self, job: str) -> None:
        self.job = job
        self.page = ""
        self.is_asked = False
        self.is_over = False


class FollowMany:
    """Reads the output of tasks, and of all that begins in arrays, until all of them have ended."""

    def __init__(
        self, client: "Client", open_reading: Callable[..., Reading], tasks: Iterable[str], arrays: Iterable[str]
    ) -> None:
        self._client = client
        self._open_reading = open_reading
        self._line = deque(tasks)
        self._ready: deque[Reading] = deque()  # to be asked for, before any of the line
        self._streams: dict[int, Reading] = {}  # by request
        self._here = set(self._line)  # in the line, ready, or being read
        self._ended: dict[str, int] = {}  # of the last that were read: which attempt
        self._arrays = deque(map(_Array, arrays))
        self._looks: dict[int, tuple[_Array, bool]] = {}  # by request: of which array, and whether at the running ones
        self._look_at_s = 0.0
        self._streams_max = limits.streams_max

    def run(self) -> None:
        """Write everything there is and everything that comes, over every loss of the connection."""
        self._client.persist(v.Logs(""), self._once, patience_s=None)

    def _once(self, alive: Callable[[], None]) -> None:
        self._ready.extendleft(reversed(self._streams.values()))
        self._streams.clear()
        self._looks.clear()
        self._streams_max = limits.streams_max
        for array in self._arrays:
            array.is_asked = False
        while True:
            self._ask_streams()
            self._ask_arrays()
            if not (self._streams or self._looks or self._arrays):
                return
            try:
                message = self._client.hear(self._look_at_s if self._next_array() else None)
            except TimedOut:
                continue
            alive()
            self._take(message)

    # ------------------------------------------------------------ asking

    def _ask_streams(self) -> None:
        while len(self._streams) < self._streams_max and (self._ready or self._line):
            if not self._ready:
                task = self._line.popleft()
                self._ready.append(self._open_reading(task, is_again=task in self._ended))
            number = self._client.post(self._ready[0].command())
            self._streams[number] = self._ready.popleft()

    def _next_array(self) -> _Array | None:
        """Return the array to look at next; None while none is wanted."""
        if len(self._line) >= _LINE_MAX:
            return None
        return next((array for array in self._arrays if not array.is_asked), None)

    def _ask_arrays(self) -> None:
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return
        for _ in range(_ARRAYS_A_LOOK):
            array = self._next_array()
            if array is None:
                break
            array.is_asked = True
            self._arrays.remove(array)
            self._arrays.append(array)
            self._look(array, "", is_running=True)
            self._look(array, array.page, is_running=False)
        self._look_at_s = now_s + _LOOK_S

    def _look(self, array: _Array, page: str, *, is_running: bool) -> None:
        states = ("running",) if is_running else ()
        command = v.List(array.job, states, limit=_PAGE_ITEMS, page=page, begun=not is_running)
        self._looks[self._client.post(command)] = array, is_running

    # ------------------------------------------------------------ hearing

    def _take(self, message: m.Reply | m.Failed) -> None:
        number = message.request
        reading = self._streams.get(number)
        if isinstance(message, m.Failed):
            self._fail(number, from_code(message.code, message.message, message.hint))
        elif reading is not None:
            self._take_output(number, reading, message.answer)
        elif number in self._looks:
            self._take_page(*self._looks.pop(number), message.answer)

    def _take_output(self, number: int, reading: Reading, answer: v.Answer) -> None:
        if isinstance(answer, v.Chunk):
            reading.take(answer)
        elif isinstance(answer, v.LogsEnd):
            del self._streams[number]
            if reading.end(answer) is None:
                self._end(reading.task, answer.attempt)
            else:
                self._ready.append(reading)

    def _end(self, task: str, attempt: int) -> None:
        self._here.discard(task)
        self._ended.pop(task, None)
        self._ended[task] = attempt
        if len(self._ended) > _ENDED_MAX:
            del self._ended[next(iter(self._ended))]

    def _take_page(self, array: _Array, is_running: bool, answer: v.Answer) -> None:
        if not isinstance(answer, v.Page):
            raise ProtocolError("the server answered no page")
        for item in answer.items:
            # What runs in its first round is met on the way, too.
            if self._is_new(item) and (not is_running or item.get("round", 1) > 1):
                self._here.add(item["id"])
                self._line.append(item["id"])
        if is_running:
            if answer.next:
                self._look(array, answer.next, is_running=True)
            return
        array.is_asked = False
        array.page = answer.next
        if not answer.next:
            self._drop(array)
        elif len(answer.items) >= _PAGE_ITEMS:
            self._look_at_s = 0.0

    def _is_new(self, item: dict[str, Any]) -> bool:
        """Whether a task has written what was not read, and is not being read."""
        attempt = item.get("attempt") or 0
        return attempt > self._ended.get(item["id"], 0) and item["id"] not in self._here

    def _fail(self, number: int, error: TqError) -> None:
        reading = self._streams.pop(number, None)
        array, _ = self._looks.pop(number, (None, False))
        if isinstance(error, NotDone):
            if reading is not None:
                self._ready.appendleft(reading)
            if not self._streams:
                raise ConnectionLost(error.message)
            self._streams_max = len(self._streams)
        elif isinstance(error, TaskNotFound):
            say(f"tq: {error.message}")
            if reading is not None:
                self._end(reading.task, 0)
            if array is not None:
                self._drop(array)
        else:
            raise error

    def _drop(self, array: _Array) -> None:
        """Look at an array no more: all that it will ever have was seen, or it is gone."""
        if not array.is_over:
            array.is_over = True
            self._arrays.remove(array)
