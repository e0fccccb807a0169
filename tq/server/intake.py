"""Where requests wait for the commit loop, and the order in which it takes them: fairly.

Every peer has an inlet of its own. The loop goes round the inlets that have something and takes a slice of each, so
that one peer's bulk load does not stand before another's single submit. Inlets are bounded: a peer that reads
`is_full` waits for `on_room` before it reads on, and so the sender feels it.

Pure: no trio, no clock. An inlet never looks into a request.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tq import errors
from tq.core.view import View
from tq.core.vocabulary import Answer, Command

slice_requests: Final = 16
inlet_requests_max: Final = 512

Reply = Callable[[Answer | errors.TqError], None]


class Look(NamedTuple):
    """A read made at the edge, in the turn like every other: `read` gets the store, and its answer waits for the flush
    that covers what it could have seen.
    """

    read: Callable[[View], Answer]


class Request(NamedTuple):
    """One command for the engine (or a look), who asks (the token's name), and where the answer goes.

    `reply` gets an Answer, or the error that refused the request; None where nobody waits for it.
    """

    command: Command | Look
    submitter: str = ""
    reply: Reply | None = None


def _nothing() -> None:
    """Stand in for a callback that nobody asked for."""


class Inlet:
    """One peer's requests that are not taken yet, in order."""

    __slots__ = ("_intake", "_waiting", "on_room")

    def __init__(self, intake: "Intake", on_room: Callable[[], None]) -> None:
        self._intake = intake
        self._waiting: deque[Request] = deque()
        self.on_room = on_room

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether the peer must wait before it sends more."""
        return len(self._waiting) >= inlet_requests_max

    def put(self, requests: Sequence[Request]) -> None:
        """Add the requests of one frame. Answered at once with the closing error where the intake is closed."""
        self._intake.add(self, self._waiting, requests)

    def take(self) -> Request:
        """Remove the oldest request; tell the peer when there is room again."""
        request = self._waiting.popleft()
        if len(self._waiting) == inlet_requests_max // 2:
            self.on_room()
        return request


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

    def add(self, inlet: Inlet, waiting: deque[Request], requests: Sequence[Request]) -> None:
        """Append requests to an inlet (`Inlet.put`)."""
        if self._closed is not None:
            for request in requests:
                if request.reply is not None:
                    request.reply(self._closed)
            return
        if not requests:
            return
        if not waiting:
            self._round.append(inlet)
        waiting.extend(requests)
        self.on_work()

    def take(self) -> Request | None:
        """Return the next request in fair order, None when nothing waits."""
        if not self._round:
            return None
        inlet = self._round[0]
        request = inlet.take()
        self._left -= 1
        if not len(inlet):
            self._round.popleft()
            self._left = slice_requests
        elif not self._left:
            self._round.rotate(-1)
            self._left = slice_requests
        return request

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
