"""What a worker holds, and what it does about it: events in, instructions out.

This is the whole of a worker's judgement, without I/O, time or dice: `interpreter.py` carries out what it returns
(worker/instructions.py), and so does the simulator. It must never block, raise on what a peer sent, or
forget an attempt that the server has not acknowledged.

    event                                   call
    a session begins (Welcome came)         connected()            the answer begins with Reconcile
    a message came from the server          receive(message)
    the connection is gone                  disconnected()         first discard what was read and not handled
    a large input is here                   fetched(blob, data)
    the launcher says ...                   started(attempts)  ended(ends)  recalled(attempts, cause)
    the launcher died, its children too     launcher_died()
    the worker shall leave                  leave()                when its patience ends: stop_all(Cause.DRAIN)
    a drain's deadline has come             stop_all(Cause.DRAIN)
    the server speaks for another lineage   abandon()              before the next connected()

An attempt is held from its delivery until its report or handback is acknowledged:

    ASSIGNED -- started --> STARTED -- stop --> STOPPING -- ended --> ENDED -- acknowledged, settled --> forgotten
       |                       |                                        ^
       +---- handed back, or ended before anybody said `started` -------+

Nothing but `Reconcile` is said before the server's `Reconciled`; what had to wait is said then. What is handed back
is listed as ENDED as well, and its handback repeated, so that a lost connection does not lose its cause (0 = never
ran, DRAIN = stopped because the worker shall be empty, CUT_OFF = because the server could not hear it, WORKER_TROUBLE
= this machine could not start it).
"""

from collections.abc import Collection, Iterable
from typing import Final

from msgspec.structs import replace

from tq.core.model.task import Cause, Phase
from tq.core.vocabulary import AttemptRef, Capacity, End, Held
from tq.wire import messages as m
from tq.wire.connection import divided
from tq.wire.held import tally
from tq.worker.inputs import Inputs
from tq.worker.instructions import Aside, Delivery, Instruction, Recall, Say, Settled, Spawn, Stop, StopAfter
from tq.worker.outbox import Outbox, attempts_of

_GIVEN_BACK: Final = (Cause.DRAIN, Cause.CUT_OFF)
_ENDED, _ASSIGNED = Phase.ENDED, Phase.ASSIGNED


class WorkerState:
    """The attempts of one worker, from delivery to acknowledgement. See the head of this file.

    `capacity` is what it offers; `tasks_max` is how many attempts may run here before the worker leaves, None = any
    number; the delivery numbers up to `number_last` are taken.
    """

    def __init__(self, capacity: Capacity, tasks_max: int | None = None, number_last: int = 0) -> None:
        self.capacity = capacity
        self.held: dict[AttemptRef, Phase] = {}
        self.outbox = Outbox(number_last)
        self.inputs = Inputs()
        self.widths: dict[int, int] = {}  # lane -> how many of it may run at once, as the server said last
        self.tasks_left = tasks_max  # how many more it takes
        self.is_leaving = False  # the worker's own wish, for good
        self.is_draining = False  # that, or the server's wish until it takes it back
        self.is_abandoned = False  # what is held belongs to another lineage

    def restore(self, deliveries: Collection[Delivery]) -> None:
        """Hold what an earlier worker has left on the disk. Only between sessions."""
        self.held.update((ref, _ENDED) for message in deliveries for ref in attempts_of(message))
        self.outbox.restore(deliveries)

    @property
    def is_idle(self) -> bool:
        """Whether no attempt is running or waiting here; reports may still be on their way."""
        return all(phase is _ENDED for phase in self.held.values())

    def beat(self, number: int = 0, stuck: int = 0) -> m.Beat:
        """Return the sign of life that is due, with count and digest of what is held (wire/held.py)."""
        unsaid = self.outbox.unsaid
        counted = tally(ref for ref, phase in self.held.items() if phase is not _ENDED or ref in unsaid)
        return m.Beat(*counted, number, stuck)

    # ------------------------------------------------------------ the connection

    def connected(self) -> list[Instruction]:
        """Begin a session: say what is held, and wait for the answer."""
        self.outbox.connect()
        return _lists(self)

    def disconnected(self) -> list[Instruction]:
        """End the session: what is not acknowledged goes to the disk as well."""
        return self.outbox.disconnect()

    def receive(self, message: m.Message) -> list[Instruction]:
        """Take a message of the server. What is no matter of attempts is answered with nothing."""
        if not self.outbox.is_connected:
            return []
        match message:
            case m.Assign():
                return self._assign(message)
            case m.Acknowledged():
                attempts, done = self.outbox.acknowledged(message.delivery)
                return _forget(self, attempts) + done
            case m.StopAttempts():
                return self._stop(((ref, message.cause) for ref in message.attempts), message.signal)
            case m.RecallAttempts():
                return self._recall(message.attempts)
            case m.Reconciled():
                return self._reconciled(message)
            case m.ReconcileAgain():
                return _lists(self)
            case m.DrainWorker():
                self.is_draining = message.on or self.is_leaving
                stop = StopAfter(message.deadline_ms if message.on else -1)
                if message.on:
                    return [stop, *self._recall(list(self.held))]
                return [stop, Say(m.Draining())] if self.is_leaving and self.outbox.is_open else [stop]
            case _:
                return []

    def _reconciled(self, message: m.Reconciled) -> list[Instruction]:
        settled = tuple(ref for ref in message.settled if self.held.get(ref) is _ENDED)
        done = _forget(self, settled) + self.outbox.settle(set(settled))
        if not self.outbox.is_open:
            done += [Say(m.Draining())] if self.is_leaving else []  # the list may have left before the wish came
            done += self.outbox.open()
            done += _starts(self, [ref for ref, phase in self.held.items() if phase is Phase.STARTED])
            done += self.inputs.ask_again()
        return done + self._stop(message.stop)

    # ------------------------------------------------------------ the server's words

    def _assign(self, message: m.Assign) -> list[Instruction]:
        held, attempts = self.held, message.attempts
        self.widths[message.lane] = message.width
        done: list[Instruction] = [Say(m.Assigned(message.delivery))]
        if any(item.attempt in held for item in attempts):
            message = replace(message, attempts=tuple(item for item in attempts if item.attempt not in held))
            attempts = message.attempts
        for item in attempts:
            held[item.attempt] = _ASSIGNED
        if self.is_draining:
            return done + self._hand_back(tuple(item.attempt for item in attempts))
        if self.tasks_left is not None:
            message, more = _last_of(self, message, self.tasks_left)
            done += more
        if message.stdin and message.attempts:
            return done + self.inputs.wait(message)
        return [Spawn(message, b""), *done] if message.attempts else done  # nobody waits for the receipt

    def fetched(self, blob: int, data: bytes) -> list[Instruction]:
        """Start what waited for this input, less what was stopped or recalled meanwhile."""
        return [
            Spawn(replace(message, width=self.widths[message.lane]), data)  # a later delivery may have set another
            for message in self.inputs.take(blob)
        ]

    def _stop(self, stops: Iterable[tuple[AttemptRef, int]], signal: int = 0) -> list[Instruction]:
        """Ask the launcher to end what lives; what never came to it ends here. Who names a signal may ask again."""
        live = {_ASSIGNED, Phase.STARTED} | ({Phase.STOPPING} if signal else set())
        causes: dict[int, list[AttemptRef]] = {}
        never: list[End] = []
        for ref, cause in stops:
            if self.held.get(ref) not in live:
                continue  # its report is on its way, or the first cause stands
            if ref in self.inputs:
                never.append(End(ref, cause, 0, 0))
            else:
                self.held[ref] = Phase.STOPPING
                causes.setdefault(cause, []).append(ref)
        self.inputs.discard(end.attempt for end in never)
        done: list[Instruction] = [Stop(tuple(refs), cause, signal) for cause, refs in causes.items()]
        return done + self.ended(tuple(never))

    def _recall(self, attempts: Iterable[AttemptRef]) -> list[Instruction]:
        """Give back at once what never came to the launcher; ask the launcher for the rest."""
        asked = [ref for ref in attempts if self.held.get(ref) is _ASSIGNED]
        here = tuple(ref for ref in asked if ref in self.inputs)
        there = tuple(ref for ref in asked if ref not in self.inputs)
        self.inputs.discard(here)
        done: list[Instruction] = [Recall(there)] if there else []
        return done + self._hand_back(here)

    # ------------------------------------------------------------ the launcher's words

    def started(self, attempts: Iterable[AttemptRef]) -> list[Instruction]:
        """Take that these have been running for longer than a moment."""
        fresh = [ref for ref in attempts if self.held.get(ref) is _ASSIGNED]
        for ref in fresh:
            self.held[ref] = Phase.STARTED
        return _starts(self, fresh)

    def ended(self, ends: tuple[End, ...]) -> list[Instruction]:
        """Take results. Those of another lineage go aside; what a drain or a cut has stopped goes back uncharged."""
        held = self.held
        reports: list[End] = []
        back: dict[int, list[AttemptRef]] = {}
        strange: list[End] = []
        for end in ends:
            phase = held.get(end.attempt)
            if phase is None or self.is_abandoned:
                held.pop(end.attempt, None)
                strange.append(end)
            elif end.cause in _GIVEN_BACK:
                back.setdefault(end.cause, []).append(end.attempt)
            elif phase is not _ENDED:
                held[end.attempt] = _ENDED
                reports.append(end)
        self.is_abandoned = self.is_abandoned and bool(held)
        done = self.outbox.report(tuple(reports)) if reports else []
        for cause, attempts in back.items():
            done += self._hand_back(tuple(attempts), cause)
        if strange:
            done += [Aside(tuple(strange)), Settled(tuple([end.attempt for end in strange]))]  # with their output
        return done

    def recalled(self, attempts: tuple[AttemptRef, ...], cause: int = Cause.NONE, error: str = "") -> list[Instruction]:
        """Take back what the launcher has not started: recalled, or (with a cause) for trouble of this machine's."""
        if self.is_abandoned:
            done = _forget(self, attempts)
            self.is_abandoned = bool(self.held)
            return done
        if self.tasks_left:
            self.tasks_left += len(attempts)  # they have not run
        return self._hand_back(attempts, cause, error)

    def _hand_back(
        self, attempts: tuple[AttemptRef, ...], cause: int = Cause.NONE, error: str = ""
    ) -> list[Instruction]:
        live = tuple([ref for ref in attempts if self.held.get(ref, _ENDED) is not _ENDED])
        for ref in live:
            self.held[ref] = _ENDED
        return self.outbox.hand_back(live, cause, error) if live else []

    def launcher_died(self, cause: int = Cause.LOST) -> list[Instruction]:
        """Report what may have been running with `cause` (DRAIN: hand it back); the rest goes back uncharged.

        As at the server: what started, and the oldest assigned ones, as many as there are slots. Of the rest some may
        have run and ended unheard, so it goes back as LOST. Call it once no process of the attempts is alive. What
        waits for its input stays.
        """
        there = [ref for ref, phase in self.held.items() if phase is not _ENDED and ref not in self.inputs]
        assigned = [ref for ref in there if self.held[ref] is _ASSIGNED]
        untouched = set(assigned[self.capacity.slots :])
        done = self.ended(tuple(End(ref, cause, 0, 0) for ref in there if ref not in untouched))
        rest = tuple(ref for ref in assigned if ref in untouched)
        return done + self.recalled(rest, Cause.LOST if cause == Cause.LOST else Cause.NONE)

    # ------------------------------------------------------------ the worker's own wishes

    def leave(self) -> list[Instruction]:
        """Want nothing more, for good: say so, and hand back what has not started."""
        self.is_leaving = self.is_draining = True
        said: list[Instruction] = [Say(m.Draining())] if self.outbox.is_open else []
        return said + self._recall(list(self.held))

    def stop_all(self, cause: int) -> list[Instruction]:
        """End all that lives."""
        return self._stop([(ref, cause) for ref in self.held])

    def abandon(self) -> list[Instruction]:
        """Stop everything and keep its results aside: the server's store is not the one that gave it.

        Until the last attempt has ended (`is_abandoned` turns False) no session may begin: the other lineage may
        use the same names.
        """
        done = self.outbox.abandon()
        gone = [ref for ref, phase in self.held.items() if phase is _ENDED or ref in self.inputs]
        done += _forget(self, tuple(gone))
        self.inputs = Inputs()
        self.widths.clear()
        self.is_draining = self.is_leaving
        done += self.stop_all(Cause.LOST)
        self.is_abandoned = bool(self.held)
        return done


def _lists(slots: WorkerState) -> list[Instruction]:
    """Return everything that is held, in as many messages as it takes."""
    held = tuple([Held(ref, phase) for ref, phase in slots.held.items()])
    widths = tuple(slots.widths.items())
    whole = m.Reconcile(slots.capacity, held, draining=slots.is_draining, widths=widths)
    return [Say(part) for part in divided(whole)]


def _forget(slots: WorkerState, attempts: tuple[AttemptRef, ...]) -> list[Instruction]:
    for ref in attempts:
        slots.held.pop(ref, None)
    return [Settled(attempts)] if attempts else []


def _starts(slots: WorkerState, attempts: list[AttemptRef]) -> list[Instruction]:
    return [Say(m.StartedAttempts(tuple(attempts)))] if attempts and slots.outbox.is_open else []


def _last_of(slots: WorkerState, message: m.Assign, left: int) -> tuple[m.Assign, list[Instruction]]:
    """Take no more attempts than are left to the worker; with the last one it wants nothing more."""
    taken, surplus = message.attempts[:left], message.attempts[left:]
    slots.tasks_left = left - len(taken)
    done: list[Instruction] = []
    if not slots.tasks_left and not slots.is_leaving:
        slots.is_leaving = slots.is_draining = True
        done.append(Say(m.Draining()))
    done += slots.recalled(tuple(item.attempt for item in surplus))
    return replace(message, attempts=taken), done
