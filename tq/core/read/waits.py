"""Reads for who waits: how jobs and tasks stand, and whether that is what they wait for."""

from tq.core.model import ids, tables
from tq.core.model.job import Job, Progress
from tq.core.model.retry import backoff_ms
from tq.core.model.task import Phase, State, cause_of
from tq.core.model.view import View
from tq.core.placement.live import Live
from tq.core.read.explain import Reasons
from tq.core.read.selection import find_job, job_state, shown_state
from tq.core.vocabulary import Outcome, Wait, Waited
from tq.errors import BadRequest, TaskNotFound, TooLarge
from tq.limits import wait_ids_max


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
