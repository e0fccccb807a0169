"""Work on many members that goes on in slices, one a turn, and survives a restart.

A sweep walks the records of one job upwards from its position. What may *start* reads the job's own flag first, so
the effect of a cancel is immediate however long its sweep takes.
"""

from msgspec.structs import replace

from tq.core import tables
from tq.core.engine.step import JobKey, Step
from tq.core.engine.stop import Tally, cancel_task, send_stops
from tq.core.engine.timers import TimerKind, set_timer
from tq.core.job import Sweep


def begin_sweep(step: Step, what: str, key: JobKey) -> None:
    """Store a sweep over all records of a job, due now."""
    meta = step.meta()
    number, meta.next_sweep = meta.next_sweep, meta.next_sweep + 1
    step.overlay.put(tables.SWEEP, (number,), Sweep(what, *key))
    set_timer(step, TimerKind.SWEEP, step.times.steady_ms, number)


def continue_sweep(step: Step, number: int) -> None:
    """Do one slice of a sweep, and set the timer for the next, or end it."""
    sweep = step.overlay.get(tables.SWEEP, (number,))
    if sweep is None:
        return
    key = (sweep.job, sweep.part)
    rows = step.overlay.scan(tables.TASK, (*key, sweep.position), (sweep.job, sweep.part + 1), step.bounds.slice)
    tally = Tally()
    for task_key, task in rows:
        if not task.state.is_terminal:
            cancel_task(step, task_key, task, tally)
    send_stops(step, tally)
    if len(rows) < step.bounds.slice:
        step.overlay.delete(tables.SWEEP, (number,))
        step.progress(key).cancelling = False
        return
    step.overlay.put(tables.SWEEP, (number,), replace(sweep, position=rows[-1][0][2] + 1))
    set_timer(step, TimerKind.SWEEP, step.times.steady_ms, number)
