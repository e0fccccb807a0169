"""The composition root of a worker: builds its parts, and runs every loop of it in one nursery.

    launcher     the process that runs the attempts: started, listened to, replaced when it dies (here)
    connection   dials the server, holds a session, dials again (connect.py, session.py)
    disk         takes results to the spool while the server is away (spool_writer.py)
    signals      SIGTERM and SIGINT: the first drains, the second ends at once (leave.py)
    deadline     stops what still runs when a drain from afar is to be over (leave.py)
    limits       ends a worker after so many tasks, or so long without one (leave.py)
    home         ends a worker whose directory is not its own any more (leave.py)

What is held and what follows from it is decided in state.py and carried out by interpreter.py; here is only how it
runs.
"""

from typing import Final

import trio

from tq.core.model import ids
from tq.core.model.task import Cause
from tq.errors import ConfigurationError, Upgraded
from tq.launcher import containment, protocol
from tq.net.log import log
from tq.net.thread import in_thread
from tq.store import files, process_limits
from tq.worker.connect import Connecting
from tq.worker.context import WorkerContext
from tq.worker.discovery import Discovery, Find
from tq.worker.launcher_link import open_launcher
from tq.worker.leave import receive_signals, run_deadline, run_home, run_limits, run_signals
from tq.worker.settings import Settings, check_server, check_settings
from tq.worker.spool_writer import finish, run_disk
from tq.worker.state_dir import StateDirectory, settle

_LAUNCHER_PAUSE_S: Final = 1.0


def main(settings: Settings, find: Find) -> int:
    """Run a worker until it is told to leave; return its exit status. `find` says where the server is (discovery.py).

    Raises TqError when it cannot work: ConfigurationError, VersionMismatch, Unauthorised (the token is refused).
    """
    check_settings(settings)
    process_limits.check(process_limits.allowed(), process_limits.worker_files_min, "a worker")
    server = find()
    check_server(server)
    with settle(settings.state) as home:
        return trio.run(work, settings, home, Discovery(server, find))


async def work(settings: Settings, home: StateDirectory, whereabouts: Discovery) -> int:
    """Run a worker that lives in `home`. See `main`."""
    containment.become_subreaper()
    for worker in home.last.workers:  # it and its launcher may have died at once, and left what they ran
        await in_thread(containment.kill_bearers, ids.worker_id(worker))
    scope = trio.CancelScope()
    life = WorkerContext(settings, home, scope)
    life.say_started()
    with receive_signals() as signals:
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run_launcher, life)
                    nursery.start_soon(Connecting(life, whereabouts).run)
                    nursery.start_soon(run_disk, life.hands, life.spool, life.home)
                    nursery.start_soon(run_signals, life, signals)
                    nursery.start_soon(run_deadline, life)
                    nursery.start_soon(run_limits, life)
                    nursery.start_soon(run_home, life)
        finally:
            finish(life.hands, life.spool, life.home)
            if life.cgroup:
                life.cgroup.remove()
    if life.failure is not None:
        raise life.failure
    return 0


async def run_launcher(life: WorkerContext) -> None:
    """Keep a launcher running. When one dies nothing of it survives, and its attempts are reported as lost.

    A worker that cannot start its first one ends, and one that finds another version of it. Else, or where the disk is
    full, that is trouble which may pass.
    Where the directory is not its own any more none is started: it would write, and remove, what is somebody else's.
    *Resource handling*: the launcher ends with this child, whatever ends it.
    """
    hands, is_first, said = life.hands, True, ""
    while not life.is_over:
        if not life.home.is_ours:
            hands.carry_out(life.slots.leave())  # before anything is taken that nobody can run
            life.home_is_lost.set()
            hands.launcher_is_ready.set()  # acknowledgements still come
            return
        begun_s = trio.current_time()
        try:
            await _serve_launcher(life)
            said = ""
        except Upgraded as error:
            life.end(error)
            return
        except ConfigurationError as error:
            if is_first and not _is_full(error.__cause__):
                life.end(error)
                return
            if str(error) != said:  # it may be so for days
                log("cannot_start_launcher", level="error", error=error, hint=error.hint)
            said = str(error)
        is_first = False
        hands.carry_out(life.slots.launcher_died(Cause.DRAIN if life.is_hurrying else Cause.LOST))
        if life.is_hurrying:
            hands.launcher_is_ready.set()  # acknowledgements still come
            return
        if trio.current_time() - begun_s < _LAUNCHER_PAUSE_S:
            await trio.sleep(_LAUNCHER_PAUSE_S)


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in files.FULL


async def _serve_launcher(life: WorkerContext) -> None:
    """Start a launcher and listen to it until it dies. Raises ConfigurationError if it cannot be started."""
    hands = life.hands
    async with open_launcher(life.home.path, life.cgroup.path if life.cgroup else b"") as launcher:
        launcher.send(protocol.Slots(life.capacity.slots))
        launcher.send(protocol.Lease(hands.heard_until_s))
        launcher.send(protocol.Functions(life.capacity.modules, *life.imports))
        hands.launcher = launcher
        try:
            if await launcher.until_ready():  # until then no attempt is taken that it could lose
                hands.launcher_is_ready.set()
            async for messages in launcher:
                await hands.take_frames(messages)
        except protocol.FrameError as error:
            log("launcher_talks_nonsense", level="error", error=error)
        finally:
            hands.launcher = None
            if hands.launcher_is_ready.is_set():  # else those who wait for it wait for the next one
                hands.launcher_is_ready = trio.Event()
    if not life.is_hurrying:  # then the worker has killed it
        log("launcher_died", level="error", status=launcher.process.returncode, held=len(life.slots.held))
