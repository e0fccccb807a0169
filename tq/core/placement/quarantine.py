"""What failed by a bug of the server and is left alone for a while: rows that it works off. Soft state, never stored.

What is put off stays in the store as it stands, so nothing of it is lost or hidden; it is tried again after a second,
then after two, up to an hour, and at each start of the server (docs/adr/0023).
"""

from collections.abc import Callable, Collection, Iterator

from tq.core.model.view import Key
from tq.limits import put_off_max, put_off_ms


class Quarantine:
    """Keys that failed, with how often in a row and until when (steady ms) they are left alone."""

    def __init__(self) -> None:
        self._failed: dict[Key, tuple[int, int]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._failed

    def __iter__(self) -> Iterator[Key]:
        return iter(self._failed)

    def __len__(self) -> int:
        return len(self._failed)

    def add(self, key: Key, steady_ms: int) -> bool:
        """Leave a key alone from now on. Return whether there is room: so many bugs are no accident any more."""
        if key not in self._failed and len(self._failed) >= put_off_max:
            return False
        count = self._failed.get(key, (0, 0))[0] + 1
        first_ms, longest_ms = put_off_ms
        self._failed[key] = (count, steady_ms + min(longest_ms, first_ms << min(count - 1, 32)))
        return True

    def resting(self, steady_ms: int) -> Collection[Key]:
        """Return what is not to be tried yet."""
        return {key for key, (_, until_ms) in self._failed.items() if steady_ms < until_ms}

    def end(self, steady_ms: int, is_over: Callable[[Key], bool]) -> None:
        """Forget what has been got over, of what may be tried by now. What nobody has come to stays, with its count."""
        over = [key for key, (_, until_ms) in self._failed.items() if until_ms <= steady_ms and is_over(key)]
        for key in over:
            del self._failed[key]

    def dues_ms(self) -> Iterator[int]:
        """Yield when something is to be tried again."""
        return (until_ms for _, until_ms in self._failed.values())
