"""What the loops of one worker share: who it is, what it holds, how far its end has come. Made by work.py.

No loop and no decision is in here; it is the one place where they meet.
"""

import os
import secrets
from os.path import samestat
from typing import Final

import trio

from tq import __version__
from tq.core.vocabulary import Capacity
from tq.errors import TqError
from tq.net.log import log
from tq.worker import cgroups, containment
from tq.worker.hands import Hands
from tq.worker.home import Home
from tq.worker.machine import look
from tq.worker.modules import imports
from tq.worker.settings import Settings
from tq.worker.slots import Slots
from tq.worker.spool import Kept, Spool

_ID_BITS: Final = 63


class Life:
    """One worker, from its start to its end.

    `epoch` is the server's that was seen last; `is_hurrying`: it does not wait for its attempts any more; `is_over`:
    nothing begins any more; `failure`: why it cannot go on.
    """

    def __init__(self, settings: Settings, home: Home, cancel_scope: trio.CancelScope) -> None:
        self.settings = settings
        self.home = home
        self._place = home.path.stat()
        self.id = secrets.randbits(_ID_BITS) or 1
        self.cgroup, self.group_because = _find_cgroup(home)
        self.capacity = _capacity(settings, cgroups.LEVEL if self.cgroup else containment.LEVEL)
        self.imports = imports(settings.modules)
        self.spool = Spool(home.path / "spool")
        lineage, kept = _restore(self.spool, home.last.lineage)
        restored = [one.message(delivery) for delivery, one in kept.items()]
        self.hands = Hands(
            Slots(self.capacity, restored, settings.tasks_max, self.spool.number_last), f"{self.id:016x}"
        )
        for one in kept.values():
            for output in one.outputs:
                self.hands.output.put(output)
        self.hands.lineage = lineage
        self.epoch = home.last.epoch if lineage == home.last.lineage else 0
        self.is_hurrying = False
        self.is_over = False
        self.failure: TqError | None = None
        self._cancel_scope = cancel_scope

    @property
    def slots(self) -> Slots:
        """What is held."""
        return self.hands.slots

    @property
    def has_home(self) -> bool:
        """Whether its directory is still the one in which it began."""
        try:
            return samestat(self.home.path.stat(), self._place)
        except OSError:
            return False

    @property
    def name(self) -> str:
        """The worker's id, as people and logs say it."""
        return f"w{self.hands.name}"

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


def _find_cgroup(home: Home) -> tuple[bytes, str]:
    """Return the worker's cgroup, or b"" and why it has none. What a dead worker left in it is killed."""
    try:
        return cgroups.find(home.path), ""
    except cgroups.Unavailable as error:
        return b"", str(error)


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


def _restore(spool: Spool, lineage: int) -> tuple[int, dict[int, Kept]]:
    """Return the lineage to go on with, and what lies in the spool for it, by delivery; the rest is set aside."""
    left = spool.load()
    for name in left.damaged:
        log("spool_damaged", level="error", file=name)
    newest = max(left.kept, default=0)
    lineage = lineage or (left.kept[newest].lineage if newest else 0)
    restored, stuck = {}, []
    for delivery, one in left.kept.items():
        if one.lineage == lineage:
            restored[delivery] = one
            continue
        try:
            path = spool.set_aside(delivery, one.lineage)
        except OSError as error:  # it stays where it is, and a later start finds it there
            stuck.append(str(error))
        else:
            log("results_orphaned", level="warning", results=len(one.ends), path=path)
    if stuck:
        log("cannot_set_aside", level="error", left=len(stuck), path=spool.path, error=stuck[0])
    return lineage, restored
