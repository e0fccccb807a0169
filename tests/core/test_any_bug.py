"""Bugs at random, and jobs at which everything fails: every rule holds, the others go on, and once mended all ends.

TQ_BUG_SEEDS sets how many lives are looked at (default 4).
"""

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.worker_context import WORKERS, WorkerContext
from tq.core import vocabulary as v
from tq.core.change.step import Step
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.task import Phase, State
from tq.core.model.view import pages
from tq.core.repair import invariants
from tq.core.vocabulary import Times

SEEDS = int(os.environ.get("TQ_BUG_SEEDS", "4"))
PLACES = ("move", "move_run", "mark", "move_untouched", "set_rank", "purge", "close_job", "_settle_ended")
FILTERS: list[Callable[..., v.Command]] = [v.Cancel, v.Retry, v.Hold, v.Release, v.Requeue, v.Purge, v.Forget]
HOUR_MS = 3_600_000


class Bug(Exception):
    """What a careless change would raise."""


class Buggy(WorkerContext):
    """A life in which what moves a job raises: now and then, and always where the job is one of the `bad`."""

    def __init__(self, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.chance = 0.0
        self.bad: set[int] = set()
        self.bugs = 0
        for name in PLACES:
            patch.setattr(Step, name, self._raising(getattr(Step, name)))
        dice = random.Random(seed)
        super().__init__(seed, Bounds(slice=dice.choice([2, 5, 1_000]), leases=dice.choice([3, 2_000]), lanes=2))

    def _raising(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def either(step: Step, key: tuple[int, ...], *more: Any, **fields: Any) -> Any:
            if key[0] in self.bad or (self.chance and self.dice.random() < self.chance):
                self.bugs += 1
                raise Bug(method.__name__)
            return method(step, key, *more, **fields)

        return either

    def turn(self, *commands: v.Command, submitter: str = "me") -> list[Any]:
        """As the commit loop does it: a command that raises is dropped, anything else would end the server."""
        self.now_ms += 1
        turn = self.engine.begin(Times(self.now_ms, 1_700_000_000_000 + self.now_ms))
        answers: list[Any] = []
        for command in commands:
            try:
                answers.append(turn.apply(command, submitter))
            except Bug:
                answers.append(None)
        self.finished = done = turn.finish()
        if done.changes:
            self.store.write(done.changes, sequence=done.sequence, epoch=done.epoch, wall_ms=done.wall_ms)
        assert all(isinstance(error, Bug) for _, error in turn.bugs)
        assert invariants.check(self.store, self.engine.live) == []
        return answers

    def submit(self, **fields: Any) -> int:
        """Submit without a bug: these lives are about what comes after."""
        chance, self.chance = self.chance, 0.0
        number = super().submit(**fields)
        self.chance = chance
        return number

    def join(self, worker: int = 5, session: int = 1, slots: int = 1, *more: Any, **fields: Any) -> v.Joined:
        """Connect a worker, again and again until it may."""
        for _ in range(100):
            answer = self.do(v.Join(worker, session, v.Capacity(slots=slots)))
            if isinstance(answer, v.Joined):
                return answer
        raise AssertionError("a worker is kept out")

    def act_on_something(self) -> None:
        super().act_on_something()
        self.do(self.dice.choice(FILTERS)(where=v.Where(queue=self.dice.choice(["", "other"]))))

    def tick_on(self) -> None:
        """Tick as long as something is due."""
        for _ in range(2_000):
            if self.engine.next_due_ms(Times(self.now_ms, 0)) != 0:
                return
            self.do(v.Tick())
        raise AssertionError("something is due for ever")

    def alive(self) -> Iterator[tuple[int, Any]]:
        """Yield the sound jobs that go on, but for what is being stopped already."""
        for page in pages(self.store, tables.PROGRESS):
            for (number, _), progress in page:
                tasks = self.store.scan(tables.TASK, (number, 0, 0), (number, 1), 1_000)
                stopping = sum(task.phase is Phase.STOPPING for _, task in tasks)
                if number not in self.bad and sum(progress.counts[: State.SUCCEEDED]) > stopping:
                    yield number, progress


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_raises_the_others_go_on_and_once_it_is_mended_all_ends(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Buggy(seed, monkeypatch)
    life.chance = life.dice.choice([0.02, 0.1])
    life.live(60)
    life.chance = 0.0

    life.bad = set(life.dice.sample(life.jobs, min(3, len(life.jobs))))
    life.now_ms += HOUR_MS
    life.tick_on()
    for worker in range(1, WORKERS + 1):
        life.do(v.WorkerLost(worker, 1_000))
    held = {key[1] for page in pages(life.store, tables.RUNNING) for key, _ in page}
    assert held <= life.bad
    for worker in range(1, WORKERS + 1):
        life.join(worker, 2_000, slots=2)
    life.do(v.Cancel(where=v.Where()))
    life.tick_on()
    assert list(life.alive()) == []
    assert life.bugs

    life.bad = set()
    life.now_ms += HOUR_MS
    life.tick_on()
    life.settle()
    life.tick_on()
    life.settle()
    live = life.engine.live
    assert not [*live.failed_timers, *live.failed_ready]
