"""How jobs are found, newest first, without a walk over all others where that can be.

By state, where few jobs have what is asked for: by the indexes of what runs, starts, is due or is a dead letter. By
name or tag: rows of NAMED, newest job first, written at submit and removed with the job. A row has a digest of the
word, not the word: keys have a fixed width. Who reads rows compares with the job's record, so that digests that are
alike, and rows without a job, only cost a look. Jobs below `Meta.named_from` have no rows: an older release made them,
and they are found by walking over all of them.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from heapq import nlargest
from typing import Final

from tq.core import tables
from tq.core.job import Job, Lane, Progress
from tq.core.live import Live
from tq.core.task import STATES, State
from tq.core.timers import STEADY, TimerKind
from tq.core.view import View
from tq.core.vocabulary import Where
from tq.limits import page_keys_max

_FIRST: Final = (1 << 63) - 1  # numbers are stored as what they lack to this: the newest stands first
_WALK: Final = 100  # jobs, or numbers without one, in one look

_LAST: Final = 1 << 62  # above all times and numbers

NamedKey = tuple[int, int]
# Numbers of jobs, newest first, with their progress where that is read already.
Found = Sequence[tuple[int, Progress | None]]
Numbers = Collection[int]
Lanes = dict[int, Lane]


def rows_of(number: int, job: Job) -> Iterator[NamedKey]:
    """Yield the keys of the rows of one job."""
    if job.name:
        yield _digest("name", job.name), _FIRST - number
    for tag in dict.fromkeys(job.tags):
        yield _digest("tag", tag), _FIRST - number


def number_of(key: NamedKey) -> int:
    """Return the number of the job of a row."""
    return _FIRST - key[1]


def look_for(view: View, live: Live, where: Where, states: frozenset[State]) -> Callable[[int], tuple[Found, int]]:
    """Return what gives, of a number, the next jobs below it that may match, newest first, and below which number to
    look on.
    """
    few = _few(view, live, where, states)
    if few is not None:
        return partial(_of_few, few)
    meta = view.get(tables.META, ())
    named_from = max(meta.named_from, 1) if meta is not None else 1
    return partial(_of_many, view, where, named_from if where.name or where.tag else _LAST)


def _of_few(few: Numbers, top: int) -> tuple[Found, int]:
    numbers = nlargest(_WALK, (number for number in few if number < top))
    return [(number, None) for number in numbers], numbers[-1] if len(numbers) == _WALK else 1


def _of_many(view: View, where: Where, named_from: int, top: int) -> tuple[Found, int]:
    if top > named_from:
        word = _word(where)
        found = view.scan(tables.NAMED, (word, _FIRST - top + 1), (word, _FIRST - named_from + 1), _WALK)
        numbers = [number_of(key) for key, _ in found]
        return [(number, None) for number in numbers], numbers[-1] if len(numbers) == _WALK else named_from
    low = max(top - _WALK, 1)
    rows = view.scan(tables.PROGRESS, (low, 0), (top, 0), 2 * _WALK)
    return [(number, progress) for (number, part), progress in reversed(rows) if part == 0], low


def each_below(top: int) -> tuple[Found, int]:
    """Return the next numbers below `top`, whether jobs have them or not."""
    low = max(top - _WALK, 1)
    return [(number, None) for number in range(top - 1, low - 1, -1)], low


def _few(view: View, live: Live, where: Where, states: frozenset[State]) -> Numbers | None:
    """Return the numbers of all jobs, and perhaps some more, of a queue that have tasks in these states; None where no
    index has them, or they are many.
    """
    if len(states) == STATES and not (where.queue or where.is_letter):
        return None
    lanes = {number: lane for number, lane in live.lanes.items() if where.queue in ("", lane.queue)}
    there = {state for state in State if any(lane.counts[state] for lane in lanes.values())}
    if State.QUEUED in there:
        there.add(State.HELD)  # it may be, under the hold of its job
    wanted = there & ({State.DEAD} if where.is_letter else states)
    if not wanted <= _INDEXES.keys():
        return None
    numbers = set[int]()
    for state in wanted:
        found = _INDEXES[state](view, live, lanes, where)
        if found is None:
            return None
        numbers.update(found)
    return numbers


def _running(_view: View, live: Live, _lanes: Lanes, _where: Where) -> Numbers:
    return [number for number, part in live.jobs if part == 0]


def _queued(view: View, live: Live, lanes: Lanes, where: Where) -> Numbers | None:
    """What is queued, in no job that is held, is ready; or its array is at its bound, so that something of it runs; or
    it is about to be cancelled, where a sweep stands.
    """
    sweeps = view.scan(tables.SWEEP, (0,), (_LAST,), page_keys_max)
    if sum(lane.ready for lane in lanes.values()) + len(sweeps) >= page_keys_max:
        return None
    numbers = [*_running(view, live, lanes, where), *(sweep.job for _, sweep in sweeps)]
    for number, lane in lanes.items():
        low = (number, lane.floor_rank, lane.floor_job, lane.floor_part)
        rows = view.scan(tables.READY, low, (number + 1,), lane.ready) if lane.ready else ()
        numbers += (key[2] for key, _ in rows)
    return numbers


def _retrying(view: View, live: Live, _lanes: Lanes, _where: Where) -> Numbers | None:
    timers = view.scan(tables.TIMER, (STEADY, live.timer_floors[STEADY]), (STEADY + 1,), page_keys_max)
    return [key[3] for key, _ in timers if key[2] == TimerKind.RETRY] if len(timers) < page_keys_max else None


def _dead(view: View, live: Live, _lanes: Lanes, where: Where) -> Numbers | None:
    """The dead letters, if these are meant, or all that is dead: none was purged."""
    dead = sum(lane.counts[State.DEAD] for lane in live.lanes.values())
    if dead >= page_keys_max and not where.is_letter:
        return None
    rows = view.scan(tables.DEAD, (0,), (_LAST,), page_keys_max)
    is_all = len(rows) < page_keys_max if where.is_letter else len(rows) == dead
    return [key[1] for key, _ in rows] if is_all else None


_INDEXES: Final[dict[State, Callable[[View, Live, Lanes, Where], Numbers | None]]] = {
    State.RUNNING: _running,
    State.QUEUED: _queued,
    State.RETRYING: _retrying,
    State.DEAD: _dead,
}


def numbers_between(
    view: View, live: Live, where: Where, states: frozenset[State], first: int, last: int
) -> list[int] | None:
    """Return the numbers of the jobs from `first` to `last` that may match, in order; None if no index tells, or too
    many are to be turned round.
    """
    few = _few(view, live, where, states)
    if few is not None:
        return sorted(number for number in few if first <= number <= last)
    meta = view.get(tables.META, ())
    if not (where.name or where.tag) or meta is None or not 0 < meta.named_from <= first:
        return None
    found = view.scan(tables.NAMED, (_word(where), _FIRST - last), (_word(where), _FIRST - first + 1), page_keys_max)
    return [number_of(key) for key, _ in reversed(found)] if len(found) < page_keys_max else None


def _word(where: Where) -> int:
    return _digest("name", where.name) if where.name else _digest("tag", where.tag)


def _digest(kind: str, word: str) -> int:
    return int.from_bytes(blake2b(f"{kind} {word}".encode(), digest_size=8).digest()) >> 1
