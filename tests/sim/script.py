"""What a simulated client does next: the dice behind its submits, reads, drains and queues (its verbs: verbs.py)."""

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from tests.sim.launcher import INPUT
from tests.sim.ledger import entry_of
from tests.sim.profiles import MIXED, POISON, PROFILES, SHORT
from tests.sim.verbs import Verbs
from tests.sim.world import World
from tq.core import vocabulary as v
from tq.core.model.job import Demand

IMPOSSIBLE: Final = Demand(900_000, 0)
DEMANDS: Final = (
    (Demand(),),
    (Demand(), Demand(), Demand(1_000)),
    (Demand(), Demand(1_000), Demand(2_000), Demand(1_000, 1 << 30)),
)
BACKOFFS: Final = ((0, 0), (100, 2_000), (5_000, 5_000), (10_000, 60_000))
QUEUES: Final = (("default",), ("default", "default", "fast"), ("default", "night", "fast"))


class Script:
    """The plans of one client. `workers` gives the ids of those that the server knows."""

    def __init__(self, world: World, name: str, workers: Callable[[], list[int]]) -> None:
        self.world = world
        self._name = name
        self._workers = workers
        self._submits = 0
        self._drained: list[str] = []
        self._demands = DEMANDS[world.seed % 3]
        self._queues = QUEUES[world.seed // 3 % 3]
        self.verbs = Verbs(world.dice)

    def plan(self, jobs: list[tuple[str, v.Submit]]) -> list[v.ClientCommand]:
        """Return what to do next, knowing these jobs."""
        dice = self.world.dice
        share = dice.random()
        if share < 0.4 or not jobs:
            return [self._submit()]
        job, submit = dice.choice(jobs)
        if share < 0.64:
            return [self.verbs.plan(job, submit, jobs)]
        if share < 0.80:
            return self._look(job, submit)
        if share < 0.84:
            return self._drain()
        if share < 0.86:
            return [submit] if submit.key else [v.GetRequest(job)]
        if share < 0.87:
            return [v.Submit(submit.key, submit.body, name="other")] if submit.key else [v.Get(job)]
        if share < 0.90:
            return self.queues()
        if share < 0.93:
            return [v.GetRequest(job)]  # and once more: client.py
        if share < 0.965:
            key = f"in-{self._name}-{self._submits}"
            return [v.Upload(key, 0, INPUT), self._submit(stdin_key=key)]
        return self._token() if share < 0.975 else self._lines()

    def _look(self, job: str, submit: v.Submit) -> list[v.ClientCommand]:
        dice = self.world.dice
        share = dice.random()
        if share < 0.4:
            return [v.Get(job if dice.random() < 0.8 else f"{dice.randint(1, 2_000)}")]
        if share < 0.7:
            return [v.GetResults(job)] if dice.random() < 0.2 else [v.Wait((job,), dice.choice(("done", "running")))]
        if share < 0.85:
            return [v.List(limit=20) if dice.random() < 0.5 or not submit.is_array else v.List(job=job, limit=20)]
        return [dice.choice((v.Status(), v.Workers(), v.Queues(), v.DeadLetters()))]

    def queues(self) -> list[v.ClientCommand]:
        """Pause or bound a queue, or open it again."""
        dice = self.world.dice
        name = dice.choice(self._queues)
        if dice.random() < 0.6:
            return [v.SetQueue(name, paused=False, max=0)]
        return [
            dice.choice(
                (v.SetQueue(name, paused=True), v.SetQueue(name, max=dice.randint(1, 3)), v.SetQueue(name, retries=1))
            )
        ]

    def again(self, request: v.Submit) -> v.Submit:
        """Return the submit that repeats a request that was read back."""
        self._submits += 1
        return replace(request, key=f"{self._name}-{self._submits}")

    def _token(self) -> list[v.ClientCommand]:
        """Make a token, look at the tokens, and forget it again."""
        self._submits += 1
        name = f"{self._name}-{self._submits}"
        return [v.CreateToken(name, bytes(32), "submit"), v.Tokens(), v.RevokeToken(name)]

    def _lines(self) -> list[v.ClientCommand]:
        """Upload entries in runs, some of them twice, and submit an array of them; an entry names its job's key."""
        dice = self.world.dice
        submit = self._submit()
        todo: list[v.ClientCommand] = []
        size = 0
        for _ in range(dice.randint(1, 4)):
            items = tuple(entry_of(submit.key, size + place) for place in range(dice.randint(1, 5)))
            todo.append(
                v.AddEntries(submit.key, size, items, b"%d" % size if size else b"", b"%d" % (size + len(items)))
            )
            size += len(items)
        for place in reversed(range(len(todo))):
            if dice.random() < 0.1:
                todo.insert(place, todo[place])
        fields = {"size": size, "is_array": True, "entries_key": submit.key, "entries_digest": b"%d" % size}
        return [*todo, replace(submit, **fields)] if dice.random() < 0.9 else todo

    def _submit(self, stdin_key: str = "") -> v.Submit:
        dice = self.world.dice
        self._submits += 1
        profile = MIXED if stdin_key else POISON if dice.random() < 0.005 else dice.choice(PROFILES)
        fields: dict[str, Any] = {}
        if profile != POISON and dice.random() < (0.8 if stdin_key else 0.3):  # those of an array share the large input
            size = dice.randint(20, 60) if profile == SHORT and dice.random() < 0.4 else dice.randint(1, 9)
            fields |= {
                "size": size,
                "is_array": True,
                "array_first": dice.randint(0, 3),
                "array_step": dice.randint(1, 3),
            }
            if dice.random() < 0.3:
                fields["throttle"] = dice.randint(1, 3)
            if dice.random() < 0.2:
                fields["max_fails"] = dice.randint(0, 3)
        return v.Submit(
            key=f"{self._name}-{self._submits}",
            body=profile,
            queue="fast" if profile == SHORT and "fast" in self._queues else dice.choice(self._queues),
            priority=dice.choice((0, 0, 0, 10, -10, 100)),
            demand=IMPOSSIBLE if dice.random() < 0.01 else dice.choice(self._demands),
            crash_limit=dice.choice((1, 2, 3) if profile == POISON else (0, 1, 2, 3, 3)),
            retries=dice.choice((-1, 0, 1, 3)),
            backoff_ms=dice.choice(BACKOFFS),
            retry_on=dice.choice(((), (), (1, 127))),
            no_retry_on=dice.choice(((), (), (2, 75))),
            hold=dice.random() < 0.05,
            stdin_key=stdin_key,
            name=dice.choice(("", "a", "b")),
            tags=(f"t{dice.randint(0, 5)}",),
            **fields,
        )

    def _drain(self) -> list[v.ClientCommand]:
        """Drain a worker, or take a drain back."""
        if self._drained:
            return [v.Drain(self._drained.pop(), on=False)]
        workers = self._workers()
        if not workers:
            return []
        self._drained.append(f"w{self.world.dice.choice(workers):016x}")
        return [v.Drain(self._drained[-1], deadline_ms=self.world.dice.choice((-1, 0, 1_000, 5_000)))]
