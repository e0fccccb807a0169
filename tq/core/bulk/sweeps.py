"""The sweeps: what a command about many has still to do, as it stands in the store, and whose word counts by now.

A sweep bears the number of its command, as those before and behind it do; its parts bear that of the whole. What was
asked for later counts against it, also if it comes to a job after that.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from tq.core.bulk.progress import Acting
from tq.core.change.scan_start import first_job
from tq.core.change.step import Step
from tq.core.model import tables
from tq.core.model.job import JobKey, Progress, Sweep
from tq.core.model.timers import TimerKind
from tq.core.model.view import Key
from tq.core.read import selection
from tq.core.vocabulary import Cancel, Hold, Release, Retry, Selected, SetPriority, SetThrottle, Where
from tq.errors import BadRequest
from tq.limits import array_size_max, page_keys_max, priority_max, put_off_of_sweep_max, signal_max

_NO_SWEEP: Final = 1 << 62  # a command of its own comes after every sweep that there is
_commands: Final[msgspec.msgpack.Decoder[Selected]] = msgspec.msgpack.Decoder(Selected)


def check(command: Selected) -> None:
    """Refuse at once what no slice could carry out: a sweep that raises would end every tick."""
    if isinstance(command, Cancel) and not 0 <= command.signal <= signal_max:
        raise BadRequest(f"there is no signal {command.signal}")
    if isinstance(command, SetPriority) and not -priority_max <= command.priority <= priority_max:
        raise BadRequest(f"a priority is between {-priority_max} and {priority_max}")
    if isinstance(command, SetThrottle) and not 0 <= command.throttle <= array_size_max:
        raise BadRequest("how many tasks run at once is not negative", hint="0 means no bound")


def packed(command: Selected) -> bytes:
    """Return a command as a sweep keeps it."""
    return msgspec.msgpack.encode(command)


def command_of(sweep: Sweep) -> Selected:
    """Return the command that a sweep carries out."""
    return _commands.decode(sweep.command)


def is_sweep(sweep: Sweep) -> bool:
    """Whether a sweep can go on: its command is one that acts on many, and in order."""
    try:
        check(command_of(sweep))
    except (msgspec.MsgspecError, BadRequest):
        return False
    return True


def number_of(number: int, sweep: Sweep) -> int:
    """Return the number that a sweep bears: a part, that of the whole."""
    return sweep.part_of or number


def of_all(step: Step, command: Selected) -> Sweep:
    """Return what a command by filter has to do: with all jobs that there are."""
    meta = step.overlay.get(tables.META, ())
    behind = meta.next_job if meta else 1
    return Sweep(packed(command), first_job(step), behind - 1, given_ms=step.times.steady_ms)


def store(step: Step, sweep: Sweep) -> None:
    """Leave to the coming turns what a sweep has still to do."""
    meta = step.meta()
    number, meta.next_sweep = meta.next_sweep, meta.next_sweep + 1
    step.overlay.put(tables.SWEEP, (number,), sweep)
    step.set_timer(TimerKind.SWEEP, step.times.steady_ms, number)


def following(sweep: Sweep, job: int) -> Sweep | None:
    """Return what is left of a sweep behind a job; None if that was its last."""
    return replace(sweep, job=job + 1, member=0) if job < sweep.last else None


def narrow(step: Step, number: int, at: Key) -> None:
    """Leave a sweep that failed at a job this one alone; what it has to do before and behind it goes on by itself.

    Once so many parts of it rest, it is to blame as a whole, and stays as it is.
    """
    sweep = step.overlay.get(tables.SWEEP, (number,))
    job = at[-2] if len(at) > 1 else 0
    if sweep is None or sweep.job == sweep.last or not sweep.job <= job <= sweep.last:
        return
    whole = number_of(number, sweep)
    if _parts(step, whole, step.live.failed_timers) > put_off_of_sweep_max:
        return
    member = sweep.member if job == sweep.job else 0
    step.overlay.put(tables.SWEEP, (number,), replace(sweep, job=job, last=job, member=member, part_of=whole))
    if job > sweep.job:
        store(step, replace(sweep, last=job - 1, part_of=whole))
    if job < sweep.last:
        store(step, replace(sweep, job=job + 1, member=0, part_of=whole))


def _parts(step: Step, whole: int, timers: Iterable[Key]) -> int:
    """Count the parts of a sweep among these timers."""
    numbers = (key[3] for key in timers if key[2] == TimerKind.SWEEP)
    sweeps = ((number, step.overlay.get(tables.SWEEP, (number,))) for number in numbers)
    return sum(1 for number, sweep in sweeps if sweep is not None and number_of(number, sweep) == whole)


def is_overtaken(acting: Acting, progress: Progress | None) -> bool:
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
    found = ((number_of(row[0], sweep), sweep, command_of(sweep)) for row, sweep in rows if is_sweep(sweep))
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
            command = command_of(sweep)
            if isinstance(command, Retry) and selection.is_of(command.where or Where(), step.job(key)):
                return True
    return False
