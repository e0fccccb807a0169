"""The same request once more: what made a job is read back, and input that was stored for it serves another job, too.

Input is shared, never copied: ten million entries are one row more. BLOB_USER names the jobs of a blob that more than
one has; it goes with the last of them.
"""

from tq.core.change.step import Step
from tq.core.model import ids, tables
from tq.core.model.job import Job, JobKey
from tq.core.model.view import View
from tq.core.placement.live import Live
from tq.core.read.selection import find_job
from tq.core.vocabulary import GetRequest, Requested, Submit
from tq.errors import BadRequest
from tq.limits import priority_max


def get_request(view: View, _live: Live, command: GetRequest) -> Requested:
    """Answer the request that made a job, with the priority and throttle that it has now."""
    number = _number(command.id)
    job, progress = find_job(view, number)
    request = Submit(
        key="",
        body=job.body,
        name=job.name,
        tags=job.tags,
        queue=job.queue,
        priority=priority_max - progress.rank,
        demand=job.demand,
        size=job.size,
        is_array=job.is_array,
        array_first=job.array_first,
        array_step=job.array_step,
        throttle=progress.throttle,
        retries=job.retries,
        crash_limit=job.crash_limit,
        max_fails=job.max_fails,
        backoff_ms=job.backoff_ms,
        retry_on=job.retry_on,
        no_retry_on=job.no_retry_on,
        stdin_of=str(number) if job.stdin else "",
        entries_of=str(number) if job.entries else "",
    )
    return Requested(request)


def shared_blobs(step: Step, command: Submit) -> tuple[int, int]:
    """Return the blobs (input, entries) of the jobs that a submit names for them; 0 where it names none."""
    stdin = entries = 0
    if command.stdin_of:
        stdin = find_job(step.overlay, _number(command.stdin_of))[0].stdin
    if command.entries_of:
        job, _ = find_job(step.overlay, _number(command.entries_of))
        entries = job.entries
        if job.has_lost_entries:
            raise BadRequest(
                f"a salvage of the store has lost entries of job {command.entries_of}", hint="submit it anew"
            )
        if command.size != job.size or not command.is_array:
            raise BadRequest(f"job {command.entries_of} has {job.size} members, and the array {command.size}")
    if (command.stdin_of and not stdin) or (command.entries_of and not entries):
        raise BadRequest("the job that is named for its input has none")
    if (command.stdin_of and command.stdin_key) or (command.entries_of and command.entries_key):
        raise BadRequest("an input is either uploaded or another job's")
    return stdin, entries


def share(step: Step, command: Submit, blobs: tuple[int, int], number: int) -> None:
    """Note that a new job uses blobs of the jobs that the submit names."""
    for blob, owner in zip(blobs, (command.stdin_of, command.entries_of), strict=True):
        if blob:
            step.overlay.put(tables.BLOB_USER, (blob, _number(owner)), True)
            step.overlay.put(tables.BLOB_USER, (blob, number), True)


def last_use(step: Step, key: JobKey, job: Job) -> tuple[int, ...]:
    """Return the blobs that go with a job that is forgotten: those that no other job uses."""
    blobs = tuple(blob for blob in (job.stdin, job.entries) if blob)
    return tuple(blob for blob in blobs if not _is_used_elsewhere(step, blob, key[0]))


def _is_used_elsewhere(step: Step, blob: int, number: int) -> bool:
    users = [user for (_, user), _ in step.overlay.scan(tables.BLOB_USER, (blob,), (blob + 1,), 2)]
    if users:
        step.overlay.delete(tables.BLOB_USER, (blob, number))
    return any(user != number for user in users)


def _number(text: str) -> int:
    number, value = ids.parse(text)
    if value is not None:
        raise BadRequest(f"{text} is one task of an array; a request makes a whole job", hint=f"name job {number}")
    return number
