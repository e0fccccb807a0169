"""Submit: what a client gives, checked once and stored."""

from typing import Final

from tq import limits
from tq.core.change.idempotency import share, shared_blobs
from tq.core.change.lanes import lane_for
from tq.core.change.step import Step
from tq.core.change.upload import take
from tq.core.model import tables
from tq.core.model.digest import digest_of
from tq.core.model.ids import ID_LIKE_HINT, NAME_HINT, is_name, is_trace, means_ids
from tq.core.model.job import Job, KeyUse, Progress, Upload
from tq.core.model.retry import runs_alone
from tq.core.model.task import State
from tq.core.placement.fit import why_shut
from tq.core.vocabulary import Submit, Submitted
from tq.errors import BadRequest, KeyConflict, TooLarge

_INT64_MAX: Final = (1 << 63) - 1


def submit(step: Step, command: Submit) -> Submitted:
    """Make a job, or return the one that this key has made."""
    _check(command)
    digest = digest_of(command)
    if command.key:
        known = step.overlay.get(tables.KEY, (command.key,))
        if known is not None:
            if known.digest != digest:
                raise KeyConflict(
                    f"key {command.key!r} was used for another request (job {known.job})",
                    hint="use another --key, or repeat the request as it was",
                )
            progress = step.overlay.get(tables.PROGRESS, (known.job, 0))
            is_gone = progress is None or progress.forgetting  # a key may live longer than its job
            warning = f"job {known.job} was forgotten; another key makes a new one" if is_gone else ""
            return Submitted(str(known.job), existed=True, warning=warning)
    stdin = take(step, command.stdin_key, is_entries=False)
    entries = take(step, command.entries_key, is_entries=True)
    if entries is not None:
        _check_entries(command, entries)
    shared = shared_blobs(step, command)
    lane = lane_for(step, command.queue, command.demand, alone=runs_alone(command.crash_limit, 0))
    meta = step.meta()
    number, meta.next_job = meta.next_job, meta.next_job + 1
    blobs = (stdin.blob if stdin else shared[0], entries.blob if entries else shared[1])
    step.open_job((number, 0), _job(step, command, blobs), _progress(command, lane))
    share(step, command, shared, number)
    if command.key:
        expires_ms = step.times.steady_ms + limits.key_ttl_ms
        step.overlay.put(tables.KEY, (command.key,), KeyUse(digest, number, expires_ms))
    for taken in filter(None, (command.stdin_key, command.entries_key)):
        step.overlay.delete(tables.UPLOAD, (taken,))
    return Submitted(str(number), warning=why_shut(step.live, command.queue, command.demand))


def _check(command: Submit) -> None:
    for what, text in (("name", command.name), ("queue", command.queue), *(("tag", tag) for tag in command.tags)):
        if not is_name(text) and (text or what != "name"):
            raise BadRequest(f"{text[:140]!r} is not a {what}", hint=NAME_HINT)
        if what != "queue" and means_ids(text):
            raise BadRequest(f"{text!r} is not a {what}: where an id may stand it means ids", hint=ID_LIKE_HINT)
    if len(command.key) > limits.key_chars_max:
        raise BadRequest(f"a key has at most {limits.key_chars_max} characters")
    if len(command.tags) > limits.tags_max:
        raise TooLarge(f"a job has at most {limits.tags_max} tags (tags_max)")
    if not command.body:
        raise BadRequest("there is no command to run")
    if len(command.body) > limits.body_bytes_max:
        raise TooLarge(f"command and environment exceed body_bytes_max, {limits.body_bytes_max} bytes")
    if not -limits.priority_max <= command.priority <= limits.priority_max:
        raise BadRequest(f"priority {command.priority} is not between {-limits.priority_max} and {limits.priority_max}")
    if command.trace and not is_trace(command.trace):
        raise BadRequest("the trace is not a W3C traceparent")
    _check_array(command)
    bounds = (
        command.throttle,
        command.retries + 1,
        command.crash_limit,
        command.max_fails + 1,
        command.demand.cpus_milli,
        command.demand.mem_bytes,
    )
    if min(bounds) < 0:
        raise BadRequest("throttle, retries, crash limit, CPUs and memory are not negative")
    _check_retries(command)


def _check_retries(command: Submit) -> None:
    first_ms, longest_ms = command.backoff_ms
    if not 0 <= first_ms <= longest_ms <= limits.backoff_ms_max:
        raise BadRequest("the waits of a backoff grow, and are at most a week", hint="as in --backoff 1s..5m")
    codes = (*command.retry_on, *command.no_retry_on)
    if len(codes) > limits.retry_codes_max or not all(_is_code(code) for code in codes):
        raise BadRequest("exit codes are 0 to 255, signals 1 to 64")
    both = set(command.retry_on) & set(command.no_retry_on)
    if both:
        raise BadRequest(f"exit code {min(both)} is both to be tried again and not")


def _is_code(code: int) -> bool:
    """Whether an attempt may end with this: an exit code, or -N for signal N."""
    return -limits.signal_max <= code <= limits.exit_code_max


def _check_entries(command: Submit, entries: Upload) -> None:
    if entries.received != command.size:
        raise BadRequest(f"{entries.received} entries have arrived, and the array has {command.size} members")
    if entries.digest != command.entries_digest:
        raise BadRequest("the entries that have arrived are not those of this request", hint="use another --key")
    if entries.largest + len(command.body) > limits.body_bytes_max:
        raise TooLarge(f"command, environment and entry exceed body_bytes_max, {limits.body_bytes_max} bytes")


def _check_array(command: Submit) -> None:
    if command.size < 1 or (command.size > 1 and not command.is_array) or command.array_step < 1:
        raise BadRequest("an array has at least one member and a step of at least 1")
    if command.size > limits.array_size_max:
        raise TooLarge(f"an array has at most {limits.array_size_max} members (array_size_max)")
    if command.array_first < 0 or command.array_first + command.size * command.array_step > _INT64_MAX:
        raise BadRequest("the numbers of the array leave 0 to 2^63-1")


def _retries(step: Step, command: Submit) -> int:
    if command.retries >= 0:
        return command.retries
    queue = step.live.queues.get(command.queue)
    return queue.retries if queue is not None and queue.retries >= 0 else step.bounds.retries


def _job(step: Step, command: Submit, blobs: tuple[int, int]) -> Job:
    return Job(
        queue=command.queue,
        name=command.name,
        tags=command.tags,
        demand=command.demand,
        size=command.size,
        is_array=command.is_array,
        array_first=command.array_first,
        array_step=command.array_step,
        retries=_retries(step, command),
        crash_limit=command.crash_limit,
        priority=command.priority,
        submitter=step.submitter,
        trace=command.trace,
        submitted_ms=step.times.wall_ms,
        body=command.body,
        stdin=blobs[0],
        key=command.key,
        entries=blobs[1],
        max_fails=command.max_fails,
        backoff_ms=command.backoff_ms,
        retry_on=command.retry_on,
        no_retry_on=command.no_retry_on,
    )


def _progress(command: Submit, lane: int) -> Progress:
    return Progress(
        lane=lane,
        rank=limits.priority_max - command.priority,
        size=command.size,
        throttle=command.throttle,
        hold=command.hold,
        first=State.HELD if command.hold else State.QUEUED,
    )
