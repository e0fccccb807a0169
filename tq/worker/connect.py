"""The connection loop of a worker: dial the server, hold a session, and come again, until the worker's life is over.

Where the server is, is looked for anew before each dial (discovery.py): it may have come back at another port.

Waits a random time between attempts (full jitter), which grows to a bound that is short while attempts are held: the
server owes a worker that it knew a minute (semantics.md, Delivery 5). Ends the worker when the server refuses it for
good: a token that is not valid, a role that may not work, no protocol version in common; unless it has moved meanwhile.
"""

import math
import random
from typing import Final

import trio

from tq import __version__, limits
from tq.errors import ConfigurationError, NotAllowed, TqError, Unauthorised, Unreachable, VersionMismatch
from tq.net.dial import dial
from tq.net.link import open_link
from tq.net.log import log
from tq.net.secure import SecureStream
from tq.wire import messages as m
from tq.wire.connection import Connection
from tq.worker.context import WorkerContext
from tq.worker.discovery import Discovery
from tq.worker.session import OtherLineage, Session

_PAUSE_S_MIN: Final = 0.2
_DOUBLINGS_MAX: Final = 16
_SAY_AGAIN_S: Final = 60  # after so long the same cause is logged again; another one at once
_CAUSES_MAX: Final = 16  # that are remembered as said
_FOR_GOOD: Final = (Unauthorised, NotAllowed, VersionMismatch, ConfigurationError)


class Connecting:
    """The loop, and what it remembers from one connection to the next."""

    def __init__(self, life: WorkerContext, whereabouts: Discovery) -> None:
        self._life = life
        self._where = whereabouts
        self._was_reconciled = False
        self._tries = 0  # since the last session that was any good
        self._said: dict[str, float] = {}  # what kept it from a session -> when that was last said

    async def run(self) -> None:
        """Hold one session after the other."""
        life = self._life
        while not life.is_over:
            self._tries += 1
            self._where.look()
            try:
                await self._one_session()
            except OtherLineage as other:
                await self._change_lineage(other.welcome)
                continue
            except _FOR_GOOD as error:
                if not self._where.look():  # what was refused is what there is
                    life.end(error)
            except TqError as error:
                self._say(error)
            await trio.sleep(pause_s(self._tries, is_holding=bool(life.slots.held)))

    async def _one_session(self) -> None:
        life = self._life
        async with open_link(await self._dial(), Connection()) as link:
            session = Session(life.hands, link, self._reconciled)
            rest = await session.begin(self._hello())
            session.check(life.hands.lineage, life.epoch)
            why = await session.run(rest)
        if not life.is_over:
            log(
                "disconnected", level="warning", url=self._where.server.address, why=why, held=len(life.slots.held),
                output_dropped_bytes=life.hands.output.dropped_bytes,
            )  # fmt: skip

    async def _dial(self) -> SecureStream:
        """Return a connection to the server that is verified.

        Another certificate than the right one ends a worker that has never worked; later it may be anybody who listens
        there for a while.
        """
        try:
            return await dial(self._where.server.address, await self._where.tls(self._life.settings.state))
        except Unauthorised as error:
            if self._was_reconciled:
                raise Unreachable(error.message, hint=error.hint) from error
            raise

    def _hello(self) -> m.Hello:
        life = self._life
        return m.Hello(
            m.VERSIONS, __version__, self._where.server.token, "worker", life.id, life.predecessors,
            life.hands.lineage, life.epoch,
        )  # fmt: skip

    def _reconciled(self, welcome: m.Welcome) -> None:
        """Note that both sides agree: from here on, this worker is the one that lived in this directory."""
        life = self._life
        self._was_reconciled = True
        self._tries = 0
        self._said.clear()
        life.settle_down(welcome.lineage, welcome.epoch)
        log(
            "connected", url=self._where.server.address, worker=life.name, session=welcome.session,
            lineage=f"{welcome.lineage:016x}", epoch=welcome.epoch, held=len(life.slots.held),
        )  # fmt: skip

    async def _change_lineage(self, welcome: m.Welcome) -> None:
        """Stop everything that the other store gave, keep its results aside, and only then serve the new one."""
        life, hands, slots = self._life, self._life.hands, self._life.slots
        level = "error" if slots.held else "info"  # who has nothing of the other store loses nothing
        log(
            "other_lineage", level=level, url=self._where.server.address, known=f"{hands.lineage:016x}",
            found=f"{welcome.lineage:016x}", held=len(slots.held),
        )  # fmt: skip
        hands.carry_out(slots.abandon())
        with trio.move_on_after(limits.kill_after_ms / 1_000 + limits.heartbeat_s):
            await hands.until(lambda: not slots.is_abandoned)
        if slots.is_abandoned and hands.launcher is not None:
            hands.launcher.kill()
        await hands.until(lambda: not slots.is_abandoned)
        life.change_lineage(welcome.lineage, welcome.epoch)

    def _say(self, error: TqError) -> None:
        """Log why there is no session, and that it goes on trying: the same cause at most once a minute."""
        cause, now_s = f"{self._where.server.address} {error}", trio.current_time()
        if now_s - self._said.get(cause, -math.inf) < _SAY_AGAIN_S:
            return
        if len(self._said) >= _CAUSES_MAX:  # the reasons of a peer may differ each time
            self._said.clear()
        self._said[cause] = now_s
        log(
            "cannot_connect", level="warning", url=self._where.server.address, error=error, hint=error.hint,
            tries=self._tries, next="tries again until it succeeds",
        )  # fmt: skip


def pause_s(tries: int, *, is_holding: bool) -> float:
    """Return how long to wait before attempt `tries` + 1: a random time below a bound that grows."""
    longest_s = limits.reconnect_holding_s_max if is_holding else limits.reconnect_s_max
    return random.uniform(0, min(longest_s, _PAUSE_S_MIN * 2 ** min(tries, _DOUBLINGS_MAX)))
