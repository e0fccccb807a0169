"""What waits: one queue for each lane, first in first out, at most `width` of a lane at once.

Among the lanes that may start something, the one whose head has waited longest goes first. A heap holds the lanes that
may start, by the number of their head, so that a thousand full lanes cost nothing. No I/O here.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from tq.launcher.attempt import Attempt, Stage
from tq.limits import lanes_max

brief_us: Final = 500_000
_QUEUED: Final = Stage.QUEUED


class _Lane:
    """One lane. `offered`: it stands in the heap."""

    __slots__ = ("offered", "running", "waiting", "width")

    def __init__(self) -> None:
        self.width = 0
        self.running = 0
        self.waiting: deque[tuple[int, Attempt]] = deque()
        self.offered = False

    def head(self) -> Attempt | None:
        """Return the first that still waits; those that were dropped meanwhile leave the queue here."""
        waiting = self.waiting
        while waiting:
            attempt = waiting[0][1]
            if attempt.stage is _QUEUED:
                return attempt
            waiting.popleft()
        return None


class Lanes:
    """All lanes of a launcher. `queued` counts what waits."""

    def __init__(self) -> None:
        self.queued = 0
        self._lanes: Final[dict[int, _Lane]] = {}
        self._heads: Final[list[tuple[int, int]]] = []
        self._count = 0
        self._brief: Final[set[int]] = set()  # lanes whose latest attempt took less than `brief_us`

    def is_brief(self, number: int) -> bool:
        """Whether attempts of this lane are known to be short."""
        return number in self._brief

    def note(self, number: int, run_us: int) -> None:
        """One of this lane took so long."""
        if run_us > brief_us:
            self._brief.discard(number)
        elif number not in self._brief:
            if len(self._brief) >= lanes_max:
                self._brief.clear()
            self._brief.add(number)

    def add(self, number: int, width: int, attempts: Iterable[Attempt]) -> None:
        """Queue attempts behind all others of the lane `number`, which has this width from now on."""
        lane = self._lanes.setdefault(number, _Lane())
        lane.width = width
        for attempt in attempts:
            self._count += 1
            lane.waiting.append((self._count, attempt))
            self.queued += 1
        self._offer(number, lane)

    def take(self) -> Attempt | None:
        """Return the attempt to start next and count it as running, or None when nothing may start."""
        while self._heads:
            number = heapq.heappop(self._heads)[1]
            lane = self._lanes[number]
            lane.offered = False
            attempt = lane.head() if lane.running < lane.width else None
            if attempt is None:
                self._offer(number, lane)
                continue
            lane.waiting.popleft()
            lane.running += 1
            self.queued -= 1
            if lane.running < lane.width:
                self._offer(number, lane)
            return attempt
        return None

    def take_behind(self, first: Attempt, count: int) -> list[Attempt]:
        """Return up to `count` that may wait behind `first`, which runs: the next of its lane, all as short as it.

        So many are left that every other one that may run finds as much.
        """
        lane = self._lanes[first.order.lane]
        taken: list[Attempt] = []
        for _ in range(min(count, len(lane.waiting) // max(lane.width, 1))):
            attempt = lane.head()
            if attempt is None or attempt.order.program is not first.order.program or attempt.credit is not None:
                break
            lane.waiting.popleft()
            self.queued -= 1
            taken.append(attempt)
        return taken

    def put_back(self, number: int, attempts: Sequence[Attempt]) -> None:
        """Let what `take_behind` gave wait again, before all others."""
        lane = self._lanes[number]
        lane.waiting.extendleft((0, attempt) for attempt in reversed(attempts))
        self.queued += len(attempts)
        self._offer(number, lane)

    def release(self, number: int) -> None:
        """One of this lane has ended."""
        lane = self._lanes[number]
        lane.running -= 1
        self._offer(number, lane)

    def drop(self, attempt: Attempt) -> None:
        """Take a waiting attempt out: its stage becomes ENDED, and the queue passes over it when it gets there."""
        attempt.stage = Stage.ENDED
        self.queued -= 1
        number = attempt.order.lane
        self._offer(number, self._lanes[number])

    def _offer(self, number: int, lane: _Lane) -> None:
        """Put a lane into the heap if it may start something and is not there; forget it if it has nothing at all."""
        if lane.offered or lane.running >= lane.width > 0:
            return
        if lane.head() is None:
            if lane.running == 0:
                del self._lanes[number]
        elif lane.running < lane.width:
            lane.offered = True
            heapq.heappush(self._heads, (lane.waiting[0][0], number))
