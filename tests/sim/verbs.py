"""The dice behind a client's verbs on jobs and members: which one, by ids or by a filter, as a dry run or for good."""

from collections.abc import Callable
from random import Random
from typing import Any, Final

from tq.core import vocabulary as v

Jobs = list[tuple[str, v.Submit]]
STATES: Final = (
    (),
    (),
    (),
    ("queued",),
    ("running",),
    ("failed",),
    ("held",),
    ("dead", "cancelled"),
    ("succeeded",),
    ("queued", "retrying"),
    ("queued", "running"),
    ("running", "retrying"),
    ("held", "queued", "running", "retrying"),
    ("retrying",),
)


class Verbs:
    """The verbs of one client."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._kinds: list[tuple[int, Callable[..., v.ClientCommand], bool]] = [
            (6, v.Cancel, True),
            (3, v.Hold, False),
            (4, v.Release, False),
            (5, v.Retry, True),
            (3, v.Requeue, True),
            (1, v.SetPriority, False),
            (1, v.SetThrottle, False),
            (4, v.Forget, False),
            (3, v.Purge, True),
        ]

    def plan(self, job: str, submit: v.Submit, jobs: Jobs) -> v.ClientCommand:
        """Return a verb on this job, on some of its members, on several jobs, or on what matches a filter."""
        dice = self._dice
        _, verb, has_members = dice.choices(self._kinds, [share for share, _, _ in self._kinds])[0]
        fields: dict[str, Any] = {"dry_run": dice.random() < 0.15}
        if verb is v.Retry:
            fields["force"] = dice.random() < 0.3
        if verb is v.Cancel:
            fields["signal"] = dice.choice((0, 0, 2, 15))
        if verb is v.SetPriority:
            fields["priority"] = dice.choice((-100, -10, 0, 10, 100))
        if verb is v.SetThrottle:
            fields["throttle"] = dice.choice((0, 1, 2, 5))
        share = dice.random()
        if share < 0.12:
            return verb(where=self._filter(submit), **fields)
        if share < 0.4 and submit.is_array and has_members:
            if dice.random() < 0.2:
                fields["where"] = self._filter(dice.choice(jobs)[1])
            return verb(ids=self._members(job, submit), **fields)
        if share < 0.45:
            return verb(ids=(job,), where=self._filter(submit), **fields)
        if share < 0.52:
            return verb(ids=tuple(dict.fromkeys(name for name, _ in dice.sample(jobs, min(len(jobs), 4)))), **fields)
        return verb(ids=(job,), **fields)

    def wide(self) -> list[v.ClientCommand]:
        """Return verbs on many jobs, of a tag or all of them: each has something to do with most."""
        dice = self._dice
        of_all, of_a_tag = v.Where(), v.Where(tag=f"t{dice.randint(0, 5)}")
        words: tuple[list[v.ClientCommand], ...] = (
            [v.Hold(where=of_all), v.Release(where=of_all)],
            [v.Release(where=of_all), v.Retry(where=of_all, force=True)],
            [v.Cancel(where=of_a_tag), v.Purge(where=of_all)],
            [v.Purge(where=of_all), v.Forget(where=of_a_tag)],
        )
        return dice.choice(words)

    def short(self, job: str) -> v.ClientCommand:
        """Return a verb on all of one job."""
        return self._dice.choice((v.Cancel, v.Hold, v.Release, v.Retry))(ids=(job,))

    def _members(self, job: str, submit: v.Submit) -> tuple[str, ...]:
        """Name some members of an array, one by one or as a range."""
        dice = self._dice
        values = [submit.array_first + member * submit.array_step for member in range(submit.size)]
        if dice.random() < 0.5:
            return tuple(f"{job}.{value}" for value in dice.sample(values, min(submit.size, dice.randint(1, 3))))
        first = dice.randrange(submit.size)
        last = min(first + dice.randint(0, 2), submit.size - 1)
        return (f"{job}.{values[first]}-{values[last]}",)

    def _filter(self, submit: v.Submit) -> v.Where:
        """Return a filter that this job's submit matches."""
        dice = self._dice
        return v.Where(
            states=dice.choice(STATES),
            queue=submit.queue if dice.random() < 0.3 else "",
            tag=submit.tags[0] if submit.tags and dice.random() < 0.8 else "",
            name=submit.name if dice.random() < 0.3 else "",
            cause=dice.choice(("exit", "lost", "cancelled")) if dice.random() < 0.15 else "",
            is_letter=dice.random() < 0.15,
        )
