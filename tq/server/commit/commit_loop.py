"""The only loop with side effects on state: commands in, one commit for all, then answers, then effects.

`Pipeline.steps()` is a generator without I/O, threads or clocks: it yields where it stands, and whoever drives it waits
there (committer.py for the server; the simulator, which also crashes it at every yield). Turn N+1 is applied while N is
being flushed, one flush at a time. It is closed (Dispatch, write) only when N is on disk. So nothing of a turn leaves
before its own flush, and no read leaves before the flush of what it could have seen.

    IDLE      nothing to do: wait for work, or for `idle_ms`
    APPLIED   a turn's commands are applied; nothing is written
    WRITTEN   its batch is in the store, not yet durable
    FLUSHING  the committer flushes: wait for it, or for more work for the next turn
    FLUSHED   on disk; nothing has been answered
    REPLIED   the answers are out, the effects not yet
    RELEASED  the turn is over

A command that raises `Refused` is answered with it. One that raises anything else is a bug: it is dropped, answered
`internal_error` and handed to `on_bug`, and the turn goes on. So is one of a client that has met damage, answered
`store_damaged`. What raises in Tick or Dispatch the engine puts off (ADR 23), and it is handed to `on_bug`, too. An
exception in Recover or the fold leaves the generator and stops the server. Any other StoreError answers everything
pending with `unknown` and leaves it too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from enum import Enum
from typing import Final, get_args

from tq import errors, limits
from tq.core.engine.engine import Engine, Turn
from tq.core.placement.fold import FoldFailed
from tq.core.vocabulary import Answer, ClientCommand, Effect, Recover, Recovered, Tick, Times
from tq.server.commit.bulk_throttle import BulkThrottle
from tq.server.commit.intake import Inlet, Intake, Look, Reply, Request
from tq.store.seam import Store

UNKNOWN: Final = errors.Unknown(
    "the disk failed, so it is not known whether this took effect", hint="repeat it with the same key"
)
LOST_ANSWER: Final = errors.InternalError("it was done, and the server failed at the answer", hint="its log says where")
_OF_CLIENTS: Final = (Look, *get_args(ClientCommand))
STOPPING: Final = errors.Stopping("the server is stopping", hint="try again in a moment")


def damaged() -> errors.StoreDamaged:
    """Return what a client is told of damage: where it is stands in the log. Each has a traceback of its own."""
    return errors.StoreDamaged(
        "what this is about stands where the server's store is damaged; nothing was changed",
        hint="the server's log says where; on its machine, with the server stopped: tq store check",
    )


class Point(Enum):
    """Where the generator stands (see above)."""

    IDLE = "idle"
    APPLIED = "applied"
    WRITTEN = "written"
    FLUSHING = "flushing"
    FLUSHED = "flushed"
    REPLIED = "replied"
    RELEASED = "released"


class Counters:
    """What the loop has done since its start, for `status`."""

    __slots__ = ("bugs", "commands", "damages", "flushes", "refused", "turns")

    def __init__(self) -> None:
        self.turns = self.flushes = self.commands = self.refused = self.bugs = self.damages = 0


class _Answers:
    """Answers of a turn that wait for their flush, and the effects that follow them."""

    __slots__ = ("effects", "has_bulk", "replies", "sequence")

    def __init__(self) -> None:
        self.sequence = 0
        self.has_bulk = False
        self.replies: list[tuple[Reply, Answer | errors.TqError]] = []
        self.effects: Sequence[Effect] = ()

    def refuse(self, error: errors.TqError) -> None:
        """Answer everything with an error instead."""
        for reply, _ in self.replies:
            reply(error)


class Pipeline:
    """The turns of one server. `times` gives both clocks, `lap_ms` a fine one for the turn's cap; `flush` asks the
    committer to flush a sequence, and returns True if it is on disk at once: else `flushed` or `fail` is called later;
    `release` carries out effects; `rereads` names what is read again because of them, and for whom; `on_bug` gets the
    command (or the answer that nobody could take) with the exception that it raised.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        intake: Intake,
        *,
        times: Callable[[], Times],
        lap_ms: Callable[[], float],
        flush: Callable[[int], bool],
        release: Callable[[Sequence[Effect]], None],
        rereads: Callable[[Sequence[Effect]], Iterable[tuple[Inlet, Request]]],
        on_bug: Callable[[object, Times, Exception], None],
    ) -> None:
        self.engine = engine
        self.store = store
        self.intake = intake
        self.counters = Counters()
        self.on_wake: Callable[[], None] = lambda: None
        self.may_lease = True  # False while the disk is nearly full
        self._times = times
        self._lap_ms = lap_ms
        self._flush = flush
        self._release = release
        self._rereads = rereads
        self._on_bug = on_bug
        self._turn: Turn | None = None
        self._turn_times = Times(0, 0)
        self._answers = _Answers()  # of the open turn
        self._spent_ms = 0.0  # applying, in the open turn
        self._throttle = BulkThrottle()
        self._flight: _Answers | None = None  # the turn that is being flushed
        self._durable = 0
        self._is_cut = False  # Dispatch stopped at its bound: it goes on in a turn of its own
        self._stopping = False
        self._error: errors.StoreError | None = None
        intake.on_work = lambda: self.on_wake()  # noqa: PLW0108 - whoever drives the loop sets it later

    # ------------------------------------------------------------ from outside

    def flushed(self, sequence: int) -> None:
        """Tell that everything up to this sequence is on disk."""
        self._durable = sequence
        self.on_wake()

    def fail(self, error: errors.StoreError) -> None:
        """Tell that the disk failed: nothing more is acknowledged, and the generator ends with this error."""
        if self._error is None:
            self._error = error
        self.on_wake()

    def note(self, what: object, error: Exception) -> None:
        """Count what something failed by, a bug or damage, and write it down: all else goes on."""
        if isinstance(error, errors.StoreDamaged):
            self.counters.damages += 1
        else:
            self.counters.bugs += 1
        self._on_bug(what, self._turn_times, error)

    def dispatch_again(self) -> None:
        """Tell that more may be leased than before: run a turn even if nobody asks for anything."""
        self._is_cut = True
        self.on_wake()

    def stop(self) -> None:
        """Refuse what comes from now on, finish what was taken, flush, and end the generator."""
        self._stopping = True
        self._throttle.lift()
        self.intake.close(STOPPING)
        self.on_wake()

    @property
    def has_work(self) -> bool:
        """Whether the generator could go on from IDLE."""
        return self._error is not None or self._stopping or self.idle_ms() == 0

    @property
    def is_flushed(self) -> bool:
        """Whether the turn in flight is on disk, or never will be."""
        return self._flight is None or self._flight.sequence <= self._durable or self._error is not None

    @property
    def is_lone(self) -> bool:
        """Whether one peer at most waits for the turn in flight, and nobody for the next."""
        return self._flight is not None and len(self._flight.replies) <= 1 and self.intake.is_empty

    def idle_ms(self) -> int | None:
        """Return after how many ms there is something to do for Tick, or for what waits; None for never."""
        times = self._times()
        due_ms = self._due_ms(times)
        wait_ms = self.intake.wait_ms(self._throttle.rest_ms(times.steady_ms))
        if due_ms is None or wait_ms is None:
            return due_ms if wait_ms is None else wait_ms
        return min(due_ms, wait_ms)

    # ------------------------------------------------------------ the loop

    def steps(self, recover: Recover, on_recovered: Callable[[Recovered], None]) -> Iterator[Point]:
        """Yield where the loop stands, from `recover` to the stop. Ends after `stop()`; raises StoreError.

        `on_recovered` is called once Recover is on disk.
        """
        try:
            self._recover(recover, on_recovered)
            while True:
                yield from self._round()
                if self._error is not None:
                    raise self._error
                if self._stopping and self._turn is None and self._flight is None and self.intake.is_empty:
                    return
        except errors.StoreError as error:
            self._give_up(error)
            raise

    def _round(self) -> Iterator[Point]:
        if self._flight is not None and self._flight.sequence <= self._durable:
            flown, self._flight = self._flight, None
            yield Point.FLUSHED
            yield from self._let_go(flown)
        self._take()
        if self._flight is not None:
            yield Point.FLUSHING
        elif self._turn is not None:
            yield Point.APPLIED
            yield from self._close(self._turn)
        elif not self._stopping:
            yield Point.IDLE

    def _recover(self, recover: Recover, on_recovered: Callable[[Recovered], None]) -> None:
        def reply(answer: Answer | errors.TqError) -> None:
            if isinstance(answer, Recovered):
                on_recovered(answer)

        turn = self._open(self._times())
        answer = turn.apply(recover)
        if answer is not None:
            self._answers.replies.append((reply, answer))

    def _due_ms(self, times: Times) -> int | None:
        return 0 if self._is_cut else self.engine.next_due_ms(times)

    def _open(self, times: Times) -> Turn:
        self._turn_times = times
        self._turn = self.engine.begin(times)
        self._answers = _Answers()
        self._spent_ms = 0.0
        self._throttle.begin(times.steady_ms)
        self.intake.rotate()
        return self._turn

    def _take(self) -> None:
        """Apply what waits to the open turn (opening one if need be), up to the turn's cap."""
        turn = self._turn
        if turn is None:
            times = self._times()
            is_due = not self._stopping and self._due_ms(times) == 0  # what is due goes on at the next start
            if not is_due and self.intake.wait_ms(self._throttle.rest_ms(times.steady_ms)) != 0:
                return
            turn = self._open(times)
            if is_due:
                turn.apply(Tick())
        is_resting = self._throttle.rest_ms(self._turn_times.steady_ms) > 0
        began_ms = self._lap_ms()
        spent_ms = self._spent_ms
        while spent_ms < limits.turn_ms_max and turn.changes_count < limits.turn_changes_max:
            request = self.intake.take(may_be_bulk=not (is_resting or self._throttle.is_full))
            if request is None:
                break
            self._throttle.took(request)
            self._apply(turn, request)
            spent_ms = self._spent_ms + self._lap_ms() - began_ms
        self._spent_ms = spent_ms

    def _apply(self, turn: Turn, request: Request) -> None:
        self.counters.commands += 1
        command = request.command
        answer: Answer | errors.TqError | None
        try:
            answer = command.read(self.store) if isinstance(command, Look) else turn.apply(command, request.submitter)
        except errors.Refused as refusal:
            self.counters.refused += 1
            answer = refusal
        except (errors.StoreError, FoldFailed) as error:
            if isinstance(error, errors.StoreDamaged) and isinstance(command, _OF_CLIENTS):
                self.note(command, error)
                if request.reply is not None:
                    self._answers.replies.append((request.reply, damaged()))
                return
            if request.reply is not None:
                request.reply(UNKNOWN)
            raise
        except Exception as error:  # noqa: BLE001 - a bug must cost its command, never the server (I12)
            self.note(command, error)
            answer = errors.InternalError(
                f"the server failed at this {type(command).__name__}, and dropped it", hint="its log says where"
            )
        if request.reply is not None and answer is not None:
            self._answers.replies.append((request.reply, answer))

    def _close(self, turn: Turn) -> Iterator[Point]:
        finished = turn.finish(may_lease=self.may_lease)
        for what, error in turn.bugs:
            self.note(what, error)
        self._is_cut = finished.is_cut or (turn.has_only_read and self._is_cut)  # who asked meanwhile is not forgotten
        began_ms = self._lap_ms() - self._spent_ms
        for inlet, request in self._rereads(finished.effects):
            # Answered with the turn that changed what they wait for, while it has time; the rest with the next one.
            if self._lap_ms() - began_ms < limits.turn_ms_max:
                self._apply(turn, request)
            else:
                inlet.put([request])
        answers, self._turn = self._answers, None
        answers.effects = finished.effects
        answers.has_bulk = self._throttle.close()
        self.counters.turns += 1
        if not finished.changes:
            yield from self._let_go(answers)
            return
        self.counters.flushes += 1
        answers.sequence = finished.sequence
        self._flight = answers  # from here on a failure leaves the outcome of these unknown
        self.store.write(finished.changes, sequence=finished.sequence, epoch=finished.epoch, wall_ms=finished.wall_ms)
        yield Point.WRITTEN
        if self._flush(finished.sequence):
            self._durable = finished.sequence

    def _let_go(self, answers: _Answers) -> Iterator[Point]:
        if answers.has_bulk:
            self._throttle.over(self._times().steady_ms)
        for reply, answer in answers.replies:
            try:
                reply(answer)
            except Exception as error:  # noqa: BLE001 - a session's bug: its peer's loss, never the server's (I12)
                self.note(answer, error)
                with suppress(Exception):  # silence would keep its peer waiting for as long as both live
                    reply(LOST_ANSWER)
        yield Point.REPLIED
        if answers.effects:
            self._release(answers.effects)
        yield Point.RELEASED

    def _give_up(self, error: errors.StoreError) -> None:
        self._error = error
        if self._flight is not None:
            self._flight.refuse(UNKNOWN)
            self._flight = None
        if self._turn is not None:
            self._answers.refuse(UNKNOWN)
            self._turn = None
        self.intake.refuse_all(UNKNOWN)
