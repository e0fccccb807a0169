"""What `Slots` wants done, as plain values: the vocabulary between a worker's decisions and its I/O.

`interpreter.py` carries them out with a real launcher, a real connection and a disk; the simulator with its own.
They are carried out in the order of the list. Pure: no I/O here.
"""

from typing import NamedTuple

from tq.core.vocabulary import AttemptRef, End
from tq.wire.messages import Assign, Ended, HandedBack, Message, Output

Delivery = Ended | HandedBack


class Say(NamedTuple):
    """Send this message to the server, on the connection of the present session."""

    message: Message


class Spawn(NamedTuple):
    """Give these attempts to the launcher. `stdin` is the large input, complete (b"" = as the body says)."""

    assign: Assign
    stdin: bytes


class Stop(NamedTuple):
    """The launcher ends these (`signal`, 0 = the task's own; later KILL), and reports each once all of it is dead."""

    attempts: tuple[AttemptRef, ...]
    cause: int
    signal: int = 0


class Recall(NamedTuple):
    """The launcher gives back what of these has not started; it says nothing about the others."""

    attempts: tuple[AttemptRef, ...]


class Fetch(NamedTuple):
    """Get this large input from the server, then call `Slots.fetched`. Asked again in each session until then."""

    blob: int


class Keep(NamedTuple):
    """Write this to the disk, under its number: the server does not hear us.

    `outputs` is what its attempts have written; interpreter.py adds it.
    """

    message: Delivery
    outputs: tuple[Output, ...] = ()


class Forget(NamedTuple):
    """The server has what was kept under this delivery: it may go from the disk."""

    delivery: int


class Settled(NamedTuple):
    """Nothing more is owed for these attempts: whatever else was kept for them (output) may go."""

    attempts: tuple[AttemptRef, ...]


class Aside(NamedTuple):
    """These results belong to another lineage, where nobody waits for them: keep them apart, and say so.

    Under `delivery` they may lie on the disk already, 0 = they do not. `outputs` as in `Keep`.
    """

    ends: tuple[End, ...]
    delivery: int = 0
    outputs: tuple[Output, ...] = ()


class StopAfter(NamedTuple):
    """What still lives in `after_ms` is to be stopped then (`Slots.stop_all`); -1 = it may run. The last one counts."""

    after_ms: int


Instruction = Say | Spawn | Stop | Recall | Fetch | Keep | Forget | Settled | Aside | StopAfter
