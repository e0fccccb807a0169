"""Seeds run ahead, on all processors: whoever asks for the result of one finds the next ones under way."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final, Generic, Self, TypeVar

R = TypeVar("R")
_AHEAD: Final = 2 * (os.cpu_count() or 1)


class Ahead(Generic[R]):
    """The results of `work` for these seeds, each made once, in a process that begins anew: no patch reaches it."""

    def __init__(self, work: Callable[[int], R], seeds: Sequence[int]) -> None:
        self._work = work
        self._seeds = seeds
        self._results: dict[int, Future[R]] = {}
        self._pool = ProcessPoolExecutor(mp_context=get_context("spawn"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def result(self, seed: int) -> R:
        """Return the result for one seed, and begin with some of those behind it."""
        at = self._seeds.index(seed)
        for one in self._seeds[at : at + 1 + _AHEAD]:
            if one not in self._results:
                self._results[one] = self._pool.submit(self._work, one)
        return self._results[seed].result()
