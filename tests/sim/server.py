"""The simulated server: the real engine, commit loop, intake, peers and lease clock over a store in memory.

It crashes at every point where the commit loop yields, and between a flush and the news of it; a crash loses what was
not flushed, but for some of its oldest writes. A fault that waits for a point of the commit loop fires here.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from tests.sim.beats import Beats
from tests.sim.checked import CheckedEngine
from tests.sim.checks import Checks
from tests.sim.committer import Committer
from tests.sim.disk import Disk
from tests.sim.drains import Drains
from tests.sim.ledger import Ledger
from tests.sim.network import End, Network
from tests.sim.poison import Poison, Poisoned, resting_jobs
from tests.sim.promises import Promises
from tests.sim.sessions import welcome
from tests.sim.world import MS, SECOND, Process, Violation, World
from tq.core.engine.engine import Bounds
from tq.core.model import tables
from tq.core.vocabulary import Recover, Recovered, Times
from tq.errors import StoreError
from tq.server.commit.clock import Clock
from tq.server.commit.commit_loop import Pipeline, Point
from tq.server.commit.intake import Intake
from tq.server.sessions.registry import Registry
from tq.store.memory import MemoryStore

WALL_MS: Final = 1_800_000_000_000
BEATS_US: Final = (200 * MS, 4 * SECOND)  # the shortest and the longest: each life says one


class Server(Process):
    """One data directory and the server on it, life after life."""

    def __init__(
        self, world: World, network: Network, ledger: Ledger, disk: MemoryStore | Disk, bounds: Bounds, check_every: int
    ) -> None:
        super().__init__(world, "server")
        self.network = network
        self.ledger = ledger
        self.bounds = bounds
        self.beat_us = SECOND
        self.next_beat_us = 0  # that of the next life, 0 = any
        self.disk: MemoryStore | Disk = disk
        self.at_point: Callable[[Point], None] = lambda _: None
        self.is_up = False
        self.is_listening = False
        self.commands = 0
        self.lives = 0
        self.checks = Checks(world, check_every)
        self.poison = Poison(world)
        self.ledger.costs_words = self.poison.costs_words
        self.promises = Promises(ledger)
        self.drains = Drains(ledger)
        self.is_quiet: Callable[[int, int, int, int], bool] = lambda *_: False  # run.py knows the workers
        self.wall_skew_ms = self.boot_skew_ms = 0
        self.doomed = 0  # crashes that are still to come, each soon after a start
        self.last_slow_us = 0  # until when a flush has been slow
        self.freezes = 0

    # ------------------------------------------------------------ life and death

    def start(self) -> None:
        """Start on the disk as it is."""
        self._begin_life()
        self._lap_ms = 0.0
        self._is_driving = self._is_woken = False
        self.pipeline = Pipeline(
            self.engine,
            self.disk,
            self.intake,
            times=self.clock.times,
            lap_ms=self._lap,
            flush=self.committer.flush,
            release=self._release,
            rereads=self.registry.rereads,
            on_bug=partial(take_bug, self),
        )
        self.pipeline.on_wake = self._wake
        self._steps: Iterator[Point] = self.pipeline.steps(recover(self), self._recovered)
        self.after(1, self._drive)

    def _begin_life(self) -> None:
        self.lives += 1
        self.is_up = True
        self.beat_us, self.next_beat_us = self.next_beat_us or _any_beat_us(self.world), 0
        self.promises.lives = self.lives
        self.engine = CheckedEngine(self.disk, self.bounds, self.ledger, self.promises, self.drains)
        self.drains.forgotten()
        self.engine.boot_ms = self.now_boot_ms
        self.engine.recalls.is_quiet = partial(self.is_quiet, self.lives)
        self.intake = Intake()
        self.registry = Registry()
        self.beats = Beats(self)
        self.ends: list[End] = []
        self.guests: list[End] = []  # those of them that were welcomed
        self.is_disk_low = False
        self.has_failed = False  # a flush of this life did
        self.committer = Committer(self)
        self.clock = Clock(self.disk.get(tables.META, ()), self.now_wall_ms, self.now_boot_ms)
        self.world.tell_all(
            self.name,
            f"starts, life {self.lives}, at sequence {self.disk.sequence}, with beats of {self.beat_us / SECOND} s",
        )
        if self.doomed:  # to crash again soon after this start
            self.doomed -= 1
            self.after(self.world.wait_us(400 * MS), self.crash, "crashes again")

    def crash(self, reason: str) -> None:
        """Die on the spot: what was not flushed is lost, but for a random part of its beginning."""
        if not self.is_up:
            return
        self._go_down(reason, self.world.dice.randint(0, self.disk.unflushed))

    def _go_down(self, reason: str, surviving: int) -> None:
        self.commands += self.pipeline.counters.commands
        lost = self.disk.unflushed - surviving
        written, flushed = self.disk.sequence, self.disk.flushed
        self.disk = self.disk.crash(surviving)
        self.world.count("turns lost in a crash", written - self.disk.sequence)
        self.world.count("turns that a crash kept though nobody was told", self.disk.sequence - flushed)
        for name, more in self.engine.live.counts.items():
            self.world.count(name, more)
        self.ledger.crashed(self.disk.sequence)
        self.world.tell_all(self.name, f"{reason}: {surviving} unflushed writes survive, {lost} are lost")
        for end in self.ends:
            self.network.die(end)
        self.is_up = self.is_listening = False
        self.end_life()
        self.world.after(self.world.wait_us(300 * MS), self.start)

    def stop(self) -> None:
        """Stop in order, as on SIGTERM."""
        if self.is_up:
            self.note("is asked to stop")
            self.pipeline.stop()

    def fill_disk(self, for_us: int) -> None:
        """Let the disk be nearly full for a while: no new work is taken, nothing is leased."""
        self.is_disk_low, self.pipeline.may_lease = True, False
        self.after(for_us, self._empty_disk)

    def _empty_disk(self) -> None:
        self.is_disk_low, self.pipeline.may_lease = False, True
        self.pipeline.dispatch_again()

    @property
    def total_commands(self) -> int:
        """Commands that the commit loop has taken, over all lives."""
        return self.commands + (self.pipeline.counters.commands if self.is_up else 0)

    # ------------------------------------------------------------ the commit loop

    def now_wall_ms(self) -> int:
        """Return what the system's clock says."""
        return WALL_MS + self.wall_skew_ms + self.world.now_us // MS

    def now_boot_ms(self) -> int:
        """Return for how long its machine has been up."""
        return self.boot_skew_ms + self.world.now_us // MS

    def _lap(self) -> float:
        self._lap_ms += self.world.dice.random() * 0.6
        return self._lap_ms

    def _wake(self) -> None:
        if not self._is_driving and not self._is_woken:
            self._is_woken = True
            self.after(1, self._drive)

    def _drive(self) -> None:
        """Step the pipeline as its driver in the server does: on and on until it must wait."""
        self._is_woken = False
        if self._is_driving:
            return
        self._is_driving = True
        life = self.life
        try:
            while True:
                point = next(self._steps, None)
                if point is None:
                    self._go_down("has stopped", self.disk.unflushed)
                    return
                self.at_point(point)
                if life != self.life:
                    return
                if not self._goes_on(point):
                    return
        except StoreError as error:
            if life == self.life:
                self._go_down(f"exits: {error}", self.world.dice.randint(0, self.disk.unflushed))
        finally:
            if life == self.life:
                self._is_driving = False

    def _goes_on(self, point: Point) -> bool:
        """Do what belongs to a point; return whether the loop goes on without waiting."""
        if self.is_frozen:
            self.after(1, self._drive)
            return False
        match point:
            case Point.IDLE:
                if self.pipeline.has_work:
                    return True
                if self.pipeline.may_lease:
                    self._check_idle()
                idle_ms = self.pipeline.idle_ms()
                if idle_ms is not None:
                    self.after(max(idle_ms, 1) * MS, self._drive)
                return False
            case Point.FLUSHING:
                return self.pipeline.is_flushed
            case Point.WRITTEN:
                self.checks.turn(self.disk, self.engine.live)
        return True

    def _check_idle(self) -> None:
        live, steady_ms = self.engine.live, self.clock.times().steady_ms
        self.checks.idle(live, steady_ms, resting_jobs(live, self.disk, steady_ms))
        self.poison.look(live, steady_ms)
        self.ledger.dues.check_idle(steady_ms, self.pipeline.idle_ms(), self.poison.ever)

    def _recovered(self, answer: Recovered) -> None:
        self.is_listening = True
        self.lineage, self.epoch = answer.lineage, answer.epoch
        self.world.tell_all(
            self.name, f"listens, epoch {answer.epoch}, owes {[f'w{worker:x}' for worker in answer.workers]}"
        )
        self.beats.begin(answer.workers, answer.held_ms * MS)

    def check_durable(self, what: str) -> None:
        """Nothing of a turn may leave before its flush, nor any read that could have seen it."""
        if self.has_failed:
            raise self.world.violated(f"{what} leaves after a flush has failed: the first error is the last word")
        if self.disk.sequence != self.disk.flushed:
            raise self.world.violated(
                f"{what} leaves while turn {self.disk.sequence} is written and only {self.disk.flushed} is on disk"
            )

    def _release(self, effects: Any) -> None:
        self.check_durable(f"{len(effects)} effects, first {effects[0]}")
        self.registry.release(effects)

    # ------------------------------------------------------------ connections

    def accept(self, end: End) -> None:
        """Take a connection: the first message says whose."""
        self.ends = [one for one in self.ends if one.is_open]
        self.ends.append(end)
        end.on_messages = lambda messages: welcome(self, end, messages)


def recover(server: Server) -> Recover:
    """Return the first command of a life."""
    return Recover(server.world.dice.getrandbits(63) | 1, server.beat_us // MS)


def take_bug(server: Server, command: object, times: Times, error: Exception) -> None:
    """Take what the loop says of an error: poison is passed over, anything else is a bug."""
    if isinstance(error, Violation):
        raise error
    if not isinstance(error, Poisoned):
        raise server.world.violated(f"I12: {command} at {times} raised {error!r}") from error
    server.world.count(f"passed over by {type(command).__name__}")


def _any_beat_us(world: World) -> int:
    shortest_us, longest_us = BEATS_US
    return int(shortest_us * (longest_us / shortest_us) ** world.dice.random()) // MS * MS
