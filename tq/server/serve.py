"""The composition root of the server: everything is made, wired and started here, and ends here.

    main(settings) -> exit status
      the directory's lock -> identity -> store -> listeners bound -> Recover -> first token -> accept -> READY

The order matters: the lock before anything in the directory is read or made; the sockets before Recover, so that a
port in use changes nothing; the connection file last, when somebody answers. At the end the other way round: refuse
what comes, finish the turn, flush, say goodbye, join the committer, close the store. Workers keep what they run.
"""

import datetime as dt
import gc
import os
import secrets
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from tq import __version__, errors, limits
from tq.core.engine.engine import Bounds, Engine
from tq.core.model import tables
from tq.core.vocabulary import Answer, CreateToken, Recover, Recovered, Times
from tq.net import listen
from tq.net.address import joined
from tq.net.idle_polling import IdlePolling
from tq.net.log import log, set_level
from tq.net.token import Token, is_token
from tq.server.commit.clock import Clock
from tq.server.commit.commit_loop import Pipeline
from tq.server.commit.committer import Committer, ask, run_pipeline
from tq.server.commit.intake import Intake, Request
from tq.server.commit.lease_clock import LeaseClock
from tq.server.commit.replay import FailedCommands
from tq.server.operation import backup, connection_file, loops
from tq.server.operation.backup import Backups
from tq.server.operation.identity import Identity, check_identity, new_token, open_identity, own_identity
from tq.server.sessions.registry import Registry
from tq.server.sessions.session import attend
from tq.server.sessions.session_context import Gate, SessionContext
from tq.server.settings import Settings, check_settings
from tq.store import process_limits, trust
from tq.store.directory import check_format, check_place, hold_directory
from tq.store.disk import DiskStore, open_for_reading, open_store

_GOODBYE_S: Final = 1.5
_REST_S: Final = 0.1  # for which a beat of an idle worker may wait to be read


def main(settings: Settings) -> int:
    """Run a server until it is asked to stop; return the exit status.

    Raises ConfigurationError, StoreDamaged and StoreError, for what is wrong before it serves.
    """
    check_settings(settings)
    set_level(settings.log_level)
    process_limits.check_address_space()
    if settings.is_check:
        return check(settings)
    _raise_open_files(settings)
    with hold_directory(settings.data, allow_network=settings.data_on_network) as lock:
        with _disk_of(settings.data):
            check_format(settings.data)
            backup.clear(settings.data)
            identity = _identity(settings)
            store = open_store(lock)
        if store.note:
            log("store_recovered", level="warning", text=store.note)
        try:
            status = trio.run(_run, settings, store, identity)
        except BaseException:
            store.abandon()
            raise
        try:
            _close(store, is_failed=status in {errors.StoreError.exit_status, errors.StoreDamaged.exit_status})
        except errors.StoreError as error:
            log("store_failed", level="error", error=error.message, hint=error.hint)
            status = error.exit_status
        log("server_stopped", status=status)
        return status


@contextmanager
def _disk_of(data: Path) -> Iterator[None]:
    """Say of a start that the disk stops what it was: nothing was served, and the next one begins anew."""
    try:
        yield
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise errors.StoreError(
            f"the disk under {data} failed{where}: {error.strerror or error}", hint="see to the disk, then start again"
        ) from error


def check(settings: Settings) -> int:
    """Say whether a server could start on this directory, without changing it; return the exit status."""
    process_limits.check(process_limits.hard(), process_limits.server_files_min, "a server")
    if settings.cert is not None and settings.key is not None:
        own_identity(settings.cert, settings.key, dt.datetime.now(dt.UTC))
    trust.check(settings.data)
    if not settings.data.exists():
        sys.stdout.write(f"{settings.data}: not there yet; a server would make it\n")
        return 0
    if not (settings.data / "format").exists():
        check_format(settings.data)  # one that was not made to its end, or that has lost this file
        check_place(settings.data, allow_network=settings.data_on_network, may_close=False)
        if settings.cert is None:
            check_identity(settings.data / "identity")
        sys.stdout.write(f"{settings.data}: no store there yet; a server would begin one\n")
        return 0
    with hold_directory(settings.data, allow_network=settings.data_on_network, create=False) as lock:
        if settings.cert is None:
            check_identity(settings.data / "identity")
        store = open_for_reading(lock)
        try:
            meta = store.get(tables.META, ())
        finally:
            store.close()
    sequence, epoch = (meta.sequence, meta.epoch) if meta is not None else (0, 0)
    sys.stdout.write(f"{settings.data}: in order, {sequence} turns, {epoch} starts\n")
    return 0


class Server:
    """A running server, as its loops and tests see it. Made by `open_server`."""

    def __init__(self, settings: Settings, store: DiskStore, identity: Identity) -> None:
        self.settings = settings
        self.store = store
        self.identity = identity
        self.url = self.listen = ""
        self.started = Times(0, 0)
        self.ended = trio.Event()  # the commit loop has ended
        self.clock = Clock(store.get(tables.META, ()))
        self.engine = Engine(store, Bounds(retries=settings.retries))
        self.intake = Intake()
        self.registry = Registry()
        self.gate = Gate()
        self.lease_clock = LeaseClock(settings.heartbeat_s)
        self.idle_polling = IdlePolling(min(_REST_S, settings.heartbeat_s / 50))
        self.pipeline = Pipeline(
            self.engine,
            store,
            self.intake,
            times=self.clock.times,
            lap_ms=lambda: time.perf_counter() * 1_000,
            flush=lambda sequence: self.committer.flush(sequence, is_lone=self.pipeline.is_lone),
            release=self.registry.release,
            rereads=self.registry.rereads,
            on_bug=FailedCommands(settings.data).keep,
        )
        self.committer = Committer(store, self.pipeline.flushed, self.pipeline.fail)

    def context(self, recovered: Recovered) -> SessionContext:
        """Return what sessions share."""
        return SessionContext(
            engine=self.engine,
            store=self.store,
            pipeline=self.pipeline,
            intake=self.intake,
            registry=self.registry,
            lease_clock=self.lease_clock,
            idle_polling=self.idle_polling,
            gate=self.gate,
            times=self.clock.times,
            story=self.story,
            back_up=Backups(self.store, self.clock.times, lambda: self.gate.room).run,
            ca_pem=self.identity.ca_pem.encode(),
            lineage=recovered.lineage,
            epoch=recovered.epoch,
            beat_ms=self.settings.beat_ms,
        )

    def story(self) -> dict[str, Any]:
        """Return the server's own part of `status`: plain figures, no secrets."""
        counters, now = self.pipeline.counters, self.clock.times()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "url": self.url,
            "data": str(self.settings.data),
            "started_ms": self.started.wall_ms,
            "now_ms": now.wall_ms,
            "uptime_s": (now.steady_ms - self.started.steady_ms) / 1_000,  # whatever the wall clock was set to since
            "heartbeat_s": self.settings.heartbeat_s,
            "certificate_expires": self.identity.expires.isoformat(),
            "room": self.gate.room.value,
            "connections": {role: count for role, count in sorted(self.registry.connections.items()) if count},
            "turns": counters.turns,
            "flushes": counters.flushes,
            "commands": counters.commands,
            "refused": counters.refused,
            "internal_errors": counters.bugs + self.registry.effects_failed,
            "damages": counters.damages,
            "output_dropped": self.registry.output_dropped,
        }

    async def ask(self, request: Request) -> Answer:
        """Put one request of the server's own, and return its answer once it is on disk."""
        return await ask(self.intake.inlet(), request)

    async def stop(self) -> None:
        """Refuse what comes, finish the turn, flush, say goodbye to everybody. Workers keep what they run."""
        self.gate.is_stopping = True
        self.pipeline.stop()
        await self.ended.wait()
        await self.goodbye("the server is stopping")

    async def goodbye(self, reason: str) -> None:
        """Close all connections once what is queued has gone out, for a moment at most."""
        self.registry.close_all(reason)
        with trio.move_on_after(_GOODBYE_S):
            while self.registry.peers:  # noqa: ASYNC110 - the registry knows no trio
                await trio.sleep(0.01)


@asynccontextmanager
async def open_server(settings: Settings, store: DiskStore, identity: Identity) -> AsyncIterator[Server]:
    """Serve while the block lasts; stop cleanly at its end.

    *Resource handling*: owns sockets, sessions and the committer's thread; the store is the caller's.
    *Error handling*: raises StoreError when the disk failed, ConfigurationError for a port in use, and what the core's
    own commands raised; all else is a connection's, and ends with it.
    """
    server = Server(settings, store, identity)
    listeners = await listen.open_listeners(settings.host, settings.port)
    server.committer.start()
    try:
        async with trio.open_nursery() as nursery:
            recovered = await nursery.start(_commit_loop, server)
            token = await _admin_token(server)
            context = server.context(recovered)
            bound = await nursery.start(listen.serve, listeners, identity.context, partial(attend, context=context))
            server.lease_clock.owe(recovered.workers, recovered.held_ms / 1_000)  # from now on: the listener accepts
            for loop in (loops.beats_loop, loops.lease_clock_loop, loops.deliveries_loop, loops.tokens_loop):
                nursery.start_soon(loop, context)
            nursery.start_soon(server.idle_polling.run)
            nursery.start_soon(loops.disk_loop, context, store)
            if settings.keep_ms:
                nursery.start_soon(loops.janitor_loop, server.ask, settings.keep_ms)
            server.started = server.clock.times()
            server.url, server.listen = connection_file.local_url(*bound[0]), joined(*bound[0])
            connection = connection_file.Connection(server.url, identity.ca_pem, token, server.listen)
            first = connection_file.write_files(connection, settings.data, settings.state)
            if first is not None:
                log("other_server_runs", data=first, hint=f"`tq` finds that one; this one with TQ_DATA={settings.data}")
            try:
                yield server
                await server.stop()
            finally:
                connection_file.remove_files(settings.data, settings.state)
            nursery.cancel_scope.cancel()
    finally:
        if not server.committer.close():
            log("flush_stuck", level="error")
            raise errors.StoreError("the disk has not answered a flush")


async def _run(settings: Settings, store: DiskStore, identity: Identity) -> int:
    """Serve until a signal; return the exit status. Raises ConfigurationError."""
    status = 0
    wrong: errors.ConfigurationError | None = None
    try:
        # The signals first: whoever sees the connection file may ask to stop at once.
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await _serve(settings, store, identity, signals)
    except* errors.StoreError as group:
        error = listen.leaves(group)[0]
        log("store_failed", level="error", error=error, hint=error.hint)
        status = error.exit_status  # damage is there at the next start, too
    except* errors.ConfigurationError as group:
        wrong = listen.leaves(group)[0]
    except* Exception as group:  # noqa: BLE001 - a bug in the core's own commands: it cannot be trusted to go on
        log("server_failed", level="error", error="".join(traceback.format_exception(group))[-8_000:])
        status = errors.InternalError.exit_status
    if wrong is not None:
        raise wrong
    return status


async def _serve(settings: Settings, store: DiskStore, identity: Identity, signals: AsyncIterator[int]) -> None:
    async with open_server(settings, store, identity) as server:
        _tune_collector()
        _notify("READY=1")
        version, pid = __version__, os.getpid()
        log("server_ready", url=server.url, listen=server.listen, data=settings.data, version=version, pid=pid)
        number = await anext(signals)
        log("server_stops", signal=signal.Signals(number).name)
        _notify("STOPPING=1")
        with trio.fail_after(limits.stop_s_max - _GOODBYE_S):
            await server.stop()


async def _commit_loop(server: Server, *, task_status: "trio.TaskStatus[Recovered]" = trio.TASK_STATUS_IGNORED) -> None:
    """Run the pipeline; if the disk fails, let what was answered with `unknown` go out before everything ends."""
    recover = Recover(secrets.randbits(63) | 1, server.settings.beat_ms)
    try:
        await run_pipeline(server.pipeline, recover, task_status.started)
    except errors.StoreError:
        await server.goodbye("the server's disk failed")
        raise
    finally:
        server.ended.set()


async def _admin_token(server: Server) -> Token:
    """Return the data directory's own admin token; a new one if there is none, or it was revoked."""
    token = connection_file.read_token(server.settings.data)
    record = server.store.get(tables.TOKEN, (token.id,)) if token is not None else None
    if token is not None and record is not None and is_token(token.text, record.digest):
        return token
    token = new_token("admin")
    connection_file.keep_token(server.settings.data, token)
    await server.ask(Request(CreateToken(token.id, token.digest, "admin", "local"), "server"))
    return token


def _identity(settings: Settings) -> Identity:
    if settings.cert is not None and settings.key is not None:
        identity = own_identity(settings.cert, settings.key, dt.datetime.now(dt.UTC))
        # After it: an empty directory, left by a start that failed, would look like a lost CA to the next one.
        (settings.data / "identity").mkdir(mode=0o700, exist_ok=True)
        trust.check_private(settings.data / "identity", "directory")
        return identity
    directory = settings.data / "identity"
    if (settings.data / "format").exists() and not os.path.lexists(directory):
        log(
            "identity_made_anew",
            level="warning",
            hint="it was gone: bring it back from a backup; or revoke all older tokens, and let everybody join anew",
        )
    return open_identity(directory, dt.datetime.now(dt.UTC))


def _close(store: DiskStore, *, is_failed: bool) -> None:
    if store.is_flushing:
        return  # its disk does not answer: whatever touches the store now would wait for it, too
    if is_failed:
        store.abandon()
    else:
        store.close()


def _tune_collector() -> None:
    """Let the collector look at young objects only: what is made at the start stays (measured: 1.5 us a task)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _raise_open_files(settings: Settings) -> None:
    """Raise the soft limit on open files as far as it goes, and say so if it is too low for the peers expected.

    Raises ConfigurationError where it is too low for a server at all.
    """
    files = process_limits.raise_limit(limits.connections_max)
    process_limits.check(files, process_limits.server_files_min, "a server")
    possible = process_limits.share(files).connections
    if possible < settings.connections:
        log("few_open_files", level="warning", open_files=files, connections=possible, hint="raise ulimit -n")


def _notify(state: str) -> None:
    """Tell systemd, where it asked to be told."""
    if os.environ.get("NOTIFY_SOCKET"):
        import sdnotify

        sdnotify.SystemdNotifier().notify(state)
