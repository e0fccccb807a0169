"""The simulated clients: they submit, cancel, read, wait and drain, and repeat what was cut, with the same key."""

from typing import Any, Final

from tests.sim.launcher import PROFILES
from tests.sim.ledger import Ledger, Told
from tests.sim.network import End
from tests.sim.server import Server
from tests.sim.world import MS, SECOND, Process, World
from tq.core import vocabulary as v
from tq.core.job import Demand
from tq.wire import messages as m

SILENT_US: Final = 6 * SECOND
IMPOSSIBLE: Final = Demand(900_000, 0)
DEMANDS: Final = (
    (Demand(),),
    (Demand(), Demand(), Demand(1_000)),
    (Demand(), Demand(1_000), Demand(2_000), Demand(1_000, 1 << 30)),
)
QUEUES: Final = (("default",), ("default", "default", "fast"), ("default", "night", "fast"))
TRY_AGAIN: Final = ("unknown", "not_done")


class Client(Process):
    """One client with one request under way at a time."""

    def __init__(self, world: World, ledger: Ledger, server: Server, name: str, think_us: int) -> None:
        super().__init__(world, name)
        self.ledger = ledger
        self.server = server
        self.end: End | None = None
        self.jobs: list[tuple[str, v.Submit]] = []  # the last ones that it was told of
        self.drained: list[str] = []
        self.todo: list[v.ClientCommand] = []
        self.command: v.ClientCommand | None = None  # under way
        self.expects: tuple[str, ...] = ()  # codes of errors that are no surprise
        self.is_stopped = False
        self._think_us = think_us
        self._demands = DEMANDS[world.seed % 3]
        self._queues = QUEUES[world.seed // 3 % 3]
        self._request = 0
        self._submits = 0

    def start(self) -> None:
        """Connect, and begin to act."""
        self._connect()
        self.after(self.world.wait_us(self._think_us), self._act)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or planned."""
        return self.command is None and not self.todo

    # ------------------------------------------------------------ the connection

    def _connect(self) -> None:
        if self.end is not None:
            return
        end = self.server.network.dial(self, self.server, self.server.accept) if self.server.is_listening else None
        if end is None:
            self.after(self.world.wait_us(200 * MS), self._connect)
            return
        self.end = end
        end.on_messages = self._receive
        end.on_end = lambda: self._disconnected(end)
        end.send([m.Hello((1, 1), "sim", "", "client")])
        self._ask()

    def cut(self, *, near_notices: bool, far_notices: bool) -> bool:
        """Lose the connection."""
        if self.end is None:
            return False
        self.server.network.cut(self.end, near_notices=near_notices, far_notices=far_notices)
        return True

    def _disconnected(self, end: End) -> None:
        if self.end is end:
            self.end = None
            self.after(self.world.wait_us(100 * MS), self._connect)

    def _ask(self) -> None:
        """Send the request under way; again after a cut, under another number."""
        if self.command is None or self.end is None:
            return
        self._request += 1
        self.end.send([m.Ask(self._request, self.command)])
        self.after(SILENT_US, self._silent, self._request)

    def _silent(self, request: int) -> None:
        if self.command is None or request != self._request or self.end is None:
            return
        if isinstance(self.command, v.Wait):
            self.end.send([m.Unsubscribe(request)])
            self._done("gives up waiting")
            return
        end = self.end
        end.close()
        self._disconnected(end)

    # ------------------------------------------------------------ answers

    def _receive(self, messages: list[m.Message]) -> None:
        for message in messages:
            match message:
                case m.Reply(answer=v.Submitted()):
                    self._submitted(message)
                case m.Reply(request=self._request) if self.command is not None and not message.more:
                    self._check(message.answer)
                    self._done(type(message.answer).__name__)
                case m.Failed(request=self._request) if self.command is not None:
                    self._failed(message)

    def _submitted(self, message: m.Reply) -> None:
        """Take an id: also when it answers a request that was sent twice."""
        submit = self.command
        if not isinstance(submit, v.Submit) or message.request != self._request:
            return
        assert isinstance(message.answer, v.Submitted)
        if "key_conflict" in self.expects:
            raise self.world.violated(f"key {submit.key} was accepted for another request: {message.answer}")
        if submit.key:
            self.ledger.acknowledged(submit.key, Told(int(message.answer.id), submit.size))
        self.world.count("submits answered `existed`", message.answer.existed)
        self.jobs = [*self.jobs[-40:], (message.answer.id, submit)]
        self._done(f"got id {message.answer.id}")

    def _check(self, answer: v.Answer) -> None:
        if isinstance(answer, v.Cancelled) and isinstance(self.command, v.Cancel):
            for text in self.command.ids:
                if "." not in text:
                    self.ledger.cancelled.add(int(text))

    def _failed(self, message: m.Failed) -> None:
        if message.code in TRY_AGAIN:
            self.world.count(f"answered {message.code}")
            self.after(self.world.wait_us(200 * MS), self._again, self._request)
            return
        if message.code not in self.expects:
            raise self.world.violated(f"{self.command} failed: {message}")
        self._done(f"failed {message.code}")

    def _again(self, request: int) -> None:
        if request == self._request:
            self._ask()

    def _done(self, what: str) -> None:
        self.note(f"{type(self.command).__name__}: {what}")
        self.command = None
        self.after(self.world.wait_us(self._think_us) if not self.todo else 1, self._act)

    # ------------------------------------------------------------ what it does

    def _act(self) -> None:
        if self.command is not None:
            return
        if not self.todo:
            if self.is_stopped:
                return
            self._plan()
        self.command = self.todo.pop(0)
        self.expects = ("already_ended", "not_found", "bad_request") if not isinstance(self.command, v.Submit) else ()
        if isinstance(self.command, v.Submit):
            known = self.ledger.told.get(self.command.key)
            is_other = any(sub.key == self.command.key and sub != self.command for _, sub in self.jobs)
            self.expects = ("key_conflict",) if known and is_other else ("not_found",) if self.command.stdin_key else ()
        self._ask()

    def tell(self, command: v.ClientCommand) -> None:
        """Let it do this next."""
        self.todo.append(command)
        if self.command is None:
            self.after(1, self._act)

    def duplicate(self) -> bool:
        """Send the submit under way, or the last one, once more: the answer must be the same."""
        if self.end is None:
            return False
        if isinstance(self.command, v.Submit):
            self.end.send([m.Ask(1_000_000 + self._request, self.command)])
            return True
        if self.command is None and self.jobs and self.jobs[-1][1].key:
            self.tell(self.jobs[-1][1])
            return True
        return False

    def _plan(self) -> None:
        dice = self.world.dice
        share = dice.random()
        job, submit = dice.choice(self.jobs) if self.jobs else ("", None)
        if share < 0.45 or submit is None:
            self._plan_submit()
        elif share < 0.57:
            self.todo.append(v.Cancel((job,)))
        elif share < 0.66 and submit.is_array:
            members = dice.sample(range(submit.size), min(submit.size, dice.randint(1, 4)))
            values = (submit.array_first + member * submit.array_step for member in members)
            self.todo.append(v.Cancel(tuple(f"{job}.{value}" for value in values)))
        elif share < 0.74:
            self.todo.append(v.Get(job))
        elif share < 0.80:
            self.todo.append(v.Wait((job,), dice.choice(("done", "running"))))
        elif share < 0.84:
            self.todo.append(v.List(limit=20) if dice.random() < 0.5 else v.List(job=job, limit=20))
        elif share < 0.88:
            self._plan_drain()
        elif share < 0.90 and submit.key:
            self.todo.append(submit)
        elif share < 0.91 and submit.key:
            self.todo.append(v.Submit(submit.key, submit.body, name="other"))
        elif share < 0.94:
            self.todo.append(v.Status() if dice.random() < 0.5 else v.Workers())
        elif share < 0.95:
            key = f"in-{self.name}-{self._submits}"
            self.todo += [v.Upload(key, 0, b"input"), self._submit(stdin_key=key)]
        if not self.todo:
            self.todo.append(v.Get(f"{dice.randint(1, 2_000)}"))

    def _plan_submit(self) -> None:
        self.todo.append(self._submit())

    def _submit(self, **fields: Any) -> v.Submit:
        dice = self.world.dice
        self._submits += 1
        profile = dice.choice(PROFILES)
        if dice.random() < 0.3:
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
            key=f"{self.name}-{self._submits}",
            body=profile,
            queue="fast" if profile == b"short" and "fast" in self._queues else dice.choice(self._queues),
            priority=dice.choice((0, 0, 0, 10, -10, 100)),
            demand=IMPOSSIBLE if dice.random() < 0.01 else dice.choice(self._demands),
            crash_limit=dice.choice((0, 1, 2, 3, 3)),
            retries=dice.choice((0, 3)),
            hold=dice.random() < 0.05,
            **fields,
        )

    def _plan_drain(self) -> None:
        """Drain a worker, or take a drain back."""
        if self.drained:
            self.todo.append(v.Drain(self.drained.pop(), on=False))
            return
        workers = sorted(self.server.engine.live.workers) if self.server.is_up else []
        if workers:
            name = f"w{self.world.dice.choice(workers):016x}"
            self.drained.append(name)
            self.todo.append(v.Drain(name))
