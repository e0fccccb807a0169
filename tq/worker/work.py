"""The composition root of a worker: builds its parts, and runs every loop of it in one nursery.

    launcher     the process that runs the attempts: started, listened to, replaced when it dies
    connection   dials the server, holds a session (session.py), dials again
    disk         takes results to the spool while the server is away (disk.py)
    signals      SIGTERM and SIGINT: the first drains, the second ends at once (leave.py's order of steps)

What is held and what follows from it is decided in slots.py and carried out by hands.py; here is only how it runs.
"""

import os
import random
import secrets
import signal
import ssl
from contextlib import suppress
from typing import Final

import trio

from tq import __version__, limits
from tq.core.task import Cause
from tq.core.vocabulary import Capacity, End
from tq.errors import ConfigurationError, NotAllowed, TqError, Unauthorised, VersionMismatch
from tq.net import tls
from tq.net.dial import dial, fetch_ca
from tq.net.link import open_link
from tq.net.log import log
from tq.wire import messages as m
from tq.wire.connection import Connection
from tq.worker import containment, frames
from tq.worker.disk import finish, run_disk
from tq.worker.hands import Hands
from tq.worker.home import Home, Last, settle
from tq.worker.launcher_link import open_launcher
from tq.worker.machine import look
from tq.worker.session import OtherLineage, Session
from tq.worker.settings import Settings, check_settings
from tq.worker.slots import Slots
from tq.worker.spool import Spool

_RECONNECT_S_MIN: Final = 0.2
_LAUNCHER_PAUSE_S: Final = 1.0
_GOODBYE_S: Final = 2.0  # for acknowledgements, before a worker leaves
_ID_BITS: Final = 63
_DOUBLINGS_MAX: Final = 16
_SAY_AGAIN: Final = 10  # every how many failed attempts to connect the same error is logged again


def main(settings: Settings) -> int:
    """Run a worker until it is told to leave; return its exit status.

    Raises TqError when it cannot work: ConfigurationError, VersionMismatch, Unauthorised (the token is refused).
    """
    check_settings(settings)
    with settle(settings.state) as home:
        return trio.run(work, settings, home)


async def work(settings: Settings, home: Home) -> int:
    """Run a worker that lives in `home`. See `main`."""
    worker = Worker(settings, home)
    containment.become_subreaper()
    if home.last.worker:
        await trio.to_thread.run_sync(containment.kill_bearers, f"{home.last.worker:016x}")
    worker.say_started()
    try:
        async with trio.open_nursery() as nursery:
            worker.nursery = nursery
            nursery.start_soon(worker.run_launcher)
            nursery.start_soon(worker.run_connection)
            nursery.start_soon(run_disk, worker.hands, worker.spool)
            nursery.start_soon(worker.run_signals)
    finally:
        finish(worker.hands, worker.spool)
    if worker.failure is not None:
        raise worker.failure
    return 0


class Worker:
    """The loops of one worker, and what they share."""

    def __init__(self, settings: Settings, home: Home) -> None:
        self.settings = settings
        self.home = home
        self.id = secrets.randbits(_ID_BITS) or 1
        self.spool = Spool(home.path / "spool")
        self.capacity = _capacity(settings)
        self.epoch = home.last.epoch
        lineage, restored = _restore(self.spool, home.last.lineage)
        self.hands = Hands(Slots(self.capacity, restored), f"{self.id:016x}")
        self.hands.lineage = lineage
        self.failure: TqError | None = None
        self.nursery: trio.Nursery | None = None
        self._context: ssl.SSLContext | None = None
        self._is_hurrying = False
        self._is_gone = False
        self._was_reconciled = False
        self._tries = 0  # to connect, since the last session that was any good

    @property
    def slots(self) -> Slots:
        """What is held."""
        return self.hands.slots

    def say_started(self) -> None:
        """Log who starts, and with what."""
        offer = self.capacity
        log(
            "worker_started", worker=self.hands.name, pid=os.getpid(), slots=offer.slots, cpus=offer.cpus_milli / 1_000,
            mem_bytes=offer.mem_bytes, containment=offer.level, host=offer.host, directory=self.home.path,
            restored=len(self.slots.held),
        )  # fmt: skip

    def stop(self, failure: TqError | None = None) -> None:
        """End all loops."""
        self._is_gone = True
        self.failure = self.failure or failure
        if self.nursery is not None:
            self.nursery.cancel_scope.cancel()

    # ------------------------------------------------------------ the launcher

    async def run_launcher(self) -> None:
        """Keep a launcher running. When one dies nothing of it survives, and its attempts are reported as lost."""
        hands = self.hands
        while not self._is_gone:
            begun_s = trio.current_time()
            async with open_launcher() as launcher:
                launcher.send(frames.Slots(self.capacity.slots))
                hands.launcher = launcher
                hands.launcher_is_ready.set()
                try:
                    async for messages in launcher:
                        await hands.take_frames(messages)
                except frames.FrameError as error:
                    log("launcher_talks_nonsense", level="error", error=error)
                finally:
                    hands.launcher = None
                    hands.launcher_is_ready = trio.Event()
            log("launcher_died", level="error", status=launcher.process.returncode, held=len(self.slots.held))
            hands.carry_out(self.slots.launcher_died(Cause.DRAIN if self._is_hurrying else Cause.LOST))
            if self._is_hurrying:
                hands.launcher_is_ready.set()  # acknowledgements still come
                return
            if trio.current_time() - begun_s < _LAUNCHER_PAUSE_S:
                await trio.sleep(_LAUNCHER_PAUSE_S)

    # ------------------------------------------------------------ the connection

    async def run_connection(self) -> None:
        """Hold a session with the server, for ever; wait between attempts, a random time that grows to a bound."""
        said = ""
        while not self._is_gone:
            self._tries += 1
            try:
                await self._one_session()
            except OtherLineage as other:
                await self._change_lineage(other.welcome)
                continue
            except (NotAllowed, VersionMismatch, ConfigurationError) as error:
                self.stop(error)
            except Unauthorised as error:
                if not self._was_reconciled or error.code == Unauthorised.code:
                    self.stop(error)
            except TqError as error:
                if str(error) != said or self._tries % _SAY_AGAIN == 0:
                    log("cannot_connect", level="warning", url=self.settings.address, error=error, tries=self._tries)
                said = str(error)
            await trio.sleep(self._pause_s())

    async def _one_session(self) -> None:
        address = self.settings.address
        stream = await dial(address, await self._tls())
        async with open_link(stream, Connection()) as link:
            session = Session(self.hands, link, self._reconciled)
            rest = await session.begin(self._hello())
            session.check(self.hands.lineage, self.epoch)
            why = await session.run(rest)
        if not self._is_gone:
            log("disconnected", level="warning", url=address, why=why, held=len(self.slots.held))

    def _hello(self) -> m.Hello:
        return m.Hello(
            m.VERSIONS, __version__, self.settings.token, "worker", self.id, self.home.last.worker, self.hands.lineage,
            self.epoch,
        )  # fmt: skip

    def _reconciled(self, welcome: m.Welcome) -> None:
        """Note that both sides agree: from here on, this worker is the one that lived in this directory."""
        self._was_reconciled = True
        self._tries = 0
        self.hands.lineage, self.epoch = welcome.lineage, welcome.epoch
        with suppress(OSError):  # a full disk: the next worker then has no predecessor to name
            self.home.remember(Last(self.id, welcome.lineage, welcome.epoch))
        log(
            "connected", url=self.settings.address, worker=self.hands.name, session=welcome.session,
            lineage=f"{welcome.lineage:016x}", epoch=welcome.epoch, held=len(self.slots.held),
        )  # fmt: skip

    async def _change_lineage(self, welcome: m.Welcome) -> None:
        """Stop everything that the other store gave, keep its results aside, and only then serve the new one."""
        hands = self.hands
        log(
            "other_lineage", level="error", url=self.settings.address, known=f"{hands.lineage:016x}",
            found=f"{welcome.lineage:016x}", held=len(self.slots.held),
        )  # fmt: skip
        hands.carry_out(self.slots.abandon())
        with trio.move_on_after(limits.kill_after_ms / 1_000 + limits.heartbeat_s):
            await hands.until(lambda: not self.slots.is_abandoned)
        if self.slots.is_abandoned and hands.launcher is not None:
            hands.launcher.kill()
            await hands.until(lambda: not self.slots.is_abandoned)
        hands.lineage, self.epoch = welcome.lineage, welcome.epoch

    async def _tls(self) -> ssl.SSLContext:
        """Return what verifies the server; at a first contact its CA is fetched and compared with the known hash."""
        if self._context is None:
            pem = self.settings.ca_pem or await self._pinned_ca()
            self._context = tls.client_context(pem)
        return self._context

    async def _pinned_ca(self) -> str:
        kept = self.settings.state / "cas" / f"{self.settings.ca_sha256}.pem"
        with suppress(OSError):
            return kept.read_text(encoding="ascii")
        pem = await fetch_ca(self.settings.address, self.settings.ca_sha256)
        with suppress(OSError):
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            kept.write_text(pem, encoding="ascii")
        return pem

    def _pause_s(self) -> float:
        """Full jitter; a worker that holds attempts comes back sooner (semantics.md, Delivery 5)."""
        longest_s = limits.reconnect_holding_s_max if self.slots.held else limits.reconnect_s_max
        return random.uniform(0, min(longest_s, _RECONNECT_S_MIN * 2 ** min(self._tries, _DOUBLINGS_MAX)))

    # ------------------------------------------------------------ leaving

    async def run_signals(self) -> None:
        """Drain at the first SIGTERM or SIGINT, end at once at the second."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                async for number in signals:
                    if self.slots.is_leaving:
                        log("leaving_now", signal=number)
                        nursery.cancel_scope.cancel()
                        break
                    log("draining", signal=number, held=len(self.slots.held), drain_s=self.settings.drain_s)
                    nursery.start_soon(self._drain)
        await self._leave_now()

    async def _drain(self) -> None:
        """Let what runs finish within the drain time, stop the rest and hand it back, and go."""
        hands, slots = self.hands, self.slots
        hands.carry_out(slots.leave())
        with trio.move_on_after(self.settings.drain_s):
            await hands.until(lambda: slots.is_idle)
        if not slots.is_idle:
            log("stopping_attempts", held=len(slots.held))
            hands.carry_out(slots.stop_all(Cause.DRAIN))
            with trio.move_on_after(limits.unkillable_s):
                await hands.until(lambda: slots.is_idle)
        if slots.is_idle:
            await self._say_goodbye()
        else:
            await self._leave_now()

    async def _leave_now(self) -> None:
        """Kill what runs, hand it back if the server hears us, and go."""
        self._is_hurrying = True
        if self.hands.launcher is not None:
            self.hands.launcher.kill()
            with trio.move_on_after(_GOODBYE_S):
                await self.hands.until(lambda: self.slots.is_idle)
        await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        with trio.move_on_after(_GOODBYE_S):
            await self.hands.until(lambda: not self.slots.held)
        left = len(self.slots.held)
        log("worker_leaves", worker=self.hands.name, unacknowledged=left, level="warning" if left else "info")
        self._is_gone = True
        link = self.hands.link
        if link is not None:
            link.close(m.Goodbye("the worker leaves"))
            with trio.move_on_after(_GOODBYE_S):
                await self.hands.until(lambda: self.hands.link is not link)
        self.stop()


def _capacity(settings: Settings) -> Capacity:
    """Return what the worker offers: what it was told, else what the machine has."""
    machine = look()
    cpus_milli = round(settings.cpus * 1_000) or machine.cpus_milli
    return Capacity(
        slots=settings.slots or max(1, cpus_milli // 1_000),
        cpus_milli=cpus_milli,
        mem_bytes=settings.mem_bytes or machine.mem_bytes,
        host=settings.name or machine.host,
        pid=os.getpid(),
        software=__version__,
        queues=settings.queues,
        labels=settings.labels,
        level=containment.LEVEL,
    )


def _restore(spool: Spool, lineage: int) -> tuple[int, dict[int, tuple[End, ...]]]:
    """Return the lineage to go on with, and the results of it that lie in the spool; others are set aside."""
    left = spool.load()
    for name in left.damaged:
        log("spool_damaged", level="error", file=name)
    newest = max(left.reports, default=0)
    lineage = lineage or (left.reports[newest].lineage if newest else 0)
    restored = {}
    for delivery, report in left.reports.items():
        if report.lineage == lineage:
            restored[delivery] = report.ends
        else:
            path = spool.orphan(report.lineage, report.ends)
            spool.forget(delivery)
            log("results_orphaned", level="warning", results=len(report.ends), path=path)
    return lineage, restored
