"""Reads: what people look at. Bounded pages over the turn's view; they change nothing.

Documents have str keys and plain values, times in wall ms under names that end in `_ms`; the edge turns them into what
people read. `body`, `entry` and `usage` in them are opaque bytes; server/sessions/present.py opens them, by the asker's
role.
"""

from collections.abc import Callable, Iterable
from typing import Any

from tq.core.model import ids, tables
from tq.core.model.entries import EntryReader
from tq.core.model.job import Job, Progress
from tq.core.model.task import Cause, Ending, State, Task, TaskKey
from tq.core.model.view import View
from tq.core.placement.live import Live
from tq.core.read.explain import Reasons
from tq.core.read.job_search import Found, each_below, first_number, look_for
from tq.core.read.page_size import job_bytes, task_bytes
from tq.core.read.selection import check, find_job, job_state, matches, shown_counts, shown_state, shows, states_of
from tq.core.vocabulary import Document, Get, GetResults, List, Page, Result, Results, Where
from tq.errors import BadRequest, StoreDamaged
from tq.limits import page_bytes_max, page_items_max, page_keys_max, page_runs_max, priority_max

_RUNNING = frozenset((State.RUNNING,))
_LOOK_KEYS = 10  # what a look costs at least, also where no job is left
_NUMBERS_A_KEY = 20  # what is not there, and may have been, costs that much less than what is
_RESULT_BYTES = 128  # what a result takes beside its opaque parts


def get(view: View, live: Live, command: Get) -> Document:
    """Answer everything about one job or task."""
    number, value = ids.parse(command.id)
    job, progress = find_job(view, number)
    document = {
        "id": command.id,
        "state": job_state(progress).word,
        **_job_part(job, progress),
        "priority": priority_max - progress.rank,
        "hold": progress.hold,
        "submitter": job.submitter,
        "trace": job.trace,
        "retries": job.retries,
        "crash_limit": job.crash_limit,
        "backoff_first_ms": job.backoff_ms[0],
        "backoff_longest_ms": job.backoff_ms[1],
        "retry_on": list(job.retry_on),
        "no_retry_on": list(job.no_retry_on),
        "max_fails": job.max_fails,
        "cpus_milli": job.demand.cpus_milli,
        "body": job.body,
    }
    reasons = Reasons(view, live)
    if value is None and job.is_array:
        state = job_state(progress)
        reason = reasons.of_job(number, job, progress)
    else:
        member = 0 if value is None else ids.position(number, job, value)
        task = view.get(tables.TASK, (number, 0, member))
        state = shown_state(progress, task)
        reason = reasons.of_task((number, 0, member), job, progress, task)
        document |= {"state": state.word, **_task_part(task)}
        document |= EntryReader(view).shown(job, member)
    if reasons.stuck(number, progress, state):
        document["is_stuck"] = True
    if not reason and 0 <= job.max_fails < progress.counts[State.DEAD]:
        reason = f"ended early: more than {job.max_fails} failed (max_fails)"
    return Document(document | _reason(reason))


def _reason(why: str) -> dict[str, str]:
    return {"reason": why} if why else {}


def list_page(view: View, live: Live, command: List) -> Page:
    """Answer one page of jobs, newest first; or of the members of one job, in order."""
    where = Where(command.states, command.queue, command.tag, command.name)
    check(where)
    wanted = states_of(command.states)
    limit = items_max(command.limit)
    if command.job:
        return _members_page(view, live, command, wanted, limit)
    damage = (StoreDamaged,) if command.around else ()
    meta = view.get(tables.META, ())
    top = page_start(command.page) if command.page else (meta.next_job if meta else 1)
    items: list[dict[str, Any]] = []
    unread: list[str] = []
    reasons = Reasons(view, live)
    seen, room = 0, page_bytes_max
    look: Callable[[int], tuple[Found, int]] | None = None
    first = first_number(live)
    while top > first and len(items) < limit and room > 0 and seen < page_keys_max:
        try:
            look = look or look_for(view, live, where, wanted)
            jobs, low = look(top)
        except damage:
            jobs, low = each_below(top)
        seen += max(len(jobs), _LOOK_KEYS, (top - low) // _NUMBERS_A_KEY)
        for number, progress in jobs:
            try:
                found = _job_item(view, live, reasons, number, progress, where, wanted)
            except damage:
                unread.append(str(number))
                continue
            if found is not None:
                items.append(found[0])
                room -= found[1]
            if len(items) >= limit or room <= 0:
                low = number
                break
        top = low
    return Page(tuple(items), str(top) if top > first else "", tuple(unread))


def _job_item(
    view: View,
    live: Live,
    reasons: Reasons,
    number: int,
    progress: Progress | None,
    where: Where,
    wanted: frozenset[State],
) -> tuple[dict[str, Any], int] | None:
    """Return what is shown of a job that is meant, and how much of the page that takes. What is not is told by its
    progress, mostly, which may be read already.
    """
    progress = progress or view.get(tables.PROGRESS, (number, 0))
    if progress is None or progress.forgetting or not shows(wanted, progress):
        return None
    lane = live.lanes.get(progress.lane)
    job = view.get(tables.JOB, (number, 0)) if lane is None or where.queue in ("", lane.queue) else None
    if job is None or not matches(where, wanted, job, progress):
        return None
    why = _reason(reasons.of_job(number, job, progress))
    item = {"id": str(number), "state": job_state(progress).word, **_job_part(job, progress), **why, "body": job.body}
    return item, job_bytes(job)


def _members_page(view: View, live: Live, command: List, wanted: frozenset[State], limit: int) -> Page:
    number, job, progress, first, stop = _span(view, command.job, command.page)
    goes_on = command.begun and not progress.is_ended
    if goes_on:
        stop = max(min(stop, progress.cursor), first)
    # Where those without a record are not wanted, the page goes from record to record, however far apart.
    is_sparse = command.begun or shown_state(progress, None) not in wanted
    high = stop if is_sparse else min(first + page_keys_max, stop)
    damage = (StoreDamaged,) if command.around else ()
    unread: set[int] = set()
    if wanted == _RUNNING:
        rows, unread = _records(view, number, _running(live, number, first, high), damage)
    else:
        try:
            rows = _members(view, number, first, high)
        except damage:
            high = min(first + page_keys_max, high)
            rows, unread = _records(view, number, range(first, high), damage)
    if is_sparse and len(rows) + len(unread) >= page_keys_max:
        high = max((*rows, *unread)) + 1
    items: list[dict[str, Any]] = []
    reasons, entries = Reasons(view, live), EntryReader(view)
    room = page_bytes_max
    for member in rows if is_sparse else range(first, high):
        task = rows.get(member)
        state = shown_state(progress, task)
        if state in wanted and member not in unread:
            try:
                why = _reason(reasons.of_task((number, 0, member), job, progress, task))
            except damage:
                unread.add(member)
                continue
            items.append({"id": ids.task_id(number, job, member), "state": state.word, **_task_part(task), **why})
            if not command.begun:  # who follows it needs ids alone
                try:
                    entry = entries.shown(job, member)
                except damage:  # it is shown without, and named
                    unread.add(member)
                    entry = {}
                if entry:
                    items[-1] |= entry | {"body": job.body}  # which says how to read it
            room -= task_bytes(job, task)
        if len(items) >= limit or room <= 0 or entries.runs_read >= page_runs_max:
            high = member + 1
            break
    lost = tuple(ids.task_id(number, job, member) for member in sorted(unread) if member < high)
    return Page(tuple(items), str(high) if goes_on or high < stop else "", lost)


def _span(view: View, text: str, page: str) -> tuple[int, Job, Progress, int, int]:
    """Return the job that an id names, and the positions (first, behind the last) that it means, from a page on."""
    number, value = ids.parse(text)
    job, progress = find_job(view, number)
    first, stop = 0, job.size
    if value is not None:
        first = ids.position(number, job, value)
        stop = first + 1
    return number, job, progress, max(first, page_start(page) if page else 0), stop


def _members(view: View, number: int, first: int, high: int) -> dict[int, Task]:
    """Return the members of a job that have a record, from `first` on, as many as a page looks at."""
    rows = view.scan(tables.TASK, (number, 0, first), (number, 0, high), page_keys_max)
    return {key[2]: task for key, task in rows}


def _running(live: Live, number: int, first: int, high: int) -> list[int]:
    """Return which of them run, by what the workers hold: however many have ended before."""
    return sorted(member for member in live.jobs.get((number, 0), ()) if first <= member < high)[:page_keys_max]


def _records(
    view: View, number: int, members: Iterable[int], damage: tuple[type[StoreDamaged], ...]
) -> tuple[dict[int, Task], set[int]]:
    """Return those of these members that have a record, and those whose record is damaged, where that may be."""
    rows: dict[int, Task] = {}
    unread: set[int] = set()
    for member in members:
        try:
            task = view.get(tables.TASK, (number, 0, member))
        except damage:
            unread.add(member)
        else:
            if task is not None:
                rows[member] = task
    return rows, unread


def results(view: View, _live: Live, command: GetResults) -> Results:
    """Answer how a task, or the members of an array, ended, and what they returned: as much as a page holds."""
    number, job, progress, first, stop = _span(view, command.id, command.page)
    high = min(first + page_keys_max, stop)
    rows = _members(view, number, first, high)
    items: list[Result] = []
    room = page_bytes_max
    for member in range(first, high):
        task = rows.get(member)
        result = _result(view, ids.task_id(number, job, member), shown_state(progress, task), (number, 0, member), task)
        room -= len(result.value) + len(result.usage) + _RESULT_BYTES
        if items and room < 0:
            high = member
            break
        items.append(result)
    return Results(tuple(items), str(high) if high < stop else "")


def _result(view: View, name: str, state: State, key: TaskKey, task: Task | None) -> Result:
    if task is None:
        return Result(name, state.word)
    value = task.value if len(task.value) == task.value_bytes else view.get(tables.RESULT, key) or b""
    return Result(name, state.word, task.attempt, task.code, task.cause.word, value, task.result, task.phase.word)


def items_max(limit: int) -> int:
    """Return how many a page has at most, of the number that was asked for."""
    return min(max(limit, 1), page_items_max)


def filled(rows: Iterable[tuple[str, int, dict[str, Any]]], most: int) -> Page:
    """Answer as many rows as a page holds: each is its place in the list, the bytes it takes at most, and itself."""
    items: list[dict[str, Any]] = []
    room = page_bytes_max
    after = ""
    for place, size, item in rows:
        room -= size
        if items and (len(items) >= most or room < 0):
            return Page(tuple(items), after)
        items.append(item)
        after = place
    return Page(tuple(items))


def _job_part(job: Job, progress: Progress) -> dict[str, Any]:
    counts = shown_counts(progress)
    return {
        "name": job.name,
        "queue": job.queue,
        "tags": list(job.tags),
        "is_array": job.is_array,
        "size": job.size,
        "submitted_ms": job.submitted_ms,
        "job_ended_ms": progress.ended_ms,
        "counts": {state.word: counts[state] for state in State if counts[state]},
    }


def _task_part(task: Task | None) -> dict[str, Any]:
    if task is None:
        return {"attempt": 0}
    return {
        "attempt": task.attempt,
        "round": task.round,
        "phase": task.phase.word,
        "worker": ids.worker_id(task.worker) if task.worker else "",
        "host": task.host,
        "lease": task.lease,
        "failures": task.failures,
        "losses": task.losses,
        "purged": task.purged,
        "leased_ms": task.leased_ms,
        "started_ms": task.started_ms,
        "ended_ms": task.ended_ms,
        "due_ms": _due_ms(task),
        "run_us": task.run_us,
        "cause": task.cause.word,
        "code": task.code,
        "usage": task.result,
        "history": [_ending(entry) for entry in task.history],
        **({"value_bytes": task.value_bytes} if task.value_bytes else {}),
        **({"run_clipped": True} if task.run_clipped else {}),
    }


def _due_ms(task: Task) -> int:
    """Return when a task that failed is due again, in wall ms as the clock stood at its failure; 0 if it is not."""
    return task.ended_ms + task.due_ms - task.since_ms if task.state is State.RETRYING else 0


def _ending(entry: Ending) -> dict[str, Any]:
    return {
        "attempt": entry.attempt,
        "worker": ids.worker_id(entry.worker),
        "host": entry.host,
        "cause": Cause(entry.cause).word,
        "code": entry.code,
        "started_ms": entry.started_ms,
        "ended_ms": entry.ended_ms,
        "charged": entry.charged,
    }


def page_start(text: str, digits_max: int = 18) -> int:
    """Return the number that a page goes on at. Raises BadRequest for what this list never said."""
    if not text.isdecimal() or len(text) > digits_max:
        raise BadRequest("that is not a page of this list")
    return int(text)
