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
    context = WorkerContext(settings, home, scope)
    context.say_started()
    with receive_signals() as signals:
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run_launcher, context)
                    nursery.start_soon(Connecting(context, whereabouts).run)
                    nursery.start_soon(run_disk, context.interpreter, context.spool, context.home)
                    nursery.start_soon(run_signals, context, signals)
                    nursery.start_soon(run_deadline, context)
                    nursery.start_soon(run_limits, context)
                    nursery.start_soon(run_home, context)
        finally:
            finish(context.interpreter, context.spool, context.home)
            if context.cgroup:
                context.cgroup.remove()
    if context.failure is not None:
        raise context.failure
    return 0


async def run_launcher(context: WorkerContext) -> None:
    """Keep a launcher running. When one dies nothing of it survives, and its attempts are reported as lost.

    A worker that cannot start its first one ends, and one that finds another version of it. Else, or where the disk is
    full, that is trouble which may pass.
    Where the directory is not its own any more none is started: it would write, and remove, what is somebody else's.
    *Resource handling*: the launcher ends with this child, whatever ends it.
    """
    interpreter, is_first, said = context.interpreter, True, ""
    while not context.is_over:
        if not context.home.is_ours:
            interpreter.carry_out(context.slots.leave())  # before anything is taken that nobody can run
            context.home_is_lost.set()
            interpreter.launcher_is_ready.set()  # acknowledgements still come
            return
        begun_s = trio.current_time()
        try:
            await _serve_launcher(context)
            said = ""
        except Upgraded as error:
            context.end(error)
            return
        except ConfigurationError as error:
            if is_first and not _is_full(error.__cause__):
                context.end(error)
                return
            if str(error) != said:  # it may be so for days
                log("cannot_start_launcher", level="error", error=error, hint=error.hint)
            said = str(error)
        is_first = False
        interpreter.carry_out(context.slots.launcher_died(Cause.DRAIN if context.is_hurrying else Cause.LOST))
        if context.is_hurrying:
            interpreter.launcher_is_ready.set()  # acknowledgements still come
            return
        if trio.current_time() - begun_s < _LAUNCHER_PAUSE_S:
            await trio.sleep(_LAUNCHER_PAUSE_S)


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in files.FULL


async def _serve_launcher(context: WorkerContext) -> None:
    """Start a launcher and listen to it until it dies. Raises ConfigurationError if it cannot be started."""
    interpreter = context.interpreter
    async with open_launcher(context.home.path, context.cgroup.path if context.cgroup else b"") as launcher:
        launcher.send(protocol.Slots(context.capacity.slots))
        launcher.send(protocol.Lease(interpreter.heard_until_s))
        launcher.send(protocol.Functions(context.capacity.modules, *context.imports))
        interpreter.launcher = launcher
        try:
            if await launcher.until_ready():  # until then no attempt is taken that it could lose
                interpreter.launcher_is_ready.set()
            async for messages in launcher:
                await interpreter.take_frames(messages)
        except protocol.FrameError as error:
            log("launcher_talks_nonsense", level="error", error=error)
        finally:
            interpreter.launcher = None
            if interpreter.launcher_is_ready.is_set():  # else those who wait for it wait for the next one
                interpreter.launcher_is_ready = trio.Event()
    if not context.is_hurrying:  # then the worker has killed it
        log("launcher_died", level="error", status=launcher.process.returncode, held=len(context.slots.held))
