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

    def __init__(self, context: WorkerContext, whereabouts: Discovery) -> None:
        self._context = context
        self._where = whereabouts
        self._was_reconciled = False
        self._tries = 0  # since the last session that was any good
        self._said: dict[str, float] = {}  # what kept it from a session -> when that was last said

    async def run(self) -> None:
        """Hold one session after the other."""
        context = self._context
        while not context.is_over:
            self._tries += 1
            self._where.look()
            try:
                await self._one_session()
            except OtherLineage as other:
                await self._change_lineage(other.welcome)
                continue
            except _FOR_GOOD as error:
                if not self._where.look():  # what was refused is what there is
                    context.end(error)
            except TqError as error:
                self._say(error)
            await trio.sleep(pause_s(self._tries, is_holding=bool(context.slots.held)))

    async def _one_session(self) -> None:
        context = self._context
        async with open_link(await self._dial(), Connection()) as link:
            session = Session(context.interpreter, link, self._reconciled)
            rest = await session.begin(self._hello())
            session.check(context.interpreter.lineage, context.epoch)
            why = await session.run(rest)
        if not context.is_over:
            log(
                "disconnected", level="warning", url=self._where.server.address, why=why, held=len(context.slots.held),
                output_dropped_bytes=context.interpreter.output.dropped_bytes,
            )  # fmt: skip

    async def _dial(self) -> SecureStream:
        """Return a connection to the server that is verified.

        Another certificate than the right one ends a worker that has never worked; later it may be anybody who listens
        there for a while.
        """
        try:
            return await dial(self._where.server.address, await self._where.tls(self._context.settings.state))
        except Unauthorised as error:
            if self._was_reconciled:
                raise Unreachable(error.message, hint=error.hint) from error
            raise

    def _hello(self) -> m.Hello:
        context = self._context
        return m.Hello(
            m.VERSIONS, __version__, self._where.server.token, "worker", context.id, context.predecessors,
            context.interpreter.lineage, context.epoch,
        )  # fmt: skip

    def _reconciled(self, welcome: m.Welcome) -> None:
        """Note that both sides agree: from here on, this worker is the one that lived in this directory."""
        context = self._context
        self._was_reconciled = True
        self._tries = 0
        self._said.clear()
        context.settle_down(welcome.lineage, welcome.epoch)
        log(
            "connected", url=self._where.server.address, worker=context.name, session=welcome.session,
            lineage=f"{welcome.lineage:016x}", epoch=welcome.epoch, held=len(context.slots.held),
        )  # fmt: skip

    async def _change_lineage(self, welcome: m.Welcome) -> None:
        """Stop everything that the other store gave, keep its results aside, and only then serve the new one."""
        context, interpreter, slots = self._context, self._context.interpreter, self._context.slots
        level = "error" if slots.held else "info"  # who has nothing of the other store loses nothing
        log(
            "other_lineage", level=level, url=self._where.server.address, known=f"{interpreter.lineage:016x}",
            found=f"{welcome.lineage:016x}", held=len(slots.held),
        )  # fmt: skip
        interpreter.carry_out(slots.abandon())
        with trio.move_on_after(limits.kill_after_ms / 1_000 + limits.heartbeat_s):
            await interpreter.until(lambda: not slots.is_abandoned)
        if slots.is_abandoned and interpreter.launcher is not None:
            interpreter.launcher.kill()
        await interpreter.until(lambda: not slots.is_abandoned)
        context.change_lineage(welcome.lineage, welcome.epoch)

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
