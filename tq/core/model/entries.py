"""The entries of an array: which input a member has. Stored in runs; found by where the runs begin."""

from tq.core.model import tables
from tq.core.model.job import Job
from tq.core.model.view import View
from tq.limits import entries_items_max


class EntryReader:
    """Reads the entries of members, mostly in order: remembers the last run."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._blob = 0
        self._first = 0
        self._items: tuple[bytes, ...] = ()
        self.runs_read = 0

    def entry(self, blob: int, member: int) -> bytes:
        """Return the entry of the member at a position. Raises KeyError if the store lacks it: it is damaged."""
        place = member - self._first
        if blob != self._blob or not 0 <= place < len(self._items):
            self._read(blob, member)
            place = member - self._first
        return self._items[place]

    def shown(self, job: Job, member: int) -> dict[str, bytes]:
        """Return the entry of a member for a document: none where its job has none, or the store has lost it."""
        try:
            return {"entry": self.entry(job.entries, member)} if job.entries else {}
        except KeyError:
            return {}

    def _read(self, blob: int, member: int) -> None:
        self.runs_read += 1
        if blob == self._blob and member == self._first + len(self._items):  # in order: the next run begins there
            following = self._view.get(tables.ENTRIES, (blob, member))
            if following is not None and following.items:
                self._first, self._items = member, following.items
                return
        low = (blob, max(member - entries_items_max + 1, 0))
        starts = self._view.scan(tables.ENTRY_AT, low, (blob, member + 1), entries_items_max)
        run = self._view.get(tables.ENTRIES, starts[-1][0]) if starts else None
        if run is None or starts[-1][0][1] + len(run.items) <= member:
            raise KeyError(f"entry {member} of blob {blob} is missing")
        self._blob, self._first, self._items = blob, starts[-1][0][1], run.items
