"""Queues: pausing one, bounding how many of it run, and what its jobs get that do not say."""

from msgspec.structs import replace

from tq.core.change.step import Step
from tq.core.change.stop import recall_assigned
from tq.core.model import tables
from tq.core.model.job import Queue
from tq.core.model.names import NAME_HINT, is_name
from tq.core.vocabulary import Done, SetQueue, Submit
from tq.errors import BadRequest, TaskNotFound
from tq.limits import page_items_max, retries_max


def set_queue(step: Step, command: SetQueue) -> Done:
    """Change what is set for a queue. What is assigned and has not started comes back; what runs goes on."""
    if not is_name(command.name):
        raise BadRequest(f"{command.name[:140]!r} is not a queue", hint=NAME_HINT)
    if command.max is not None and command.max < 0:
        raise BadRequest("a queue's maximum is not negative", hint="0 means no bound")
    if command.retries is not None and not -1 <= command.retries <= retries_max:
        raise BadRequest(f"retries are between 0 and {retries_max}", hint="-1 is as the server says")
    names = _names(step)
    is_new = command.name not in names
    if command.known and is_new:
        near = min((name for name in names if _is_near(name, command.name)), default="")
        hint = f"did you mean {near}? tq queue ls" if near else "tq queue ls"
        raise TaskNotFound(f"there is no queue {command.name}: no tasks, no settings, no worker of its own", hint=hint)
    before = step.overlay.get(tables.QUEUE, (command.name,))
    if before is None and len(step.live.queues) >= page_items_max:
        raise BadRequest(f"{page_items_max} queues have settings already (page_items_max)")
    queue = before or Queue()
    if command.paused is not None:
        queue = replace(queue, paused=command.paused)
    if command.max is not None:
        queue = replace(queue, max=command.max)
    if command.retries is not None:
        queue = replace(queue, retries=command.retries)
    if queue == Queue():
        step.overlay.delete(tables.QUEUE, (command.name,))
    else:
        step.overlay.put(tables.QUEUE, (command.name,), queue)
    if queue.paused or queue.max:
        lanes = {number for number, lane in step.live.lanes.items() if lane.queue == command.name}
        holding = step.live.workers.values()
        recall_assigned(step, [key for worker in holding for key, lane in worker.held.items() if lane in lanes])
    return Done(command.name, unchanged=queue == (before or Queue()), made=is_new and queue != Queue())


def _is_near(one: str, other: str) -> bool:
    """Whether two names differ by one character, or by two neighbours that have changed places.

    Ten thousand names of 128 characters may have to be compared: difflib takes a minute and a half for those.
    """
    if abs(len(one) - len(other)) > 1:
        return False
    start = next((place for place, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), 0)
    rest, rest_of_other = one[start:], other[start:]
    if len(one) != len(other):
        return rest[1:] == rest_of_other or rest == rest_of_other[1:] or one[:-1] == other or one == other[:-1]
    return rest[1:] == rest_of_other[1:] or (rest[:2] == rest_of_other[1::-1] and rest[2:] == rest_of_other[2:])


def _names(step: Step) -> set[str]:
    """Return the queues that there are: those with tasks or settings, or a worker that serves them by name, and the one
    that nobody has to name.
    """
    live = step.live
    of_tasks = {lane.queue for lane in live.lanes.values() if any(lane.counts)}
    served = {name for worker in live.workers.values() for name in worker.capacity.queues}
    return of_tasks | served | live.queues.keys() | {Submit("", b"").queue}
