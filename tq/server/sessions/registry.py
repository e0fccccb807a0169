"""Who is connected, and how effects find them. No business logic: it only looks up and passes on.

Effects come here once the commit that decided them is on disk. A session that is gone gets nothing: what must not get
lost is found again when its worker reconciles.
"""

from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Sequence
from typing import Final, Protocol

from tq import limits
from tq.core import vocabulary as v
from tq.net.idle_polling import IdlePolling
from tq.net.link import Link
from tq.server.commit.intake import Inlet, Request
from tq.server.sessions.admission import Quota
from tq.server.sessions.follow import Follow
from tq.server.sessions.watch import Watch

_IDLE_BEATS: Final = 2


class Rest:
    """Whether a worker rests: with nothing to do from one beat to the next it is read together with others (ADR 25).

    Decides only how the worker's link is read; sends nothing, and knows no attempts.
    """

    __slots__ = ("_idle_beats", "_idle_polling", "_link", "is_on")

    def __init__(self, link: Link, idle_polling: IdlePolling) -> None:
        self.is_on = False
        self._link = link
        self._idle_polling = idle_polling
        self._idle_beats = 0  # in a row

    def beat(self, *, is_idle: bool) -> None:
        """Count a beat of the worker, which has nothing to do or has."""
        self._idle_beats = self._idle_beats + 1 if is_idle else 0
        if self._idle_beats >= _IDLE_BEATS and not self.is_on:
            self.is_on = True
            self._link.rest(self._idle_polling)

    def end(self) -> None:
        """Read the worker by itself: it has something to do, or to say."""
        self._idle_beats = 0
        if self.is_on:
            self.is_on = False
            self._link.rest(None)


owners_max: Final = 2 * limits.connections_max


class Peer(Protocol):
    """An authenticated connection."""

    def beat(self) -> None:
        """Send a sign of life."""
        ...

    def close(self, reason: str) -> None:
        """Say goodbye and close."""
        ...


class WorkerSession(Peer, Protocol):
    """The connection of a worker."""

    stuck: int  # attempts that it cannot kill
    is_held_up: bool  # by the commit loop: nothing is read of the worker meanwhile
    rest: Rest  # while it lasts, nothing is on its way to the worker

    def follow_output(self, attempt: v.AttemptRef, *, on: bool) -> None:
        """Ask for the output of an attempt as it comes, or no longer."""
        ...

    def check_deliveries(self, now_s: float) -> None:
        """Close if something that was sent is not acknowledged in time."""
        ...

    def close_session(self, session: int, reason: str) -> None:
        """Close if this is still its session's number."""
        ...

    def heard(self) -> None:
        """Count a sign of life of the worker."""
        ...

    def say_silent(self, *, on: bool) -> None:
        """Tell the core that nothing is heard of the worker, or something again."""
        ...

    def carry_out(self, effect: v.Effect) -> None:
        """Do what the core decided for this worker."""
        ...

    def push(self) -> None:
        """Let what it was told leave at once."""
        ...


class Registry:
    """All authenticated connections of one server."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.follow = Follow()
        self.streams = Quota("streams", limits.streams_of_token_max, limits.streams_all_max, "end some, or ask later")
        self.connections: Counter[str] = Counter()  # by role of the token
        self.output_dropped = 0  # slots of attempts that their sender did not hold
        self.effects_failed = 0  # that a session could not carry out
        self.owners: dict[int, str] = {}  # worker -> the token that brought it
        self._workers: dict[int, WorkerSession] = {}
        self._by_token: defaultdict[str, dict[Peer, None]] = defaultdict(dict)  # in order of arrival
        self._expires_ms: dict[str, int] = {}  # of connected tokens, those that expire at all
        self._last_session = 0

    def next_session(self) -> int:
        """Return a session number: they only grow in one life of the server."""
        self._last_session += 1
        return self._last_session

    def enter(self, peer: Peer, token: str, expires_ms: int = 0) -> None:
        """Add a connection of a token, which expires then (wall time; 0 = never)."""
        self._by_token[token][peer] = None
        if expires_ms:
            self._expires_ms[token] = expires_ms

    def leave(self, peer: Peer, token: str) -> None:
        """Remove it."""
        self._by_token[token].pop(peer, None)
        if not self._by_token[token]:
            del self._by_token[token]
            self._expires_ms.pop(token, None)

    def count(self, token: str) -> int:
        """Return how many connections a token has."""
        return len(self._by_token.get(token, ()))

    def expire(self, wall_ms: int) -> None:
        """Close the connections of the tokens that have expired by now."""
        for token, expires_ms in self._expires_ms.items():
            if expires_ms <= wall_ms:
                self._close_all_of(token, "its token has expired")

    def _close_all_of(self, token: str, reason: str) -> None:
        for peer in tuple(self._by_token.get(token, ())):
            peer.close(reason)

    def owns(self, worker: int, token: str, known: Container[int]) -> None:
        """Note whose a worker's id is. Beyond a bound those are forgotten that hold nothing and are not connected."""
        self.owners[worker] = token
        if len(self.owners) > owners_max:
            self.owners = {one: owner for one, owner in self.owners.items() if one in known or one in self._workers}

    def worker_enters(self, worker: int, session: WorkerSession) -> None:
        """Make this the connection of a worker; an older one is closed."""
        older = self._workers.get(worker)
        self._workers[worker] = session
        if older is not None:
            older.close("superseded by a newer connection of this worker")

    def worker_leaves(self, worker: int, session: WorkerSession) -> None:
        """Forget the connection, if it is still the worker's own."""
        if self._workers.get(worker) is session:
            del self._workers[worker]

    def worker(self, worker: int) -> WorkerSession | None:
        """Return the connection of a worker."""
        return self._workers.get(worker)

    @property
    def workers(self) -> tuple[WorkerSession, ...]:
        """The connections of all workers."""
        return tuple(self._workers.values())

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Everybody."""
        return tuple(peer for peers in self._by_token.values() for peer in peers)

    def close_all(self, reason: str) -> None:
        """Say goodbye to everybody."""
        for peer in self.peers:
            peer.close(reason)

    def rereads(self, effects: Sequence[v.Effect]) -> Iterator[tuple[Inlet, Request]]:
        """Yield what those read again who wait for what these effects have changed, and for whom."""
        for effect in effects:
            if isinstance(effect, v.TaskChanged):
                yield from self.watch.changed(effect.job)

    def release(self, effects: Sequence[v.Effect]) -> None:
        """Carry out the effects of a turn that is on disk, in order. No session raises anything here."""
        starting: dict[WorkerSession, None] = {}  # all that one turn starts there leaves in one frame, and at once
        for effect in effects:
            if isinstance(effect, v.TaskChanged):
                self.follow.changed(effect.job)
            elif isinstance(effect, v.TokenRevoked):
                self._close_all_of(effect.id, "its token was revoked")
            elif (session := self._workers.get(effect.worker)) is not None:
                if isinstance(effect, v.Supersede):  # by a newer one of its own, it is closed already: worker_enters
                    session.close_session(
                        effect.session, "a worker was started on its state directory, or on a copy of it"
                    )
                    continue
                session.carry_out(effect)
                if isinstance(effect, v.Start):
                    starting[session] = None
        for session in starting:
            session.push()
