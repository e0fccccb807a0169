"""Queues: pausing one, bounding how many of it run, and what its jobs get that do not say."""

from msgspec.structs import replace

from tq.core import tables
from tq.core.engine.step import JobKey, Step
from tq.core.engine.stop import recall_assigned
from tq.core.job import Queue
from tq.core.names import NAME_HINT, is_name
from tq.core.vocabulary import Done, SetQueue
from tq.errors import BadRequest
from tq.limits import page_items_max, retries_max


def set_queue(step: Step, command: SetQueue) -> Done:
    """Change what is set for a queue. What is assigned and has not started comes back; what runs goes on."""
    if not is_name(command.name):
        raise BadRequest(f"{command.name[:140]!r} is not a queue", hint=NAME_HINT)
    if command.max is not None and command.max < 0:
        raise BadRequest("a queue's maximum is not negative", hint="0 means no bound")
    if command.retries is not None and not -1 <= command.retries <= retries_max:
        raise BadRequest(f"retries are between 0 and {retries_max}", hint="-1 is as the server says")
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
        for key in _jobs_in(step, command.name):
            recall_assigned(step, key)
    return Done(command.name, unchanged=queue == (before or Queue()))


def _jobs_in(step: Step, name: str) -> list[JobKey]:
    """Return the jobs of a queue that have attempts somewhere: soft state, bounded by what workers hold."""
    live = step.live
    # Any attempt tells: also those in the lane for what runs alone are of the job's queue.
    firsts = ((key, *next(iter(members.items()))) for key, members in live.jobs.items())
    return [key for key, member, worker in firsts if live.lanes[live.workers[worker].held[*key, member]].queue == name]
