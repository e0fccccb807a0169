"""A town under faults: whoever is killed is started again, whoever is frozen is thawed, and nobody ends by themselves.

    chaos = Chaos(here, dice, {"first": {}, "second": {"TQ_URL": line.url, ...}}, line, lambda: pids)
    while time.monotonic() < end_s:
        chaos.harm()
        chaos.tend_for(dice.uniform(0.5, 3))
    chaos.heal()

Workers are given with variables of their own; `line` is the network of those that go by it. Signals go to processes
that this town has started, or that descend from them. What was done is counted in `done`.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from tests.support import processes
from tests.support.power import cut_power
from tests.support.proxy import Proxy, Way
from tests.support.town import Town, WorkerProcess, kill_quietly

FREEZE_S: Final = (0.3, 4.0)
DOWN_S: Final = (0.0, 1.5)
NO_SERVER: Final = 69
DISK_FAILED: Final = (74, 78)  # under the store; under the file that tells clients where it listens
_TURN_S: Final = 0.05
_BOTH: Final = 2

# What is done to whom, and how often.
FAULTS: Final = {
    "kill server": 3,
    "cut power": 2,
    "fail disk": 2,
    "freeze server": 2,
    "kill worker": 4,
    "kill launcher": 3,
    "kill sentry": 1,
    "kill worker and launcher": 2,
    "kill worker and sentry": 1,
    "kill server and worker": 1,
    "kill server and launcher": 1,
    "freeze worker, kill launcher": 2,
    "freeze worker": 2,
    "freeze launcher": 1,
    "freeze machine": 1,
    "extinguish machine": 2,
    "kill task": 2,
    "freeze task": 1,
    "kill client": 3,
    "freeze client": 1,
    "cut network": 2,
    "halve network": 2,
    "reset network": 2,
    "refuse network": 1,
    "slow network": 1,
}


class Chaos:
    """See the head of this file."""

    def __init__(
        self,
        here: Town,
        dice: random.Random,
        workers: Mapping[str, Mapping[str, str]],
        line: Proxy,
        clients: Callable[[], Sequence[int]] = lambda: (),
    ) -> None:
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._here = here
        self._dice = dice
        self._environ = workers
        self._line = line
        self._clients = clients
        self._can_lose_power = "LD_PRELOAD" in here.server.environ
        self._workers: dict[str, WorkerProcess] = {}
        self._down: dict[str, float] = dict.fromkeys(workers, 0.0)  # who is away, and until when
        self._bad_line_until_s = 0.0
        self._fail_sync = 0  # the number of the sync that fails in the server's next life; then in the present one
        self._frozen: list[tuple[float, int, int]] = []  # until when, pid and its start
        self.tend()

    # ------------------------------------------------------------ faults

    def harm(self) -> None:
        """Do one thing to one of them; that it is away already is no obstacle."""
        kind = self._dice.choices(list(FAULTS), list(FAULTS.values()))[0]
        what, _, who = kind.partition(" ")
        if kind == "freeze worker, kill launcher":
            self._freeze_beside_a_killed_launcher(kind)
            return
        if kind == "fail disk" and self._can_lose_power:
            # The next life of the server, which begins now, ends by itself: at a sync that fails.
            self._fail_sync = self._dice.randint(1, 80)
            what, who = "kill", "server"
        if who == "network":
            self.done[kind] += 1
            self._harm_line(what)
            return
        if kind in ("cut power", "fail disk") and not self._can_lose_power:
            what, who = "kill", "server"
        pids = self._pids(who)
        if pids:
            self.done[kind] += 1
            self._freeze(pids) if what == "freeze" else self._kill(who, pids)

    def _freeze_beside_a_killed_launcher(self, kind: str) -> None:
        """Freeze a worker, so that it ends nothing of what its launcher, which is killed then, has left."""
        pids = self._pids("worker and launcher")
        if len(pids) == _BOTH:
            self.done[kind] += 1
            self._freeze(pids[:1])
            kill_quietly(pids[1])

    def _pids(self, who: str) -> list[int]:
        """Return the processes of one who is called so, none if there is none just now."""
        if who in ("server", "power"):
            return [] if "server" in self._down else [self._here.server.process.pid]
        if who.startswith("server and "):
            return [*self._pids("server"), *self._pids(who.removeprefix("server and "))]
        if who == "client":
            clients = self._clients()
            return [self._dice.choice(clients)] if clients else []
        names = [name for name in self._workers if name not in self._down]
        if not names:
            return []
        worker = self._workers[self._dice.choice(names)].pid
        launcher = processes.launcher_of(worker)
        if who == "machine":
            return processes.tree(worker)
        if who == "task":
            tasks = processes.children(launcher) if launcher else []
            return [self._dice.choice(tasks)] if tasks else []
        sentry = processes.parent(launcher) if launcher else 0
        pids = {"worker": worker, "launcher": launcher, "sentry": sentry}
        return [pids[one] for one in who.split(" and ") if pids[one]]

    def _kill(self, who: str, pids: Sequence[int]) -> None:
        for pid in pids:
            kill_quietly(pid)
        for name, worker in self._workers.items():
            if worker.pid in pids:
                worker.process.wait()
                if who == "machine" and self._can_lose_power:
                    processes.until(lambda: not any(map(processes.is_alive, pids)), "all of the machine is dead")
                    cut_power(self._here.place / name, self._dice)
                self._send_away(name)
        if who in ("server", "power") or (who.startswith("server and ") and "server" not in self._down):
            self._here.server.kill()
            if who == "power":
                cut_power(self._here.server.data, self._dice)
            self._send_away("server")

    def _send_away(self, name: str) -> None:
        self._down[name] = time.monotonic() + self._dice.uniform(*DOWN_S)

    def _freeze(self, pids: Sequence[int]) -> None:
        until_s = time.monotonic() + self._dice.uniform(*FREEZE_S)
        for pid in pids:
            with suppress(OSError):
                self._frozen.append((until_s, pid, processes.started(pid)))
                os.kill(pid, signal.SIGSTOP)

    def _harm_line(self, what: str) -> None:
        line, dice = self._line, self._dice
        line.heal()
        self._bad_line_until_s = time.monotonic() + dice.uniform(*FREEZE_S)
        match what:
            case "cut":
                line.black_hole()
            case "halve":
                line.black_hole(dice.choice((Way.UP, Way.DOWN)))
            case "reset":
                line.reset()
            case "refuse":
                line.refuse()
            case "slow":
                line.delay(dice.uniform(0.01, 0.3))

    # ------------------------------------------------------------ care

    def tend_for(self, time_s: float) -> None:
        """Look after them for so long."""
        until_s = time.monotonic() + time_s
        while time.monotonic() < until_s:
            self.tend()
            time.sleep(_TURN_S)

    def tend(self) -> None:
        """Start who was away and thaw who was frozen for long enough; see that nobody else has ended."""
        now_s = time.monotonic()
        self._thaw(now_s)
        if self._bad_line_until_s and self._bad_line_until_s <= now_s:
            self._bad_line_until_s = 0.0
            self._line.heal()
        for name in [name for name, until_s in self._down.items() if until_s <= now_s]:
            del self._down[name]
            self._start(name)
        if "server" not in self._down and self._here.server.process.poll() is not None:
            self._ended(self._here.server.process.returncode)
        for name, worker in self._workers.items():
            if name not in self._down and worker.process.poll() is not None:
                self._worker_ended(name, worker.process.returncode)

    def heal(self) -> None:
        """Thaw, mend and start everything; nobody is harmed any more."""
        self._thaw(float("inf"))
        self._line.heal()
        if self._fail_sync:
            self._fail_sync = 0
            self._kill("server", self._pids("server"))
        self._down = dict.fromkeys(self._down, 0.0)
        self.tend()
        processes.until(lambda: self._here.server.is_listening, "the server listens")
        self.tend()

    def _thaw(self, now_s: float) -> None:
        for until_s, pid, identity in self._frozen:
            with suppress(OSError):
                if until_s <= now_s and processes.started(pid) == identity:
                    os.kill(pid, signal.SIGCONT)
        self._frozen = [one for one in self._frozen if one[0] > now_s]

    def _ended(self, status: int) -> None:
        """Take note that the server has ended by itself, which only a failed disk makes it do."""
        if status in DISK_FAILED and self._fail_sync:
            self.done["(disk failed)"] += 1
            self._fail_sync = 0
        else:
            self._blame(f"the server ended by itself with {status}")
        self._send_away("server")

    def _worker_ended(self, name: str, status: int) -> None:
        """Take note that a worker has ended by itself: one that starts where no server is known says so and leaves."""
        if status == NO_SERVER and " connected " not in self._workers[name].text():
            self.done["(no server to start with)"] += 1
        else:
            self._blame(f"worker {name} ended by itself with {status}")
        self._send_away(name)

    def _start(self, name: str) -> None:
        if name == "server":
            self._here.server.environ["TQ_SHIM_FAIL_SYNC"] = str(self._fail_sync)
            self._here.server.launch()
        else:
            self._workers[name] = self._here.launch_worker(name, "--name", name, slots=4, environ=self._environ[name])

    def _blame(self, what: str) -> None:
        self.wrong.append(what)
        print(what)
