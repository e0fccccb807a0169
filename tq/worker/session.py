"""One connection of a worker to its server, from Hello to the end.

    Hello, Welcome (or Refused)
    Reconcile, Reconciled           nothing else before: both sides agree on what is held (semantics.md, Delivery 5)
    messages both ways, beats       until the server is silent for two beats, or the connection ends

A session that ends has sent and read nothing that the next one relies on: what was read and not handled is dropped
before `WorkerState.disconnected` is told.
"""

from collections.abc import Callable
from typing import Final

import trio

from tq import limits
from tq.errors import ProtocolError, Refused
from tq.launcher.guard import boot_s
from tq.net.dial import greet
from tq.net.link import Link
from tq.net.log import log
from tq.wire import messages as m
from tq.worker.interpreter import Interpreter

_BEAT_MS_MIN: Final = 10
_QUEUE_BYTES_MAX: Final = 2**62  # what is said is held until it is acknowledged, so a bound here would save nothing
_BEATS_UNANSWERED_MAX: Final = 16  # an answer to an older one would say nothing


class OtherLineage(Exception):
    """The server speaks for another store than the one whose attempts are held here."""

    def __init__(self, welcome: m.Welcome) -> None:
        super().__init__(f"{welcome.lineage:016x}")
        self.welcome = welcome


class Session:
    """One connection. `reconciled` is called once, when both sides agree."""

    def __init__(self, interpreter: Interpreter, link: Link, reconciled: Callable[[m.Welcome], None]) -> None:
        self.welcome: m.Welcome | None = None
        self._interpreter = interpreter
        self._link = link
        self._reconciled = reconciled
        self._is_heard = True
        self._farewell = ""  # why the server says that it closes
        self._sent_s: dict[int, float] = {}  # beats that are not answered: when each was sent, by number
        self._listed_s = 0.0  # when the list of what is held was sent
        self._waiting_for = (0, 0)  # the oldest delivery, and for how many beats

    async def begin(self, hello: m.Hello) -> list[m.Message]:
        """Say hello; return what came behind the welcome. Raises what the server refuses with."""
        self.welcome, rest = await greet(self._link, hello)
        self._link.queue_bytes_max = _QUEUE_BYTES_MAX
        return rest

    def check(self, lineage: int, epoch: int) -> None:
        """Raise if the server's store is not the one of `lineage` (0 = any), or an older copy of it."""
        welcome = self.welcome
        if welcome is None or lineage == 0:
            return
        if welcome.lineage != lineage:
            raise OtherLineage(welcome)
        if welcome.epoch < epoch:
            raise Refused(
                f"the server's store is older than the one seen before (epoch {welcome.epoch} after {epoch})",
                hint="is it a copy of the data directory? a restored one gets a name of its own",
            )

    @property
    def _beat_s(self) -> float:
        """How long a beat is, as the server says."""
        return max(self.welcome.beat_ms, _BEAT_MS_MIN) / 1_000 if self.welcome else limits.heartbeat_s

    async def run(self, rest: list[m.Message]) -> str:
        """Reconcile, then serve until the connection ends; return why it ended."""
        interpreter, link = self._interpreter, self._link
        interpreter.link = link
        interpreter.output.new_connection()
        try:
            self._listed_s = boot_s()
            interpreter.bound(
                self._worth(self._listed_s)
            )  # the list begins the session for the server, answered or not
            interpreter.carry_out(interpreter.slots.connected())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat)
                nursery.start_soon(self._listen)
                try:
                    await self._take(rest)
                    async for messages in link:
                        self._is_heard = True
                        await self._take(messages)
                except ProtocolError as error:  # said here: out of the nursery it would come in a group
                    log("protocol_error", level="error", error=error)
                nursery.cancel_scope.cancel()
        finally:
            interpreter.link = None
            interpreter.inputs.clear()  # asked for again in the next session
            interpreter.carry_out(interpreter.slots.disconnected())
        return self._farewell or link.ended_because

    async def _take(self, messages: list[m.Message]) -> None:
        interpreter = self._interpreter
        for message in messages:
            while not interpreter.launcher_is_ready.is_set():  # one that is gone again leaves the next one's event
                await interpreter.launcher_is_ready.wait()  # else what came would be taken for lost with the old one
            match message:
                case m.Blob():
                    interpreter.take_blob(message)
                case m.FollowOutput():
                    interpreter.follow(message)
                case m.Reconciled():
                    # Before the reports go out again, so that no report overtakes its output.
                    await interpreter.send_output(heard=self._note_life)
                    self._renew(self._listed_s)
                    interpreter.carry_out(interpreter.slots.receive(message))
                    if self.welcome is not None:
                        self._reconciled(self.welcome)
                case m.Beat():
                    self._answered(message.number)
                case m.Goodbye() | m.Refused():
                    self._farewell = message.reason if isinstance(message, m.Goodbye) else message.message
                case _:
                    interpreter.carry_out(interpreter.slots.receive(message))

    def _answered(self, number: int) -> None:
        """The server has heard a beat: what it heard before that one says nothing new."""
        sent_s = self._sent_s.get(number)
        if sent_s is not None:
            self._sent_s = {later: at_s for later, at_s in self._sent_s.items() if later > number}
            self._renew(sent_s)

    def _renew(self, sent_s: float) -> None:
        """What was sent then has been heard, so the server waits for `missed_beats_max` beats after it."""
        self._interpreter.renew(self._worth(sent_s))

    def _worth(self, sent_s: float) -> float:
        """Until when the server waits at least if it has heard what was sent then."""
        return sent_s + limits.missed_beats_max * self._beat_s

    def _note_life(self) -> None:
        self._is_heard = True

    async def _beat(self) -> None:
        """Say at each beat that we live, and end the connection when what was reported is not acknowledged."""
        beat_s = self._beat_s
        number = 0
        while True:
            before_s = trio.current_time()
            await trio.sleep(beat_s)
            number += 1
            self._sent_s[number] = boot_s()
            self._sent_s.pop(number - _BEATS_UNANSWERED_MAX, None)
            self._link.send_nowait(self._interpreter.slots.beat(number, self._interpreter.stuck))
            if self._is_unacknowledged(beat_s, is_late=trio.current_time() - before_s > 2 * beat_s):
                break
        self._leave("it did not acknowledge a report in time")

    async def _listen(self) -> None:
        """End the connection when the server is silent, a beat before it would give away what is held.

        So what has died unnoticed (an address has changed, a router has forgotten it) is made again in time. Counts
        halves of beats, subtracts no times: a laptop that slept has not missed anything (semantics.md, Delivery 3).
        """
        half_s = self._beat_s / 2
        silent = 0
        while silent < 2 * limits.silent_beats_max:
            before_s = trio.current_time()
            await trio.sleep(half_s)
            is_late = trio.current_time() - before_s > 4 * half_s
            # Who waits for a launcher reads nothing: that is no silence of the server's.
            is_deaf = not self._interpreter.launcher_is_ready.is_set()
            silent = 0 if self._is_heard or is_late or is_deaf else silent + 1
            self._is_heard = False
        self._leave(f"it was silent for {limits.silent_beats_max} beats")

    def _leave(self, why: str) -> None:
        self._farewell = why
        self._link.close()

    def _is_unacknowledged(self, beat_s: float, *, is_late: bool) -> bool:
        """Whether the oldest delivery has waited for its acknowledgement longer than anybody should."""
        oldest = next((delivery.delivery for delivery in self._interpreter.slots.outbox), 0)
        number, beats = self._waiting_for
        beats = beats + 1 if oldest == number and oldest and not is_late else 0
        self._waiting_for = (oldest, beats)
        return beats * beat_s > limits.delivery_s_max
