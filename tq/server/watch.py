"""Who waits for which jobs: the subscriptions of `wait`. Pure, in memory, gone with the connection.

A subscription is made when it is asked for, before its first read: so no change can fall between. A change of a job
marks it, and those ids are read again, one read at a time: in the turn that changed them, so that the answer leaves
with it (commit_loop.py), or in a later one, where that is much to read. What is `done` is decided by the core; here
only from which ids the answer is still owed.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from tq.core import ids
from tq.core.vocabulary import Outcome, Wait, Waited
from tq.core.waits import is_there
from tq.limits import page_bytes_max
from tq.server.intake import Inlet, Request

_WITH_ITS_TURN_MAX: Final = 50  # ids: more would keep waiting what the same turn answers
_OUTCOME_BYTES: Final = 150  # of an outcome at most, beside what was used and why it may not start


class Waiting:
    """One `wait`, whose first read is under way. `request` makes a read of some of its ids, which ends in `read`."""

    __slots__ = ("_changed", "_ids", "_is_asking", "_outcomes", "_pending", "inlet", "request", "wait")

    def __init__(self, wait: Wait, inlet: Inlet, request: Callable[[Wait], Request]) -> None:
        self.wait = wait
        self.inlet = inlet
        self.request = request
        self._ids: defaultdict[int, list[str]] = defaultdict(list)  # by job
        for text in wait.ids:
            self._ids[ids.parse(text).job].append(text)
        self._outcomes: dict[str, Outcome] = {}
        self._pending: set[str] = set(wait.ids)
        self._changed: dict[str, None] = {}  # for their order
        self._is_asking = True

    @property
    def jobs(self) -> Collection[int]:
        """The numbers of the jobs that it waits for."""
        return self._ids.keys()

    def changed(self, job: int) -> Request | None:
        """Note that something in a job changed; return what is to be read with that, if it is not much."""
        self._changed.update((text, None) for text in self._ids[job] if text in self._pending)
        if len(self._changed) <= _WITH_ITS_TURN_MAX:
            return self._again()
        self._read_again()
        return None

    def read(self, asked: Wait, answer: Waited) -> tuple[bool, list[Outcome]]:
        """Take an answer to `asked`; return whether all is done, and which outcomes are new or changed."""
        self._is_asking = False
        news = []
        for text, outcome in zip(asked.ids, answer.outcomes, strict=True):
            if self._outcomes.get(text) != outcome:
                self._outcomes[text] = outcome
                news.append(outcome)
            if answer.done or is_there(outcome, asked.until):
                self._pending.discard(text)
        if self._pending:
            self._read_again()
            return False, news
        if len(asked.ids) == len(self.wait.ids):
            return True, list(self._outcomes.values())
        # Piece by piece everything was done; somebody may have retried a piece since: look at all of it once more.
        self._pending = set(self.wait.ids)
        self._changed = dict.fromkeys(self.wait.ids)
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
        again = tuple(self._changed)
        self._changed.clear()
        return self.request(Wait(again, self.wait.until))


class Watch:
    """All subscriptions by job."""

    def __init__(self) -> None:
        self._by_job: defaultdict[int, dict[Waiting, None]] = defaultdict(dict)  # dicts, for their order

    def __len__(self) -> int:
        return len(self._by_job)

    def subscribe(self, waiting: Waiting) -> None:
        """Tell this one of changes from now on."""
        for job in waiting.jobs:
            self._by_job[job][waiting] = None

    def unsubscribe(self, waiting: Waiting) -> None:
        """Tell it no more. Twice is once."""
        for job in waiting.jobs:
            there = self._by_job.get(job)
            if there is not None:
                there.pop(waiting, None)
                if not there:
                    del self._by_job[job]

    def changed(self, job: int) -> Iterator[tuple[Inlet, Request]]:
        """Tell everybody who waits for this job, who came first first; yield what they read again, and for whom."""
        for waiting in tuple(self._by_job.get(job, ())):
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
