"""The simulated clients: they submit, cancel, read, wait and drain, and repeat what was cut, with the same key."""

from typing import Final

from tests.sim.ledger import Ledger, Told
from tests.sim.network import End
from tests.sim.script import Script
from tests.sim.server import Server
from tests.sim.world import MS, SECOND, Process, World
from tq.core import vocabulary as v
from tq.core.model import tables
from tq.wire import messages as m

SILENT_US: Final = 6 * SECOND
_NO_SURPRISE: Final = ("already_ended", "not_found", "bad_request", "too_large")
TRY_AGAIN: Final = ("unknown", "not_done", "stopping")


class Client(Process):
    """One client with one request under way at a time."""

    def __init__(self, world: World, ledger: Ledger, server: Server, name: str, think_us: int) -> None:
        super().__init__(world, name)
        self.ledger = ledger
        self.server = server
        self.end: End | None = None
        self.jobs: list[tuple[str, v.Submit]] = []  # the last ones that it was told of
        self.todo: list[v.ClientCommand] = []
        self.command: v.ClientCommand | None = None  # under way
        self.expects: tuple[str, ...] = ()  # codes of errors that are no surprise
        self.is_stopped = False
        self._think_us = think_us
        self.script = Script(world, name, self._workers)
        self._request = 0
        self._asked = (0, 0)
        self._was_frozen = False

    def start(self) -> None:
        """Connect, and begin to act."""
        self._connect()
        self.after(self.world.wait_us(self._think_us), self._act)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or planned."""
        return self.command is None and not self.todo

    def _workers(self) -> list[int]:
        return sorted(self.server.engine.live.workers) if self.server.is_up else []

    # ------------------------------------------------------------ the connection

    def _connect(self) -> None:
        if self.end is not None:
            return
        end = self._dial()
        if end is None:
            self.after(self.world.wait_us(200 * MS), self._connect)
            return
        self.end = end
        end.on_messages = self._receive
        end.on_end = lambda: self._disconnected(end)
        end.send([m.Hello((1, 1), "sim", "", "client")])
        self._ask()

    def _dial(self) -> End | None:
        return self.server.network.dial(self, self.server, self.server.accept) if self.server.is_listening else None

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
        self._asked = (self.server.lives, self.server.freezes)
        if self.world.subject is not None:
            self._tell(f"asks, as request {self._request}")
        self._was_frozen = self.server.is_frozen
        self.end.send([m.Ask(self._request, self.command)])
        self.after(SILENT_US, self._silent, self._request)

    def _silent(self, request: int) -> None:
        if self.command is None or request != self._request or self.end is None:
            return
        if isinstance(self.command, v.Wait):
            self._check_wait(self.command)
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
                case m.Reply(request=self._request, answer=v.Requested()) if self.command is not None:
                    self.todo.append(self.script.again(message.answer.submit))
                    self._done("got the request")
                case m.Reply(request=self._request) if self.command is not None and not message.more:
                    self._done(type(message.answer).__name__)
                case m.Failed(request=self._request) if self.command is not None:
                    self._failed(message)

    def _submitted(self, message: m.Reply) -> None:
        """Take an id: also when it answers a request that was sent twice."""
        submit = self.command
        if not isinstance(submit, v.Submit) or message.request != self._request:
            return
        assert isinstance(message.answer, v.Submitted)
        if "key_conflict" in self.expects and self.ledger.told[submit.key].job not in self.ledger.gone:
            raise self.world.violated(f"key {submit.key} was accepted for another request: {message.answer}")
        if submit.key:
            self.ledger.acknowledged(submit.key, Told(int(message.answer.id), submit.size))
        self.world.count("submits answered `existed`", message.answer.existed)
        self.jobs = [*self.jobs[-40:], (message.answer.id, submit)]
        self._done(f"got id {message.answer.id}")

    def _failed(self, message: m.Failed) -> None:
        if message.code in TRY_AGAIN:
            self.world.count(f"answered {message.code}")
            self.after(self.world.wait_us(200 * MS), self._again, self._request)
            return
        if message.code not in self.expects:
            raise self.world.violated(f"{self.command} failed: {message}")
        self._done(f"failed {message.code}")

    def _tell(self, what: str) -> None:
        """Tell the story of the jobs that the request under way names."""
        command = self.command
        ids = getattr(command, "ids", ()) or (getattr(command, "id", ""),)
        if isinstance(command, v.Submit):
            ids = tuple(job for job, submit in self.jobs if submit.key == command.key)
        for number in (text.partition(".")[0] for text in ids):
            if number.isdigit():
                self.world.tell(int(number), None, self.name, "{}: {}", command, what)

    def _again(self, request: int) -> None:
        if request == self._request:
            self._ask()

    def _done(self, what: str) -> None:
        self.note(f"{type(self.command).__name__}: {what}")
        if self.world.subject is not None:
            self._tell(what)
        self.command = None
        self.after(self.world.wait_us(self._think_us) if not self.todo else 1, self._act)

    def _check_wait(self, wait: v.Wait) -> None:
        """A wait that is not answered is for something that has not ended, unless somebody stood still or was cut."""
        server, end = self.server, self.end
        is_quiet = self._asked == (server.lives, server.freezes) and not self._was_frozen and end is not None
        if self.world.now_us < server.last_slow_us + 2 * SILENT_US:
            return
        if not is_quiet or end.is_cut or end.peer.is_cut or not server.is_listening:
            return
        for text in wait.ids:
            progress = server.disk.get(tables.PROGRESS, (int(text), 0))
            if (
                progress is not None
                and progress.ended_ms
                and server.now_wall_ms() - progress.ended_ms > SILENT_US // MS // 2
            ):
                raise self.world.violated(f"{wait} is not answered, and it ended at {progress.ended_ms}")

    # ------------------------------------------------------------ what it does

    def _act(self) -> None:
        if self.command is not None:
            return
        if not self.todo:
            if self.is_stopped:
                return
            self.todo = self.script.plan(self.jobs) or [v.Status()]
        self.command = self.todo.pop(0)
        self.expects = () if isinstance(self.command, v.Submit | v.AddEntries) else _NO_SURPRISE
        if isinstance(self.command, v.Submit):
            known = self.ledger.told.get(self.command.key)
            same = [submit for _, submit in self.jobs if submit.key == self.command.key]  # a key may be used again
            is_other = bool(same) and same[-1] != self.command
            self.expects = ("key_conflict",) if known and is_other else ("not_found",)
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
