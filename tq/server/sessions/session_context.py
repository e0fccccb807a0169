"""What every session of one server shares, wired once in serve.py. Holds references, decides nothing."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol

from tq.core.engine.engine import Engine
from tq.core.vocabulary import AddEntries, Answer, Submit, Times, Upload
from tq.errors import NotDone
from tq.net.idle_polling import IdlePolling
from tq.server.commit.commit_loop import STOPPING, Pipeline
from tq.server.commit.intake import Intake
from tq.server.commit.lease_clock import LeaseClock
from tq.server.sessions.registry import Registry
from tq.store.directory import Room
from tq.store.seam import Store

LOW_DISK: Final = NotDone(
    "the server's disk is nearly full, so it takes no new work", hint="free some space there and try again"
)


class Gate:
    """Whether new work may come in at all."""

    def __init__(self) -> None:
        self.room = Room.NORMAL
        self.is_stopping = False

    def check(self, command: object) -> None:
        """Raise NotDone for new work that the server cannot take now; everything else always goes on."""
        if self.is_stopping:
            raise STOPPING
        if self.room is not Room.NORMAL and isinstance(command, Submit | Upload | AddEntries):
            raise LOW_DISK


class Send(Protocol):
    """Sends one of several answers to a request; waits while the client does not read."""

    async def __call__(self, answer: Answer, *, more: bool) -> None: ...  # noqa: D102


class SessionContext(NamedTuple):
    """The parts of a running server that sessions use. `story` gives the server's own part of `status`."""

    engine: Engine
    store: Store
    pipeline: Pipeline
    intake: Intake
    registry: Registry
    lease_clock: LeaseClock
    idle_polling: IdlePolling
    gate: Gate
    times: Callable[[], Times]
    story: Callable[[], dict[str, Any]]
    back_up: Callable[[Send], Awaitable[None]]
    ca_pem: bytes
    lineage: int
    epoch: int
    beat_ms: int
