"""The simulated world: one heap of future events under a virtual clock, one random generator for all dice.

Times are integers of microseconds. The same seed gives the same events in every process: nothing here, and nothing that
an actor does, may depend on the system's clock, on hashes of text or on addresses of objects.
"""

import heapq
import zlib
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Final

MS: Final = 1_000
SECOND: Final = 1_000_000


Subject = tuple[int, int | None]  # a job, or one member of it


class Violation(AssertionError):
    """Something happened that tq promises will not happen."""


class World:
    """The clock, the dice, the events to come and a short history of those that were."""

    def __init__(self, seed: int, history_max: int = 400) -> None:
        self.seed = seed
        self.dice = Random(seed)
        self.now_us = 0
        self.events = 0
        self.digest = 0
        self.is_calm = False  # no more faults: everything must come to its end
        self.counts: dict[str, int] = {}
        self.subject: Subject | None = None  # whose story is told
        self.story: list[str] = []
        self.history: deque[str] = deque(maxlen=history_max)
        self.echo: Callable[[str], None] | None = None
        self.on_event: Callable[[], None] = lambda: None  # whoever waits for the next event looks again
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, when_us: int, do: Callable[..., None], *args: Any) -> None:
        """Do something at a time; of what is due at the same time, what was asked first comes first."""
        self.events += 1
        heapq.heappush(self._heap, (when_us, self.events, do, args))
        self.on_event()

    def after(self, delay_us: int, do: Callable[..., None], *args: Any) -> None:
        """Do something later."""
        self.at(self.now_us + delay_us, do, *args)

    def run(self, is_over: Callable[[], bool], until_us: int) -> bool:
        """Let things happen until `is_over`; return whether it was before `until_us`."""
        heap = self._heap
        while heap and heap[0][0] <= until_us:
            if is_over():
                return True
            self.now_us, _, do, args = heapq.heappop(heap)
            do(*args)
        return is_over()

    def next_us(self) -> int:
        """Return when the next event is due; far away if there is none."""
        return self._heap[0][0] if self._heap else 1 << 60

    def run_due(self) -> None:
        """Do what is due by now, one after the other."""
        heap = self._heap
        while heap and heap[0][0] <= self.now_us:
            _, _, do, args = heapq.heappop(heap)
            do(*args)

    def note(self, who: str, what: str) -> None:
        """Add a line to the history, and to the digest by which two runs are compared."""
        line = f"{self.now_us / SECOND:11.6f} {who:<8} {what}"
        self.digest = hash((self.digest, zlib.crc32(line.encode())))
        self.history.append(line)
        if self.echo is not None:
            self.echo(line)

    def saw(self, who: str, what: object) -> None:
        """Mix a small event into the digest; show it only to somebody who watches the whole run."""
        self.digest = hash((self.digest, self.now_us, self.events))
        if self.echo is not None:
            self.echo(f"{self.now_us / SECOND:11.6f} {who:<8}   . {what}")

    def tell(self, job: int, member: int | None, who: str, what: str, *parts: object) -> None:
        """Add to the story of a task, if this run is told for it; `what` is a format for the parts."""
        subject = self.subject
        if subject is not None and subject[0] == job and (member is None or subject[1] in (None, member)):
            self.story.append(f"{self.now_us / SECOND:11.6f} {who:<8} {what.format(*parts)}")

    def tell_all(self, who: str, what: str) -> None:
        """Add what concerns everybody: to the history and to whatever story is told."""
        self.note(who, what)
        if self.story:
            self.story.append(self.history[-1])

    def count(self, what: str, more: int = 1) -> None:
        """Count something worth having seen."""
        self.counts[what] = self.counts.get(what, 0) + more

    def violated(self, what: str) -> Violation:
        """Return the error that ends the run."""
        self.note("CHECK", what)
        return Violation(f"seed {self.seed}, at {self.now_us / SECOND:.6f} s: {what}")

    # ------------------------------------------------------------ dice

    def chance(self, share: float) -> bool:
        """Throw a coin."""
        return self.dice.random() < share

    def wait_us(self, mean_us: int) -> int:
        """Return an exponential waiting time, at most ten times its mean."""
        return min(int(self.dice.expovariate(1.0) * mean_us) + 1, 10 * mean_us)


class Process:
    """What can be frozen, and die: nothing that it has planned happens meanwhile, or ever."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.life = 0
        self.frozen_until_us = 0

    @property
    def is_frozen(self) -> bool:
        """Whether it stands still."""
        return self.frozen_until_us > self.world.now_us

    def after(self, delay_us: int, do: Callable[..., None], *args: Any) -> None:
        """Plan something for this life."""
        self.world.at(self.world.now_us + delay_us, self._do, self.life, do, args)

    def freeze(self, for_us: int) -> None:
        """Stand still for a while."""
        self.frozen_until_us = max(self.frozen_until_us, self.world.now_us + for_us)
        self.note(f"frozen for {for_us / SECOND:.3f} s")

    def end_life(self) -> None:
        """Forget everything that was planned."""
        self.life += 1
        self.frozen_until_us = 0

    def note(self, what: str) -> None:
        """Add to the history."""
        self.world.note(self.name, what)

    def _do(self, life: int, do: Callable[..., None], args: tuple[Any, ...]) -> None:
        if life != self.life:
            return
        if self.frozen_until_us > self.world.now_us:
            self.world.at(self.frozen_until_us, self._do, life, do, args)
            return
        do(*args)
