"""Uploads the entries of an array before its submit: many runs on their way, and on from where it was after any cut.

Nothing of an upload runs before the submit that names it. The server says after each run how many entries it has and
what their sender called them (a digest of all so far). So a client that was cut off, or that starts anew with the same
key, skips what is there, and notices when other entries, or those of another command, have come under its key.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tq.client.drivers.transport import ConnectionLost
from tq.client.sansio.documents import expect
from tq.client.sansio.runs import begun, other_upload, packed
from tq.core import vocabulary as v
from tq.errors import Stopping

if TYPE_CHECKING:
    from tq.client.drivers.blocking import Client

RUNS_ON_THE_WAY: Final = 16


class Sent(NamedTuple):
    """What a submit says of its entries: how many there are, and their digest."""

    size: int
    digest: bytes


class _Run(NamedTuple):
    """Entries from number `first` on. `hash` has seen all before them; `before` and `after` are digests."""

    first: int
    items: tuple[bytes, ...]
    hash: Any
    before: bytes
    after: bytes

    @property
    def end(self) -> int:
        """The number of the first entry behind it."""
        return self.first + len(self.items)


class EntryUpload:
    """The upload of the entries of a request.

    `runs` yields runs within the bounds of limits.py, and an empty one when nothing came for a while.

    `show` is told how many entries are on the server's disk.
    """

    def __init__(
        self,
        client: "Client",
        request: v.Submit,
        runs: Iterator[tuple[bytes, ...]],
        show: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._key = request.key
        self._runs = runs
        self._show = show
        self._hash: Any = begun(request)
        self._digest = b""  # of all that was read
        self._size = 0  # of all that was read
        self._sent: deque[_Run] = deque()  # without an answer yet, in order
        self._there = v.Uploaded(0)  # the furthest that the server has told of
        self._has_ended = False  # the input
        self._is_void = False  # the server takes no more: the key has made its job, or the upload is gone

    def run(self) -> Sent:
        """Upload everything, and return what the submit says of it; nothing is sent of an empty input.

        Raises KeyConflict for other entries under this key, TooLarge, and what the server refuses.
        """
        first = self._next()
        if first is None:
            return Sent(0, b"")
        self._sent.append(first)
        question = v.AddEntries(self._key, 0, ())
        self._client.persist(question, lambda alive: self._go_on(question, alive))
        if self._is_void:  # the submit finds out why; it needs the whole input's digest
            while self._next() is not None:
                pass
        elif self._there.received > self._size:
            raise other_upload(self._key)
        return Sent(self._size, self._digest)

    def _go_on(self, question: v.AddEntries, alive: Callable[[], None]) -> None:
        """Upload over one connection: to the end, or until it is lost (ConnectionLost)."""
        try:
            there = expect(v.Uploaded, self._client.ask_once(question))
            alive()
            self._is_void = bool(there.job) or there.received < self._there.received
            self._there = there
            self._sent = deque(filter(None, map(self._rest, self._sent)))
            for run in self._sent:
                self._post(run)
            while not self._is_void:
                self._fill()
                if not self._sent:
                    return
                self._settle(expect(v.Uploaded, self._client.collect()))
                alive()
        except Stopping as stop:
            raise ConnectionLost(str(stop)) from None  # it may come back

    def _fill(self) -> None:
        """Read and send until enough is on its way."""
        while len(self._sent) < RUNS_ON_THE_WAY and not self._has_ended:
            run = self._next()
            rest = self._rest(run) if run is not None else None
            if rest is not None:
                self._sent.append(rest)
                self._post(rest)

    def _next(self) -> _Run | None:
        items = next(self._runs, None)
        if items is None:
            self._has_ended = True
            return None
        run_hash, before = self._hash.copy(), self._digest
        if items:
            self._hash.update(packed(items))
            self._digest = self._hash.digest()
        run = _Run(self._size, items, run_hash, before, self._digest)
        self._size = run.end
        return run

    def _post(self, run: _Run) -> None:
        self._client.post(v.AddEntries(self._key, run.first, run.items, run.before, run.after))

    def _rest(self, run: _Run) -> _Run | None:
        """Return what of a run the server does not have. Raises KeyConflict if what it has is something else."""
        place = self._there.received - run.first
        if place <= 0:
            return run
        if place > len(run.items):
            return None
        seen = run.hash.copy()
        seen.update(packed(run.items[:place]))
        if seen.digest() != self._there.digest:
            raise other_upload(self._key)
        if place == len(run.items):
            return None
        return _Run(self._there.received, run.items[place:], seen, seen.digest(), run.after)

    def _settle(self, answer: v.Uploaded) -> None:
        """Take the answer to the oldest run on its way."""
        run = self._sent[0]
        if answer.job or answer.received < run.first:
            self._is_void = True
            return
        if answer.received == run.first and (run.items or answer.digest != run.before):
            raise other_upload(self._key)
        if answer.received > self._there.received:
            self._there = answer
        if run.first < answer.received < run.end:
            raise ConnectionLost("somebody else uploads the same")  # what is on its way behind it has missed its place
        if answer.received == run.end and answer.digest != run.after:
            raise other_upload(self._key)
        self._sent.popleft()
        self._show(self._there.received)
