"""Forgetting: an ended job goes with all its records, output and input, and with nothing left behind.

Records and output of a job go as ranges (the table FORGOTTEN tells the store): ten million members are one write. Its
dead letters stand by time and are taken away first, in slices; meanwhile the job is `forgetting`: nobody finds
it.
"""

from collections.abc import Collection, Iterable
from contextlib import suppress

from msgspec.structs import replace

from tq.core.change.idempotency import last_use
from tq.core.change.scan_start import first_job, oldest
from tq.core.change.step import Step
from tq.core.model import tables
from tq.core.model.job import Forgotten, JobKey
from tq.core.model.task import State, Task, TaskKey
from tq.core.model.timers import TimerKind
from tq.core.model.view import Key
from tq.errors import StoreDamaged


def forget_dead_letter(step: Step, key: TaskKey, task: Task) -> None:
    """Take a member out of the dead letter queue."""
    if task.state is State.DEAD and not task.purged:
        step.overlay.delete(tables.DEAD, (task.ended_ms, *key))


def forget_job(step: Step, key: JobKey) -> None:
    """Remove an ended job. Its key lives on for as long as it was promised."""
    job = step.job(key)
    step.close_job(key)
    step.overlay.put(tables.FORGOTTEN, (key[0],), Forgotten(last_use(step, key, job)))
    if not job.key:
        return
    known = step.overlay.get(tables.KEY, (job.key,))
    if known is not None and known.job != key[0]:
        return  # a salvage has lost this one's, and another job has it now
    if known is not None and known.expires_ms > step.times.steady_ms:
        step.overlay.put(tables.KEY, (job.key,), replace(known, is_forgotten=True))
        step.overlay.put(tables.KEY_END, (known.expires_ms, job.key), True)
        step.set_timer(TimerKind.KEYS, known.expires_ms)
    else:
        step.overlay.delete(tables.KEY, (job.key,))


def expire_keys(step: Step) -> None:
    """Remove the keys of forgotten jobs whose time has passed."""
    now_ms = step.times.steady_ms
    rows = oldest(step, tables.KEY_END, (now_ms + 1,), step.bounds.slice)
    for (due_ms, name), _ in rows:
        step.overlay.delete(tables.KEY_END, (due_ms, name))
        step.overlay.delete(tables.KEY, (name,))
    if len(rows) >= step.bounds.slice:
        step.set_timer(TimerKind.KEYS, now_ms)


def ended_long_ago(step: Step, keep_ms: int, resting: Collection[Key] = ()) -> list[Key]:
    """Return what retention has to do next, by the places in ENDED: the oldest first, and none that rest."""
    before_ms = max(step.times.steady_ms - keep_ms, 0)
    rows = oldest(step, tables.ENDED, (before_ms,), step.bounds.slice + len(resting))
    return [key for key, _ in rows if key not in resting][: step.bounds.slice]


def retain(step: Step, keys: Iterable[Key]) -> None:
    """Forget these jobs. Those with dead letters are kept, and leave the order of what ended: they would stand at its
    head and hide the rest.
    """
    with suppress(StoreDamaged):
        first_job(step)  # raises the floor at which lists end
    for ended_ms, number in keys:
        progress = step.progress((number, 0))
        if progress.dead_letters:
            step.overlay.delete(tables.ENDED, (ended_ms, number))
            progress.kept = True
        else:
            forget_job(step, (number, 0))


def begin_forgetting(step: Step, key: JobKey) -> None:
    """Hide a job whose dead letters have to be taken away first."""
    step.progress(key).forgetting = True
