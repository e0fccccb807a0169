"""Effects find the connection that they are for, or nobody."""

from typing import Any

from tq.core import vocabulary as v
from tq.server.sessions.registry import Registry


class Peer:
    def __init__(self) -> None:
        self.closed: list[str] = []
        self.effects: list[v.Effect] = []
        self.pushed: list[int] = []  # how many effects there were

    def close(self, reason: str) -> None:
        self.closed.append(reason)

    def carry_out(self, effect: v.Effect) -> None:
        self.effects.append(effect)

    def push(self) -> None:
        self.pushed.append(len(self.effects))

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was not expected")


def test_a_newer_connection_of_a_worker_closes_the_older() -> None:
    registry, older, newer = Registry(), Peer(), Peer()
    registry.worker_enters(7, older)
    registry.worker_enters(7, newer)
    registry.worker_leaves(7, older)
    registry.release([v.Acknowledge(7, 1, 1), v.Acknowledge(8, 1, 1)])

    assert older.closed
    assert older.effects == []
    assert newer.effects == [v.Acknowledge(7, 1, 1)]
    assert registry.worker(7) is newer


def test_what_a_turn_starts_on_a_worker_leaves_at_once_and_together() -> None:
    registry, busy, other = Registry(), Peer(), Peer()
    registry.worker_enters(7, busy)
    registry.worker_enters(8, other)
    start = v.Start(7, 1, 1, 1, False, "default", "", b"body", 0, ())
    registry.release([start, v.Acknowledge(8, 1, 1), start, v.Acknowledge(7, 1, 1)])

    assert busy.pushed == [3]
    assert other.pushed == []
    assert len(other.effects) == 1


def test_a_revoked_token_cuts_its_connections_and_no_others() -> None:
    registry, mine, other = Registry(), Peer(), Peer()
    registry.enter(mine, "a")
    registry.enter(other, "b")
    registry.release([v.TokenRevoked("a"), v.TokenRevoked("unknown")])

    assert mine.closed
    assert not other.closed


def test_an_expired_token_cuts_its_connections_and_no_others() -> None:
    registry, mine, early, other = Registry(), Peer(), Peer(), Peer()
    registry.enter(early, "a", 900)
    registry.enter(mine, "b", 1_000)
    registry.enter(other, "c")
    registry.leave(early, "a")
    registry.expire(999)
    assert not mine.closed
    registry.expire(1_000)

    assert mine.closed
    assert not early.closed
    assert not other.closed


def test_changes_reach_waits_and_followers() -> None:
    registry, woken = Registry(), []
    registry.follow.on_change(3, lambda: woken.append(3))
    registry.release([v.TaskChanged(3, 0), v.TaskChanged(4, 0), v.Supersede(7, 1)])

    assert woken == [3]


def test_who_has_left_is_forgotten() -> None:
    registry, peer = Registry(), Peer()
    registry.enter(peer, "a")
    registry.worker_enters(7, peer)
    registry.leave(peer, "a")
    registry.worker_leaves(7, peer)

    assert registry.peers == ()
    assert registry.workers == ()
    assert registry.next_session() < registry.next_session()
