"""What can be done to jobs and tasks, written once for both APIs: with trio a verb is awaited, without it returns."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from tq.client.sansio import dialogues
from tq.client.sansio.dialogues import Acted, Flow
from tq.core import vocabulary as v

Count = TypeVar("Count")  # `Acted`, or what is awaited for it


class Acts(Generic[Count]):
    """What can be done to jobs and tasks. Each returns to how many it was done, 0 where there was nothing to do: so
    whatever is asked twice does no harm. Where there are many, that is how many at once (see `Acted`).
    """

    def __init__(
        self,
        follow: Callable[[Flow[Acted]], Count],
        ids: tuple[str, ...] = (),
        where: v.Where | None = None,
    ) -> None:
        self._follow = follow
        self._ids = ids
        self._where = where

    def cancel(self) -> Count:
        """Cancel what has not ended, and return how many tasks that were. Those that run are stopped."""
        return self._act(v.Cancel)

    def hold(self) -> Count:
        """Start nothing more of these jobs until a release. What runs goes on. Returns how many jobs that were."""
        return self._act(v.Hold)

    def release(self) -> Count:
        """Let held jobs go on, and return how many that were."""
        return self._act(v.Release)

    def requeue(self) -> Count:
        """Stop what runs and put it back into the queue, and return how many tasks that were. It is no failure."""
        return self._act(v.Requeue)

    def retry(self, *, force: bool = False) -> Count:
        """Run again what failed, was cancelled or expired, in a new round with all its retries; with `force` what
        succeeded, too. Returns how many tasks that were.
        """
        return self._act(v.Retry, force=force)

    def set_priority(self, priority: int) -> Count:
        """Change the priority of jobs that have not ended: -100 (last) to 100 (first). Returns how many that were."""
        return self._act(v.SetPriority, priority=priority)

    def set_at_once(self, at_once: int) -> Count:
        """Let at most so many tasks of arrays run at once (0: no bound). What runs goes on. Returns how many jobs that
        were.
        """
        return self._act(v.SetThrottle, throttle=at_once)

    def forget(self) -> Count:
        """Remove ended jobs with their records and output, and return how many that were."""
        return self._act(v.Forget)

    def purge(self) -> Count:
        """Take tasks out of the dead letter queue, and return how many that were. They stay dead."""
        return self._act(v.Purge)

    def _act(self, kind: type[v.Selected], **more: Any) -> Count:
        return self._follow(dialogues.acting(kind, self._ids, self._where, **more))
