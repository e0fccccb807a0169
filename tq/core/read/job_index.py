"""The rows of NAMED: by which words a job is found among all others, newest job first (job_search.py reads them).

A job has rows of its name, its tags and its queue from submit on, and of those of its states in which jobs stay
(`Step.settle` keeps them true); all go with it. A row has a digest of the word, not the word: keys have a fixed width.
Who reads rows compares with the job's records, so that digests that are alike only cost a look. Jobs below
`Meta.named_from` lack rows: a release that had fewer kinds of them made these.

The queue of who says none has no rows, nor has what succeeded: of those a walk over all jobs soon meets some.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Final

from tq.core.model import tables
from tq.core.model.ids import DEFAULT_QUEUE
from tq.core.model.job import Job, Meta, Progress
from tq.core.model.task import State
from tq.core.model.view import Overlay
from tq.core.read.selection import shown_counts
from tq.core.vocabulary import Where

NAMED_BY: Final = 1  # which kinds of rows there are, all that are listed above; one more where there are more

NamedKey = tuple[int, int]

_FIRST: Final = (1 << 63) - 1  # numbers are stored as what they lack to this: the newest stands first


def _word(kind: str, word: str) -> int:
    return int.from_bytes(blake2b(f"{kind} {word}".encode(), digest_size=8).digest()) >> 1


_queue_word: Final = lru_cache(256)(partial(_word, "queue"))  # jobs have few of these

WORDS_OF_STATES: Final = {
    state: _word("state", state.word)
    for state in (State.HELD, State.DEAD, State.CANCELLED, State.SKIPPED, State.EXPIRED)
}


def rows_of(number: int, job: Job, listed: int) -> Iterator[NamedKey]:
    """Yield the keys of the rows of one job. `listed` are its states that have one, as in its progress."""
    back = _FIRST - number
    if job.name:
        yield _word("name", job.name), back
    for tag in dict.fromkeys(job.tags):
        yield _word("tag", tag), back
    if job.queue != DEFAULT_QUEUE:
        yield _queue_word(job.queue), back
    if listed:
        yield from _rows_of_states(number, listed)


def listed_of(progress: Progress) -> int:
    """Return by which of its states a job has rows: a bit each."""
    counts = shown_counts(progress)
    return sum(1 << state for state in WORDS_OF_STATES if counts[state])


def relist(overlay: Overlay, number: int, progress: Progress) -> None:
    """Bring the rows of a job's states in line with its progress."""
    before, listed = progress.listed, listed_of(progress)
    for row in _rows_of_states(number, listed & ~before):
        overlay.put(tables.NAMED, row, True)
    for row in _rows_of_states(number, before & ~listed):
        overlay.delete(tables.NAMED, row)
    progress.listed = listed


def rows_from(meta: Meta | None) -> int:
    """Return from which job on all have the rows that are listed above."""
    return meta.named_from if meta is not None and meta.named_by == NAMED_BY else 1 << 63


def words_of(where: Where) -> list[int]:
    """Return the words of which a job that is meant has rows, beside those of its states."""
    words = [_word("name", where.name)] if where.name else []
    words += [_word("tag", where.tag)] if where.tag else []
    words += [_queue_word(where.queue)] if where.queue not in ("", DEFAULT_QUEUE) else []
    return words


def between(word: int, low: int, high: int) -> tuple[NamedKey, NamedKey]:
    """Return the bounds of a scan over the rows of a word, of jobs from `low` to below `high`."""
    return (word, _FIRST - high + 1), (word, _FIRST - low + 1)


def number_of(key: NamedKey) -> int:
    """Return the number of the job of a row."""
    return _FIRST - key[1]


def _rows_of_states(number: int, listed: int) -> Iterator[NamedKey]:
    return ((word, _FIRST - number) for state, word in WORDS_OF_STATES.items() if listed >> state & 1)
