"""Who waits for which jobs: the subscriptions of `wait`. Pure, in memory, gone with the connection.

A subscription is made when it is asked for, before its first read: so no change can fall between. A change of a job
marks it, and those ids are read again, one read at a time: in the turn that changed them, so that the answer leaves
with it (commit/commit_loop.py), or in a later one, where that is much to read. What is `done` is decided by the core;
here only from which ids the answer is still owed.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from tq.core.model import ids
from tq.core.read.waits import is_there
from tq.core.vocabulary import Outcome, Wait, Waited
from tq.limits import page_bytes_max, wait_ids_all_max, wait_ids_of_token_max
from tq.server.commit.intake import Inlet, Request
from tq.server.sessions.admission import Quota

_WITH_ITS_TURN_MAX: Final = 50  # ids: more would keep waiting what the same turn answers
_OUTCOME_BYTES: Final = 150  # of an outcome at most, beside what was used and why it may not start


class Waiting:
    """One `wait`, whose first read is under way. `request` makes a read of some of its ids, which ends in `read`.

    A client may wait for thousands: what is kept of each id are some numbers in arrays, and of how it stands a hash.
    """

    __slots__ = (
        "_asked", "_changed", "_is_asking", "_jobs", "_left", "_pending", "_positions", "_seen", "inlet",
        "is_subscribed", "request", "token", "wait",
    )  # fmt: skip

    def __init__(self, wait: Wait, inlet: Inlet, request: Callable[[Wait], Request], token: str = "") -> None:
        self.wait = wait
        self.inlet = inlet
        self.request = request
        self.token = token
        self.is_subscribed = False
        jobs = [ids.parse(text).job for text in wait.ids]
        self._positions = array("I", sorted(range(len(jobs)), key=jobs.__getitem__))  # of the ids, by their jobs
        self._jobs = array("q", (jobs[position] for position in self._positions))
        self._seen = array("q", bytes(8 * len(jobs)))  # the hash of each outcome that was told, 0 = none
        self._pending = bytearray(b"\1") * len(jobs)
        self._left = len(jobs)  # of them
        self._changed: dict[int, None] = {}  # positions; a dict for their order
        self._asked: Sequence[int] = range(len(jobs))
        self._is_asking = True

    @property
    def jobs(self) -> Collection[int]:
        """The numbers of the jobs that it waits for."""
        return dict.fromkeys(self._jobs)

    def changed(self, job: int) -> Request | None:
        """Note that something in a job changed; return what is to be read with that, if it is not much."""
        low, high = bisect_left(self._jobs, job), bisect_right(self._jobs, job)
        pending = self._pending
        self._changed.update((position, None) for position in self._positions[low:high] if pending[position])
        if len(self._changed) <= _WITH_ITS_TURN_MAX:
            return self._again()
        self._read_again()
        return None

    def read(self, asked: Wait, answer: Waited) -> tuple[bool, list[Outcome]]:
        """Take an answer to `asked`; return whether all is done, and which outcomes are new or changed."""
        self._is_asking = False
        news = []
        for position, outcome in zip(self._asked, answer.outcomes, strict=True):
            seen = hash(outcome) or 1
            if self._seen[position] != seen:
                self._seen[position] = seen
                news.append(outcome)
            if self._pending[position] and (answer.done or is_there(outcome, asked.until)):
                self._pending[position] = 0
                self._left -= 1
        if self._left:
            self._read_again()
            return False, news
        if len(asked.ids) == len(self.wait.ids):
            return True, list(answer.outcomes)
        # Piece by piece everything was done; somebody may have retried a piece since: look at all of it once more.
        self._left = len(self.wait.ids)
        self._pending = bytearray(b"\1") * self._left
        self._changed = dict.fromkeys(range(self._left))
        self._read_again()
        return False, news

    def _read_again(self) -> None:
        request = self._again()
        if request is not None:
            self.inlet.put([request])

    def _again(self) -> Request | None:
        if self._is_asking or not self._changed:
            return None
        self._is_asking = True
        self._asked = array("I", self._changed)
        self._changed = {}
        return self.request(Wait(tuple(self.wait.ids[position] for position in self._asked), self.wait.until))


class Watch:
    """All subscriptions by job, and how many ids they are for."""

    def __init__(self) -> None:
        # A dict of its own has only a job that several wait for: mostly it is one.
        self._by_job: dict[int, Waiting | dict[Waiting, None]] = {}
        self._ids = Quota("ids waited for", wait_ids_of_token_max, wait_ids_all_max, "wait for whole jobs, or later")

    def __len__(self) -> int:
        return len(self._by_job)

    def subscribe(self, waiting: Waiting) -> None:
        """Tell this one of changes from now on. Raises NotDone where its token, or all, wait for too much already."""
        self._ids.take(waiting.token, len(waiting.wait.ids))
        waiting.is_subscribed = True
        for job in waiting.jobs:
            there = self._by_job.setdefault(job, waiting)
            if isinstance(there, dict):
                there[waiting] = None
            elif there is not waiting:
                self._by_job[job] = {there: None, waiting: None}

    def unsubscribe(self, waiting: Waiting) -> None:
        """Tell it no more. Twice is once."""
        if not waiting.is_subscribed:
            return
        waiting.is_subscribed = False
        self._ids.give(waiting.token, len(waiting.wait.ids))
        for job in waiting.jobs:
            there = self._by_job[job]
            if isinstance(there, dict):
                del there[waiting]
            if there is waiting or not there:
                del self._by_job[job]

    def changed(self, job: int) -> Iterator[tuple[Inlet, Request]]:
        """Tell everybody who waits for this job, who came first first; yield what they read again, and for whom."""
        there = self._by_job.get(job, {})
        for waiting in tuple(there) if isinstance(there, dict) else (there,):
            request = waiting.changed(job)
            if request is not None:
                yield waiting.inlet, request


def replies(done: bool, outcomes: Iterable[Outcome]) -> list[tuple[Waited, bool]]:
    """Return the answers that carry these outcomes in pieces that fit a frame, each with whether more follows."""
    pieces: list[list[Outcome]] = [[]]
    room = page_bytes_max
    for outcome in outcomes:
        room -= _OUTCOME_BYTES + len(outcome.usage) + len(outcome.reason.encode())
        if room < 0:
            pieces.append([])
            room = page_bytes_max
        pieces[-1].append(outcome)
    return [(Waited(done, tuple(piece)), not done or piece is not pieces[-1]) for piece in pieces]
