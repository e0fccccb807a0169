"""What a simulated client does next: the dice behind its submits, cancels, reads and drains."""

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from tests.sim.launcher import INPUT, PROFILES
from tests.sim.ledger import entry_of
from tests.sim.world import World
from tq.core import vocabulary as v
from tq.core.job import Demand

IMPOSSIBLE: Final = Demand(900_000, 0)
DEMANDS: Final = (
    (Demand(),),
    (Demand(), Demand(), Demand(1_000)),
    (Demand(), Demand(1_000), Demand(2_000), Demand(1_000, 1 << 30)),
)
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

    def plan(self, jobs: list[tuple[str, v.Submit]]) -> list[v.ClientCommand]:
        """Return what to do next, knowing these jobs."""
        dice = self.world.dice
        todo: list[v.ClientCommand] = []
        share = dice.random()
        job, submit = dice.choice(jobs) if jobs else ("", None)
        if share < 0.45 or submit is None:
            todo.append(self._submit())
        elif share < 0.57:
            todo.append(v.Cancel((job,)))
        elif share < 0.66 and submit.is_array:
            members = dice.sample(range(submit.size), min(submit.size, dice.randint(1, 4)))
            values = (submit.array_first + member * submit.array_step for member in members)
            todo.append(v.Cancel(tuple(f"{job}.{value}" for value in values)))
        elif share < 0.74:
            todo.append(v.Get(job))
        elif share < 0.80:
            todo.append(v.Wait((job,), dice.choice(("done", "running"))))
        elif share < 0.84:
            todo.append(v.List(limit=20) if dice.random() < 0.5 else v.List(job=job, limit=20))
        elif share < 0.88:
            todo += self._drain()
        elif share < 0.90 and submit.key:
            todo.append(submit)
        elif share < 0.91 and submit.key:
            todo.append(v.Submit(submit.key, submit.body, name="other"))
        elif share < 0.94:
            todo.append(v.Status() if dice.random() < 0.5 else v.Workers())
        elif share < 0.975:
            key = f"in-{self._name}-{self._submits}"
            todo += [v.Upload(key, 0, INPUT), self._submit(stdin_key=key)]
        elif share < 0.985:
            todo += self._token()
        elif share < 0.99:
            todo += self._lines()
        if not todo:
            todo.append(v.Get(f"{dice.randint(1, 2_000)}"))
        return todo

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
        profile = b"mixed" if stdin_key else dice.choice(PROFILES)
        fields: dict[str, Any] = {}
        if dice.random() < (0.8 if stdin_key else 0.3):  # those of an array share the large input
            size = dice.randint(20, 60) if profile == b"short" and dice.random() < 0.4 else dice.randint(1, 9)
            fields |= {
                "size": size,
                "is_array": True,
                "array_first": dice.randint(0, 3),
                "array_step": dice.randint(1, 3),
            }
            if dice.random() < 0.3:
                fields["throttle"] = dice.randint(1, 3)
        return v.Submit(
            key=f"{self._name}-{self._submits}",
            body=profile,
            queue="fast" if profile == b"short" and "fast" in self._queues else dice.choice(self._queues),
            priority=dice.choice((0, 0, 0, 10, -10, 100)),
            demand=IMPOSSIBLE if dice.random() < 0.01 else dice.choice(self._demands),
            crash_limit=dice.choice((0, 1, 2, 3, 3)),
            retries=dice.choice((0, 3)),
            hold=dice.random() < 0.05,
            stdin_key=stdin_key,
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
        return [v.Drain(self._drained[-1])]
