"""How a worker leaves: SIGTERM and SIGINT, once to drain, twice to go now.

    drain   want nothing more, hand back what has not started, let the rest finish within the drain time; then stop it
            and hand it back uncharged; say goodbye, exit 0
    now     kill the launcher, hand back what it had; say goodbye, exit 0

What the server does not acknowledge any more is in the spool (results), or is lost to it at once by the goodbye.
"""

import signal
from typing import Final

import trio

from tq import limits
from tq.core.task import Cause
from tq.net.log import log
from tq.wire import messages as m
from tq.worker.life import Life

_ACKNOWLEDGED_S: Final = 5.0  # how long a worker that leaves waits for the server's acknowledgements
_KILLED_S: Final = 15.0  # for a launcher's end, and all that it leaves
_CLOSED_S: Final = 2.0


async def run_signals(life: Life) -> None:
    """Wait for signals, and end the worker's life by them."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            async for number in signals:
                if life.slots.is_leaving:
                    log("leaving_now", signal=signal.Signals(number).name, held=len(life.slots.held))
                    nursery.cancel_scope.cancel()
                    break
                log(
                    "draining", signal=signal.Signals(number).name, held=len(life.slots.held),
                    drain_s=life.settings.drain_s,
                )  # fmt: skip
                nursery.start_soon(drain, life)
        await leave_now(life)


async def drain(life: Life) -> None:
    """Let what runs finish within the drain time, stop the rest and hand it back, and go."""
    hands, slots = life.hands, life.slots
    hands.carry_out(slots.leave())
    with trio.move_on_after(life.settings.drain_s):
        await hands.until(lambda: slots.is_idle)
    if not slots.is_idle:
        log("stopping_attempts", held=len(slots.held))
        hands.carry_out(slots.stop_all(Cause.DRAIN))
        with trio.move_on_after(limits.unkillable_s):
            await hands.until(lambda: slots.is_idle)
    if slots.is_idle:
        await say_goodbye(life)
    else:
        await leave_now(life)


async def leave_now(life: Life) -> None:
    """Kill what runs, hand it back if the server hears us, and go."""
    life.is_hurrying = True
    life.hands.carry_out(life.slots.leave())
    if life.hands.launcher is not None:
        life.hands.launcher.kill()
    with trio.move_on_after(_KILLED_S):
        await life.hands.until(lambda: life.slots.is_idle)
    await say_goodbye(life)


async def say_goodbye(life: Life) -> None:
    """Wait a little for what is owed to us, say goodbye, and end the worker's life."""
    hands, slots = life.hands, life.slots
    with trio.move_on_after(_ACKNOWLEDGED_S):
        await hands.until(lambda: not slots.held)
    left = len(slots.held)
    log("worker_leaves", worker=life.name, unacknowledged=left, level="warning" if left else "info")
    life.is_over = True
    link = hands.link
    if link is not None:
        link.close(m.Goodbye("the worker leaves"))
        with trio.move_on_after(_CLOSED_S):
            await hands.until(lambda: hands.link is not link)
    life.end()
