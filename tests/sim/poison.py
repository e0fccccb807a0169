"""Poison jobs: for a while the server's own work raises whenever it comes to one (ADR 23).

Poison is tasted where Dispatch looks for members to start, where a timer opens what waits for its next attempt, where a
sweep walks a job, and where the janitor forgets. It may cost what it is about and nothing else: whoever is passed over
without having been poison is a violation, and so is what is not tried again after its rest. All else that must hold
holds on, for everybody.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tests.sim.world import World
from tq.core import tables
from tq.core.engine import act, clock, dispatch, forget
from tq.core.live import Live
from tq.core.timers import TimerKind
from tq.core.view import Key, View


class Poisoned(Exception):
    """The bug that a poison job brings to light."""


class Poison:
    """Which jobs are poison, and until when."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._until_us: dict[int, int] = {}  # by job: what has ever been poison

    @property
    def ever(self) -> Collection[int]:
        """The jobs that have been poison at some time."""
        return self._until_us.keys()

    def plant(self, job: int, for_us: int) -> None:
        """Let a job be poison for a while."""
        self._until_us[job] = self._world.now_us + for_us
        self._world.tell(job, None, "FAULT", "poison for {} us", for_us)

    def end(self) -> None:
        """Let nothing be poison any more."""
        self._until_us = dict.fromkeys(self._until_us, 0)

    def taste(self, job: int) -> None:
        """Raise if a job is poison now."""
        if self._world.now_us < self._until_us.get(job, 0):
            raise Poisoned(job)

    @contextmanager
    def spread(self) -> Iterator[None]:
        """Let the server's own work taste every job that it comes to, while this lasts."""
        startable, retry, walk_job, retain = dispatch._startable, clock._retry, act._walk_job, forget.retain

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

        with (
            patch.object(dispatch, "_startable", tasted(startable, lambda _step, key, *_: key[0])),
            patch.object(clock, "_retry", tasted(retry, lambda _step, key: key[0])),
            patch.object(act, "_walk_job", tasted(walk_job, walked)),
            patch.object(forget, "retain", retain_all),
        ):
            yield

    def look(self, live: Live, steady_ms: int) -> None:
        """See that nobody is passed over who has never been poison, and that timers which have rested are tried."""
        for key in live.failed_ready:
            self._blame(key, key[2] if len(key) > 1 else 0)
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
    """Count, by lane, the jobs that Dispatch passes over."""
    rows = live.failed_ready.resting(steady_ms) if len(live.failed_ready) else ()
    return Counter(key[0] for key in rows if len(key) > 1 and view.get(tables.READY, key) is not None)
