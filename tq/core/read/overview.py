"""Reads of the whole: how many tasks are in which state, the queues, the workers, the tokens; what stands still, and
what goes on in the background.

Like the reads of jobs and tasks (query.py) they change nothing.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import msgspec

from tq.core.model import ids, tables
from tq.core.model.ids import is_name
from tq.core.model.job import Queue, Token
from tq.core.model.task import State
from tq.core.model.view import BEHIND_NAMES, View
from tq.core.placement.live import Live, LiveWorker
from tq.core.read.explain import standstills
from tq.core.read.query import filled, items_max, page_start
from tq.core.vocabulary import Document, Page, Queues, SetPriority, SetThrottle, Status, Tokens, Workers
from tq.errors import BadRequest
from tq.limits import name_chars_max

_TOKEN_BYTES: Final = 96  # what a token takes beside its id and its name
_QUEUE_BYTES: Final = 320  # what a queue takes beside its name, with a count of each state
_WORKER_BYTES: Final = 256  # what a worker takes beside texts
_WORKER_DIGITS: Final = 20  # of a worker's number, which has 64 bits
_SETTING: Final = (SetPriority.__name__, SetThrottle.__name__)
_SWEEPS_MAX: Final = 100  # that one status names
_BEHIND_SWEEPS: Final = 1 << 62


def queues(_view: View, live: Live, command: Queues) -> Page:
    """Answer one page of the queues that have tasks or settings, by name."""
    if command.page and not is_name(command.page):
        raise BadRequest("that is not a page of this list")
    most = items_max(command.limit)
    names = {lane.queue for lane in live.lanes.values() if any(lane.counts)} | live.queues.keys()
    # Only those of this page are counted, and one more, which tells that there are any.
    shown = sorted(name for name in names if name > command.page)[: most + 1]
    counts = {name: [0] * len(State) for name in shown}
    for lane in live.lanes.values():
        if (have := counts.get(lane.queue)) is not None:
            for state in State:
                have[state] += lane.counts[state]
    return filled(((name, _QUEUE_BYTES + len(name), _queue(live, name, counts[name])) for name in shown), most)


def _queue(live: Live, name: str, counts: list[int]) -> dict[str, Any]:
    settings = live.queues.get(name, Queue())
    return {
        "id": name,
        "paused": settings.paused,
        "max": settings.max,
        "retries": settings.retries,
        "counts": {state.word: counts[state] for state in State if counts[state]},
    }


def status(view: View, live: Live, _command: Status) -> Document:
    """Answer counts by state, from the lanes' counters. Those of each queue are in the list of queues: it has pages."""
    total = dict.fromkeys((state.word for state in State), 0)
    for lane in live.lanes.values():
        for state in State:
            total[state.word] += lane.counts[state]
    meta = view.get(tables.META, ())
    heard = [worker for worker in live.workers.values() if worker.is_heard]
    return Document(
        {
            "tasks": total,
            "workers": len(heard),
            "slots": sum(worker.capacity.slots for worker in heard),
            "draining": sum(worker.draining for worker in heard),
            "jobs": meta.next_job - 1 if meta else 0,
            "sequence": meta.sequence if meta else 0,
            "epoch": meta.epoch if meta else 0,
            "counters": dict(live.counts),
            "stuck": list(standstills(view, live)),
            "sweeps": list(_sweeps(view)),
        }
    )


def _sweeps(view: View) -> Iterator[dict[str, Any]]:
    """Yield what goes on in the background, oldest first: of which verb, and at which job of how many it is."""
    for _, sweep in view.scan(tables.SWEEP, (0,), (_BEHIND_SWEEPS,), _SWEEPS_MAX):
        with suppress(msgspec.MsgspecError, LookupError, TypeError):  # one that is damaged ends at its next slice
            name = str(msgspec.msgpack.decode(sweep.command)[0])
            verb = "set" if name in _SETTING else name.lower()
            yield {"verb": verb, "job": str(sweep.job), "last": str(sweep.last)}


def tokens(view: View, _live: Live, command: Tokens) -> Page:
    """Answer one page of the tokens that exist, by id, without their digests."""
    if len(command.page) > name_chars_max:
        raise BadRequest("that is not a page of this list")
    most = items_max(command.limit)
    # One more tells whether there are any, and the one that the page before ended with is passed over.
    rows = view.scan(tables.TOKEN, (command.page,), (BEHIND_NAMES,), most + 2)
    found = ((key[0], token) for key, token in rows if key[0] != command.page)
    return filled(((name, _token_bytes(name, token), _token(name, token)) for name, token in found), most)


def _token_bytes(name: str, token: Token) -> int:
    """Return how much of a page a token takes at most; one that an older server stored may have any name."""
    return _TOKEN_BYTES + len(name.encode()) + len(token.name.encode())


def _token(name: str, token: Token) -> dict[str, Any]:
    return {
        "id": name,
        "role": token.role,
        "name": token.name,
        "created_ms": token.created_ms,
        "expires_ms": token.expires_ms,
    }


def workers(view: View, live: Live, command: Workers) -> Page:
    """Answer one page of the workers that are connected, or are owed their re-attach window, by host and id."""
    host, _, number = command.page.rpartition(" ")
    after = (host, page_start(number, _WORKER_DIGITS) if command.page else -1)
    places = ((_host(view, worker), worker.worker) for worker in live.workers.values())
    found = ((place, live.workers[place[1]]) for place in sorted(place for place in places if place > after))
    rows = ((" ".join(map(str, place)), _worker_bytes(worker), _worker(worker, place[0])) for place, worker in found)
    return filled(rows, items_max(command.limit))


def _host(view: View, worker: LiveWorker) -> str:
    """Return where a worker runs: as it said, or, before it is back after a restart, as an attempt says that it has."""
    if worker.session is not None or not worker.held:
        return worker.capacity.host
    task = view.get(tables.TASK, next(iter(worker.held)))
    return task.host if task is not None else ""


def _worker_bytes(worker: LiveWorker) -> int:
    """Return how much of a page a worker takes at most."""
    offer, trouble = worker.capacity, worker.trouble.error if worker.trouble else ""
    texts = (trouble, offer.host, offer.level, offer.software, *offer.queues, *offer.labels, *offer.modules)
    return _WORKER_BYTES + sum(len(text.encode()) + 2 for text in texts)


def _worker(worker: LiveWorker, host: str) -> dict[str, Any]:
    offer = worker.capacity
    return {
        "id": ids.worker_id(worker.worker),
        "state": _worker_state(worker),
        "host": host,
        "pid": offer.pid,
        "slots": offer.slots,
        "slots_used": worker.slots_used,
        "cpus_milli": offer.cpus_milli,
        "held": len(worker.held),
        "started": len(worker.started),
        "queues": list(offer.queues),
        "labels": list(offer.labels),
        "modules": list(offer.modules),
        "level": offer.level,
        "software": offer.software,
        "draining": worker.draining,
        "troubles": worker.trouble.count if worker.trouble else 0,
        "trouble": worker.trouble.error if worker.trouble else "",
    }


def _worker_state(worker: LiveWorker) -> str:
    """Return a worker's state as far as it is known here; server/sessions/present.py knows more."""
    if not worker.is_heard:
        return "suspect"
    if worker.draining:
        return "draining"
    return "quarantined" if worker.trouble is not None and worker.trouble.is_quarantine else "up"
