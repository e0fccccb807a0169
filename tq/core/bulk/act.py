"""Acting on many: one machinery for every verb that a client may use on jobs and members, however many.

What is one field of a job takes effect at once. What needs the members' records walks them: as far as one command may
go, and beyond as a sweep, a slice a turn, that survives a restart. What may *start* reads the job's own flag first, so
the effect on starts is immediate however long the sweep takes.
"""

from collections.abc import Iterable, Sequence
from typing import TypeGuard

from msgspec.structs import replace

from tq.core.bulk import sweeps
from tq.core.bulk.progress import Acting, Verb
from tq.core.change.step import Step
from tq.core.change.stop import Tally, send_stops
from tq.core.model import tables
from tq.core.model.job import Job, JobKey, Sweep
from tq.core.model.timers import TimerKind
from tq.core.model.view import Key
from tq.core.read import selection
from tq.core.read.job_search import numbers_between
from tq.core.vocabulary import Acted, Cancel, Forget, Selected, Where
from tq.errors import AlreadyEnded, BadRequest


def act(step: Step, verb: Verb, command: Selected) -> Acted:
    """Carry out a command; what is beyond one command goes on as a sweep."""
    if not command.ids and command.where is None:
        raise BadRequest("name ids, or a filter", hint="tq ls lists ids")
    where = command.where or Where()
    selection.check(where)
    sweeps.check(command)
    acting = Acting(step, command, where, selection.states_of(where.states), _tally(command))
    unknown: tuple[str, ...] = ()
    if command.ids:
        targets, unknown = selection.resolve(step.overlay, command.ids, step.bounds.slice)
        rests = _act_on(acting, verb, targets)
    else:
        rests = [_walk(acting, verb, sweeps.of_all(step, command))]
    left = [rest for rest in rests if rest is not None]
    tally = acting.tally
    if command.ids and not left and not tally.done and not tally.stopping:
        raise _nothing_to_do(tally, [text for text in command.ids if text not in unknown], unknown)
    for rest in left:
        sweeps.store(step, rest)
    send_stops(step, tally)
    return Acted(tally.done, tally.stopping, tally.unchanged, bool(left), unknown)


def _nothing_to_do(tally: Tally, known: Sequence[str], unknown: Sequence[str]) -> AlreadyEnded:
    missing = f"; not found: {', '.join(unknown[:5])}" if unknown else ""
    who = ", ".join(known[:5]) + (": the last one" if len(known) > 1 else "")  # of which `why` is
    return AlreadyEnded(f"nothing to do: {who} {tally.why or 'had ended already'}{missing}")


def is_by_filter(command: object) -> TypeGuard[Selected]:
    """Whether this acts on whatever jobs a filter finds."""
    return isinstance(command, Selected) and not command.ids


def put_off(step: Step, command: Selected) -> Acted:
    """Leave all of a command by filter to a sweep: at once it failed at one of the jobs."""
    sweeps.store(step, sweeps.of_all(step, command))
    return Acted(0, sweeping=True)


def _tally(command: Selected) -> Tally:
    return Tally(command.signal if isinstance(command, Cancel) else 0)


def continue_sweep(step: Step, number: int, verbs: dict[type, Verb]) -> None:
    """Do one slice of a sweep, and set the timer for the next, or end it."""
    sweep = step.overlay.get(tables.SWEEP, (number,))
    if sweep is None or not sweeps.is_sweep(sweep):
        step.overlay.delete(tables.SWEEP, (number,))
        return
    command = sweeps.command_of(sweep)
    where = command.where or Where()
    states = selection.states_of(where.states)
    acting = Acting(step, command, where, states, _tally(command), sweeps.number_of(number, sweep), sweep.given_ms)
    rest = _walk(acting, verbs[type(command)], sweep)
    send_stops(step, acting.tally)
    if rest is None:
        step.overlay.delete(tables.SWEEP, (number,))
        return
    step.overlay.put(tables.SWEEP, (number,), rest)
    step.set_timer(TimerKind.SWEEP, step.times.steady_ms, number)


def _act_on(acting: Acting, verb: Verb, targets: Iterable[selection.Selected]) -> list[Sweep | None]:
    step = acting.step
    rests: list[Sweep | None] = []
    command = sweeps.packed(acting.command)
    for target in targets:
        if target.members is None:
            sweep = Sweep(command, target.job, target.job, given_ms=step.times.steady_ms)
            rests.append(_walk(acting, verb, sweep))
            continue
        if verb.member is None or not verb.has_members:
            raise BadRequest(f"this acts on whole jobs, as in {target.job}", hint="leave the member out")
        is_of_it = selection.is_of(acting.where, step.job((target.job, 0)))
        for member in target.members:
            key = (target.job, 0, member)
            task = step.task(key)
            if is_of_it and acting.means(key[:2], task):
                verb.member(acting, key, task)
            else:
                acting.tally.leave(f"is none of {acting.those}")
    return rests


def _walk(acting: Acting, verb: Verb, sweep: Sweep) -> Sweep | None:
    """Act on jobs from where the sweep stands, as far as one command may. Return the sweep that is left."""
    step = acting.step
    step.at = (sweep.job, 0)
    if sweep.member:
        found = step.overlay.get(tables.PROGRESS, (sweep.job, 0))
        is_forgotten = found is None or (found.forgetting and not isinstance(acting.command, Forget))
        if is_forgotten or sweeps.is_overtaken(acting, found):
            return sweeps.following(sweep, sweep.job)  # between two slices somebody forgot or cancelled it
        rest = _walk_job(acting, verb, (sweep.job, 0), sweep.member)
        return replace(sweep, member=rest) if rest is not None else sweeps.following(sweep, sweep.job)
    rows, last = _jobs(acting, sweep)
    for place, ((number, part), job) in enumerate(rows):
        if place and acting.tally.looked >= step.bounds.slice:
            return replace(sweep, job=number)
        step.at = key = (number, part)
        progress = step.overlay.get(tables.PROGRESS, key)
        acting.tally.looked += 1
        if part or job is None or progress is None or progress.forgetting or sweeps.is_overtaken(acting, progress):
            continue
        if not selection.matches(acting.where, acting.states, job, progress):
            acting.tally.why = f"has none of {acting.those}"
            continue
        if not verb.begin(acting, key):
            continue
        rest = _walk_job(acting, verb, key, 0)
        if rest is not None:
            return replace(sweep, job=number, member=rest)
    return sweeps.following(sweep, last)


def _jobs(acting: Acting, sweep: Sweep) -> tuple[Sequence[tuple[Key, Job | None]], int]:
    """Return the next jobs that a sweep has to look at, and up to which number these are all. By name or tag, and
    by state where few are in it, they are found, however many others there are.
    """
    view, most = acting.step.overlay, acting.left
    numbers: list[int] | None = None
    if sweep.job != sweep.last:
        numbers = numbers_between(view, acting.step.live, acting.where, acting.states, sweep.job, sweep.last)
    rows: list[tuple[Key, Job | None]]
    if numbers is None:
        rows = [*view.scan(tables.JOB, (sweep.job, 0), (sweep.last + 1, 0), most)]
    else:
        rows = [((number, 0), view.get(tables.JOB, (number, 0))) for number in numbers[:most]]
    return rows, rows[-1][0][0] if len(rows) >= most else sweep.last


def _walk_job(acting: Acting, verb: Verb, key: JobKey, member: int) -> int | None:
    """Act on the records of one job from `member` on; return where to go on, None when its walk is over."""
    rows, rest = verb.find(acting, key, member, acting.left)
    if verb.member is not None:
        for task_key, task in rows:
            if not verb.has_members or acting.means(key, task):
                verb.member(acting, task_key, task)
    if rest is None:
        verb.end(acting, key)
    return rest
