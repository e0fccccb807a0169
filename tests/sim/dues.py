"""What is promised of times, written down once more: nothing comes before its time, and nothing is slept through.

A retry waits for as long as was said and no longer, a key lives as long as its job and a day at least, the janitor
counts from the last end. All by the steady clock, which goes on while the server is down as far as the wall's clock can
be believed, and over every jump of that.
"""

from collections.abc import Callable, Collection
from typing import Any, Final

from tests.sim.world import World
from tq.core.model import tables
from tq.core.model.job import Progress
from tq.core.model.task import State, Task
from tq.core.model.view import Changes
from tq.core.vocabulary import Times
from tq.limits import key_ttl_ms

TaskKey = tuple[int, int, int]
DOWN_MS_MAX: Final = 24 * 3_600_000
LATE_MS: Final = 5


class Dues:
    """What is due when, and the clocks of the last turn. A crash takes back what it takes back of the store (`put`)."""

    def __init__(self, world: World, put: Callable[[dict, Any, Any], None]) -> None:
        self._world = world
        self._put = put
        self.waiting: dict[TaskKey, int] = {}  # what waits for its next attempt, and until when
        self.ended: dict[int, int] = {}  # jobs, and when they ended last
        self._keys: dict[str, tuple[int, int]] = {}  # the job that a key stands for, and since when
        self._last: dict[str, Times] = {}

    def wrote(self, changes: Changes, gone: Collection[int]) -> None:
        """Look at the clocks and at the keys of a turn. `gone` are the jobs that are forgotten, this turn's too."""
        meta = changes[tables.META][()]
        last = self._last.get("turn")
        if last is not None and meta.steady_ms < last.steady_ms:
            raise self._world.violated(f"steady time went back, from {last} to {meta.steady_ms}")
        self._put(self._last, "turn", Times(meta.steady_ms, meta.wall_ms))
        for (name,), record in changes.get(tables.KEY, {}).items():
            job, since_ms = self._keys.get(name, (0, 0))
            if record is not None and record.job != job:
                self._put(self._keys, name, (record.job, meta.steady_ms))
            elif record is None and (job not in gone or meta.steady_ms < since_ms + key_ttl_ms):
                raise self._world.violated(f"key {name} of job {job}, used at {since_ms}, is gone at {meta.steady_ms}")

    def began(self, first: Times) -> None:
        """A life of the server begins: what has passed by the wall's clock has passed, but no more than a day."""
        last = self._last.get("turn")
        if last is None:
            return
        down_ms = min(max(first.wall_ms - last.wall_ms, 0), DOWN_MS_MAX)
        if abs(first.steady_ms - last.steady_ms - down_ms) > LATE_MS:
            raise self._world.violated(f"after {last} a life begins with {first}, {down_ms} ms later")

    def moved(self, key: TaskKey, before: Task | None, after: Task, steady_ms: int) -> None:
        """See that what waits for its next attempt waits for its time, unless somebody says otherwise."""
        is_open = after.state is not State.CANCELLED and before is not None and before.round == after.round
        if is_open and before is not None and before.state is State.RETRYING and steady_ms < before.due_ms:
            raise self._world.violated(f"{key} was to wait until {before.due_ms}, and at {steady_ms} is {after}")
        if after.state is State.RETRYING:
            self._put(self.waiting, key, after.due_ms)
        elif key in self.waiting:
            self._put(self.waiting, key, None)

    def job_moved(self, job: int, after: Progress | None, steady_ms: int) -> None:
        """Note when a job has ended."""
        if after is not None and after.is_ended is not (job in self.ended):
            self._put(self.ended, job, steady_ms if after.is_ended else None)

    def check_idle(self, steady_ms: int, idle_ms: int | None, passed_over: Collection[int]) -> None:
        """The loop does not sleep through what is due, but for jobs that may be passed over."""
        dues = ((due_ms, key) for key, due_ms in self.waiting.items() if key[0] not in passed_over)
        due_ms, key = min(dues, default=(0, None))
        if key is not None and (idle_ms is None or steady_ms + idle_ms > max(due_ms, steady_ms) + LATE_MS):
            raise self._world.violated(f"{key} is due at {due_ms}, and at {steady_ms} the loop sleeps for {idle_ms} ms")
