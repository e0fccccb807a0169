"""The background loops of a server beside the commit loop: one noun each, all children of the nursery in serve.py.

Beats: a sign of life to every peer. The lease clock: counts beats that workers miss, and tells the core who is lost.
Deliveries: closes connections of workers that do not acknowledge. Tokens: closes those of tokens that have expired. The
disk: watches the room that is left. The janitor: forgets what ended long ago.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import trio

from tq.core.model import ids
from tq.core.vocabulary import Acted, Answer, Retain
from tq.errors import Refused, StoreError
from tq.net.log import log
from tq.server.commit.intake import Request
from tq.server.sessions.session_context import SessionContext
from tq.store.directory import Room, room

_CHECK_DELIVERIES_S: Final = 1.0
_CHECK_TOKENS_S: Final = 1.0
_CHECK_DISK_S: Final = 1.0
_READERS_TURNS: Final = 10
_JANITOR_S: Final = 60.0
_JANITOR_PAUSE_S: Final = 0.05  # between two slices: others come first


class Disk(Protocol):
    """A store that is on a disk."""

    def free_bytes(self) -> int:
        """Return the room left. Raises StoreError if the store is not in its place any more."""
        ...


async def beats_loop(context: SessionContext) -> None:
    """Send everybody a sign of life, once a beat."""
    while True:
        await trio.sleep(context.beat_ms / 1_000)
        for peer in context.registry.peers:
            peer.beat()


async def lease_clock_loop(context: SessionContext) -> None:
    """Tick once a beat. A tick first lets the readers take what lies in the sockets; a late one counts as none.

    Who is not read because the commit loop has not taken enough (a slow disk) is not silent. After a tick that was late
    the next one is no sooner than any other: what was heard meanwhile is worth all of its beats (ADR 15).
    """
    inlet = context.intake.inlet()
    beat_s = context.lease_clock.beat_s
    while True:
        due_s = trio.current_time() + beat_s
        await trio.sleep_until(due_s)
        late_s = trio.current_time() - due_s
        context.idle_polling.gather()
        for _ in range(_READERS_TURNS):
            await trio.lowlevel.checkpoint()
        if late_s > beat_s:
            log("tick_late", level="warning", late_s=late_s)
        for session in context.registry.workers:
            if session.is_held_up:
                session.heard()
        losses = context.lease_clock.tick(late_s)
        for worker in context.lease_clock.fallen_silent():
            suspect = context.registry.worker(worker)
            if suspect is not None:  # who has no connection has said so
                suspect.say_silent(on=True)
        for lost in losses:
            known = context.engine.live.workers.get(lost.worker)
            host = known.capacity.host if known is not None else ""  # after a restart nobody has said it yet
            log("worker_lost", level="warning", worker=ids.worker_id(lost.worker), host=host, session=lost.session)
            inlet.put([Request(lost)])
            loser = context.registry.worker(lost.worker)
            if loser is not None:
                loser.close_session(lost.session, "nothing was heard of the worker for too long")


async def deliveries_loop(context: SessionContext) -> None:
    """Close the connections of workers that have not acknowledged in time what they were sent."""
    while True:
        await trio.sleep(_CHECK_DELIVERIES_S)
        now_s = trio.current_time()
        for session in context.registry.workers:
            if not session.rest.is_on:
                session.check_deliveries(now_s)


async def tokens_loop(context: SessionContext) -> None:
    """Close the connections of tokens that have expired: who has one in time would else keep it for ever."""
    while True:
        await trio.sleep(_CHECK_TOKENS_S)
        context.registry.expire(context.times().wall_ms)


async def janitor_loop(ask: Callable[[Request], Awaitable[Answer]], keep_ms: int) -> None:
    """Forget, once a minute, what ended longer than `keep_ms` ago: slice by slice, with room for others between."""
    while True:
        forgotten = 0
        while True:
            try:
                answer = await ask(Request(Retain(keep_ms), "server"))
            except Refused:  # the server stops, or has failed at it and logged that: no reason to end by this
                break
            if not isinstance(answer, Acted):
                raise TypeError("retention answers how many it forgot")
            forgotten += answer.done
            if not answer.sweeping:
                break
            await trio.sleep(_JANITOR_PAUSE_S)
        if forgotten:
            log("jobs_forgotten", jobs=forgotten, kept_s=keep_ms // 1_000)
        await trio.sleep(_JANITOR_S)


async def disk_loop(context: SessionContext, disk: Disk) -> None:
    """Watch the room on the disk: LOW takes no new work, CRITICAL leases nothing; reports and reads always go on."""
    while True:
        try:
            left_bytes = disk.free_bytes()
        except OSError as error:
            context.pipeline.fail(StoreError(f"the disk does not say how much room is left: {error.strerror or error}"))
            return
        now = room(left_bytes)
        if now is not context.gate.room:
            level = "info" if now is Room.NORMAL else "warning"
            log("disk_room", level=level, room=now.value, free_bytes=left_bytes)
            context.gate.room = now
            context.pipeline.may_lease = now is not Room.CRITICAL
            context.pipeline.dispatch_again()
        await trio.sleep(_CHECK_DISK_S)
