"""What a worker has to tell the server until it is acknowledged: reports and handbacks, each under a number.

Numbers grow over the life of a state directory (what the spool still holds comes first), so that an acknowledgement
can never name another. While the server does not hear, they are kept on the disk too. Pure: no I/O, no time.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final

from msgspec.structs import replace

from tq.core.vocabulary import AttemptRef, End
from tq.limits import frame_bytes_max, members_per_command_max
from tq.wire.messages import Ended, HandedBack
from tq.worker.instructions import Aside, Delivery, Forget, Instruction, Keep, Say

_RESULT_BYTES_MAX: Final = frame_bytes_max // 2  # the rest is for what else an end carries, under 100 bytes each


class Outbox:
    """Reports and handbacks in the order in which they were made.

    `is_connected`: a session has begun. `is_open`: both sides know what is held, so that deliveries may be said.
    `unsaid`: attempts whose delivery was made in between; they count as held until it is said (wire/held.py).
    """

    def __init__(self, number_last: int = 0) -> None:
        """Begin empty; numbers up to `number_last` are taken."""
        self.is_connected = False
        self.is_open = False
        self.unsaid: set[AttemptRef] = set()
        self._deliveries: dict[int, Delivery] = {}
        self._kept: set[int] = set()  # the numbers of those that are on the disk
        self._last = number_last

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self._deliveries.values())

    def restore(self, deliveries: Iterable[Delivery]) -> None:
        """Take up what lies on the disk."""
        self._deliveries.update((message.delivery, message) for message in deliveries)
        self._kept.update(self._deliveries)
        self._last = max((self._last, *self._deliveries))

    def connect(self) -> None:
        """Begin a session; nothing may be said yet."""
        self.is_connected, self.is_open = True, False
        self.unsaid.clear()

    def open(self) -> list[Instruction]:
        """Say everything that is not acknowledged."""
        self.is_open = True
        self.unsaid.clear()
        return [Say(message) for message in self]

    def disconnect(self) -> list[Instruction]:
        """End the session: what is not acknowledged goes to the disk."""
        self.is_connected = self.is_open = False
        return self._keep()

    def report(self, ends: tuple[End, ...]) -> list[Instruction]:
        """Number a report, hold it until it is acknowledged, and say it as soon as that may be. Many make several."""
        done: list[Instruction] = []
        for part in _parts(ends):
            self._last += 1
            done += self._deliver(Ended(self._last, part))
        return done

    def hand_back(self, attempts: tuple[AttemptRef, ...], cause: int, error: str = "") -> list[Instruction]:
        """Number a handback, and treat it like a report."""
        done: list[Instruction] = []
        for first in range(0, len(attempts), members_per_command_max):
            self._last += 1
            part = attempts[first : first + members_per_command_max]
            done += self._deliver(HandedBack(self._last, part, cause, error))
        return done

    def acknowledged(self, number: int) -> tuple[tuple[AttemptRef, ...], list[Instruction]]:
        """Drop a delivery. Return its attempts (none when the number is not known), and what follows."""
        message = self._deliveries.pop(number, None)
        return (attempts_of(message) if message else ()), self._forget(number)

    def settle(self, attempts: AbstractSet[AttemptRef]) -> list[Instruction]:
        """Drop these attempts wherever they stand."""
        done: list[Instruction] = []
        for number, message in list(self._deliveries.items()):
            if attempts.isdisjoint(attempts_of(message)):
                continue
            rest = _without(message, attempts)
            if attempts_of(rest):
                self._deliveries[number] = rest
            else:
                del self._deliveries[number]
                done += self._forget(number)
        return done

    def abandon(self) -> list[Instruction]:
        """Drop everything. Results go aside."""
        self.is_connected = self.is_open = False
        done: list[Instruction] = []
        for number, message in self._deliveries.items():
            if isinstance(message, Ended):
                done.append(Aside(message.ends, number if number in self._kept else 0))
                self._kept.discard(number)
        self._deliveries.clear()
        return done + [gone for number in sorted(self._kept) for gone in self._forget(number)]

    def _deliver(self, message: Delivery) -> list[Instruction]:
        self._deliveries[message.delivery] = message
        if self.is_open:
            return [Say(message)]
        if self.is_connected:
            self.unsaid.update(attempts_of(message))
        return self._keep()

    def _keep(self) -> list[Instruction]:
        fresh = [message for message in self if message.delivery not in self._kept]
        self._kept.update(message.delivery for message in fresh)
        return [Keep(message) for message in fresh]

    def _forget(self, number: int) -> list[Instruction]:
        if number not in self._kept:
            return []
        self._kept.discard(number)
        return [Forget(number)]


def _parts(ends: tuple[End, ...]) -> list[tuple[End, ...]]:
    """Divide ends so that each part fits into a frame and into one command of the server."""
    parts: list[tuple[End, ...]] = []
    first = result_bytes = 0
    for at, end in enumerate(ends):
        size = len(end.result) + len(end.value)
        result_bytes += size
        if at > first and (result_bytes > _RESULT_BYTES_MAX or at - first == members_per_command_max):
            parts.append(ends[first:at])
            first, result_bytes = at, size
    return [*parts, ends[first:]] if parts else [ends]


def attempts_of(message: Delivery) -> tuple[AttemptRef, ...]:
    """Return the attempts that a report or a handback names."""
    return tuple([end.attempt for end in message.ends]) if isinstance(message, Ended) else message.attempts


def _without(message: Delivery, attempts: AbstractSet[AttemptRef]) -> Delivery:
    if isinstance(message, Ended):
        return replace(message, ends=tuple(end for end in message.ends if end.attempt not in attempts))
    return replace(message, attempts=tuple(ref for ref in message.attempts if ref not in attempts))
