"""The rows of TASK that were written last, as they are on disk.

What was leased is read once more, when it ends: mostly moments after it was written. Here it is found without a read
of the disk and without decoding it. Owned by the store, which tells of every turn that it has written.
"""

from typing import Any, Final

from tq.core.model.tables import FORGOTTEN, TASK
from tq.core.model.task import Task
from tq.core.model.view import Changes, Key

rows_max: Final = 4_096  # as many tasks as are leased at once where tasks are short: about a MiB
UNKNOWN: Final[Any] = object()


class Recent:
    """At most `rows_max` rows; with one too many it begins anew."""

    def __init__(self) -> None:
        self._rows: dict[Key, Task | None] = {}

    def get(self, key: Key) -> Any:
        """Return the record, None for one that was deleted, UNKNOWN for what only the disk knows."""
        return self._rows.get(key, UNKNOWN)

    def wrote(self, changes: Changes) -> None:
        """Take note of a turn that was written. What it forgets takes whole ranges along, so then all is unknown."""
        tasks = changes.get(TASK, {})
        is_forgetting = FORGOTTEN in changes
        if is_forgetting or len(self._rows) + len(tasks) > rows_max:
            self._rows.clear()
        if not is_forgetting and len(tasks) <= rows_max:
            self._rows.update(tasks)
