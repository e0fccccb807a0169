"""Why what waits does not start, and why what a worker was given does not get on: for a person, in one sentence.

It reads what dispatch decides by (placement, the soft state), and decides nothing: whatever can keep a task from
starting is named here. A task that has ended, and one that runs, have no reason.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from tq.core.model import tables
from tq.core.model.job import Demand, Job, Progress
from tq.core.model.retry import lane_of
from tq.core.model.task import Phase, State, Task, TaskKey
from tq.core.model.timers import TimerKind, retry_timer
from tq.core.model.view import View
from tq.core.placement.fit import could_fit, free_chains, why_shut, why_stuck
from tq.core.placement.live import Live
from tq.core.read.selection import shown_counts, shown_state

_STUCK_LANES_MAX: Final = 100  # that one status looks at
_STUCK_JOBS_MAX: Final = 100  # that it names
_BUG: Final = "the server fails at starting it, and tries again later: its log says where"
_WORD_FAILED: Final = (
    "the server failed at what became of its attempt: its log says where, its next start gives it back"
)
_HELD: Final = "its job is held; tq release {}"
_DAMAGED: Final = (
    "its job is held: its input cannot be read, or not all of it: the server's log says why; tq release {} tries again"
)
_LOST: Final = "its lane is lost: the store is damaged, and tq store check says where"
_NO_EMPTY: Final = "one more lost worker would be its last, so it waits for a worker to itself"


class Reasons:
    """The reasons of one answer; what tasks of one lane have in common is looked up once."""

    def __init__(self, view: View, live: Live) -> None:
        self._view = view
        self._live = live
        self._stuck: dict[int, str] = {}
        self._no_room: dict[int, str] = {}

    def of_task(self, key: TaskKey, job: Job, progress: Progress, task: Task | None) -> str:
        """Return why one member stands still, or '' if it does not."""
        state = shown_state(progress, task)
        if state is State.RETRYING and task is not None:
            if retry_timer(key, task) in self._live.failed_timers:
                return _BUG
            return f"failed {task.failures} of {job.retries + 1} times, and waits for its next attempt"
        if state is State.RUNNING and task is not None:
            return _WORD_FAILED if self._live.has_failed_word(key) else self._of_attempt(task)
        if state not in (State.QUEUED, State.HELD):
            return ""
        lane = progress.lane if task is None else lane_of(key, task, progress, lambda _: job)
        return self._shut(key[0], progress) or self._of_lane(lane)

    def of_job(self, number: int, job: Job, progress: Progress) -> str:
        """Return why nothing more of a job starts, or '' if something does or nothing is left to start."""
        if progress.is_ended:
            return ""
        if not job.is_array:
            task = self._view.get(tables.TASK, (number, 0, 0))
            return self.of_task((number, 0, 0), job, progress, task)
        counts = shown_counts(progress)
        if counts[State.QUEUED] or counts[State.HELD]:
            shut = self._shut(number, progress)
            if shut or counts[State.RUNNING]:
                return shut
            is_alone = progress.again_alone > 0 and not progress.is_startable(progress.lane)
            return self._of_lane(progress.lane_alone if is_alone else progress.lane)
        if counts[State.RETRYING] and not counts[State.RUNNING]:
            many = counts[State.RETRYING]
            return f"{many} failed, and " + (
                "waits for its next attempt" if many == 1 else "wait for their next attempts"
            )
        return ""

    def stuck(self, number: int, progress: Progress, state: State) -> str:
        """Return why what is shown in this state may not start anywhere just now, or '' if it may, or has."""
        return self._shut(number, progress) if state in (State.QUEUED, State.HELD) else ""

    def _shut(self, number: int, progress: Progress) -> str:
        """Return why nothing that is queued of a job may start anywhere just now, or '' if it may."""
        if progress.cancelling:
            return "its job is being cancelled"
        if progress.hold:
            return (_DAMAGED if (number, 0) in self._live.damaged else _HELD).format(number)
        failed = self._live.failed_ready
        if failed and any((lane, progress.rank, number, 0) in failed for lane in progress.lanes):
            return _BUG
        if progress.lane not in self._stuck:
            self._stuck[progress.lane] = _why_of_lane(self._live, progress.lane, why_stuck)
        is_full = 0 < progress.throttle <= progress.counts[State.RUNNING]
        return self._stuck[progress.lane] or (f"its job runs at most {progress.throttle} at once" if is_full else "")

    def _of_lane(self, number: int) -> str:
        if number not in self._no_room:
            self._no_room[number] = _why_no_room(self._live, number)
        return self._no_room[number]

    def _of_attempt(self, task: Task) -> str:
        worker = self._live.workers.get(task.worker)
        if worker is None or not worker.is_heard:
            return "nothing is heard of its worker: it goes to another one, unless that is back in time"
        if task.phase is Phase.STOPPING:
            return f"it is being stopped ({task.cause.word})"
        return "its worker has it, and has not said yet that it runs" if task.phase is Phase.ASSIGNED else ""


def _why_of_lane(live: Live, number: int, why: Callable[[Live, str, Demand], str]) -> str:
    """Return why nothing of a lane can start: what `why` says of it, unless it is worse; or '' if it can."""
    lane = live.lanes.get(number)
    if lane is None:
        return _LOST
    return _BUG if (number,) in live.failed_ready else why(live, lane.queue, lane.demand)


def _why_no_room(live: Live, number: int) -> str:
    """Return why the head of a lane that may start finds no worker."""
    if (number,) in live.failed_ready:  # that of what runs alone: it is not the lane of its job
        return _BUG
    lane = live.lanes.get(number)
    if lane is None:
        return _LOST
    fitting = [worker for worker in live.workers.values() if could_fit(worker, lane.queue, lane.demand)]
    if any(worker.trouble is None and free_chains(live, worker, lane, {}) for worker in fitting):
        return "its turn has not come yet"  # others are before it, or this very turn is to start it
    return _NO_EMPTY if lane.alone else "every worker that could run it is busy"


def standstills(view: View, live: Live) -> Iterator[dict[str, Any]]:
    """Yield what waits and gets on only when somebody does something: so many, and why. By queue and reason, and
    first the jobs that the server fails at.
    """
    ready = ((key[2:], State.QUEUED) for key in live.failed_ready if len(key) > 1 and view.get(tables.READY, key))
    timers = (key for key in live.failed_timers if key[2] == TimerKind.RETRY and view.get(tables.TIMER, key))
    retrying = ((key[3:5], State.RETRYING) for key in timers)
    words = Counter(key[:2] for key in live.failed_words)
    said = ((job, State.RUNNING) for job in words)
    for job, state in islice(dict.fromkeys((*ready, *retrying, *said)), _STUCK_JOBS_MAX):
        progress, record = view.get(tables.PROGRESS, job), view.get(tables.JOB, job)
        why = _WORD_FAILED if state is State.RUNNING else _BUG
        counted = progress.counts[state] if progress is not None else 1
        tasks = words[job] if state is State.RUNNING else counted
        yield {"queue": record.queue if record else "", "tasks": tasks, "reason": f"job {job[0]}: {why}"}
    # What waits to run alone counts in its job's lane; of its own, so many jobs have something ready.
    waiting = (
        (number, lane, lane.counts[State.QUEUED] or lane.ready)
        for number, lane in live.lanes.items()
        if lane.counts[State.QUEUED] or (number,) in live.failed_ready
    )
    found: Counter[tuple[str, str]] = Counter()
    for number, lane, tasks in islice(waiting, _STUCK_LANES_MAX):
        if why := _why_of_lane(live, number, why_shut):
            found[lane.queue, why] += tasks
    for (queue, why), tasks in found.items():
        yield {"queue": queue, "tasks": tasks, "reason": why}
