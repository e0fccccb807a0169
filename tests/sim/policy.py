"""What is promised of failures and losses, written down once more: when a task tries again, when it gives up, and that
only a loss while it was alone on its worker may end it.
"""

from typing import Final

from tests.sim.world import Violation, World
from tq.core.model.job import Job
from tq.core.model.task import Cause, Phase, State, Task
from tq.core.vocabulary import AttemptRef

TaskKey = tuple[int, int, int]
TEMPORARY: Final = 75
SLOTS_MAX: Final = 4  # of any worker here (run.py)
HOPELESS: Final = (Cause.SPAWN_FAILED, Cause.CWD_MISSING, Cause.UNKNOWN_FUNCTION)


def must_be_alone(job: Job, task: Task) -> bool:
    """Whether one more charged loss would be this task's end."""
    return bool(job.crash_limit) and task.losses >= job.crash_limit - 1


class Policy:
    """Checks each written change of a task against its job's policy."""

    def __init__(self, world: World, ended: dict[AttemptRef, int]) -> None:
        self._world = world
        self._ended = ended

    def check(self, key: TaskKey, job: Job, before: Task | None, after: Task, steady_ms: int) -> None:
        """Check one change of a record."""
        self._check_history(key, after)
        if before is None or before.round != after.round:
            return
        if after.failures != before.failures:
            self._check_failure(key, job, before, after, steady_ms)
        if after.attempt == before.attempt:
            self._check_losses(key, before, after)
            self._check_stopped(key, before, after)

    def _check_failure(self, key: TaskKey, job: Job, before: Task, after: Task, steady_ms: int) -> None:
        if after.failures != before.failures + 1 or after.failures > job.retries + 1:
            raise self._violated(f"I6: {key} of {job.retries} retries went from {before} to {after}")
        if after.state not in (State.RETRYING, State.DEAD):
            return  # moved on within the turn: cancelled, or a new round
        again = after.failures <= job.retries and is_retried(job, after.cause, after.code)
        if again is not (after.state is State.RETRYING):
            raise self._violated(f"{key} of {job} should {'try again' if again else 'give up'}, and is {after}")
        self._world.count("failures that are tried again" if again else "failures that are the last")
        if again:
            first_ms, longest_ms = job.backoff_ms
            wait_ms, bound_ms = after.due_ms - steady_ms, min(first_ms << (after.failures - 1), longest_ms)
            if not (wait_ms == first_ms if first_ms >= longest_ms else 0 <= wait_ms <= bound_ms):
                raise self._violated(f"{key} waits {wait_ms} ms after {after.failures} failures of {job.backoff_ms}")

    def _check_losses(self, key: TaskKey, before: Task, after: Task) -> None:
        is_lost = before.state is State.RUNNING and (after.phase is Phase.LOST or after.cause is Cause.LOST)
        if is_lost:
            self._world.count("losses charged" if after.losses > before.losses else "losses not charged")
            may_differ = 1
            has_run = before.phase is Phase.STARTED and AttemptRef(*key, after.attempt, after.lease) not in self._ended
            if has_run and after.losses == before.losses:
                raise self._violated(f"{key} was running, and its loss is not charged: {after}")
        else:
            is_claimed = before.phase is Phase.LOST and after.state is not State.QUEUED and before.charged
            may_differ = -1 if is_claimed else 0
            if is_claimed and after.state is not State.CANCELLED and after.losses == before.losses:
                raise self._violated(f"{key} was claimed again, and its loss is not taken back: {before}, {after}")
        if after.losses - before.losses not in {0, may_differ}:
            raise self._violated(f"{key} counts {before.losses} losses, then {after.losses}: {after}")

    def _check_stopped(self, key: TaskKey, before: Task, after: Task) -> None:
        """What was asked to stop by a cancel ends so, what goes back to the queue counts nothing: however it ends."""
        if before.state is not State.RUNNING or before.phase is not Phase.STOPPING or after.state is State.CANCELLED:
            return
        was_asked = before.phase is after.phase and after.state is State.RUNNING
        if before.cause is Cause.CANCELLED and not was_asked:
            raise self._violated(f"{key} was being cancelled, and is {after}: {before}")
        counted = (before.failures, before.losses) != (after.failures, after.losses)
        if counted or after.state in (State.SUCCEEDED, State.DEAD, State.RETRYING):
            raise self._violated(f"{key} was asked to stop for {before.cause.name}, and is {after}: {before}")

    def _check_history(self, key: TaskKey, task: Task) -> None:
        attempts = [one.attempt for one in task.history]
        if sorted(set(attempts)) != attempts or (attempts and attempts[-1] > task.attempt):
            raise self._violated(f"{key} at attempt {task.attempt} has the history {attempts}")

    def check_charged(self, lost: list[tuple[Task, Task]]) -> None:
        """Of what one worker loses at once only that is charged which may have begun, by the records and its slots."""
        charged = sum(after.losses > before.losses for before, after in lost)
        # What is claimed as ended is assigned once more, until its end is told; when it began stays known.
        began = sum(before.phase is not Phase.ASSIGNED or before.started_ms > 0 for before, _ in lost)
        if charged > began + SLOTS_MAX:
            raise self._violated(
                f"a loss of {len(lost)} attempts, of which {began} ran, was charged to {charged}: {lost[:5]}"
            )

    def check_death(self, key: TaskKey, job: Job, before: Task, after: Task, beside: list[TaskKey]) -> None:
        """Check a task that a loss has ended; `beside` are those that its worker held with it."""
        self._world.count("deaths by loss")
        if not job.crash_limit or after.losses != job.crash_limit:
            raise self._violated(f"I6: {key} of crash limit {job.crash_limit} was ended by a loss: {after}")
        if beside:
            raise self._violated(f"{key} was ended by a loss beside {beside[:5]}, not alone: {before}, {after}")

    def _violated(self, what: str) -> Violation:
        return self._world.violated(what)


def is_retried(job: Job, cause: Cause, code: int) -> bool:
    """Whether a failure like this is worth another attempt."""
    if code in job.no_retry_on:
        return False
    if code in job.retry_on or (cause is Cause.EXIT and code == TEMPORARY):
        return True
    return not job.retry_on and cause not in HOPELESS
