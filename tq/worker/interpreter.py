"""Carries out what `Slots` decides: the only place where a decision becomes a message, a frame or a file.

Everything here is done at once and in order, without waiting, so that no other child of the worker can come between
two instructions; what takes time (sockets, disk) is queued for the loops that do it.
"""

from collections.abc import Callable, Iterable
from typing import Final

import trio

from tq.core.vocabulary import AttemptRef
from tq.launcher import protocol
from tq.net.link import Link
from tq.net.log import log
from tq.wire import messages as m
from tq.worker import instructions as i
from tq.worker.launcher_link import LauncherLink
from tq.worker.outbox import attempts_of
from tq.worker.output_buffer import OutputBuffer
from tq.worker.state import WorkerState

FOLLOW_BYTES: Final = 1024 * 1024

ToDisk = i.Keep | i.Forget | i.Aside


class Interpreter:
    """Carries out what one worker decides. `name` is its id as people see it; `link` and `launcher` come and go."""

    def __init__(self, slots: WorkerState, name: str) -> None:
        self.slots = slots
        self.name = name
        self.link: Link | None = None
        self.launcher: LauncherLink | None = None
        self.launcher_is_ready = trio.Event()
        self.output = OutputBuffer()
        self.inputs: dict[int, list[bytes]] = {}  # pieces of large inputs that are being fetched
        self.heard_until_s = 0.0  # until when the server does not give away what is held (guard.boot_s)
        self.lineage = 0  # of the store whose attempts are held
        self.to_disk: list[tuple[int, ToDisk]] = []  # each with the lineage that it is about
        self.disk_work = trio.Event()
        self.stop_after_ms = -1  # what a drain from afar says: leave.py obeys
        self.deadline_told = trio.Event()
        self._followed: set[AttemptRef] = set()
        self._changed = trio.Event()

    @property
    def stuck(self) -> int:
        """How many attempts the launcher cannot kill."""
        return self.launcher.pong.degraded if self.launcher is not None else 0

    def carry_out(self, instructions: Iterable[i.Instruction]) -> None:
        """Do what was decided, in order."""
        for instruction in instructions:
            match instruction:
                case i.Say():
                    self._say(instruction.message)
                case i.Spawn():
                    self._spawn(instruction.assign, instruction.stdin)
                case i.Stop():
                    self._tell(protocol.Stop(instruction.attempts, instruction.cause, -1, instruction.signal))
                case i.Recall():
                    self._tell(protocol.Recall(instruction.attempts))
                case i.Fetch():
                    self.inputs[instruction.blob] = []
                    self._say(m.GetBlob(instruction.blob, 0))
                case i.Settled():
                    self.output.forget(instruction.attempts)
                    self._followed.difference_update(instruction.attempts)
                case i.StopAfter():
                    self.stop_after_ms = instruction.after_ms
                    self.deadline_told.set()
                case i.Keep():
                    outputs = self.output.of(attempts_of(instruction.message))
                    self.queue_for_disk(self.lineage, instruction._replace(outputs=outputs))
                case i.Aside():
                    outputs = self.output.of(end.attempt for end in instruction.ends)
                    self.queue_for_disk(self.lineage, instruction._replace(outputs=outputs))
                case i.Forget():
                    self.queue_for_disk(self.lineage, instruction)
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def queue_for_disk(self, lineage: int, instruction: ToDisk) -> None:
        """Leave an instruction about the store of `lineage` to the loop that writes (spool_writer.py)."""
        self.to_disk.append((lineage, instruction))
        self.disk_work.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it is looked at after each round of instructions."""
        while not condition():
            await self._changed.wait()

    # ------------------------------------------------------------ what others bring

    def take_blob(self, message: m.Blob) -> None:
        """Take a piece of a large input, and ask for the next; an empty one was the last.

        Only the piece that comes next counts: where an attempt was given back while its input came, and the input is
        asked for anew, the answer to the last question before that is still on its way.
        """
        pieces = self.inputs.get(message.blob)
        if pieces is None or message.piece != len(pieces):
            return
        if message.data:
            pieces.append(message.data)
            self._say(m.GetBlob(message.blob, message.piece + 1))
        else:
            del self.inputs[message.blob]
            self.carry_out(self.slots.fetched(message.blob, b"".join(pieces)))

    def follow(self, message: m.FollowOutput) -> None:
        """Let an attempt's output come as it is written, or no longer."""
        if message.on and message.attempt not in self._followed:
            self._followed.add(message.attempt)
            self._tell(protocol.Follow(message.attempt, FOLLOW_BYTES))
        elif not message.on and message.attempt in self._followed:
            self._followed.discard(message.attempt)
            self._tell(protocol.Follow(message.attempt, 0))

    def renew(self, until_s: float) -> None:
        """The server has heard this worker: what must stop when it is cut off may live until then."""
        self.heard_until_s = max(self.heard_until_s, until_s)
        self._tell(protocol.Lease(self.heard_until_s))

    def bound(self, until_s: float) -> None:
        """From now on the server may give away then what is held, if it hears nothing more: its beats may be shorter
        than they were.
        """
        self.heard_until_s = min(self.heard_until_s, until_s)
        self._tell(protocol.Lease(self.heard_until_s))

    async def take_frames(self, messages: Iterable[protocol.Up]) -> None:
        """Take what the launcher says. Waits while the connection has no room for output."""
        for message in messages:
            match message:
                case protocol.Ended():
                    for output in message.outputs:
                        await self._take_output(output)
                    self.carry_out(self.slots.ended(message.ends))
                case protocol.Output():
                    await self._take_output(message)
                case protocol.Started():
                    self.carry_out(self.slots.started(message.attempts))
                case protocol.Recalled():
                    if message.cause:
                        log("cannot_start", level="warning", attempts=len(message.attempts), error=message.error)
                    self.carry_out(self.slots.recalled(message.attempts, message.cause, message.error))
                case _:
                    pass

    async def _take_output(self, output: protocol.Output) -> None:
        self.output.put(m.Output(output.attempt, output.stream, output.offset, output.data))
        if self.slots.outbox.is_open:
            await self.send_output()
        if output.attempt in self._followed:
            self._tell(protocol.Follow(output.attempt, len(output.data)))

    async def send_output(self, *, heard: Callable[[], None] = lambda: None) -> None:
        """Send what this connection has not carried; `heard` is called between pieces."""
        link = self.link
        while link is not None and link is self.link and (output := self.output.take()):
            if not await link.send(output):
                return
            heard()

    # ------------------------------------------------------------ ways out

    def _say(self, message: m.Message) -> None:
        """Send to the server. A delivery about attempts with output must not overtake that output."""
        if self.link is None:
            return
        if isinstance(message, m.Ended | m.HandedBack) and self.output.has_any_of(attempts_of(message)):
            self.link.send_nowait(message, output=True)
        else:
            self.link.answer_nowait(message)

    def _tell(self, message: protocol.Down) -> None:
        if self.launcher is not None:
            self.launcher.send(message)

    def _spawn(self, assign: m.Assign, stdin: bytes) -> None:
        if assign.stdin:
            for piece in protocol.input_frames(assign.stdin, stdin):
                self._tell(piece)
        self._tell(
            protocol.Spawn(
                assign.lane,
                assign.width,
                assign.is_array,
                assign.queue,
                assign.trace,
                assign.body,
                assign.stdin,
                self.name,
                assign.attempts,
            )
        )
        if assign.stdin:
            self._tell(protocol.Forget(assign.stdin))
            for one in assign.attempts:  # a launcher knows nothing of what it does not hold
                if one.attempt in self._followed:
                    self._tell(protocol.Follow(one.attempt, FOLLOW_BYTES))
