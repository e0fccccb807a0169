"""Where requests wait for the commit loop, and the order in which it takes them: fairly.

Every peer has an inlet of its own. The loop goes round the inlets that have something and takes a slice of each, so
that one peer's bulk load does not stand before another's single submit. What is *bulk* (parts of uploads, counted in
bytes) is a slice by itself, and a turn that has its fill of it passes over inlets where it comes next. Inlets are
bounded: a peer that reads `is_full` waits for `on_room` before it reads on, and so the sender feels it.

Pure: no trio, no clock. An inlet never looks into a request.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tq import errors
from tq.core.model.view import View
from tq.core.vocabulary import Answer, Command
from tq.limits import MIB

slice_requests: Final = 16
inlet_requests_max: Final = 512
inlet_bulk_bytes_max: Final = 2 * MIB

Reply = Callable[[Answer | errors.TqError], None]


class Look(NamedTuple):
    """A read made at the edge, in the turn like every other: `read` gets the store, and its answer waits for the flush
    that covers what it could have seen.
    """

    read: Callable[[View], Answer]


class Request(NamedTuple):
    """One command for the engine (or a look), who asks (the token's name), and where the answer goes.

    `reply` gets an Answer, or the error that refused the request; None where nobody waits for it. `bulk_bytes` is the
    size of a part of an upload, 0 for everything that somebody waits for.
    """

    command: Command | Look
    submitter: str = ""
    reply: Reply | None = None
    bulk_bytes: int = 0


def _nothing() -> None:
    """Stand in for a callback that nobody asked for."""


class Inlet:
    """One peer's requests that are not taken yet, in order."""

    __slots__ = ("_bulk_bytes", "_intake", "_is_awaited", "_waiting", "on_room")

    def __init__(self, intake: "Intake", on_room: Callable[[], None]) -> None:
        self._intake = intake
        self._waiting: deque[Request] = deque()
        self._bulk_bytes = 0
        self._is_awaited = False  # somebody has read that it is full
        self.on_room = on_room

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether the peer must wait before it sends more."""
        self._is_awaited = len(self._waiting) >= inlet_requests_max or self._bulk_bytes >= inlet_bulk_bytes_max
        return self._is_awaited

    @property
    def is_bulk_next(self) -> bool:
        """Whether its oldest request is bulk."""
        return self._waiting[0].bulk_bytes > 0

    def put(self, requests: Sequence[Request]) -> None:
        """Add the requests of one frame. Answered at once with the closing error where the intake is closed."""
        self._bulk_bytes += self._intake.add(self, self._waiting, requests)

    def take(self) -> Request:
        """Remove the oldest request; tell the peer when there is room again."""
        request = self._waiting.popleft()
        self._bulk_bytes -= request.bulk_bytes
        is_roomy = len(self._waiting) <= inlet_requests_max // 2 and self._bulk_bytes <= inlet_bulk_bytes_max // 2
        if self._is_awaited and is_roomy:
            self._is_awaited = False
            self.on_room()
        return request

    def leave(self) -> None:
        """Tell nobody any more: the peer is gone. What it has asked is still taken.

        A session that its inlet held would be freed by the cycle collector alone, and 40 KiB of TLS with it: at the
        server's thresholds that is after a thousand connections.
        """
        self.on_room = lambda: None


class Intake:
    """All inlets; `on_work` is called when something comes in while nothing was waiting."""

    def __init__(self) -> None:
        self.on_work: Callable[[], None] = _nothing
        self._round: deque[Inlet] = deque()  # those that have something
        self._left = slice_requests  # of the first one's slice
        self._closed: errors.Refused | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._round

    def inlet(self, on_room: Callable[[], None] = _nothing) -> Inlet:
        """Make a place for one more peer. It needs no closing: an inlet with nothing in it is nowhere listed."""
        return Inlet(self, on_room)

    def add(self, inlet: Inlet, waiting: deque[Request], requests: Sequence[Request]) -> int:
        """Append requests to an inlet (`Inlet.put`); return how many bytes of bulk were added."""
        if self._closed is not None:
            for request in requests:
                if request.reply is not None:
                    request.reply(self._closed)
            return 0
        if not requests:
            return 0
        if not waiting:
            self._round.append(inlet)
        waiting.extend(requests)
        self.on_work()
        return sum(request.bulk_bytes for request in requests)

    def wait_ms(self, bulk_rest_ms: int) -> int | None:
        """Return after how many ms something may be taken if bulk rests for so many; None when nothing waits."""
        if not self._round:
            return None
        return bulk_rest_ms if bulk_rest_ms and all(inlet.is_bulk_next for inlet in self._round) else 0

    def take(self, *, may_be_bulk: bool = True) -> Request | None:
        """Return the next request in fair order, None when nothing waits, or nothing but bulk that is not wanted."""
        if not may_be_bulk:
            self._pass_over_bulk()
            if self._round and self._round[0].is_bulk_next:
                return None
        if not self._round:
            return None
        inlet = self._round[0]
        request = inlet.take()
        self._left -= 1
        if not len(inlet):
            self._round.popleft()
            self._left = slice_requests
        elif not self._left or request.bulk_bytes:
            self._round.rotate(-1)
            self._left = slice_requests
        return request

    def _pass_over_bulk(self) -> None:
        """Bring the next inlet to the front that has something else, if any has."""
        for _ in range(len(self._round)):
            if not self._round[0].is_bulk_next:
                return
            self._round.rotate(-1)
            self._left = slice_requests

    def rotate(self) -> None:
        """Begin a turn with another inlet than the one before was cut off at."""
        if self._left != slice_requests:
            self._round.rotate(-1)
            self._left = slice_requests

    def close(self, error: errors.Refused) -> None:
        """Answer with this error whatever comes from now on; what waits already is still taken."""
        self._closed = error

    def refuse_all(self, error: errors.Refused) -> None:
        """Close, and answer everything that waits with this error."""
        self.close(error)
        while (request := self.take()) is not None:
            if request.reply is not None:
                request.reply(error)
