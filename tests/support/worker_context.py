"""Stores with a past: jobs of every kind in every state, made by the engine, with dice that a seed throws."""

import random
from collections.abc import Callable
from typing import Any

from tests.support.house import House
from tq.core import vocabulary as v
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.model.task import Cause, State
from tq.core.model.view import pages
from tq.errors import Refused
from tq.limits import piece_bytes_max

WORKERS = 3


class WorkerContext(House):
    """A house in which things happen at random."""

    def __init__(self, seed: int, bounds: Bounds | None = None, store: Any = None) -> None:
        super().__init__(bounds, store)
        self.dice = random.Random(seed)
        self.jobs: list[int] = []
        self.uploads = 0
        for worker in range(1, WORKERS + 1):
            self.join(worker, 1, slots=2)

    def live(self, steps: int) -> "WorkerContext":
        """Let so many things happen."""
        things: list[tuple[Callable[[], None], int]] = [
            (self.submit_something, 6), (self.submit_with_input, 1), (self.submit_with_entries, 2), (self.upload, 1),
            (self.end_something, 12), (self.lose_somebody, 1), (self.act_on_something, 5), (self.pass_time, 2),
            (self.set_something, 1),
        ]  # fmt: skip
        for thing in self.dice.choices([thing for thing, _ in things], [weight for _, weight in things], k=steps):
            thing()
        return self

    def submit_something(self) -> None:
        dice = self.dice
        size = dice.choice([1, 1, 3, 12])
        fields = {
            "size": size, "is_array": size > 1, "queue": dice.choice(["default", "other"]), "hold": dice.random() < 0.1,
            "retries": dice.choice([0, 2]), "crash_limit": dice.choice([0, 1, 2, 3]), "priority": dice.choice([0, 5]),
            "throttle": dice.choice([0, 0, 2]), "max_fails": dice.choice([-1, -1, 2]), "key": f"key-{len(self.jobs)}",
        }  # fmt: skip
        self.jobs.append(self.submit(**fields))

    def submit(self, **fields: Any) -> int:
        answer = self.do(v.Submit(fields.pop("key", ""), b"body", **fields))
        assert isinstance(answer, v.Submitted)
        return int(answer.id)

    def submit_with_input(self) -> None:
        self.uploads += 1
        key = f"input-{self.uploads}"
        for piece in range(self.dice.randint(0, 2)):
            self.do(v.Upload(key, piece * piece_bytes_max, bytes(piece_bytes_max)))
        answer: Any = self.do(v.Upload(key, 0, b""))
        self.do(v.Upload(key, answer.received, b"the rest"))
        self.jobs.append(self.submit(stdin_key=key))
        if self.dice.random() < 0.5:
            self.jobs.append(self.submit(stdin_of=str(self.jobs[-1])))

    def submit_with_entries(self) -> None:
        self.upload()
        answer: Any = self.do(v.AddEntries(f"entries-{self.uploads}", 0, ()))
        self.jobs.append(
            self.array(answer.received, entries_key=f"entries-{self.uploads}", entries_digest=answer.digest)
        )

    def upload(self) -> None:
        self.uploads += 1
        first = 0
        for run in range(self.dice.randint(1, 4)):
            items = tuple(b"entry %d" % (first + at) for at in range(self.dice.randint(1, 5)))
            before = b"%d" % run if run else b""
            self.do(v.AddEntries(f"entries-{self.uploads}", first, items, before, b"%d" % (run + 1)))
            first += len(items)

    def running(self) -> list[tuple[int, v.AttemptRef]]:
        found = []
        for page in pages(self.store, tables.RUNNING):
            for (worker, *key), _ in page:
                task = self.store.get(tables.TASK, tuple(key))
                assert task is not None
                found.append((worker, v.AttemptRef(*key, task.attempt, task.lease)))
        return found

    def end_something(self) -> None:
        for worker, ref in self.dice.sample(self.running(), min(2, len(self.running()))):
            session = self.engine.live.workers[worker].session_number
            if self.dice.random() < 0.3:
                self.started(ref, worker=worker, session=session)
            else:
                self.delivery += 1
                value = bytes(self.dice.choice([0, 10, 5_000]))
                self.store.put_output(ref.task, ref.attempt, 1, 0, self.dice.randbytes(self.dice.choice([20, 9_000])))
                end = v.End(ref, int(Cause.EXIT), self.dice.choice([0, 0, 1]), 500, b"usage", value)
                self.do(v.Report(worker, session, self.delivery, (end,)))

    def lose_somebody(self) -> None:
        worker = self.dice.randint(1, WORKERS)
        session = self.engine.live.workers[worker].session_number if worker in self.engine.live.workers else 0
        self.do(v.WorkerLost(worker, session))
        self.join(worker, session + 1, slots=2)

    def act_on_something(self) -> None:
        if not self.jobs:
            return
        ids = (str(self.dice.choice(self.jobs)),)
        command = self.dice.choice(
            [v.Cancel(ids), v.Hold(ids), v.Release(ids), v.Retry(ids), v.Requeue(ids), v.Forget(ids),
             v.SetPriority(ids, priority=7), v.Cancel(where=v.Where(queue="other")), v.Cancel((f"{ids[0]}.2",)),
             v.Forget(where=v.Where(states=("failed",)))]
        )  # fmt: skip
        try:
            self.do(command)
        except Refused:
            return

    def pass_time(self) -> None:
        self.now_ms += self.dice.choice([10, 5_000, 400_000])
        self.do(v.Tick())

    def set_something(self) -> None:
        self.do(v.SetQueue("other", max=self.dice.choice([0, 3])))
        self.do(v.CreateToken(f"token-{self.now_ms}", bytes(32), "read"))
        self.do(v.Retain(self.dice.choice([1_000, 1_000_000])))

    def settle(self) -> None:
        """Let everything that may start run to its end, whatever it takes."""
        for job in self.jobs:
            for command in (v.Release((str(job),)), v.Retry((str(job),))):
                try:
                    self.do(command)
                except Refused:
                    continue
        for _ in range(3_000):
            self.now_ms += 1_000
            self.do(v.Tick())
            alive = self.running()
            for worker, ref in alive:
                self.delivery += 1
                session = self.engine.live.workers[worker].session_number
                self.do(v.Report(worker, session, self.delivery, (v.End(ref, int(Cause.EXIT), 0, 5),)))
            if not alive and not self.waiting():
                return
        raise AssertionError(f"these never end: {self.waiting()}")

    def waiting(self) -> list[Any]:
        """Return the jobs that have members which have not ended."""
        return [
            (key, progress)
            for page in pages(self.store, tables.PROGRESS)
            for key, progress in page
            if not progress.is_ended and sum(progress.counts[: State.SUCCEEDED])
        ]
