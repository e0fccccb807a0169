"""How a worker becomes empty: by SIGTERM and SIGINT, once to drain, twice to go now; or drained from afar.

    drain   want nothing more, hand back what has not started, let the rest finish within the drain time; then stop it
            and hand it back uncharged; say goodbye, exit 0
    now     kill the launcher, hand back what it had; say goodbye, exit 0

    by itself  after its last task (`--max-tasks`), or when it was idle for long (`--idle-timeout`): what runs may end
    homeless    its directory was removed, or is another's by now: what runs may end, and be reported; exit 74
    afar    `tq drain`: the same, but it stays. Without a deadline what runs may end; with one it is stopped then

What the server does not acknowledge any more is in the spool (results), or is lost to it at once by the goodbye.
"""

import signal
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Final

import trio

from tq import limits
from tq.core.model.task import Cause
from tq.errors import StoreError
from tq.net.log import log
from tq.net.thread import in_thread
from tq.wire import messages as m
from tq.worker.context import WorkerContext

_ACKNOWLEDGED_S: Final = 5.0  # how long a worker that leaves waits for the server's acknowledgements
_KILLED_S: Final = 15.0  # for a launcher's end, and all that it leaves
_CLOSED_S: Final = 2.0


def receive_signals() -> AbstractContextManager[AsyncIterator[int]]:
    """Hold back what would end this process, as long as there is something to write down (`run_signals`)."""
    return trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT)


async def run_signals(context: WorkerContext, signals: AsyncIterator[int]) -> None:
    """Wait for signals, and end the worker's life by them. A third one, and more, hurry nothing."""
    patience = trio.CancelScope()

    async def drain_patiently() -> None:
        with patience:
            await drain(context)

    async with trio.open_nursery() as nursery:
        count = 0  # a worker that leaves by itself still drains at the first signal
        async for number in signals:
            count += 1
            name, held = signal.Signals(number).name, len(context.slots.held)
            if count == 1:
                log("draining", signal=name, held=held, drain_s=context.settings.drain_s)
                nursery.start_soon(drain_patiently)
            elif count == 2:
                log("leaving_now", signal=name, held=held)
                patience.cancel()
                nursery.start_soon(leave_now, context)


async def drain(context: WorkerContext) -> None:
    """Let what runs finish within the drain time, stop the rest and hand it back, and go."""
    interpreter, slots = context.interpreter, context.slots
    interpreter.carry_out(slots.leave())
    with trio.move_on_after(context.settings.drain_s):
        await interpreter.until(lambda: slots.is_idle)
    if not slots.is_idle:
        log("stopping_attempts", held=len(slots.held))
        interpreter.carry_out(slots.stop_all(Cause.DRAIN))
        with trio.move_on_after(limits.unkillable_s):
            await interpreter.until(lambda: slots.is_idle)
    if slots.is_idle:
        await say_goodbye(context)
    else:
        await leave_now(context)


async def run_deadline(context: WorkerContext) -> None:
    """Stop what still runs when the deadline of a drain from afar has come, connected or not. For ever."""
    interpreter = context.interpreter
    while True:
        await interpreter.deadline_told.wait()
        interpreter.deadline_told = trio.Event()
        if interpreter.stop_after_ms < 0:
            continue
        with trio.move_on_after(interpreter.stop_after_ms / 1_000) as patience:
            await interpreter.deadline_told.wait()
        if patience.cancelled_caught and not context.slots.is_idle:
            log("stopping_attempts", held=len(context.slots.held), why="the deadline of a drain has come")
            interpreter.carry_out(context.slots.stop_all(Cause.DRAIN))


async def run_limits(context: WorkerContext) -> None:
    """End a worker that has had its last task, or nothing to do for long; what it has taken may end.

    Without such a limit nobody waits here: whoever does is woken by every round of instructions.
    """
    interpreter, slots, idle_s = context.interpreter, context.slots, context.settings.idle_s
    if slots.tasks_left is None and idle_s is None:
        return
    is_over = trio.Event()

    async def until_last() -> None:
        await interpreter.until(lambda: slots.tasks_left == 0)
        is_over.set()

    async def until_idle() -> None:
        """Results that nobody has taken yet are something to do, too."""
        while idle_s is not None:
            await interpreter.until(lambda: not slots.held)
            with trio.move_on_after(idle_s) as patience:
                await interpreter.until(lambda: bool(slots.held))
            if patience.cancelled_caught:
                is_over.set()
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(until_last)
        nursery.start_soon(until_idle)
        await is_over.wait()
        nursery.cancel_scope.cancel()
    why = "it was given its last task" if slots.tasks_left == 0 else "it had nothing to do for so long"
    log("leaving", why=why, held=len(slots.held))
    if not slots.is_leaving:
        interpreter.carry_out(slots.leave())
    await interpreter.until(lambda: slots.is_idle)
    await say_goodbye(context)


async def run_home(context: WorkerContext) -> None:
    """End a worker whose directory is not its own any more: it could keep nothing there, and start no launcher.

    What runs may end. Its results are in memory alone, so they wait for the server as long as it takes.
    """
    home, interpreter, slots = context.home, context.interpreter, context.slots
    while not context.home_is_lost.is_set():
        with trio.move_on_after(limits.heartbeat_s):
            await context.home_is_lost.wait()
        if not await in_thread(lambda: home.is_ours, abandon_on_cancel=True):
            context.home_is_lost.set()
    context.failure = StoreError(f"{home.path} was removed, or replaced", hint="start the worker again")
    log("leaving", level="error", why=context.failure.message, held=len(slots.held))
    if not slots.is_leaving:
        interpreter.carry_out(slots.leave())
    await interpreter.until(lambda: not slots.held)
    await say_goodbye(context)


async def leave_now(context: WorkerContext) -> None:
    """Kill what runs, hand it back if the server hears us, and go."""
    context.is_hurrying = True
    context.interpreter.carry_out(context.slots.leave())
    if context.interpreter.launcher is not None:
        context.interpreter.launcher.kill()
    with trio.move_on_after(_KILLED_S):
        await context.interpreter.until(lambda: context.slots.is_idle)
    await say_goodbye(context)


async def say_goodbye(context: WorkerContext) -> None:
    """Wait a little for what is owed to us, say goodbye, and end the worker's life."""
    interpreter, slots = context.interpreter, context.slots
    with trio.move_on_after(_ACKNOWLEDGED_S):
        await interpreter.until(lambda: not slots.held)
    left = len(slots.held)
    log("worker_leaves", worker=context.name, unacknowledged=left, level="warning" if left else "info")
    context.is_over = True
    link = interpreter.link
    if link is not None:
        link.close(m.Goodbye("the worker leaves"))
        with trio.move_on_after(_CLOSED_S):
            await interpreter.until(lambda: interpreter.link is not link)
    context.end()
