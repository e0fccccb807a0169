"""The loop of the simulated server that ticks: the real lease clock, signs of life, overdue deliveries, and rule I5."""

from typing import TYPE_CHECKING, Final

from tests.sim.world import SECOND
from tq import limits
from tq.core.vocabulary import Retain, WorkerLost
from tq.server.commit.intake import Request
from tq.server.commit.lease_clock import LeaseClock
from tq.wire import messages as m

if TYPE_CHECKING:
    from tests.sim.server import Server


RETAIN_TICKS: Final = 15
KEEPS_MS: Final = (20_000, 60_000)


class Beats:
    """The ticks of one life of a server. `heard_us` is kept beside the clock, to check it."""

    def __init__(self, server: "Server") -> None:
        self.clock = LeaseClock(server.beat_us / SECOND)
        self._server = server
        self._inlet = server.intake.inlet()
        self._heard_us: dict[int, int] = {}
        self._really_heard_us: dict[int, int] = {}
        self._excused_us: dict[int, int] = {}  # of the time since then
        self._since_us = 0
        self._due_us = 0
        self._ticks = 0

    def begin(self, owed: tuple[int, ...], held_us: int) -> None:
        """Tick from now on; who is owed the re-attach window has it."""
        server = self._server
        self.clock.owe(owed, held_us / SECOND)
        for worker in owed:
            window_us = max(limits.reattach_beats * server.beat_us, limits.reattach_s_min * SECOND, held_us)
            self._heard_us[worker] = server.world.now_us + int(window_us - 3 * server.beat_us)
        self._since_us = server.world.now_us
        self._plan()

    def heard(self, worker: int, session: int) -> bool:
        """Note a sign of life of a worker's session; return whether it was said to be silent."""
        was_silent = self.clock.heard(worker, session)
        current = self._server.registry.worker(worker)
        if current is not None and current.peer.session == session:
            self._heard_us[worker] = self._really_heard_us[worker] = self._server.world.now_us
            self._excused_us[worker] = 0
        return was_silent

    def excuse(self, for_us: int) -> None:
        """Everybody stands still for a while: nobody is silent for that."""
        self._heard_us = {worker: heard_us + for_us for worker, heard_us in self._heard_us.items()}
        self._excused_us = {worker: us + for_us for worker, us in self._excused_us.items()}

    def _plan(self) -> None:
        server = self._server
        self._due_us = server.world.now_us + server.beat_us
        server.after(server.beat_us, self._tick, False)

    def _tick(self, has_read: bool) -> None:
        server, world = self._server, self._server.world
        late_us = world.now_us - self._due_us
        if late_us > 0 and not has_read:
            server.after(0, self._tick, True)  # first the sockets
            return
        if late_us > server.beat_us:
            world.count("late ticks")
        if late_us > 0:  # the next one is as much later
            self._heard_us = {worker: heard_us + late_us for worker, heard_us in self._heard_us.items()}
        losses = self.clock.tick(late_us / SECOND)
        silent = self.clock.fallen_silent()
        world.count("workers said to be silent", len(silent))
        for suspect in filter(None, map(server.registry.worker, silent)):
            suspect.say_silent(on=True)
        for lost in losses:
            server.note(f"w{lost.worker:x} is lost, session {lost.session}")
            world.count("workers declared lost")
            self._check_patience(lost)
            self._inlet.put([Request(lost, "sim")])
            session = server.registry.worker(lost.worker)
            if session is not None:
                session.close_session(lost.session, "lost")
        self._check_i5()
        self._ticks += 1
        if self._ticks % RETAIN_TICKS == 0:
            self._inlet.put([Request(Retain(server.world.dice.choice(KEEPS_MS)), "sim")])
        for end in server.guests:
            end.send([m.Beat()])
        for session in server.registry.workers:
            session.check_deliveries(world.now_us / SECOND)
        self._plan()

    def _check_patience(self, lost: WorkerLost) -> None:
        """Nobody is lost who was heard within three beats, or whose re-attach window is not over."""
        server = self._server
        now_us, window_us = server.world.now_us, limits.reattach_beats * server.beat_us
        after_us = now_us - self._since_us
        if lost.session == 0 and after_us < window_us:
            raise server.world.violated(f"w{lost.worker:x} is lost {after_us / SECOND} s after the start")
        silent_us = now_us - self._really_heard_us.get(lost.worker, 0)
        counted_us = silent_us - self._excused_us.get(lost.worker, 0)
        is_early = silent_us < limits.missed_beats_max * server.beat_us or counted_us < 2 * server.beat_us
        if lost.session and is_early:
            raise server.world.violated(f"w{lost.worker:x} is lost, silent for only {silent_us / SECOND} s")

    def _check_i5(self) -> None:
        """Nobody holds attempts who has not been heard for 3 beats, one tick and the time of a turn."""
        server = self._server
        if server.world.now_us < server.last_slow_us + 2 * server.beat_us:
            return  # the turn that would take its attempts back waits for a flush
        for worker in server.engine.live.workers.values():
            if any(not server.poison.costs_words(key[0]) for key in worker.held):
                silent_us = server.world.now_us - self._heard_us.get(worker.worker, server.world.now_us)
                if silent_us > 5 * server.beat_us + SECOND:
                    raise server.world.violated(
                        f"I5: w{worker.worker:x} holds {len(worker.held)} attempts, silent for {silent_us / SECOND} s"
                    )
