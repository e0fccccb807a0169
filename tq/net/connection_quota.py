"""Seats for connections: how many there may be, in all, unauthenticated, and from one address.

The listener takes a seat for each connection that it accepts, and waits while none is free.
"""

import ipaddress
from collections import Counter
from typing import Final, NamedTuple

import trio

from tq import limits
from tq.limits import strikes_addresses_max
from tq.store import process_limits

_FIRST_S: Final = 0.1
_LONGEST_S: Final = 3.0
_FORGOTTEN_S: Final = 60.0
_DOUBLINGS_MAX: Final = 16


class AuthFailures:
    """Wrong tokens by address, those that struck last last: who comes with one waits before the next one is looked at.

    A token has 256 bits, so nobody guesses one; this keeps them from trying at the rate of the line, and the log from
    being filled by it. The pause doubles with each wrong token of an address up to a few seconds, since others may
    share it, and is forgotten after a quiet minute. Loopback never waits. Pure: the time comes in.
    """

    def __init__(self) -> None:
        self._struck: dict[str, tuple[int, float]] = {}  # how often, and when last

    def add(self, origin: str, now_s: float) -> None:
        """Note a wrong token. An empty origin is loopback."""
        if origin:
            count = self._count(origin, now_s)
            self._struck.pop(origin, None)
            self._struck[origin] = (count + 1, now_s)
            if len(self._struck) > strikes_addresses_max:
                del self._struck[next(iter(self._struck))]

    def pause_s(self, origin: str, now_s: float) -> float:
        """Return how long to wait before a token of this address is looked at."""
        count = self._count(origin, now_s)
        return min(_LONGEST_S, _FIRST_S * 2 ** min(count - 1, _DOUBLINGS_MAX)) if count else 0.0

    def _count(self, origin: str, now_s: float) -> int:
        count, last_s = self._struck.get(origin, (0, now_s))
        return count if now_s - last_s < _FORGOTTEN_S else 0


class SeatBounds(NamedTuple):
    """What the listener allows; defaults of limits.py."""

    connections_max: int = limits.connections_max
    unauthenticated_max: int = limits.unauthenticated_max
    unauthenticated_by_address_max: int = limits.unauthenticated_by_address_max
    handshake_s: float = limits.handshake_s
    hello_s: float = limits.hello_s
    yield_seat_s: float = 1.0  # an unauthenticated connection of this age gives up its seat when all are taken

    @property
    def share_max(self) -> int:
        """How many of all connections one token may have: the rest is for others, who may have to revoke it."""
        return self.connections_max - self.connections_max // 8


class Seat:
    """The seat of one connection among those allowed."""

    def __init__(self, origin: str, since: float, deadline: float) -> None:
        self.origin = origin
        self.since = since
        self.scope = trio.CancelScope(deadline=deadline)
        self.why = "no TLS handshake in time"  # what to say if the scope is cancelled

    def extend(self, why: str, seconds: float) -> None:
        """Go on to the next step, which has this long, and this to say when it takes longer."""
        if not self.scope.cancel_called:
            self.why = why
            self.scope.deadline = trio.current_time() + seconds


class ConnectionQuota:
    """Counts connections: all of them, and the unauthenticated ones, oldest first, in all and by address."""

    def __init__(self, bounds: SeatBounds) -> None:
        self.bounds = bounds
        self.failures = AuthFailures()
        self.taken = 0
        self._unauthenticated: dict[Seat, None] = {}
        self._by_address: Counter[str] = Counter()
        self._change = trio.Event()

    @property
    def _is_free(self) -> bool:
        bounds = self.bounds
        return self.taken < bounds.connections_max and len(self._unauthenticated) < bounds.unauthenticated_max

    async def wait_free(self) -> None:
        """Wait until another connection may be accepted."""
        while True:
            if self._is_free:
                return
            wait_s = float("inf")
            if oldest := next(iter(self._unauthenticated), None):
                wait_s = oldest.since + self.bounds.yield_seat_s - trio.current_time()
                if wait_s <= 0:
                    oldest.why = "gave up its seat to somebody else, without a hello so far"
                    oldest.scope.cancel()
                    wait_s = float("inf")
            with trio.move_on_after(wait_s):
                await self._change.wait()

    def take(self, host: str) -> Seat | None:
        """Return a seat for an unauthenticated connection; None if its address has too many."""
        origin = origin_of(host)
        if origin and self._by_address[origin] >= self.bounds.unauthenticated_by_address_max:
            return None
        now = trio.current_time()
        seat = Seat(origin, now, now + self.bounds.handshake_s)
        self.taken += 1
        self._unauthenticated[seat] = None
        self._by_address[origin] += 1
        return seat

    def admit(self, seat: Seat) -> None:
        """Count the connection as authenticated from now on. Twice is once."""
        if seat not in self._unauthenticated:
            return
        seat.scope.deadline = float("inf")
        del self._unauthenticated[seat]
        self._by_address[seat.origin] -= 1
        if not self._by_address[seat.origin]:
            del self._by_address[seat.origin]
        self._changed()

    def leave(self, seat: Seat) -> None:
        """Give the seat back."""
        self.admit(seat)
        self.taken -= 1
        self._changed()

    def _changed(self) -> None:
        self._change.set()
        self._change = trio.Event()


def within_open_files(bounds: SeatBounds) -> SeatBounds:
    """Return the bounds with no more connections than this process may have open, beside what its store needs."""
    possible = process_limits.share(process_limits.allowed()).connections
    return bounds._replace(connections_max=min(possible, bounds.connections_max))


def origin_of(host: str) -> str:
    """Return what counts as one address: an IPv4 address, an IPv6 network of 64 bits (one subscriber has no less).

    Empty for loopback, and for whoever has gone already: they count in all only.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return "" if address.is_loopback else str(ipaddress.ip_network((address.packed, 64), strict=False))
        address = address.ipv4_mapped
    return "" if address.is_loopback else str(address)
