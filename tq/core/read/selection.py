"""Which jobs and members a client means: ids, ranges of an array, and filters over all jobs."""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from tq.core.model import ids, tables
from tq.core.model.ids import NAME_HINT, is_name
from tq.core.model.job import Job, Progress
from tq.core.model.task import Cause, State, Task
from tq.core.model.view import View
from tq.core.vocabulary import Where
from tq.errors import BadRequest, TaskNotFound, TooLarge

_RANGE: Final = re.compile(r"([1-9][0-9]{0,17})\.([0-9]{1,19})-([0-9]{1,19})")
_WORDS: Final = {state.word: frozenset((state,)) for state in State} | {
    "failed": frozenset((State.DEAD, State.EXPIRED))
}
_CAUSES: Final = frozenset(cause.word for cause in Cause if cause is not Cause.NONE)
ALL: Final = frozenset(State)

_ALIVE_FIRST: Final = (
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


class Selected(NamedTuple):
    """A job, or some of its members by position (`members` None = the whole job)."""

    job: int
    members: tuple[int, ...] | None = None


def resolve(view: View, texts: Iterable[str], members_max: int) -> tuple[list[Selected], tuple[str, ...]]:
    """Return what ids and ranges name, each once, and which of them name nothing.

    Raises BadRequest, TooLarge; TaskNotFound if all of them name nothing.
    """
    targets: dict[Selected, None] = {}
    unknown: dict[str, TaskNotFound] = {}
    count = 0
    for text in texts:
        try:
            target = _target(view, text, members_max)
        except TaskNotFound as error:
            unknown[text] = error
            continue
        targets[target] = None
        count += len(target.members) if target.members is not None else 1
        if count > members_max:
            raise TooLarge(f"these name more than {members_max} tasks or jobs", hint="name whole jobs, or a filter")
    if unknown and not targets:
        raise ids.not_found(unknown)
    return list(targets), tuple(unknown)


def _target(view: View, text: str, members_max: int) -> Selected:
    match = _RANGE.fullmatch(text)
    if match is None:
        number, value = ids.parse(text)
        job, _ = find_job(view, number)
        return Selected(number) if value is None else Selected(number, (ids.position(number, job, value),))
    number, first, last = map(int, match.groups())
    job, _ = find_job(view, number)
    if last < first:
        raise BadRequest(f"the range {text} runs backwards", hint=f"write {number}.{last}-{first}")
    low, high = ids.position(number, job, first), ids.position(number, job, last)
    if high - low >= members_max:
        raise TooLarge(f"{text} names more than {members_max} tasks", hint=f"name the whole job: {number}")
    return Selected(number, tuple(range(low, high + 1)))


def find_job(view: View, number: int) -> tuple[Job, Progress]:
    """Return a job and how it stands. Raises TaskNotFound, also for one that is being forgotten, piece by piece."""
    job = view.get(tables.JOB, (number, 0))
    progress = view.get(tables.PROGRESS, (number, 0))
    if job is None or progress is None or progress.forgetting:
        raise TaskNotFound(f"there is no job {number}", hint="tq ls")
    return job, progress


def states_of(words: Iterable[str]) -> frozenset[State]:
    """Return the states that words name; no words name all. Raises BadRequest."""
    found: frozenset[State] = frozenset()
    for word in words:
        if word not in _WORDS:
            raise BadRequest(f"{word[:40]!r} is not a state", hint="one of " + ", ".join(_WORDS))
        found |= _WORDS[word]
    return found or ALL


def shown_counts(progress: Progress) -> list[int]:
    """Return the counts by state as shown: under the job's hold, what came back to the queue is held."""
    counts = progress.counts[:]
    if progress.hold:
        counts[State.HELD] += counts[State.QUEUED]
        counts[State.QUEUED] = 0
    return counts


def job_state(progress: Progress) -> State:
    """Return the state of a whole job: the most alive of its tasks' states; of an ended one the worst."""
    counts = shown_counts(progress)
    return next(state for state in _ALIVE_FIRST if counts[state])


def shown_state(progress: Progress, task: Task | None) -> State:
    """Return the state of one member as shown: under the job's hold, queued reads held."""
    state = progress.first if task is None else task.state
    return State.HELD if progress.hold and state is State.QUEUED else state


def is_meant(where: Where, states: frozenset[State], progress: Progress, task: Task | None) -> bool:
    """Whether one member of a matching job is meant: by the state in which it is shown, and how it ended."""
    if shown_state(progress, task) not in states:
        return False
    if task is None:
        return not (where.cause or where.is_letter)
    is_letter = task.state is State.DEAD and not task.purged
    return where.cause in ("", task.cause.word) and (is_letter or not where.is_letter)


def check(where: Where) -> None:
    """Raise BadRequest for a filter that can match nothing: a name that is none, as in `night*`, or a cause."""
    for word, what in ((where.queue, "queue"), (where.name, "name"), (where.tag, "tag")):
        if word and not is_name(word):
            raise BadRequest(f"{word[:40]!r} is not a {what}", hint=NAME_HINT)
    if where.cause and where.cause not in _CAUSES:
        raise BadRequest(f"{where.cause[:40]!r} is not a cause", hint="one of " + ", ".join(sorted(_CAUSES)))


def is_of(where: Where, job: Job) -> bool:
    """Whether a job has what a filter asks for of jobs."""
    return where.queue in ("", job.queue) and where.name in ("", job.name) and (not where.tag or where.tag in job.tags)


def shows(states: frozenset[State], progress: Progress) -> bool:
    """Whether a job has at least one task that is shown in one of the states."""
    if states is ALL:
        return True
    counts = shown_counts(progress)
    return any(counts[state] for state in states)


def matches(where: Where, states: frozenset[State], job: Job, progress: Progress) -> bool:
    """Whether a job has what a filter asks for, and at least one task that is shown in one of the states."""
    return is_of(where, job) and shows(states, progress) and (not where.is_letter or progress.dead_letters > 0)
