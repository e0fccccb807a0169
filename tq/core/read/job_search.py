"""How jobs are found, newest first, without a walk over all others where that can be.

By state, where few are in it, by the indexes of what runs, starts, is due or is a dead letter; else, and by name, tag
and queue, by the rows of NAMED (job_index.py). Where several of these tell, that one is gone by which has the fewest
just there. Jobs below `Meta.named_from`, and what nothing tells of, are found by walking over all of them.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from heapq import nlargest
from typing import Final, NamedTuple

from tq.core.model import tables
from tq.core.model.job import Lane, Progress
from tq.core.model.task import STATES, State
from tq.core.model.timers import STEADY, TimerKind
from tq.core.model.view import View
from tq.core.placement.live import Live
from tq.core.read.job_index import WORDS_OF_STATES, between, number_of, rows_from, words_of
from tq.core.vocabulary import Where
from tq.limits import page_keys_max

_WALK: Final = 100  # jobs, or numbers without one, in one look
_STRETCH: Final = 2_000  # numbers in one look by state: deleted rows are slow to pass, and there may be one of each

_LAST: Final = 1 << 62  # above all times and numbers

# Numbers of jobs, newest first, with their progress where that is read already.
Found = Sequence[tuple[int, Progress | None]]
Numbers = Collection[int]
Lanes = dict[int, Lane]


class _Source(NamedTuple):
    """What tells of all jobs that may match, and perhaps of some more: those with a row of these words, and these."""

    words: Sequence[int] = ()
    numbers: Numbers = ()

    def newest(self, view: View, low: int, high: int, most: int) -> tuple[list[int], int]:
        """Return the newest of it from `low` to below `high`, and from which number on these are all."""
        numbers = {number for number in self.numbers if low <= number < high}
        for word in self.words:
            numbers.update(number_of(key) for key, _ in view.scan(tables.NAMED, *between(word, low, high), most))
        found = nlargest(most, numbers)
        return found, found[-1] if len(found) == most else low


def first_number(live: Live) -> int:
    """Return a number below which there is no job: what was there is forgotten, and slow to pass."""
    return max(live.floors[tables.JOB.name], 1)


def look_for(view: View, live: Live, where: Where, states: frozenset[State]) -> Callable[[int], tuple[Found, int]]:
    """Return what gives, of a number, the next jobs below it that may match, newest first, and below which number to
    look on.
    """
    by_state = _by_state(view, live, where, states)
    sources, source_from = _sources(view, live, where, by_state)
    return partial(_look, view, sources, source_from, _STRETCH if by_state is not None and by_state.words else _LAST)


def _look(view: View, sources: Sequence[_Source], source_from: int, stretch: int, top: int) -> tuple[Found, int]:
    if top > source_from:
        numbers, low = _fewest(view, sources, max(source_from, top - stretch), top, _WALK)
        return [(number, None) for number in numbers], low
    low = max(top - _WALK, 1)
    rows = view.scan(tables.PROGRESS, (low, 0), (top, 0), 2 * _WALK)
    return [(number, progress) for (number, part), progress in reversed(rows) if part == 0], low


def each_below(top: int) -> tuple[Found, int]:
    """Return the next numbers below `top`, whether jobs have them or not."""
    low = max(top - _WALK, 1)
    return [(number, None) for number in range(top - 1, low - 1, -1)], low


def numbers_between(
    view: View, live: Live, where: Where, states: frozenset[State], first: int, last: int
) -> list[int] | None:
    """Return the numbers of the jobs from `first` to `last` that may match, in order; None if nothing tells of them, or
    too many are to be turned round.
    """
    sources, source_from = _sources(view, live, where, _by_state(view, live, where, states))
    first = max(first, first_number(live))
    if source_from > first:
        return None
    most = page_keys_max + sum(len(source.numbers) for source in sources)  # those are known, however many
    numbers, low = _fewest(view, sources, first, last + 1, most)
    return numbers[::-1] if low == first else None


def _fewest(view: View, sources: Sequence[_Source], low: int, high: int, most: int) -> tuple[list[int], int]:
    """Return the newest of the source that has the fewest there."""
    found = [source.newest(view, low, high, most) for source in sources]
    return min(found, key=lambda one: (one[1], len(one[0])))


def _sources(view: View, live: Live, where: Where, by_state: _Source | None) -> tuple[list[_Source], int]:
    """Return what tells of the jobs of a filter, and from which number on it does."""
    if by_state is not None and not by_state.words:
        return [by_state], 1
    sources = [_Source((word,)) for word in words_of(where)] + ([by_state] if by_state is not None else [])
    return sources, max(rows_from(view.get(tables.META, ())), first_number(live)) if sources else _LAST


def _by_state(view: View, live: Live, where: Where, states: frozenset[State]) -> _Source | None:
    """Return what tells of all jobs of a queue that have tasks in these states, and perhaps some more; None where
    nothing does.
    """
    if len(states) == STATES and not (where.queue or where.is_letter):
        return None
    lanes = {number: lane for number, lane in live.lanes.items() if where.queue in ("", lane.queue)}
    there = {state for state in State if any(lane.counts[state] for lane in lanes.values())}
    if State.QUEUED in there:
        there.add(State.HELD)  # it may be, under the hold of its job
    wanted = there & ({State.DEAD} if where.is_letter else states)
    if not wanted <= _INDEXES.keys() | WORDS_OF_STATES.keys():
        return None
    words, numbers = list[int](), set[int]()
    for state in wanted:
        found = _INDEXES[state](view, live, lanes, where) if state in _INDEXES else None
        if found is not None:
            numbers.update(found)
        elif state in WORDS_OF_STATES:
            words.append(WORDS_OF_STATES[state])
        else:
            return None
    return _Source(words, numbers)


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


def _letters(view: View, _live: Live, _lanes: Lanes, where: Where) -> Numbers | None:
    """The dead letters, if these are meant; what is dead beside them has rows."""
    rows = view.scan(tables.DEAD, (0,), (_LAST,), page_keys_max) if where.is_letter else ()
    return [key[1] for key, _ in rows] if where.is_letter and len(rows) < page_keys_max else None


_INDEXES: Final[dict[State, Callable[[View, Live, Lanes, Where], Numbers | None]]] = {
    State.RUNNING: _running,
    State.QUEUED: _queued,
    State.RETRYING: _retrying,
    State.DEAD: _letters,
}
