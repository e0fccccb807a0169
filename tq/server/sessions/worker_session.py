"""The session of a worker: reconcile first, then work and reports, output by the second door, beats both ways.

What it decides is nothing: messages become commands and effects become messages in worker_protocol.py. All that must
keep its order (assignments, stops, acknowledgements) leaves in one queue; when the worker does not read fast enough,
the rest waits here as effects, untranslated, so that a new session number makes it void.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

import trio

from tq import errors, limits
from tq.core import vocabulary as v
from tq.core.engine.engine import Engine
from tq.core.model import ids, tables
from tq.errors import ProtocolError, StoreDamaged
from tq.net.link import Link
from tq.net.log import log
from tq.server.commit.intake import Request
from tq.server.sessions.admission import check_piece
from tq.server.sessions.receive import receive_all
from tq.server.sessions.registry import Rest
from tq.server.sessions.session_context import SessionContext
from tq.server.sessions.worker_protocol import WorkerPeer
from tq.store.directory import Room
from tq.store.seam import OutputSlot, Store
from tq.wire import messages as m

blobs_max: Final = 10_000


class Inputs:
    """The inputs of one worker's attempts."""

    def __init__(self, engine: Engine, store: Store, worker: int) -> None:
        self._engine = engine
        self._store = store
        self._worker = worker
        self._given: set[int] = set()

    def give(self, blob: int) -> None:
        """Note that an attempt with this input was sent in this session."""
        if len(self._given) >= blobs_max:
            self._given.clear()  # those of what it holds are found again
        self._given.add(blob)

    def may_read(self, blob: int) -> bool:
        """Whether an attempt with this input was sent in this session, or the worker brought one with it."""
        if blob not in self._given:
            live = self._engine.live.workers.get(self._worker)
            jobs = {task[:2] for task in live.held} if live is not None else set()
            records = (self._store.get(tables.JOB, key) for key in jobs)
            if not any(record is not None and record.stdin == blob for record in records):
                return False
            self.give(blob)
        return True

    def piece(self, blob: int, piece: int) -> bytes:
        """Return a piece of an input, an empty one behind the last. Raises StoreDamaged, also for one that is lost and
        has others behind it, as after a salvage: the task would take what is before it for all of its input.
        """
        data = self._store.get(tables.BODY, (blob, piece))
        if data is None and (not piece or self._store.scan(tables.BODY, (blob, piece + 1), (blob + 1,), 1)):
            raise StoreDamaged(f"piece {piece} of input {blob} is lost", hint="submit it again, with its input")
        return data or b""


_ToSend = v.Effect | v.Joined | m.FollowOutput


class WorkerSession:
    """One connection of one worker."""

    def __init__(self, context: SessionContext, link: Link, peer: WorkerPeer, submitter: str) -> None:
        self.peer = peer
        self._context = context
        self._link = link
        self._submitter = submitter
        self._room = trio.Event()
        self._inlet = context.intake.inlet(lambda: self._room.set())  # noqa: PLW0108 - each time another event
        self._joined = trio.Event()
        self._outbox: deque[_ToSend] = deque()
        self._outbox_filled = trio.Event()
        self.is_held_up = False  # by the commit loop: nothing is read of the worker meanwhile
        self.stuck = 0  # attempts that the worker cannot kill, as it said last
        self._has_answered = False  # a beat of the worker, since the last beat of our own
        self.rest = Rest(link, context.idle_polling)
        self._inputs = Inputs(context.engine, context.store, peer.worker)
        link.on_bytes = self.heard

    async def run(self, rest: Sequence[m.Message]) -> None:
        """Serve the worker until its connection ends. Raises ProtocolError for what it may not send."""
        worker = self.peer.worker
        self._context.registry.worker_enters(worker, self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._outbox_loop)
                failure = await receive_all(self._link, rest, self._receive)
                nursery.cancel_scope.cancel()
        finally:
            self._context.registry.worker_leaves(worker, self)
            self.say_silent(on=True)
            self._inlet.leave()
            self._link.on_bytes = None
        if failure is not None:
            raise failure

    # ------------------------------------------------------------ what others ask of it

    def beat(self) -> None:
        """Send a sign of life, unless the answer to a beat of the worker was one."""
        if not self._has_answered:
            self._link.send_nowait(m.Beat())
        self._has_answered = False

    def heard(self) -> None:
        """Count a sign of life of the worker."""
        if self._context.lease_clock.heard(self.peer.worker, self.peer.session):
            self.say_silent(on=False)

    def say_silent(self, *, on: bool) -> None:
        """Tell the core that nothing is heard of the worker, or something again: in this order, so by one inlet."""
        self._inlet.put([Request(v.WorkerSilent(self.peer.worker, self.peer.session, on), self._submitter)])

    def close(self, reason: str) -> None:
        """Say goodbye and close."""
        self._link.close(m.Goodbye(reason))

    def close_session(self, session: int, reason: str) -> None:
        """Close if this is still its session's number."""
        if self.peer.session == session:
            self.close(reason)

    def check_deliveries(self, now_s: float) -> None:
        """Close if something that was sent is not acknowledged in time."""
        if self.peer.is_overdue(now_s):
            log("delivery_overdue", level="warning", worker=ids.worker_id(self.peer.worker), session=self.peer.session)
            self.close("an assignment was not acknowledged in time")

    def follow_output(self, attempt: v.AttemptRef, *, on: bool) -> None:
        """Ask for the output of an attempt as it comes, or no longer: never before the attempt itself."""
        self.carry_out(m.FollowOutput(attempt, on))

    def carry_out(self, effect: _ToSend) -> None:
        """Send what the core decided for this worker, behind what waits already. Raises nothing."""
        self.rest.end()
        if self._outbox or not self._link.has_room:
            self._outbox.append(effect)
            self._outbox_filled.set()
            return
        try:
            self._send(effect)
        except Exception as error:  # noqa: BLE001 - the edge: it is called from the commit loop, which must go on (I12)
            self._context.registry.effects_failed += 1
            log("effect_failed", level="error", effect=type(effect).__name__, error=repr(error))
            self.close("the server could not send what it should: reconnect")

    def push(self) -> None:
        """Let what a turn decided leave with it, in one frame."""
        self._link.push()

    # ------------------------------------------------------------ receiving

    async def _receive(self, messages: Sequence[m.Message]) -> bool:
        """Take one frame; return False after a goodbye."""
        requests: list[Request] = []
        for message in messages:
            match message:
                case m.Beat():
                    self.stuck, self._has_answered = max(message.stuck, 0), True
                    self._link.answer_nowait(m.Beat(0, 0, message.number))
                    for answer in self.peer.beat(message):
                        self._link.answer_nowait(answer)
                    if not self.rest.is_on:
                        self.rest.beat(is_idle=self.peer.is_idle)
                case m.Output():
                    self._output(message)
                case m.GetBlob():
                    await self._send_blob(message)
                case m.Goodbye():
                    self._inlet.put([*requests, *self._goodbye()])
                    return False
                case m.Reconcile():
                    await self._join(message, requests)
                    requests = []
                case _:
                    command = self.peer.receive(message)
                    if command is not None:
                        requests.append(Request(command, self._submitter))
        if requests:
            self.rest.end()
            self._inlet.put(requests)
            while self._inlet.is_full:
                self._room, self.is_held_up = trio.Event(), True
                await self._room.wait()
            self.is_held_up = False
        return True

    async def _join(self, message: m.Reconcile, before: list[Request]) -> None:
        """Reconcile, and take nothing else before it is on disk: until then nobody knows what counts."""
        if self._context.registry.worker(self.peer.worker) is not self:
            return  # superseded: a list could give it a session number that is newer than its successor's
        command = self.peer.receive(message)
        if command is None:
            return
        self._joined = trio.Event()
        self._context.lease_clock.joined(self.peer.worker, self.peer.session)
        self._inlet.put([*before, Request(command, self._submitter, self._on_joined)])
        self.is_held_up = True
        await self._joined.wait()
        self.is_held_up = False

    def _on_joined(self, answer: v.Answer | errors.TqError) -> None:
        self._joined.set()
        if isinstance(answer, v.Joined):
            self.carry_out(answer)
            for ref in self.peer.held:
                if self._context.registry.follow.has(ref):
                    self.follow_output(ref, on=True)
        elif isinstance(answer, errors.TqError):
            self._link.close(m.Refused(answer.code, answer.message, answer.hint))

    def _goodbye(self) -> list[Request]:
        """The worker ends on purpose: what it still held is lost at once."""
        if not self.peer.is_joined:
            return []
        self._context.lease_clock.left(self.peer.worker, self.peer.session)
        return [Request(v.WorkerLost(self.peer.worker, self.peer.session), self._submitter)]

    def _output(self, message: m.Output) -> None:
        ref = message.attempt
        if not (self.peer.knows(ref) and self._context.engine.live.holds(self.peer.worker, ref)):
            self._context.registry.output_dropped += 1
            return
        data = message.data
        if self._context.gate.room is not Room.NORMAL:
            data = data[: max(0, limits.output_low_disk_bytes_max - message.offset)]
            if not data:
                return
        try:
            self._context.store.put_output(ref.task, ref.attempt, message.stream, message.offset, data)
        except errors.Refused as error:
            raise ProtocolError(f"output that cannot be stored: {error}") from error
        self._context.registry.follow.feed(ref, OutputSlot(message.stream, message.offset, data))

    async def _send_blob(self, message: m.GetBlob) -> None:
        """Send a piece of an input; an empty one is its end.

        Whoever was never given an attempt with this input is disconnected. An empty piece would be taken for an empty
        input, and silence would keep the worker waiting; after a reconnect both sides know what it holds. Where the
        piece cannot be read, the attempts that wait for it are asked back.
        """
        check_piece(message.piece)
        if not self._inputs.may_read(message.blob):
            raise ProtocolError(f"the input {message.blob} belongs to no attempt of this worker")
        try:
            data = self._inputs.piece(message.blob, message.piece)
        except errors.StoreDamaged as damage:  # of what nothing but these attempts depends on
            self._context.pipeline.note(message, damage)
            self._inlet.put([Request(v.InputDamaged(self.peer.worker, message.blob), self._submitter)])
            return
        await self._link.send(m.Blob(message.blob, message.piece, data))

    # ------------------------------------------------------------ sending

    def _send(self, effect: _ToSend) -> None:
        for message in self._translated(effect):
            self._link.send_nowait(message, output=True)

    def _translated(self, effect: _ToSend) -> list[m.Message]:
        if isinstance(effect, m.FollowOutput):
            return [effect]
        if isinstance(effect, v.Joined):
            return self.peer.joined(effect)
        if isinstance(effect, v.Start) and effect.stdin:
            self._inputs.give(effect.stdin)
        return self.peer.carry_out(effect, trio.current_time())

    async def _outbox_loop(self) -> None:
        """Send what had to wait, as the worker reads."""
        while True:
            await self._outbox_filled.wait()
            self._outbox_filled = trio.Event()
            while self._outbox:
                for message in self._translated(self._outbox[0]):
                    await self._link.send(message, output=True)
                self._outbox.popleft()  # only now: what comes meanwhile must not overtake it
