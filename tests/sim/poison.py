"""Poison jobs and lanes: for a while the server's work raises whenever it comes to one (ADR 23).

Poison is tasted where Dispatch looks for members to start or for room for a lane, where a timer opens what waits for
its next attempt, where a sweep walks a job, where the janitor forgets; and, of other jobs, where a worker's word or its
loss comes to an attempt. It may cost what it is about and nothing else: whoever is passed over without having been
poison is a violation, and so is what is not tried again after its rest. All else that must hold holds on, for
everybody, over restarts of the server.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tests.sim.world import World
from tq.core.bulk import act
from tq.core.change import fence, forget
from tq.core.engine import clock, dispatch, join, ready, report
from tq.core.model import tables
from tq.core.model.timers import TimerKind
from tq.core.model.view import Key, View
from tq.core.placement.live import Live
from tq.limits import put_off_of_lane_max


class Poisoned(Exception):
    """The bug that a poison job brings to light."""


class Poison:
    """Which jobs are poison, and until when."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._until_us: dict[int, int] = {}  # by job: what has ever been poison
        self._lanes_us: dict[int, int] = {}
        self._words_us: dict[int, int] = {}  # by job: what a worker says of it

    @property
    def ever(self) -> Collection[int]:
        """The jobs that have been poison at some time."""
        return self._until_us.keys()

    def plant(self, job: int, for_us: int) -> None:
        """Let a job be poison for a while."""
        self._plant(self._until_us, job, for_us, "poison")

    def plant_lane(self, lane: int, for_us: int) -> None:
        """Let a lane be poison for a while."""
        self._plant(self._lanes_us, lane, for_us, "a poison lane")

    def plant_words(self, job: int, for_us: int) -> None:
        """Let what is said of a job's attempts be poison for a while."""
        self._plant(self._words_us, job, for_us, "words of it are poison")

    def _plant(self, where: dict[int, int], number: int, for_us: int, what: str) -> None:
        where[number] = self._world.now_us + for_us
        self._world.tell(number, None, "FAULT", "{} for {} us", what, for_us)

    def end(self) -> None:
        """Let nothing be poison any more."""
        for where in (self._until_us, self._lanes_us, self._words_us):
            where.update(dict.fromkeys(where, 0))

    def costs_words(self, job: int) -> bool:
        """Whether what a worker has said of a job's attempts may have been passed over."""
        return job in self._words_us

    def taste(self, job: int) -> None:
        """Raise if a job is poison now."""
        self._taste(self._until_us, job)

    def _taste(self, where: dict[int, int], number: int) -> None:
        if self._world.now_us < where.get(number, 0):
            raise Poisoned(number)

    @contextmanager
    def spread(self) -> Iterator[None]:
        """Let the server's own work taste every job that it comes to, while this lasts."""
        startable, retry, walk_job, retain = ready.members_in_order, clock._retry, act._walk_job, forget.retain

        def tasted(work: Callable[..., Any], job_of: Callable[..., int]) -> Callable[..., Any]:
            def first_taste(*what: Any) -> Any:
                self.taste(job_of(*what))
                return work(*what)

            return first_taste

        def retain_all(step: Any, keys: list[Key]) -> None:
            for _, job in keys:
                self.taste(job)
            retain(step, keys)

        def walked(acting: Any, _verb: Any, key: Key, _member: int) -> int:
            return key[0] if acting.sweep else 0

        places, passes_over = dispatch.places, fence.passes_over

        def places_of(live: Live, lane: int, *more: Any) -> Any:
            self._taste(self._lanes_us, lane)
            return places(live, lane, *more)

        def heard(step: Any, key: Key) -> bool:
            is_over = passes_over(step, key)
            if not is_over:
                self._taste(self._words_us, key[0])
            return is_over

        with (
            patch.object(ready, "members_in_order", tasted(startable, lambda _step, key, *_: key[0])),
            patch.object(clock, "_retry", tasted(retry, lambda _step, key: key[0])),
            patch.object(act, "_walk_job", tasted(walk_job, walked)),
            patch.object(forget, "retain", retain_all),
            patch.object(dispatch, "places", places_of),
            patch.multiple(fence, passes_over=heard),
            patch.multiple(join, passes_over=heard),
            patch.multiple(report, passes_over=heard),
        ):
            yield

    def look(self, live: Live, steady_ms: int) -> None:
        """See that nobody is passed over who has never been poison, and that timers which have rested are tried."""
        for key in live.failed_ready:
            if len(key) > 1:
                self._blame(key, key[2])
            elif key[0] not in self._lanes_us and len(self._until_us) < put_off_of_lane_max:
                raise self._world.violated(f"lane {key[0]} is passed over, and has never been poison")
        for key in live.failed_ended:
            self._blame(key, key[1])
        resting = live.failed_timers.resting(steady_ms)
        for key in live.failed_timers:
            if key[2] == TimerKind.RETRY:
                self._blame(key, key[3])
            if key not in resting:
                raise self._world.violated(f"timer {key} has rested and is not tried again")

    def _blame(self, key: Key, job: int) -> None:
        if job not in self._until_us:
            raise self._world.violated(f"job {job} is passed over, and has never been poison: {key}")


def resting_jobs(live: Live, view: View, steady_ms: int) -> Counter[int]:
    """Count, by lane, the jobs that Dispatch passes over: one by one, or all of a lane."""
    rows = live.failed_ready.resting(steady_ms) if len(live.failed_ready) else ()
    found = Counter(key[0] for key in rows if len(key) > 1 and view.get(tables.READY, key) is not None)
    found.update({key[0]: live.lanes[key[0]].ready for key in rows if len(key) == 1})
    return found
