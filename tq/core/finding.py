"""How jobs are found by name or tag: rows of NAMED, newest job first, written at submit and removed with the job.

A row has a digest of the word, not the word: keys have a fixed width. Who reads rows compares with the job's record, so
that digests that are alike, and rows without a job, only cost a look. Jobs below `Meta.named_from` have no rows: an
older release made them, and they are found by walking over all of them.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from heapq import nlargest
from typing import Final

from tq.core import tables
from tq.core.job import Job
from tq.core.live import Live
from tq.core.view import View
from tq.core.vocabulary import Where
from tq.limits import page_keys_max

_FIRST: Final = (1 << 63) - 1  # numbers are stored as what they lack to this: the newest stands first
_WALK: Final = 100  # jobs, or numbers without one, in one look

NamedKey = tuple[int, int]
# Numbers of jobs, newest first, with their records where these are read already; and below which number to look on.
Below = tuple[Sequence[tuple[int, Job | None]], int]


def rows_of(number: int, job: Job) -> Iterator[NamedKey]:
    """Yield the keys of the rows of one job."""
    if job.name:
        yield _digest("name", job.name), _FIRST - number
    for tag in dict.fromkeys(job.tags):
        yield _digest("tag", tag), _FIRST - number


def number_of(key: NamedKey) -> int:
    """Return the number of the job of a row."""
    return _FIRST - key[1]


def jobs_below(view: View, where: Where, top: int) -> Below:
    """Return the next jobs below `top` that may match."""
    meta = view.get(tables.META, ())
    from_ = meta.named_from if meta is not None else 1
    if (where.name or where.tag) and top > from_:
        return _named(view, where, max(from_, 1), top)
    low = max(top - _WALK, 1)
    found = view.scan(tables.JOB, (low, 0), (top, 0), 2 * _WALK)
    return [(number, job) for (number, part), job in reversed(found) if part == 0], low


def each_below(top: int) -> Below:
    """Return the next numbers below `top`, whether jobs have them or not."""
    low = max(top - _WALK, 1)
    return [(number, None) for number in range(top - 1, low - 1, -1)], low


def running_below(live: Live, top: int) -> Below:
    """Return the next jobs below `top` of which something runs: by what the workers hold, however many others there
    are.
    """
    numbers = nlargest(_WALK, (number for number, part in live.jobs if part == 0 and number < top))
    return [(number, None) for number in numbers], numbers[-1] if len(numbers) == _WALK else 1


def numbers_between(view: View, where: Where, first: int, last: int) -> list[int] | None:
    """Return the numbers of the jobs from `first` to `last` that may match, in order; None if the rows do not tell, or
    are too many to be turned round.
    """
    meta = view.get(tables.META, ())
    if not (where.name or where.tag) or meta is None or not 0 < meta.named_from <= first:
        return None
    found = view.scan(tables.NAMED, (_word(where), _FIRST - last), (_word(where), _FIRST - first + 1), page_keys_max)
    return [number_of(key) for key, _ in reversed(found)] if len(found) < page_keys_max else None


def _named(view: View, where: Where, from_: int, top: int) -> Below:
    word = _word(where)
    found = view.scan(tables.NAMED, (word, _FIRST - top + 1), (word, _FIRST - from_ + 1), _WALK)
    numbers = [number_of(key) for key, _ in found]
    return [(number, None) for number in numbers], numbers[-1] if len(numbers) == _WALK else from_


def _word(where: Where) -> int:
    return _digest("name", where.name) if where.name else _digest("tag", where.tag)


def _digest(kind: str, word: str) -> int:
    return int.from_bytes(blake2b(f"{kind} {word}".encode(), digest_size=8).digest()) >> 1
