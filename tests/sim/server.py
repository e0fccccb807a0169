"""The simulated server: the real engine, commit loop, intake, peers and lease clock over a store in memory.

It crashes at every point where the commit loop yields, and between a flush and the news of it; a crash loses what was
not flushed, but for some of its oldest writes. A fault that waits for a point of the commit loop fires here.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.sim.checked import CheckedEngine, capacity_broken, idle_beside_work
from tests.sim.ledger import Ledger
from tests.sim.network import End, Network
from tests.sim.sessions import ClientSession, WorkerSession
from tests.sim.world import MS, SECOND, Process, Violation, World
from tq import limits
from tq.core import invariants, tables
from tq.core.engine import Bounds
from tq.core.vocabulary import Recovered, Times
from tq.errors import StoreError
from tq.server.commit_loop import Pipeline, Point
from tq.server.intake import Intake, Request
from tq.server.lease_clock import LeaseClock
from tq.server.registry import Registry
from tq.store.memory import MemoryStore
from tq.wire import messages as m

POINTS: Final = tuple(Point)
WALL_MS: Final = 1_800_000_000_000


class Server(Process):
    """One data directory and the server on it, life after life."""

    def __init__(
        self, world: World, network: Network, ledger: Ledger, bounds: Bounds, beat_us: int, check_every: int
    ) -> None:
        super().__init__(world, "server")
        self.network = network
        self.ledger = ledger
        self.bounds = bounds
        self.beat_us = beat_us
        self.disk = MemoryStore()
        self.at_point: Callable[[Point], None] = lambda _: None
        self.is_up = False
        self.is_listening = False
        self.commands = 0
        self.lives = 0
        self._check_every = check_every
        self._turns = 0
        self._wall_ms = WALL_MS

    # ------------------------------------------------------------ life and death

    def start(self) -> None:
        """Start on the disk as it is."""
        self.lives += 1
        self.is_up = True
        self.engine = CheckedEngine(self.disk, self.bounds, self.ledger)
        self.intake = Intake()
        self.inlet = self.intake.inlet()
        self.registry = Registry()
        self.lease_clock = LeaseClock(self.beat_us / SECOND)
        self.heard_us: dict[int, int] = {}
        self.ends: list[End] = []
        meta = self.disk.get(tables.META, ())
        self._steady_offset_ms = max(meta.steady_ms if meta else 0, self.world.now_us // MS) - self.world.now_us // MS
        self._lap_ms = 0.0
        self._is_driving = self._is_woken = False
        self._flushing = 0
        self.pipeline = Pipeline(
            self.engine, self.disk, self.intake,
            times=self._times, lap_ms=self._lap, flush=self._flush, release=self._release, on_bug=self._on_bug,
        )  # fmt: skip
        self.pipeline.on_wake = self._wake
        self._steps: Iterator[Point] = self.pipeline.steps(self.world.dice.getrandbits(63) | 1, self._recovered)
        self.note(f"starts, life {self.lives}, at sequence {self.disk.sequence}")
        self.after(1, self._drive)

    def crash(self, reason: str) -> None:
        """Die on the spot: what was not flushed is lost, but for a random part of its beginning."""
        if not self.is_up:
            return
        surviving = self.world.dice.randint(0, self.disk.unflushed)
        self._go_down(reason, surviving)
        self.world.after(self.world.wait_us(300 * MS), self.start)

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
        self.note(f"{reason}: {surviving} unflushed writes survive, {lost} are lost")
        for end in self.ends:
            self.network.die(end)
        self.is_up = self.is_listening = False
        self.end_life()

    def stop(self) -> None:
        """Stop in order, as on SIGTERM."""
        if self.is_up:
            self.note("is asked to stop")
            self.pipeline.stop()

    @property
    def total_commands(self) -> int:
        """Commands that the commit loop has taken, over all lives."""
        return self.commands + (self.pipeline.counters.commands if self.is_up else 0)

    # ------------------------------------------------------------ the commit loop

    def _times(self) -> Times:
        now_ms = self.world.now_us // MS
        return Times(now_ms + self._steady_offset_ms, self._wall_ms + now_ms)

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
                    self._stopped("has stopped", self.disk.unflushed)
                    return
                self.at_point(point)
                if life != self.life:
                    return
                if not self._goes_on(point):
                    return
        except StoreError as error:
            if life == self.life:
                self._stopped(f"exits: {error}", self.world.dice.randint(0, self.disk.unflushed))
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
                self._check_idle()
                idle_ms = self.pipeline.idle_ms()
                if idle_ms is not None:
                    self.after(max(idle_ms, 1) * MS, self._drive)
                return False
            case Point.FLUSHING:
                return self.pipeline.is_flushed
            case Point.WRITTEN:
                self._check_turn()
        return True

    def _stopped(self, reason: str, surviving: int) -> None:
        self._go_down(reason, surviving)
        self.world.after(self.world.wait_us(300 * MS), self.start)

    def _on_bug(self, command: object, times: Times, error: Exception) -> None:
        if isinstance(error, Violation):
            raise error
        raise self.world.violated(f"I12: {command} at {times} raised {error!r}") from error

    def _recovered(self, answer: Recovered) -> None:
        self.is_listening = True
        self.lineage, self.epoch = answer.lineage, answer.epoch
        self.lease_clock.owe(answer.workers)
        for worker in answer.workers:
            self.heard_us[worker] = self.world.now_us + (limits.reattach_beats - 3) * self.beat_us
        self.note(f"listens, epoch {answer.epoch}, owes {[f'w{worker:x}' for worker in answer.workers]}")
        self._tick_due_us = self.world.now_us + self.beat_us
        self.after(self.beat_us, self._tick, False)

    # ------------------------------------------------------------ the committer's thread

    def _flush(self, sequence: int) -> None:
        took_us = self.world.dice.choice((100, 400, 1_000, 5_000))
        if self.world.chance(0.01):
            took_us = 200 * MS
        self.after(took_us, self._flush_ends, sequence)

    def _flush_ends(self, sequence: int) -> None:
        try:
            self.disk.flush(sequence)
        except StoreError as error:
            self.after(50, self.pipeline.fail, error)
            return
        self.ledger.flushed(sequence)
        self.after(50, self.pipeline.flushed, sequence)

    def heard(self, worker: int, session: int) -> None:
        """Note a sign of life of a worker's session."""
        self.lease_clock.heard(worker, session)
        current = self.registry.worker(worker)
        if current is not None and current.peer.session == session:
            self.heard_us[worker] = self.world.now_us

    def check_durable(self, what: str) -> None:
        """Nothing of a turn may leave before its flush, nor any read that could have seen it."""
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
        end.on_messages = lambda messages: self._hello(end, messages)

    def _hello(self, end: End, messages: list[m.Message]) -> None:
        hello, *rest = messages
        if not isinstance(hello, m.Hello):
            raise self.world.violated(f"the first message is {hello}")
        session: ClientSession | WorkerSession
        session = WorkerSession(self, end, hello) if hello.role == "worker" else ClientSession(self, end)
        end.on_messages = session.receive
        end.on_end = session.ended
        number = session.peer.session if isinstance(session, WorkerSession) else 0
        role = "worker" if hello.role == "worker" else "admin"
        end.send([m.Welcome(1, "sim", self.lineage, self.epoch, number, self.beat_us // MS, role)])
        if rest:
            session.receive(rest)

    # ------------------------------------------------------------ the lease clock's loop

    def _tick(self, has_read: bool) -> None:
        late_us = self.world.now_us - self._tick_due_us
        if late_us > 0 and not has_read:
            self.after(0, self._tick, True)  # first the sockets
            return
        if late_us > self.beat_us:
            self.world.count("late ticks")
            self.heard_us = {worker: heard_us + late_us for worker, heard_us in self.heard_us.items()}
        for lost in self.lease_clock.tick(late_us / SECOND):
            self.note(f"w{lost.worker:x} is lost, session {lost.session}")
            self.world.count("workers declared lost")
            self.inlet.put([Request(lost, "sim")])
            session = self.registry.worker(lost.worker)
            if session is not None:
                session.close_session(lost.session, "lost")
        self._check_i5()
        for end in self.ends:
            if end.is_open:
                end.send([m.Beat()])
        for session in self.registry.workers:
            session.check_deliveries(self.world.now_us / SECOND)
        self._tick_due_us = self.world.now_us + self.beat_us
        self.after(self.beat_us, self._tick, False)

    # ------------------------------------------------------------ checks

    def _check_turn(self) -> None:
        self._turns += 1
        broken = capacity_broken(self.engine.live)
        if broken:
            raise self.world.violated(broken)
        if self._turns % self._check_every == 0:
            self.check_everything()

    def check_everything(self) -> None:
        """Re-derive every index and count from the records (I8, I14, I15), and compare the soft state."""
        broken = invariants.check(self.disk, self.engine.live)
        if broken:
            raise self.world.violated("; ".join(broken[:5]))

    def _check_idle(self) -> None:
        idle = idle_beside_work(self.engine.live)
        if idle:
            raise self.world.violated(f"liveness: {idle}")

    def _check_i5(self) -> None:
        """I5: nobody holds attempts who has not been heard for 3 beats, one tick and the time of a turn."""
        for worker in self.engine.live.workers.values():
            if worker.held:
                silent_us = self.world.now_us - self.heard_us.get(worker.worker, self.world.now_us)
                if silent_us > 5 * self.beat_us + SECOND:
                    raise self.world.violated(f"I5: w{worker.worker:x} holds {len(worker.held)}, silent {silent_us} us")
