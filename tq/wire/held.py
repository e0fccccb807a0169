"""Count and digest of the attempts that a worker holds: what its beats carry, and the server compares.

What counts is defined in the order of the worker's own stream, so that both ends agree exactly however much is in
flight. An attempt counts

    from   the sending of the `Assigned` that acknowledges its delivery, or of the `Reconcile` that lists it with a
           phase other than ENDED,
    until  the sending of the `Ended` or `HandedBack` that reports it, on this connection.

So a server's session keeps a set of its own: it adds at `Assigned` (the attempts of that delivery) and at `Reconcile`,
removes at `Ended` and `HandedBack` whatever the answer will be, and compares at `Beat`. Attempts on their way to the
worker are not in it, nor are reports on their way to the disk. (A list that answers `ReconcileAgain` does not have
what was assigned after the question either: deliveries that are not acknowledged are no loss.)

Pure: it must never read a clock or the network. The formula is in docs/protocol.md, for workers in other languages.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from tq.core.vocabulary import AttemptRef

_MASK: Final = (1 << 64) - 1
_DIGEST_MASK: Final = (1 << 63) - 1  # what the wire takes for an integer
_FINISH: Final = 0xFF51AFD7ED558CCD  # of murmur3's finaliser
# Odd constants, one a field: xxhash's primes.
_JOB: Final = 0x9E3779B185EBCA87
_PART: Final = 0xC2B2AE3D27D4EB4F
_MEMBER: Final = 0x165667B19E3779F9
_ATTEMPT: Final = 0x85EBCA77C2B2AE63
_LEASE: Final = 0x27D4EB2F165667C5


def mix(ref: AttemptRef) -> int:
    """Return 64 bits that stand for one attempt."""
    x = (ref.job * _JOB + ref.part * _PART + ref.member * _MEMBER + ref.attempt * _ATTEMPT + ref.lease * _LEASE) & _MASK
    x = ((x ^ (x >> 33)) * _FINISH) & _MASK
    return x ^ (x >> 33)


def tally(refs: Iterable[AttemptRef]) -> tuple[int, int]:
    """Return how many there are, and the sum of their `mix` modulo 2**63: the order plays no part."""
    count = digest = 0
    for ref in refs:
        count += 1
        digest += mix(ref)
    return count, digest & _DIGEST_MASK


class HeldSet:
    """Attempts with their tally kept: who beats often makes nobody count them again."""

    __slots__ = ("_digest", "_refs")

    def __init__(self, refs: Iterable[AttemptRef] = ()) -> None:
        self._refs: dict[AttemptRef, int] = {}  # with its `mix`, which costs as much as all else here
        self._digest = 0
        self.update(refs)

    def __contains__(self, ref: AttemptRef) -> bool:
        return ref in self._refs

    def __iter__(self) -> Iterator[AttemptRef]:
        return iter(self._refs)

    @property
    def tally(self) -> tuple[int, int]:
        """What `tally` returns for them."""
        return len(self._refs), self._digest

    def update(self, refs: Iterable[AttemptRef]) -> None:
        """Add these."""
        for ref in refs:
            if ref not in self._refs:
                mixed = self._refs[ref] = mix(ref)
                self._digest = (self._digest + mixed) & _DIGEST_MASK

    def difference_update(self, refs: Iterable[AttemptRef]) -> None:
        """Remove these, where they are."""
        for ref in refs:
            mixed = self._refs.pop(ref, None)
            if mixed is not None:
                self._digest = (self._digest - mixed) & _DIGEST_MASK
