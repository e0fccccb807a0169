"""The dead letter queue, as people look at it: oldest first, page by page."""

from tq.core.model import ids, tables
from tq.core.model.entries import EntryReader
from tq.core.model.job import Job
from tq.core.model.task import State, Task, TaskKey
from tq.core.model.view import Key, View
from tq.core.placement.live import Live
from tq.core.read.page_size import letter_bytes
from tq.core.read.selection import check, is_meant, is_of
from tq.core.vocabulary import DeadLetters, Page, Where
from tq.errors import BadRequest, StoreDamaged
from tq.limits import page_bytes_max, page_items_max, page_keys_max, page_runs_max

_DEAD = frozenset((State.DEAD,))


def dead_letters(view: View, _live: Live, command: DeadLetters) -> Page:
    """Answer one page of dead letters; a page may be empty with a next one where a filter passes many over."""
    check(command.where)
    limit = min(max(command.limit, 1), page_items_max)
    rows = view.scan(tables.DEAD, _parse(command.page) if command.page else (0,), (1 << 62,), page_keys_max)
    damage = (StoreDamaged,) if command.around else ()
    items: list[dict[str, object]] = []
    unread: dict[str, None] = {}
    entries, room = EntryReader(view), page_bytes_max
    last: Key = ()
    for key, _ in rows:
        last = key
        member = key[3]
        try:
            found = _found(view, command.where, (key[1], key[2], member))
            if found is not None:
                job, task = found
                items.append(_item(key[1], member, job, task))
                room -= letter_bytes(job, task)
                items[-1] |= entries.shown(job, member)
        except damage:  # of an entry alone: it is shown without, and named
            unread[str(key[1])] = None
        if len(items) >= limit or room <= 0 or entries.runs_read >= page_runs_max:
            break
    is_all = not rows or (last == rows[-1][0] and len(rows) < page_keys_max)
    return Page(tuple(items), "" if is_all else ".".join(map(str, (*last[:3], last[3] + 1))), tuple(unread))


def _found(view: View, where: Where, key: TaskKey) -> tuple[Job, Task] | None:
    """Return job and record of a dead letter that is meant."""
    job = view.get(tables.JOB, key[:2])
    progress = view.get(tables.PROGRESS, key[:2])
    task: Task | None = view.get(tables.TASK, key)
    if job is None or progress is None or task is None or progress.forgetting:
        return None
    return (job, task) if is_of(where, job) and is_meant(where, _DEAD, progress, task) else None


def _item(number: int, member: int, job: Job, task: Task) -> dict[str, object]:
    return {
        "id": ids.task_id(number, job, member),
        "name": job.name,
        "queue": job.queue,
        "cause": task.cause.word,
        "code": task.code,
        "attempt": task.attempt,
        "round": task.round,
        "failures": task.failures,
        "losses": task.losses,
        "host": task.host,
        "ended_ms": task.ended_ms,
        "body": job.body,
    }


def _parse(text: str) -> Key:
    parts = text.split(".")
    if len(parts) != len(tables.DEAD.fields) or not all(part.isdecimal() and len(part) <= 18 for part in parts):
        raise BadRequest("that is not a page of this list")
    return tuple(map(int, parts))
