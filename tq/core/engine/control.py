"""The small commands: the server's start, draining a worker, an input that is lost, queues, tokens."""

from msgspec.structs import replace

from tq.core.bulk.act import act
from tq.core.bulk.verbs import VERBS
from tq.core.change.step import Step
from tq.core.change.stop import held_of, recall_assigned
from tq.core.model import ids, tables
from tq.core.model.ids import NAME_HINT, is_name
from tq.core.model.job import ROLES, Meta, Queue, Token
from tq.core.model.view import BEHIND_NAMES
from tq.core.placement.live import LIVE_DAMAGED, LIVE_SESSION, LIVE_TROUBLE, LiveWorker
from tq.core.read.job_index import NAMED_BY
from tq.core.vocabulary import (
    CreateToken,
    Done,
    Drain,
    DrainAsked,
    Hold,
    InputDamaged,
    Recover,
    Recovered,
    RevokeToken,
    SetQueue,
    Submit,
    TokenRevoked,
)
from tq.errors import BadRequest, TaskNotFound
from tq.limits import drain_ms_max, missed_beats_max, name_chars_max, page_items_max, retries_max


def recover(step: Step, command: Recover) -> Recovered:
    """Begin a new epoch; a new store gets its lineage. Who holds attempts is owed the re-attach window.

    That is to be no less than what is left of three beats of any earlier life; that time has passed between two lives
    is not believed.
    """
    meta = step.overlay.get(tables.META, ())
    if meta is None:
        step.overlay.put(tables.META, (), Meta(command.lineage or 1))
    held_ms = 0 if meta is None else max(missed_beats_max * meta.beat_ms, meta.held_until_ms - meta.steady_ms)
    mine = step.meta()
    mine.beat_ms = command.beat_ms
    mine.held_until_ms = step.times.steady_ms + held_ms
    if mine.named_by != NAMED_BY:  # who wrote it last had rows for less: what there is by now is found without
        mine.named_from, mine.named_by = mine.next_job, NAMED_BY
    mine.epoch += 1
    for number in step.live.lanes:
        if step.overlay.get(tables.LANE, (number,)) is None:
            step.lane(number)  # its row was lost, and is written again
            step.count("lanes_derived")
    return Recovered(mine.lineage, mine.epoch, tuple(sorted(step.live.workers)), held_ms)


def drain(step: Step, command: Drain) -> Done:
    """Lease nothing more to a worker, or go on: then its trouble is over as well.

    The worker itself stops at the deadline what still runs, so that it does so cut off as well.
    """
    if not -1 <= command.deadline_ms <= drain_ms_max or (command.deadline_ms >= 0 and not command.on):
        raise BadRequest("a drain's deadline is at most a week", hint="tq drain WORKER --deadline 10m")
    worker = _worker(step, command.worker)
    name, session = ids.worker_id(worker.worker), worker.session
    if session is None:
        raise TaskNotFound(f"worker {name} is not connected", hint="once it is back: tq drain; tq workers")
    due_ms = step.times.steady_ms + command.deadline_ms if command.deadline_ms >= 0 else -1
    step.overlay.put(LIVE_SESSION, (worker.worker,), replace(session, draining=command.on, drain_due_ms=due_ms))
    if not command.on:
        step.overlay.delete(LIVE_TROUBLE, (worker.worker,))
    step.effects.append(DrainAsked(worker.worker, session.number, command.on, command.deadline_ms))
    return Done(name)


def input_damaged(step: Step, command: InputDamaged) -> None:
    """Hold what a worker has with an input that the store cannot read, and let the worker give it back.

    As salvage does with a job that has lost a piece of its input (ADR 21): what is in doubt is started by a person.
    """
    live = step.live.workers.get(command.worker)
    for job in sorted({task[:2] for task in live.held} if live is not None else ()):
        if step.job(job).stdin != command.blob:
            continue
        step.overlay.put(LIVE_DAMAGED, job, True)
        if step.progress(job).hold:
            recall_assigned(step, held_of(step, job))  # it was given meanwhile, or the word of the recall was lost
        else:
            act(step, VERBS[Hold], Hold((str(job[0]),)))


def _worker(step: Step, text: str) -> LiveWorker:
    found = [
        worker
        for worker in step.live.workers.values()
        if ids.worker_id(worker.worker).startswith(text) or worker.capacity.host == text
    ]
    if not text or not found:
        raise TaskNotFound(f"no worker {text[:name_chars_max]!r} is known", hint="tq workers")
    if len(found) > 1:
        raise BadRequest(f"{text!r} names {len(found)} workers", hint="use more of the id; tq workers")
    return found[0]


def create_token(step: Step, command: CreateToken) -> Done:
    """Store a token. Which role may make which is decided where roles are known (server/sessions/roles.py)."""
    if command.role not in ROLES or len(command.digest) != 32 or not 1 <= len(command.id) <= name_chars_max:
        raise BadRequest("a token has an id, a role (read, submit, worker, admin) and a SHA-256")
    if command.name and not is_name(command.name):
        raise BadRequest(
            f"{command.name[:name_chars_max]!r} is not the name of a token (name_chars_max, {name_chars_max})",
            hint=NAME_HINT,
        )
    if step.overlay.get(tables.TOKEN, (command.id,)) is not None:
        raise BadRequest(f"token {command.id} exists")
    if command.expires_ms and command.expires_ms <= step.times.wall_ms:
        raise BadRequest("the token would have expired already")
    rows = step.overlay.scan(tables.TOKEN, ("",), (BEHIND_NAMES,), page_items_max)
    if len(rows) >= page_items_max:
        expired = [key for key, known in rows if 0 < known.expires_ms <= step.times.wall_ms]
        if not expired:
            raise BadRequest(f"there are {page_items_max} tokens already (page_items_max)", hint="tq token revoke")
        for key in expired:  # kept to be seen for as long as there is room
            step.overlay.delete(tables.TOKEN, key)
    token = Token(command.digest, command.role, command.name, step.times.wall_ms, command.expires_ms)
    step.overlay.put(tables.TOKEN, (command.id,), token)
    return Done(command.id)


def revoke_token(step: Step, command: RevokeToken) -> Done:
    """Forget a token; its connections are closed."""
    if step.overlay.get(tables.TOKEN, (command.id,)) is None:
        raise TaskNotFound(f"there is no token {command.id[:name_chars_max]!r}", hint="tq token ls")
    step.overlay.delete(tables.TOKEN, (command.id,))
    step.effects.append(TokenRevoked(command.id))
    return Done(command.id)


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
