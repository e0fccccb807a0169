"""Between messages and the core's vocabulary: what a worker's session remembers, without trio, sockets or clocks.

`WorkerPeer` turns a worker's messages into commands and the core's effects into messages, numbers deliveries, keeps
the set that beats are compared with (wire/held.py), and knows which deliveries are overdue. The session
(worker_session.py) and the simulator both drive it. Identity comes from the connection: a command gets the peer's
worker and session, whatever the message says.
"""

from collections.abc import Callable, Sequence
from typing import Final

from tq import __version__, errors, limits
from tq.core import vocabulary as v
from tq.core.model.task import Phase
from tq.errors import ProtocolError
from tq.server.sessions.admission import check_attempts, check_capacity, check_ends
from tq.wire import messages as m
from tq.wire.connection import divided
from tq.wire.held import HeldSet

listed_max: Final = 2 * (limits.slots_max + limits.prefetch_max)
mismatches_max: Final = 2
_SOFTWARE_CHARS: Final = 40  # of a name that anybody may have sent


class _Delivery:
    """Attempts that were sent and are not acknowledged, and until when they must be."""

    __slots__ = ("attempts", "due_s", "lane", "width")

    def __init__(self, start: v.Start, due_s: float) -> None:
        self.attempts = tuple(assignment.attempt for assignment in start.attempts)
        self.lane = start.lane
        self.width = start.width
        self.due_s = due_s


class WorkerPeer:
    """One worker on one connection. `number` gives the next session number of this life of the server."""

    def __init__(self, worker: int, predecessors: tuple[int, ...], number: Callable[[], int]) -> None:
        self.worker = worker
        self.session = number()
        self.is_joined = False
        self.beats_wrong = 0
        self._predecessors = predecessors[: limits.predecessors_max]
        self._number = number
        self._list: list[v.Held] = []  # of a Reconcile that is not complete
        self._held = HeldSet()
        self._owed: set[v.AttemptRef] = set()  # listed as ended: their output, then their report comes again
        self._deliveries: dict[int, _Delivery] = {}  # in order
        self._last_delivery = 0
        self._is_asked_again = False

    # ------------------------------------------------------------ from the worker

    def receive(self, message: m.Message) -> v.WorkerCommand | None:
        """Return the command that a message of the worker stands for, if any. Raises ProtocolError."""
        if isinstance(message, m.Reconcile):
            return self._reconcile(message)
        if not self.is_joined:
            raise ProtocolError(f"{type(message).__name__} came before the list of what the worker holds")
        match message:
            case m.StartedAttempts():
                check_attempts(message.attempts)
                return v.Started(self.worker, self.session, message.attempts)
            case m.Ended():
                check_ends(message.ends)
                self._held.difference_update(end.attempt for end in message.ends)
                self._owed.difference_update(end.attempt for end in message.ends)
                return v.Report(self.worker, self.session, message.delivery, message.ends)
            case m.HandedBack():
                check_attempts(message.attempts)
                self._held.difference_update(message.attempts)
                return v.Handback(
                    self.worker, self.session, message.delivery, message.attempts, message.cause, message.error
                )
            case m.Draining():
                return v.WorkerDrains(self.worker, self.session)
            case m.Assigned():
                self._acknowledge(message.delivery)
                return None
        raise ProtocolError(f"a worker may not send {type(message).__name__}")

    def beat(self, beat: m.Beat) -> list[m.Message]:
        """Compare what the worker says it holds with what it should; ask for the list at the second mismatch."""
        if not self.is_joined or self._is_asked_again:
            return []
        if (beat.count, beat.digest) == self._held.tally:
            self.beats_wrong = 0
            return []
        self.beats_wrong += 1
        if self.beats_wrong < mismatches_max:
            return []
        self.beats_wrong = 0
        self._is_asked_again = True
        return [m.ReconcileAgain()]

    @property
    def is_idle(self) -> bool:
        """Whether both sides agree that the worker holds nothing, and nothing is on its way to it."""
        return self.is_joined and not (self._is_asked_again or self._deliveries or self._owed or self._held.tally[0])

    def knows(self, ref: v.AttemptRef) -> bool:
        """Whether this very attempt was given to the worker and has not been reported: its output may be stored."""
        if ref in self._held or ref in self._owed:
            return True
        return any(ref in delivery.attempts for delivery in self._deliveries.values())

    def _reconcile(self, message: m.Reconcile) -> v.Join | None:
        if self.is_joined and not self._is_asked_again:
            raise ProtocolError("a list of what the worker holds came unasked")
        check_capacity(message.capacity)
        check_attempts(one.attempt for one in message.held)
        self._list += message.held
        if len(self._list) > listed_max:
            raise ProtocolError(f"a worker that holds more than {listed_max} attempts")
        if message.more:
            return None
        widths = dict(message.widths)
        if self._is_asked_again:
            self._renumber(widths)
        held, self._list = tuple(self._list), []
        self._held = HeldSet(one.attempt for one in held if one.phase != Phase.ENDED)
        self._owed = {one.attempt for one in held if one.phase == Phase.ENDED}
        self.is_joined = True
        return v.Join(
            self.worker,
            self.session,
            message.capacity,
            held,
            self._predecessors,
            message.draining,
            tuple(widths.items()),
        )

    def _renumber(self, widths: dict[int, int]) -> None:
        """Begin a session anew on the same connection: effects that were decided for the old number are void.

        So an assignment that the core has decided and nobody has sent yet goes back to the queue, exactly as after a
        reconnect. What was sent and is not acknowledged is on its way: it counts as held, with the latest widths.
        """
        self._is_asked_again = False
        self.session = self._number()
        listed = {one.attempt for one in self._list}
        for delivery in self._deliveries.values():
            self._list += [v.Held(ref, Phase.ASSIGNED) for ref in delivery.attempts if ref not in listed]
            widths[delivery.lane] = delivery.width

    def _acknowledge(self, number: int) -> None:
        delivery = self._deliveries.pop(number, None)
        if delivery is None:
            raise ProtocolError(f"an acknowledgement of delivery {number}, which is not open")
        self._held.update(delivery.attempts)

    # ------------------------------------------------------------ to the worker

    def joined(self, answer: v.Joined) -> list[m.Message]:
        """Return the complete answer to the worker's list."""
        self._held.difference_update(answer.settled)
        return [m.Reconciled(answer.stop, answer.settled)]

    def carry_out(self, effect: v.Effect, now_s: float) -> list[m.Message]:
        """Return the messages of an effect that is meant for this worker's current session; none for others."""
        if getattr(effect, "session", None) != self.session or getattr(effect, "worker", None) != self.worker:
            return []
        match effect:
            case v.Start():
                return [self._assign(effect, now_s)]
            case v.Stop():
                return divided(m.StopAttempts(effect.attempts, effect.cause, effect.signal))
            case v.Recall():
                return divided(m.RecallAttempts(effect.attempts))
            case v.Acknowledge():
                return [m.Acknowledged(effect.delivery)]
            case v.DrainAsked():
                return [m.DrainWorker(effect.on, effect.deadline_ms)]
        return []

    def is_overdue(self, now_s: float) -> bool:
        """Whether a delivery has not been acknowledged in time, so that the connection must go."""
        for delivery in self._deliveries.values():
            return delivery.due_s <= now_s  # the oldest one
        return False

    @property
    def held(self) -> tuple[v.AttemptRef, ...]:
        """What the worker holds, in the sense of wire/held.py, in a fixed order."""
        return tuple(sorted(self._held, key=_order))

    def _assign(self, start: v.Start, now_s: float) -> m.Assign:
        self._last_delivery += 1
        self._deliveries[self._last_delivery] = _Delivery(start, now_s + limits.delivery_s_max)
        return m.Assign(
            self._last_delivery,
            start.lane,
            start.width,
            start.is_array,
            start.queue,
            start.trace,
            start.body,
            start.stdin,
            start.attempts,
        )


def _order(ref: v.AttemptRef) -> tuple[int, ...]:
    return (*ref.task, ref.attempt)


def reply(request: int, answer: v.Answer | errors.TqError, *, more: bool = False) -> m.Message:
    """Return the message that answers a client's request."""
    if isinstance(answer, errors.TqError):
        return m.Failed(request, answer.code, answer.message, answer.hint)
    return m.Reply(request, answer, more)


def agree(versions: tuple[int, int], software: str) -> int:
    """Return the newest protocol version that both ends speak, or raise VersionMismatch that names both programs."""
    newest = min(versions[1], m.VERSIONS[1])
    if newest < max(versions[0], m.VERSIONS[0]):
        raise errors.VersionMismatch(
            f"this server, tq {__version__}, speaks protocol {_range(m.VERSIONS)}, "
            f"the other end, {software[:_SOFTWARE_CHARS]!r}, {_range(versions)}",
            hint="upgrade the older of the two",
        )
    return newest


def check_required(required: Sequence[str]) -> None:
    """Raise VersionMismatch if the peer needs a feature that this server does not have: there is none yet."""
    if required:
        shown = ", ".join(name[:40] for name in required[:5])
        raise errors.VersionMismatch(f"this server does not know: {shown}", hint="upgrade the server")


def _range(versions: tuple[int, int]) -> str:
    return str(versions[0]) if versions[0] == versions[1] else f"{versions[0]} to {versions[1]}"
