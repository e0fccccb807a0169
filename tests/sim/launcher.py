"""The simulated launcher: the real queues by lane and the real frames; only the processes are made up.

How long a process runs and how it ends are dice, by the profile that its body is (profiles.py).
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from tests.sim.guard import Guard
from tests.sim.ledger import Ledger
from tests.sim.profiles import BAD, BOUND, LONG, MIXED, POISON, SHORT
from tests.sim.world import MS, SECOND, Process, World
from tq.core.model.task import Cause
from tq.core.vocabulary import Assignment, AttemptRef, Capacity, End
from tq.launcher import protocol
from tq.launcher.attempt import Stage
from tq.launcher.lanes import Lanes
from tq.wire.codec import dumps

PIPE_US: Final = 30
STARTED_US: Final = 20 * MS
KILL_AFTER_US: Final = 4 * SECOND
WORDS: Final = (1, 10, 400)  # of what a task returns: some fits into its record, some does not
INPUT: Final = b"what the task reads"  # of every task that has a large input


class Pipe:
    """One direction of a socket pair between two processes of a machine: ordered, and gone with its reader."""

    def __init__(self, reader: Process, deliver: Callable[[Any], None]) -> None:
        self._reader = reader
        self._life = reader.life
        self._deliver = deliver
        self._coming: deque[Any] = deque()

    def send(self, what: Any) -> None:
        """Send something."""
        self._coming.append(what)
        world = self._reader.world
        world.at(world.now_us + PIPE_US, self._arrive)

    def tear(self, world: World) -> None:
        """The writer dies: some of what it wrote last never left it."""
        for _ in range(world.dice.randint(0, len(self._coming))):
            self._coming.pop()

    def _arrive(self) -> None:
        reader = self._reader
        if not self._coming or reader.life != self._life:
            return
        if reader.is_frozen:
            reader.world.at(reader.frozen_until_us, self._arrive)
            return
        self._deliver(self._coming.popleft())


class Order:
    """What one Spawn says about all of its attempts."""

    def __init__(self, spawn: protocol.Spawn) -> None:
        self.lane = spawn.lane
        self.body = spawn.body


class Attempt:
    """One attempt as the launcher holds it."""

    def __init__(self, assignment: Assignment, order: Order) -> None:
        self.ref = assignment.attempt
        self.entry = assignment.entry
        self.has_run = assignment.has_run
        self.order = order
        self.stage = Stage.QUEUED
        self.cause = Cause.NONE
        self.begin_us = 0


class Launcher(Process):
    """One launcher process. `up` takes what it says to its worker."""

    def __init__(self, world: World, ledger: Ledger, name: str, capacity: Capacity, up: Pipe) -> None:
        super().__init__(world, name)
        self.ledger = ledger
        self.up = up
        self.down = Pipe(self, self._obey)
        self.capacity = capacity
        self.held: dict[AttemptRef, Attempt] = {}
        self.live = 0
        self.is_dead = False
        self.pong = protocol.Pong(0, 0, 0, 0)  # none is stuck here
        self.on_poison: Callable[[], None] = lambda: None
        self._lanes = Lanes()
        self._inputs: dict[int, bytes] = {}
        self._trouble_until_us = 0
        self.guard = Guard(self)
        self._ends: list[End] = []
        self._outputs: list[protocol.Output] = []

    def send(self, message: protocol.Down) -> None:
        """Take a frame of the worker (the interface of LauncherLink)."""
        if not self.is_dead:
            self.down.send(message)

    def die(self) -> None:
        """Be killed, and everything that it runs."""
        self.is_dead = True
        self.up.tear(self.world)
        for attempt in self.held.values():
            if attempt.stage is Stage.RUNNING:
                self.ledger.process_ends(attempt.ref, None)
        self.held.clear()
        self.end_life()

    @property
    def unstopped(self) -> list[AttemptRef]:
        """What runs, and was not asked to stop."""
        return [ref for ref, one in self.held.items() if one.stage is Stage.RUNNING and not one.cause]

    def freeze(self, for_us: int) -> None:
        """Stand still; what should have ended meanwhile ends as soon as that is over."""
        super().freeze(for_us)
        self.world.at(self.frozen_until_us + 1, self.guard.thawed, self.life)

    # ------------------------------------------------------------ orders

    def _obey(self, message: protocol.Down) -> None:
        match message:
            case protocol.Spawn():
                self._queue(message)
            case protocol.Stop():
                self._stop(message)
            case protocol.Recall():
                self.recall(message)
            case protocol.Input():
                self._inputs[message.blob] = self._inputs.get(message.blob, b"") + message.data
            case protocol.Lease():
                self.guard.renew(message.until_s)
            case protocol.Forget():
                self._inputs.pop(message.blob, None)
        self._start()

    def _queue(self, spawn: protocol.Spawn) -> None:
        if spawn.stdin and self._inputs.get(spawn.stdin) != INPUT:
            raise self.world.violated(f"{spawn} comes with the input {self._inputs.get(spawn.stdin)}")
        order = Order(spawn)
        new = [Attempt(one, order) for one in spawn.attempts if one.attempt not in self.held]
        self.held.update((attempt.ref, attempt) for attempt in new)
        self._lanes.add(spawn.lane, spawn.width, new)  # type: ignore[arg-type]  # has what the queue looks at
        if spawn.body == BOUND:
            self.guard.watch()

    def _stop(self, stop: protocol.Stop) -> None:
        for ref in stop.attempts:
            attempt = self.held.get(ref)
            if attempt is None:
                continue
            if attempt.stage is Stage.QUEUED:
                self._drop(attempt)
                self._report(End(ref, stop.cause, 0, 0))
            elif not attempt.cause:
                attempt.cause = Cause(stop.cause)
                is_stubborn = self.world.chance(0.1)
                delay_us = KILL_AFTER_US if is_stubborn else self.world.wait_us(10 * MS)
                self.after(delay_us, self.exits, attempt, -9 if is_stubborn else -15)

    def recall(self, recall: protocol.Recall) -> None:
        """Give back what of these has not started."""
        back = [attempt for ref in recall.attempts if (attempt := self.held.get(ref)) and attempt.stage is Stage.QUEUED]
        for attempt in back:
            self._drop(attempt)
        if back:
            self.world.count("recalled in time", len(back))
            self.up.send(protocol.Recalled(tuple(attempt.ref for attempt in back)))

    def _drop(self, attempt: Attempt) -> None:
        del self.held[attempt.ref]
        self._lanes.drop(attempt)  # type: ignore[arg-type]

    # ------------------------------------------------------------ start and end

    def _start(self) -> None:
        self.guard.cut_off()  # who stood still may be late for it
        while self.live < self.capacity.slots:
            attempt: Any = self._lanes.take()
            if attempt is None:
                return
            attempt.stage = Stage.RUNNING
            is_in_trouble = self.world.now_us < self._trouble_until_us
            if is_in_trouble or self.world.chance(0.01 if not self.world.is_calm else 0):
                self._release(attempt)
                if is_in_trouble or self.world.chance(0.5):
                    self.up.send(protocol.Recalled((attempt.ref,), Cause.WORKER_TROUBLE, "out of descriptors"))
                else:
                    cause, code = self.world.dice.choice(((Cause.SPAWN_FAILED, 127), (Cause.CWD_MISSING, 125)))
                    self._report(End(attempt.ref, cause, code, 0))
                continue
            self.live += 1
            attempt.begin_us = self.world.now_us
            self.ledger.process_starts(attempt.ref, attempt.entry, has_run=attempt.has_run)
            self._check_room()
            run_us, code = self._fate(attempt.order.body)
            if attempt.order.body == POISON:
                self.after(min(run_us, 50 * MS), self._poisons, attempt)
                run_us = SECOND  # it will not live so long
            if run_us > STARTED_US:
                self.after(STARTED_US, self._started, attempt)
            self.after(run_us, self.exits, attempt, code)

    def _check_room(self) -> None:
        """I8, as it really is: what runs and counts fits what the worker offers."""
        running = [ref for ref, attempt in self.held.items() if attempt.stage is Stage.RUNNING]
        cpus, memory = self.ledger.demanded(running)
        if cpus > self.capacity.cpus_milli or memory > self.capacity.mem_bytes:
            raise self.world.violated(f"I8: {running} want {cpus} CPUs/1000, {memory} bytes of {self.capacity}")

    def trouble(self, for_us: int) -> None:
        """Let nothing be started here for a while: no descriptors, no memory."""
        self._trouble_until_us = self.world.now_us + for_us

    def _fate(self, body: bytes) -> tuple[int, int]:
        dice = self.world.dice
        if body == SHORT or (body == MIXED and dice.random() < 0.9):
            run_us = dice.randint(MS, 8 * MS)
        elif body in (LONG, BOUND):
            run_us = dice.randint(50 * MS, 6 * SECOND if body == LONG else 12 * SECOND)
        else:
            run_us = dice.randint(5 * MS, 2 * SECOND)
        is_bad = dice.random() < (0.5 if body == BAD else 0.05)
        return run_us, dice.choice((1, 2, 75, -11, -9)) if is_bad else 0

    def _poisons(self, attempt: Attempt) -> None:
        """A task kills its worker; it never ends by itself."""
        if attempt.stage is Stage.RUNNING:
            self.world.count("workers poisoned")
            self.on_poison()

    def _started(self, attempt: Attempt) -> None:
        if attempt.stage is Stage.RUNNING:
            self.up.send(protocol.Started((attempt.ref,)))

    def exits(self, attempt: Attempt, code: int) -> None:
        """Let an attempt end, if it runs."""
        if attempt.stage is not Stage.RUNNING:
            return
        self.live -= 1
        self._release(attempt)
        ref = attempt.ref
        run_us = self.world.now_us - attempt.begin_us
        self.ledger.process_ends(ref, code)
        if self.world.chance(0.3):
            text = b"out of %d.%d/%d" % (ref.job, ref.member, ref.attempt)
            self.ledger.written[ref] = text
            self._outputs.append(protocol.Output(ref, 1, 0, text))
        value = b""
        if self.world.chance(0.15):
            value = self.ledger.values[ref] = dumps(
                f"{ref.job}.{ref.member}/{ref.attempt} " * self.world.dice.choice(WORDS)
            )
        cause = attempt.cause or (Cause.EXIT if code >= 0 else Cause.SIGNAL)
        self._report(End(ref, cause, code, max(run_us, 1), b"", value))
        self._start()

    def _release(self, attempt: Attempt) -> None:
        attempt.stage = Stage.ENDED
        del self.held[attempt.ref]
        self._lanes.release(attempt.order.lane)

    def _report(self, end: End) -> None:
        if not self._ends:
            self.after(self.world.dice.randint(0, 20 * MS) if self.live else 100, self._flush)
        self._ends.append(end)

    def _flush(self) -> None:
        self.up.send(protocol.Ended(tuple(self._ends), tuple(self._outputs)))
        self._ends, self._outputs = [], []
