"""Reads: what people look at. Bounded pages over the turn's view; they change nothing.

Documents have str keys and plain values, times in wall ms under names that end in `_ms`; the edge turns them into what
people read. `body`, `entry` and `usage` in them are opaque bytes; server/present.py opens them, by the asker's role.
"""

from collections.abc import Callable, Iterable
from typing import Any

from tq.core import ids, tables
from tq.core.entries import EntryReader
from tq.core.finding import Found, each_below, look_for
from tq.core.job import Job, Progress
from tq.core.listed import job_bytes, task_bytes
from tq.core.live import Live, LiveWorker
from tq.core.retry import backoff_ms
from tq.core.selection import check, find_job, matches, shown_counts, shown_state, shows, states_of
from tq.core.standstill import Reasons
from tq.core.task import Cause, Ending, Phase, State, Task, TaskKey, cause_of
from tq.core.view import View
from tq.core.vocabulary import (
    Capacity,
    Document,
    Get,
    GetResults,
    List,
    Outcome,
    Page,
    Result,
    Results,
    Wait,
    Waited,
    Where,
    Workers,
)
from tq.errors import BadRequest, StoreDamaged, TaskNotFound, TooLarge
from tq.limits import (
    page_bytes_max,
    page_items_max,
    page_keys_max,
    page_runs_max,
    priority_max,
    wait_ids_max,
)

_RUNNING = frozenset((State.RUNNING,))
_LOOK_KEYS = 10  # what a look costs at least, also where no job is left
_RESULT_BYTES = 128  # what a result takes beside its opaque parts
_WORKER_BYTES = 256  # what a worker takes beside the texts of its offer
_WORKER_DIGITS = 20  # of a worker's number, which has 64 bits
_ALIVE_FIRST = (
    State.RUNNING,
    State.QUEUED,
    State.RETRYING,
    State.SCHEDULED,
    State.HELD,
    State.BLOCKED,
    State.DEAD,
    State.EXPIRED,
    State.CANCELLED,
    State.SKIPPED,
    State.SUCCEEDED,
)


def job_state(progress: Progress) -> State:
    """Return the state of a whole job: the most alive of its tasks' states; of an ended one the worst."""
    counts = shown_counts(progress)
    return next(state for state in _ALIVE_FIRST if counts[state])


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
    top = _page(command.page) if command.page else (meta.next_job if meta else 1)
    items: list[dict[str, Any]] = []
    unread: list[str] = []
    reasons = Reasons(view, live)
    seen, room = 0, page_bytes_max
    look: Callable[[int], tuple[Found, int]] | None = None
    while top > 1 and len(items) < limit and room > 0 and seen < page_keys_max:
        try:
            look = look or look_for(view, live, where, wanted)
            jobs, low = look(top)
        except damage:
            jobs, low = each_below(top)
        seen += max(len(jobs), _LOOK_KEYS)
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
    return Page(tuple(items), str(top) if top > 1 else "", tuple(unread))


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
    reasons, entries = Reasons(view, live), EntryReader(view, damage)
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
            if not command.begun and (entry := entries.shown(job, member)):  # who follows it needs ids alone
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
    return number, job, progress, max(first, _page(page) if page else 0), stop


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


def wait(view: View, live: Live, command: Wait) -> Waited:
    """Answer how these stand, and whether all of them are where the asker waits for."""
    if command.until not in ("done", "running"):
        raise BadRequest(f"{command.until!r} is nothing to wait for", hint="done or running")
    if not 1 <= len(command.ids) <= wait_ids_max:
        raise TooLarge(f"wait takes 1 to {wait_ids_max} ids (wait_ids_max)")
    reasons = Reasons(view, live)
    jobs: dict[int, tuple[Job, Progress]] = {}  # thousands may be tasks of one
    outcomes: list[Outcome] = []
    unknown: dict[str, TaskNotFound] = {}
    for text in command.ids:
        try:
            outcomes.append(_outcome(view, reasons, jobs, text))
        except TaskNotFound as error:
            unknown[text] = error
    if unknown:
        raise ids.not_found(unknown)
    return Waited(all(is_there(outcome, command.until) for outcome in outcomes), tuple(outcomes))


def _outcome(view: View, reasons: Reasons, jobs: dict[int, tuple[Job, Progress]], text: str) -> Outcome:
    number, value = ids.parse(text)
    if number not in jobs:
        jobs[number] = find_job(view, number)
    job, progress = jobs[number]
    if value is None and job.is_array:
        state = job_state(progress)
        succeeded = progress.counts[State.SUCCEEDED]
        ended = sum(progress.counts[State.SUCCEEDED :])
        reason, retrying = reasons.stuck(number, progress, state), progress.counts[State.RETRYING]
        return Outcome(
            text, state.word, size=job.size, succeeded=succeeded, ended=ended, reason=reason, retrying=retrying
        )
    member = 0 if value is None else ids.position(number, job, value)
    key = (number, 0, member)
    task = view.get(tables.TASK, key)
    state = shown_state(progress, task)
    has_earlier = task and task.history and (task.failures or task.losses) and not state.is_terminal
    earlier = task.history[-1] if task and has_earlier else None
    return Outcome(
        text,
        state.word,
        phase=task.phase.word if task else "",
        code=task.code if task else 0,
        cause=task.cause.word if task else "",
        succeeded=int(state is State.SUCCEEDED),
        ended=int(state.is_terminal),
        attempt=task.attempt if task else 0,
        usage=task.result if task else b"",
        reason=reasons.stuck(number, progress, state),
        pause_ms=backoff_ms(job, key, task.attempt, task.failures) if task and state is State.RETRYING else 0,
        earlier_attempt=earlier.attempt if earlier else 0,
        earlier_cause=cause_of(earlier.cause).word if earlier else "",
        earlier_code=earlier.code if earlier else 0,
    )


def is_there(outcome: Outcome, until: str) -> bool:
    """Whether one task or job is where the asker waits for: done, or running."""
    if until == "running":
        # An attempt that is only assigned stands behind another one, or has not reached its process yet.
        return outcome.ended > 0 or (outcome.state == "running" and outcome.phase != Phase.ASSIGNED.word)
    return outcome.ended == outcome.size


def workers(_view: View, live: Live, command: Workers) -> Page:
    """Answer one page of the workers that are connected, or are owed their re-attach window, by id."""
    after = _page(command.page, _WORKER_DIGITS) if command.page else -1
    found = (live.workers[number] for number in sorted(number for number in live.workers if number > after))
    return filled(
        ((str(worker.worker), _offer_bytes(worker.capacity), _worker(worker)) for worker in found),
        items_max(command.limit),
    )


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


def _offer_bytes(offer: Capacity) -> int:
    """Return how much of a page a worker takes at most."""
    texts = (offer.host, offer.level, offer.software, *offer.queues, *offer.labels, *offer.modules)
    return _WORKER_BYTES + sum(len(text.encode()) + 2 for text in texts)


def _worker(worker: LiveWorker) -> dict[str, Any]:
    offer = worker.capacity
    return {
        "id": ids.worker_id(worker.worker),
        "state": _worker_state(worker),
        "host": offer.host,
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
    }


def _worker_state(worker: LiveWorker) -> str:
    """Return a worker's state as far as it is known here; whoever listens to it knows more (server/present.py)."""
    if not worker.is_heard:
        return "suspect"
    if worker.draining:
        return "draining"
    return "quarantined" if worker.trouble is not None and worker.trouble.is_quarantine else "up"


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


def _page(text: str, digits_max: int = 18) -> int:
    if not text.isdecimal() or len(text) > digits_max:
        raise BadRequest("that is not a page of this list")
    return int(text)
