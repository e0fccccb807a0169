"""What the loops of one worker share: who it is, what it holds, how far its end has come. Made by work.py.

No loop and no decision is in here; it is the one place where they meet.
"""

import os
import secrets
from typing import Final

import trio

from tq import __version__, limits
from tq.core.model import ids
from tq.core.vocabulary import Capacity
from tq.errors import TqError
from tq.launcher import cgroups, containment
from tq.net.log import log
from tq.worker.instructions import Aside
from tq.worker.interpreter import Interpreter
from tq.worker.machine import imports, look
from tq.worker.settings import Settings
from tq.worker.spool import Kept, Spool
from tq.worker.state import WorkerState
from tq.worker.state_dir import SPOOL, Last, StateDirectory

_ID_BITS: Final = 63


class WorkerContext:
    """One worker, from its start to its end.

    `epoch` is the server's that was seen last; `home_is_lost`: its directory is not its own any more; `is_hurrying`: it
    does not wait for its attempts any more; `is_over`: nothing begins any more; `failure`: why it cannot go on.
    """

    def __init__(self, settings: Settings, home: StateDirectory, cancel_scope: trio.CancelScope) -> None:
        self.settings = settings
        self.home = home
        self.id = secrets.randbits(_ID_BITS) or 1
        self.cgroup, self.group_because = _find_cgroup(home)
        self.capacity = _capacity(settings, cgroups.LEVEL if self.cgroup else containment.LEVEL)
        self.imports = imports(settings.modules)
        self.spool = Spool(home.directory / SPOOL, self.id)
        self._left = _load(self.spool)
        slots = WorkerState(self.capacity, settings.tasks_max, self.spool.number_last)
        self.interpreter = Interpreter(slots, ids.worker_id(self.id))
        self.epoch = home.last.epoch
        self._kept_by: dict[int, None] = {}  # whose results were restored
        self._is_settled = False
        self._restore(home.last.lineage or next(reversed(self._left), 0))
        self.home_is_lost = trio.Event()
        self.is_hurrying = False
        self.is_over = False
        self.failure: TqError | None = None
        self._cancel_scope = cancel_scope

    @property
    def slots(self) -> WorkerState:
        """What is held."""
        return self.interpreter.slots

    @property
    def predecessors(self) -> tuple[int, ...]:
        """For whom this worker speaks: who lived here, and whose results lie here, should the note of that be gone.

        Once the server knows, they are nobody's: of a directory that was copied, the other one may still be at work.
        """
        if self._is_settled:
            return ()
        return tuple(dict.fromkeys((*self.home.last.workers, *self._kept_by)))[: limits.predecessors_max]

    def change_lineage(self, lineage: int, epoch: int) -> None:
        """Serve another store from now on, whose own results may lie here, too; nothing of the one before is held."""
        self.epoch = epoch
        self._is_settled = False
        self._restore(lineage)

    def _restore(self, lineage: int) -> None:
        self.interpreter.lineage = lineage
        kept = self._left.pop(lineage, {})
        self._kept_by = dict.fromkeys(one.worker for one in kept.values() if one.worker)
        self.slots.restore([one.message(delivery) for delivery, one in kept.items()])
        for one in kept.values():
            for output in one.outputs:
                self.interpreter.output.put(output)

    def settle_down(self, lineage: int, epoch: int) -> None:
        """Both sides agree: from here on this worker is the one that lives here, and for this store alone."""
        self.interpreter.lineage, self.epoch, self._is_settled = lineage, epoch, True
        self.home.speak(Last(self.id, lineage, epoch))
        for other, kept in self._left.items():
            for number, one in kept.items():
                self.interpreter.queue_for_disk(other, Aside(one.ends, number, one.outputs))
        self._left.clear()
        self.interpreter.disk_work.set()

    @property
    def name(self) -> str:
        """The worker's id, as people and logs say it."""
        return self.interpreter.name

    def end(self, failure: TqError | None = None) -> None:
        """End all loops."""
        self.is_over = True
        self.failure = self.failure or failure
        self._cancel_scope.cancel()

    def say_started(self) -> None:
        """Log who starts, and with what."""
        offer = self.capacity
        log(
            "worker_started", worker=self.name, pid=os.getpid(), slots=offer.slots, cpus=offer.cpus_milli / 1_000,
            mem_bytes=offer.mem_bytes, containment=offer.level, host=offer.host, directory=self.home.path,
            restored=len(self.slots.held), **({"because": self.group_because} if self.group_because else {}),
        )  # fmt: skip


def _find_cgroup(home: StateDirectory) -> tuple[cgroups.Taken | None, str]:
    """Return the worker's cgroup, or None and why it has none. What a dead worker left in it is killed."""
    try:
        return cgroups.find(home.path), ""
    except cgroups.Unavailable as error:
        return None, str(error)


def _capacity(settings: Settings, level: str) -> Capacity:
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
        level=level,
        modules=settings.modules,
    )


def _load(spool: Spool) -> dict[int, dict[int, Kept]]:
    """Return what lies in the spool by lineage and delivery; the lineage of the newest is the last.

    Which of them is wanted only a server can say: what was noted of the last one may be older, where a disk was full.
    """
    left = spool.load()
    for level, what, names in (("error", "spool_damaged", left.damaged), ("warning", "spool_unread", left.unread)):
        for name in names:
            log(what, level=level, file=name)
    by_lineage: dict[int, dict[int, Kept]] = {}
    for delivery, one in sorted(left.kept.items()):
        by_lineage[one.lineage] = kept = by_lineage.pop(one.lineage, {})  # behind the others
        kept[delivery] = one
    return by_lineage
