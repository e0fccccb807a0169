"""The simulated worker's connections, one after the other: dial, hello, lists, messages, beats, and the next one.

As the session of the worker's program does it (worker/session.py), which cannot run here because it waits.
"""

from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from tests.sim.network import End
from tests.sim.world import MS, SECOND
from tq import limits
from tq.wire import messages as m

if TYPE_CHECKING:
    from tests.sim.worker import Worker

HELLO_US: Final = 5 * SECOND


def carry_through(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run what waits for nothing here to its end."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits for something that the simulator does not have")


class Wire:
    """A worker's end of a connection, with the interface of `net.link.Link`: control messages before output."""

    def __init__(self, worker: "Worker", end: End) -> None:
        self.end = end
        self._worker = worker
        self._control: list[m.Message] = []
        self._output: list[m.Message] = []

    def send_nowait(self, message: m.Message, *, output: bool = False) -> None:
        """Send soon, together with whatever else is ready."""
        if not self._control and not self._output:
            self._worker.after(0, self._flush)
        (self._output if output else self._control).append(message)

    def answer_nowait(self, message: m.Message) -> None:
        """Send at once if nothing stands before it."""
        if self._control or self._output:
            self.send_nowait(message)
        else:
            self.end.send([message])

    async def send(self, message: m.Message) -> bool:
        """Send, in the class of output; it always has room here."""
        self.send_nowait(message, output=True)
        return self.end.is_open

    def close(self, last: m.Message | None = None) -> None:
        """Send what is ready and close."""
        if last is not None:
            self._output.append(last)
        self._flush()
        self.end.close()

    def _flush(self) -> None:
        batch, self._control, self._output = self._control + self._output, [], []
        self.end.send(batch)


class Line:
    """The connections of one life of a worker: at most one at a time."""

    def __init__(self, worker: "Worker") -> None:
        self.worker = worker
        self.end: End | None = None
        self._waiting: deque[m.Message] = deque()  # read and not handled
        self._tries = 0
        self._session = 0
        self._sent_s: dict[int, float] = {}  # beats that are not answered, by number
        self._listed_s = 0.0

    def pause(self) -> None:
        """Full jitter; who holds attempts comes back sooner."""
        longest_s = limits.reconnect_holding_s_max if self.worker.slots.held else limits.reconnect_s_max
        self._tries += 1
        pause_s = min(longest_s, 0.2 * 2 ** min(self._tries, 16))
        self.worker.after(int(self.worker.world.dice.random() * pause_s * SECOND), self._dial)

    def _dial(self) -> None:
        if self.end is not None or not self.worker.is_up:
            return
        server = self.worker.server
        end = server.network.dial(self.worker, server, server.accept) if server.is_listening else None
        if end is None:
            self.pause()
            return
        self.end = end
        self._session = 0
        end.on_messages = lambda messages: self._welcome(end, messages)
        end.on_end = lambda: self._disconnected(end)
        end.send(
            [
                m.Hello(
                    (1, 1),
                    "sim",
                    "",
                    "worker",
                    self.worker.id,
                    (self.worker.predecessor,) if self.worker.predecessor else (),
                )
            ]
        )
        self.worker.after(HELLO_US, self._hello_late, end)

    def _hello_late(self, end: End) -> None:
        if self.end is end and not self._session:
            self.drop("no welcome")

    def _welcome(self, end: End, messages: list[m.Message]) -> None:
        welcome, *rest = messages
        if not isinstance(welcome, m.Welcome):
            self.drop(f"refused: {welcome}")
            return
        self._session = welcome.session
        self._beat_us = welcome.beat_ms * MS
        self._is_heard = True
        self._silent = 0
        self._waiting_for = (0, 0)
        self._sent_s, self._beats = {}, 0
        self._beat_due_us = self.worker.world.now_us + self._beat_us
        end.on_messages = self._receive
        self.worker.interpreter.link = Wire(self.worker, end)  # type: ignore[assignment]
        self.worker.interpreter.output.new_connection()
        self._listed_s = self.worker.world.now_us / SECOND
        self.worker.interpreter.bound(self._worth(self._listed_s))
        self.worker.interpreter.carry_out(self.worker.slots.connected())
        self.worker.after(self._beat_us, self._beat, end)
        self._receive(rest)

    def _receive(self, messages: list[m.Message]) -> None:
        self._is_heard = True
        self._waiting.extend(messages)
        self.take_messages()

    def take_messages(self) -> None:
        """Take what came, but not while there is no launcher: what came would be lost with the old one."""
        interpreter = self.worker.interpreter
        while self._waiting and self.worker.launcher is not None and self.end is not None:
            message = self._waiting.popleft()
            match message:
                case m.Blob():
                    interpreter.take_blob(message)
                case m.Reconciled():
                    carry_through(interpreter.send_output())
                    self._renew(self._listed_s)
                    interpreter.carry_out(interpreter.slots.receive(message))
                    self._tries = 0
                    self.worker.directory.last_worker = self.worker.id
                    self.worker.world.count("reconciled")
                case m.Beat() if message.number in self._sent_s:
                    self._renew(self._sent_s.pop(message.number))
                case _:
                    interpreter.carry_out(interpreter.slots.receive(message))
        self.worker.settle()

    def _renew(self, sent_s: float) -> None:
        """What was sent then has been heard: the server waits for three beats after it."""
        self.worker.interpreter.renew(self._worth(sent_s))

    def _worth(self, sent_s: float) -> float:
        return sent_s + limits.missed_beats_max * self._beat_us / SECOND

    def _beat(self, end: End) -> None:
        if self.end is not end or self.worker.interpreter.link is None:
            return
        is_late = self.worker.world.now_us - self._beat_due_us > self._beat_us
        self._beats += 1
        self._sent_s[self._beats] = self.worker.world.now_us / SECOND
        self.worker.interpreter.link.send_nowait(self.worker.slots.beat(self._beats))
        self._silent = 0 if self._is_heard or is_late else self._silent + 1
        self._is_heard = False
        if self._silent >= limits.silent_beats_max or self._is_unacknowledged(is_late=is_late):
            self.drop("the server is silent")
            return
        self._beat_due_us = self.worker.world.now_us + self._beat_us
        self.worker.after(self._beat_us, self._beat, end)

    def _is_unacknowledged(self, *, is_late: bool) -> bool:
        oldest = next((delivery.delivery for delivery in self.worker.slots.outbox), 0)
        number, beats = self._waiting_for
        beats = beats + 1 if oldest == number and oldest and not is_late else 0
        self._waiting_for = (oldest, beats)
        return beats * self._beat_us > limits.delivery_s_max * SECOND

    def drop(self, reason: str) -> None:
        """Close the connection from here, and dial again."""
        end = self.end
        if end is not None:
            self.worker.note(f"drops its connection: {reason}")
            end.close()
            self._disconnected(end)

    def dial_again(self) -> bool:
        """Give the connection up without a word, and dial at once; what it sent last arrives late, or never."""
        end = self.end
        if end is None:
            return False
        end.is_open = False
        end.coming.clear()
        end.peer.held_until_us = self.worker.world.now_us + self.worker.world.wait_us(200 * MS)
        self._disconnected(end)
        self._dial()
        return True

    def _disconnected(self, end: End) -> None:
        if self.end is not end:
            return
        self._waiting.clear()
        self.end = None
        self.worker.note("is disconnected")
        if self.worker.interpreter.link is not None:
            self.worker.interpreter.link = None
            self.worker.interpreter.carry_out(self.worker.slots.disconnected())
        self.worker.settle()
        self.pause()
