"""Acting on many: one machinery for every verb that a client may use on jobs and members, however many.

What is one field of a job takes effect at once. What needs the members' records walks them: as far as one command may
go, and beyond as a sweep, a slice a turn, that survives a restart. What may *start* reads the job's own flag first, so
the effect on starts is immediate however long the sweep takes.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeGuard

import msgspec
from msgspec.structs import replace

from tq.core import selection, tables
from tq.core.engine.floors import oldest
from tq.core.engine.step import Step, came_back
from tq.core.engine.stop import Tally, send_stops
from tq.core.finding import numbers_between
from tq.core.job import Job, JobKey, Progress, Sweep
from tq.core.task import State, Task, TaskKey
from tq.core.timers import TimerKind
from tq.core.view import Key
from tq.core.vocabulary import Acted, Cancel, Forget, Hold, Release, Retry, Selected, SetPriority, SetThrottle, Where
from tq.errors import AlreadyEnded, BadRequest
from tq.limits import array_size_max, page_keys_max, priority_max, put_off_of_sweep_max, signal_max

Rows = Sequence[tuple[TaskKey, Task]]

_commands: Final = msgspec.msgpack.Decoder(Selected)


class Acting(NamedTuple):
    """One verb at work in one step."""

    step: Step
    command: Selected
    where: Where
    states: frozenset[State]
    tally: Tally
    sweep: int = 0  # the number of the (whole) sweep whose slice this is; 0: the command itself
    given_ms: int = 0  # when the command of that sweep was given

    def means(self, key: JobKey, task: Task | None) -> bool:
        """Whether a member of a job is one of those that are to be acted on."""
        return selection.is_meant(self.where, self.states, self.step.progress(key), task)

    @property
    def those(self) -> str:
        """What is to be acted on, for a person."""
        return "the dead letters that are meant" if self.where.is_letter else "those that are meant"

    @property
    def is_whole(self) -> bool:
        """Whether every member of a matching job is meant."""
        return self.states == selection.ALL and not self.looks_closer

    @property
    def looks_closer(self) -> bool:
        """Whether a member's record, and not its state alone, says if it is meant."""
        return bool(self.where.cause) or self.where.is_letter

    def is_late(self, ended_ms: int) -> bool:
        """Whether what ended at this time (steady) had not when the command was given: that is not for it to remove."""
        return 0 < self.given_ms < ended_ms

    @property
    def is_passed_by(self) -> bool:
        """Whether a member may go from one state that is meant to another behind the walk, as starts go on."""
        return self.states != selection.ALL and sum(not state.is_terminal for state in self.states) > 1

    @property
    def left(self) -> int:
        """How many rows one command may still look at; one at least, so that it gets on."""
        return max(self.step.bounds.slice - self.tally.looked, 1)


class Verb(NamedTuple):
    """What a verb does.

    `begin` does the whole-job part and says whether records must be walked; `find` returns at most so many of them from
    a member on, and where to go on (None = that was all); `member` acts on one; `end` comes when the walk is over.
    """

    begin: Callable[[Acting, JobKey], bool]
    find: Callable[[Acting, JobKey, int, int], tuple[Rows, int | None]]
    member: Callable[[Acting, TaskKey, Task | None], None] | None
    end: Callable[[Acting, JobKey], None]
    has_members: bool = False  # whether a client may name single members


def act(step: Step, verb: Verb, command: Selected) -> Acted:
    """Carry out a command; what is beyond one command goes on as a sweep."""
    if not command.ids and command.where is None:
        raise BadRequest("name ids, or a filter", hint="tq ls lists ids")
    where = command.where or Where()
    selection.check(where)
    _check(command)
    acting = Acting(step, command, where, selection.states_of(where.states), _tally(command))
    unknown: tuple[str, ...] = ()
    if command.ids:
        targets, unknown = selection.resolve(step.overlay, command.ids, step.bounds.slice)
        rests = _act_on(acting, verb, targets)
    else:
        rests = [_walk(acting, verb, _of_all(step, command))]
    left = [rest for rest in rests if rest is not None]
    tally = acting.tally
    if command.ids and not left and not tally.done and not tally.stopping:
        raise _nothing_to_do(tally, [text for text in command.ids if text not in unknown], unknown)
    for rest in left:
        _store_sweep(step, rest)
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
    _store_sweep(step, _of_all(step, command))
    return Acted(0, sweeping=True)


def _of_all(step: Step, command: Selected) -> Sweep:
    meta = step.overlay.get(tables.META, ())
    behind = meta.next_job if meta else 1
    first = next((key[0] for key, _ in oldest(step, tables.JOB, (behind,), 1)), behind)
    return Sweep(msgspec.msgpack.encode(command), first, behind - 1, given_ms=step.times.steady_ms)


def _check(command: Selected) -> None:
    """Refuse at once what no slice could carry out: a sweep that raises would end every tick."""
    if isinstance(command, Cancel) and not 0 <= command.signal <= signal_max:
        raise BadRequest(f"there is no signal {command.signal}")
    if isinstance(command, SetPriority) and not -priority_max <= command.priority <= priority_max:
        raise BadRequest(f"a priority is between {-priority_max} and {priority_max}")
    if isinstance(command, SetThrottle) and not 0 <= command.throttle <= array_size_max:
        raise BadRequest("how many tasks run at once is not negative", hint="0 means no bound")


def _tally(command: Selected) -> Tally:
    return Tally(command.signal if isinstance(command, Cancel) else 0)


def continue_sweep(step: Step, number: int, verbs: dict[type, Verb]) -> None:
    """Do one slice of a sweep, and set the timer for the next, or end it."""
    sweep = step.overlay.get(tables.SWEEP, (number,))
    if sweep is None:
        return
    if not is_sweep(sweep):
        step.overlay.delete(tables.SWEEP, (number,))
        return
    command = _commands.decode(sweep.command)
    where = command.where or Where()
    states = selection.states_of(where.states)
    acting = Acting(step, command, where, states, _tally(command), _whole(number, sweep), sweep.given_ms)
    rest = _walk(acting, verbs[type(command)], sweep)
    send_stops(step, acting.tally)
    if rest is None:
        step.overlay.delete(tables.SWEEP, (number,))
        return
    step.overlay.put(tables.SWEEP, (number,), rest)
    step.set_timer(TimerKind.SWEEP, step.times.steady_ms, number)


def narrow(step: Step, number: int, at: Key) -> None:
    """Leave a sweep that failed at a job this one alone; what it has to do before and behind it goes on by itself.

    Once so many parts of it rest, it is to blame as a whole, and stays as it is.
    """
    sweep = step.overlay.get(tables.SWEEP, (number,))
    job = at[-2] if len(at) > 1 else 0
    if sweep is None or sweep.job == sweep.last or not sweep.job <= job <= sweep.last:
        return
    whole = _whole(number, sweep)
    if _parts(step, whole, step.live.failed_timers) > put_off_of_sweep_max:
        return
    member = sweep.member if job == sweep.job else 0
    step.overlay.put(tables.SWEEP, (number,), replace(sweep, job=job, last=job, member=member, part_of=whole))
    if job > sweep.job:
        _store_sweep(step, replace(sweep, last=job - 1, part_of=whole))
    if job < sweep.last:
        _store_sweep(step, replace(sweep, job=job + 1, member=0, part_of=whole))


def _whole(number: int, sweep: Sweep) -> int:
    return sweep.part_of or number


def _parts(step: Step, whole: int, timers: Iterable[Key]) -> int:
    """Count the parts of a sweep among these timers."""
    numbers = (key[3] for key in timers if key[2] == TimerKind.SWEEP)
    sweeps = ((number, step.overlay.get(tables.SWEEP, (number,))) for number in numbers)
    return sum(1 for number, sweep in sweeps if sweep is not None and _whole(number, sweep) == whole)


def is_sweep(sweep: Sweep) -> bool:
    """Whether a sweep can go on: its command is one of those above, and in order."""
    try:
        _check(_commands.decode(sweep.command))
    except (msgspec.MsgspecError, BadRequest):
        return False
    return True


def _store_sweep(step: Step, sweep: Sweep) -> None:
    meta = step.meta()
    number, meta.next_sweep = meta.next_sweep, meta.next_sweep + 1
    step.overlay.put(tables.SWEEP, (number,), sweep)
    step.set_timer(TimerKind.SWEEP, step.times.steady_ms, number)


def _act_on(acting: Acting, verb: Verb, targets: Iterable[selection.Target]) -> list[Sweep | None]:
    step = acting.step
    rests: list[Sweep | None] = []
    command = msgspec.msgpack.encode(acting.command)
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
        if is_forgotten or _is_overtaken(acting, found):
            return _next(sweep, sweep.job)  # between two slices somebody forgot or cancelled it
        rest = _walk_job(acting, verb, (sweep.job, 0), sweep.member)
        return replace(sweep, member=rest) if rest is not None else _next(sweep, sweep.job)
    rows, last = _jobs(acting, sweep)
    for place, ((number, part), job) in enumerate(rows):
        if place and acting.tally.looked >= step.bounds.slice:
            return replace(sweep, job=number)
        step.at = key = (number, part)
        progress = step.overlay.get(tables.PROGRESS, key)
        acting.tally.looked += 1
        if part or job is None or progress is None or progress.forgetting or _is_overtaken(acting, progress):
            continue
        if not selection.matches(acting.where, acting.states, job, progress):
            acting.tally.why = f"has none of {acting.those}"
            continue
        if not verb.begin(acting, key):
            continue
        rest = _walk_job(acting, verb, key, 0)
        if rest is not None:
            return replace(sweep, job=number, member=rest)
    return _next(sweep, last)


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


def _is_overtaken(acting: Acting, progress: Progress | None) -> bool:
    """Whether a later word about all of a job counts: a cancel after this retry of it began, a hold or a release after
    one of these, a priority or a bound after another.
    """
    if progress is None or not acting.sweep:
        return False
    match acting.command:
        case Retry():
            return acting.sweep < progress.cancelled_sweep
        case Hold() | Release():
            return acting.sweep < progress.held_sweep
        case SetPriority():
            return acting.sweep < progress.ranked_sweep
        case SetThrottle():
            return acting.sweep < progress.throttled_sweep
    return False


def began(acting: Acting) -> int:
    """Return the number below which sweeps began before this command."""
    return acting.sweep or acting.step.meta().next_sweep


def awaits(acting: Acting, key: JobKey, kind: type[Cancel | Hold | Release]) -> bool:
    """Whether an earlier command of a kind has still to do with this job: one that walks and has not passed it yet.

    Until a cancel has, nothing of it is retried: the cancel would take that for what it was given about.
    """
    step = acting.step
    if step.walking is None:
        step.walking = _walking(step)
    own, job = acting.sweep or _NO_SWEEP, step.job(key)
    over = 0 if kind is Cancel else step.progress(key).held_sweep
    return any(
        isinstance(command, kind) and over <= at < own and sweep.job <= key[0] <= sweep.last
        and selection.is_of(command.where or Where(), job)
        for at, sweep, command in step.walking
    )  # fmt: skip


def _walking(step: Step) -> tuple[tuple[int, Sweep, Selected], ...]:
    """Return the commands that are not over and may undo what has just been asked for, with their numbers.

    Looked for among the oldest thousand sweeps: what stands behind those takes its turn long after.
    """
    rows = step.overlay.scan(tables.SWEEP, (0,), (_NO_SWEEP,), page_keys_max)
    found = ((_whole(row[0], sweep), sweep, _commands.decode(sweep.command)) for row, sweep in rows if is_sweep(sweep))
    return tuple(one for one in found if _may_undo(one[2]))


def _may_undo(command: Selected) -> bool:
    """Whether a command may reach what has been queued, held or released since it was given."""
    where = command.where or Where()
    is_alive = any(not state.is_terminal for state in selection.states_of(where.states))
    is_of_some = bool(where.cause) or where.is_letter
    return isinstance(command, Hold | Release) or (isinstance(command, Cancel) and is_alive and not is_of_some)


def awaits_retry(step: Step, key: JobKey) -> bool:
    """Whether a retry walks that has still to do with this job: what it has not come to died the round before."""
    for _, sweep in step.overlay.scan(tables.SWEEP, (0,), (_NO_SWEEP,), page_keys_max):
        if sweep.job <= key[0] <= sweep.last and is_sweep(sweep):
            command = _commands.decode(sweep.command)
            if isinstance(command, Retry) and selection.is_of(command.where or Where(), step.job(key)):
                return True
    return False


def _next(sweep: Sweep, job: int) -> Sweep | None:
    return replace(sweep, job=job + 1, member=0) if job < sweep.last else None


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


def find_records(acting: Acting, key: JobKey, member: int, limit: int) -> tuple[Rows, int | None]:
    """Find all records of a job, in order."""
    found = acting.step.overlay.scan(tables.TASK, (*key, member), (key[0], key[1] + 1), limit)
    acting.tally.looked += len(found)
    rows = [((job, part, place), task) for (job, part, place), task in found]
    return rows, rows[-1][0][2] + 1 if len(rows) >= limit else None


def find_alive(acting: Acting, key: JobKey, member: int, limit: int) -> tuple[Rows, int | None]:
    """Find the records of a job that have not ended: by who holds them, then by who came back. Not by a scan of all.

    But where some wait for their next attempt, a record must be seen, or one may go from index to index behind the
    walk, by the records. What a walk began with it keeps, or it would pass some over: from `_BY_INDEX` on its places
    are those of the first way.
    """
    step = acting.step
    may_wait = State.RETRYING in acting.states and step.progress(key).counts[State.RETRYING] > 0
    if 0 < member < _BY_INDEX or (not member and (may_wait or acting.looks_closer or acting.is_passed_by)):
        rows, rest = find_records(acting, key, member, limit)
        return [row for row in rows if not row[1].state.is_terminal], rest
    running, rest = find_running(acting, key, max(member - _BY_INDEX, 0), limit)
    if rest is not None:
        return running, _BY_INDEX + rest
    back_in = State.HELD if step.progress(key).hold else State.QUEUED  # how what came back is shown
    if back_in not in acting.states or acting.looks_closer:
        return running, None  # those that came back and are not meant would be found again for ever
    back: list[TaskKey] = []
    for lane in step.progress(key).lanes:
        back += (_task_key(key, row[4]) for row, _ in came_back(step, key, lane, limit - len(running) - len(back)))
    acting.tally.looked += len(back)
    # What was acted on has left this index, so the next slice begins at its beginning again.
    rest = _BEHIND_ALL if len(running) + len(back) >= limit else None
    return [*running, *((task_key, _record(step, task_key)) for task_key in back)], rest


def find_running(acting: Acting, key: JobKey, member: int, limit: int) -> tuple[Rows, int | None]:
    """Find the records of a job that are running, in order."""
    step = acting.step
    held = sorted(place for place in step.live.jobs.get(key, ()) if place >= member)
    acting.tally.looked += len(held[:limit])
    found = ((_task_key(key, place), _record(step, _task_key(key, place))) for place in held[:limit])
    # What this very command has brought back stands among those that came back, too: the soft state is older.
    rows = [(task_key, task) for task_key, task in found if task.state is State.RUNNING]
    return rows, held[limit] if len(held) > limit else None


_NO_SWEEP: Final = 1 << 62  # a command of its own comes after every sweep that there is
_BY_INDEX: Final = 1 << 31  # no member is at or behind this position
_BEHIND_ALL: Final = 2 * _BY_INDEX


def _task_key(key: JobKey, member: int) -> TaskKey:
    return (*key, member)


def _record(step: Step, key: TaskKey) -> Task:
    task = step.task(key)
    if task is None:
        raise KeyError(key)
    return task
