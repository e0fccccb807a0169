"""How much of a thing the connections of one token may leave standing, and those of all together. Pure, in memory."""

from collections import Counter

from tq.errors import NotDone


class Quota:
    """So many of `what` for each token, and for all. Connections are many: a bound of each alone bounds nothing."""

    def __init__(self, what: str, of_token_max: int, all_max: int, hint: str) -> None:
        self._what = what
        self._of_token_max = of_token_max
        self._all_max = all_max
        self._hint = hint
        self._taken: Counter[str] = Counter()  # by token
        self._all = 0

    def __len__(self) -> int:
        return self._all

    def take(self, token: str, count: int = 1) -> None:
        """Count what a token leaves standing. Raises NotDone, and counts nothing, where that would be too much."""
        if self._taken[token] + count > self._of_token_max:
            raise NotDone(f"one token may have {self._of_token_max} {self._what} at a time", hint=self._hint)
        if self._all + count > self._all_max:
            raise NotDone(f"all clients may have {self._all_max} {self._what} at a time", hint=self._hint)
        self._taken[token] += count
        self._all += count

    def give(self, token: str, count: int = 1) -> None:
        """Count what no longer stands."""
        self._all -= count
        self._taken[token] -= count
        if not self._taken[token]:
            del self._taken[token]
