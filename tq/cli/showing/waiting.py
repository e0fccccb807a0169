"""Waiting for tasks: `wait`, `submit --wait` and the end of `run` share it.

A lost connection is made again without end.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tq import limits
from tq.cli.showing import escape, exits, present
from tq.cli.showing.output import Ticker
from tq.client.sansio.function_call import reason
from tq.core import vocabulary as v
from tq.errors import ProtocolError, TimedOut, Unreachable

if TYPE_CHECKING:
    from tq.client.drivers.blocking import Client

TIMED_OUT = 124
_BAR_COLUMNS = 24
_FAILURES_MAX = 20
_LOOK_S = 1.0  # at each of several pages of ids, where the first news may be the last


class WaitTimedOut(Exception):
    """The wait's own time ran out; `outcomes` are how things stood."""

    def __init__(self, outcomes: Sequence[v.Outcome]) -> None:
        super().__init__()
        self.outcomes = outcomes


class Reasons:
    """Says what keeps tasks from ending, each reason once; and of which task, where there are several.

    What befell an attempt is said of each, but of several tasks only so often: thousands may fail.
    """

    def __init__(self, talk: Callable[[str], None], *, are_several: bool = False, said: set[str] | None = None) -> None:
        self._talk = talk
        self._are_several = are_several
        self._said = set[str]() if said is None else said
        self._failures = 0  # of several that were told

    def say(self, task: str, reason: str) -> None:
        """Say it, if there is a reason and it was not said."""
        if reason and reason not in self._said:
            self._said.add(reason)
            self._talk(f"tq: {escape.line(f'{task}: {reason}' if self._are_several else reason)}")

    def say_failure(self, outcome: v.Outcome) -> None:
        """Say what befell a task's attempt and when there is another one; of an array that some of its tasks failed."""
        if outcome.retrying:
            self.say(outcome.id, f"some have failed, and are tried again; tq ls {outcome.id} --state retrying")
            return
        last_failure = exits.last_failure(outcome)
        once = f"{outcome.id} {last_failure}"
        if not last_failure or once in self._said or self._failures > _FAILURES_MAX:
            return
        self._said.add(once)
        self._failures += self._are_several
        if self._failures > _FAILURES_MAX:
            self._talk("tq: more have failed, and are tried again; tq ls --state retrying")
        else:
            who = f"{outcome.id}: " if self._are_several else ""
            error = why(outcome) if outcome.state == "retrying" else ""
            within = f" within {present.seconds(outcome.pause_ms / 1_000)}" if outcome.pause_ms else ""
            self._talk(f"tq: {escape.line(who + last_failure)}{error}; tried again{within}")


def why(outcome: v.Outcome) -> str:
    """Return what the worker said about an attempt that failed otherwise than by its exit code, "" else."""
    error = reason(outcome.usage)
    return f": {escape.line(error)}" if error else ""


def until(
    client: "Client",
    ids: Sequence[str],
    is_enough: Callable[[v.Waited], bool] = lambda waited: waited.done,
    *,
    for_running: bool = False,
    timeout_s: float | None = None,
    is_quiet: bool = False,
    talk: Callable[[str], None] = lambda _: None,
    said: set[str] | None = None,
) -> v.Waited:
    """Wait until `is_enough` of an answer is true, and return that answer. Raises WaitTimedOut.

    `talk` is told what keeps tasks from starting, and what is tried again, but for what was `said` already, and what it
    is told is added to that. With a timeout of 0 s, too, how things stand is looked at once.
    """
    command = v.Wait(tuple(ids), "running" if for_running else "done")
    bar = _Bar(Ticker(is_quiet=is_quiet))
    known: dict[str, v.Outcome] = {}

    def say(text: str) -> None:
        bar.clear()
        talk(text)

    reasons = Reasons(say, are_several=len(ids) > 1, said=said)
    last = v.Waited(False, ())
    begin_s = time.monotonic()
    end_s = None if timeout_s is None else begin_s + timeout_s
    client.deadline_s = None if end_s is None else max(end_s, begin_s + limits.look_s)
    try:
        for answer in client.subscribe(lambda: command, patience_s=None):
            if isinstance(answer, v.Waited):
                # An answer has what is new, in pieces where it is much; the last ones, when all is done, have it all.
                known.update((outcome.id, outcome) for outcome in answer.outcomes)
                for outcome in answer.outcomes:
                    reasons.say_failure(outcome)
                    reasons.say(outcome.id, outcome.reason)
                last = v.Waited(answer.done, tuple(known[one] for one in ids if one in known))
                bar.show(last.outcomes)
                if not last.done and len(known) == len(ids):
                    if is_enough(last):
                        return last
                    client.deadline_s = end_s
    except TimedOut:
        raise WaitTimedOut(last.outcomes) from None
    finally:
        client.deadline_s = None
        bar.clear()
    if last.done:
        if len(last.outcomes) != len(ids):
            raise ProtocolError(f"the server answered {len(last.outcomes)} of {len(ids)} outcomes")
        return last
    raise Unreachable("the server stopped answering before the end", hint="wait again")


def until_all(
    client: "Client",
    ids: Sequence[str],
    is_enough: Callable[[v.Waited], bool],
    *,
    looks_at_all: bool,
    timeout_s: float | None = None,
    **more: Any,
) -> v.Waited:
    """Wait as `until` does, page by page where the ids are more than one wait may name.

    `looks_at_all`: one that has ended may be enough, so each page is looked at again and again.
    """
    size = limits.wait_ids_max
    pages = deque(ids[at : at + size] for at in range(0, len(ids), size))
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    known: dict[str, v.Outcome] = {}
    said = set[str]()
    is_late = False
    while pages:
        page = pages.popleft()
        left_s = None if end_s is None else max(end_s - time.monotonic(), 0.0)
        turn_s = min(_LOOK_S, _LOOK_S if left_s is None else left_s) if looks_at_all and pages else left_s
        try:
            waited = until(client, page, is_enough, timeout_s=turn_s, said=said, **more)
            outcomes: Sequence[v.Outcome] = waited.outcomes
            if not waited.done or is_enough(v.Waited(False, waited.outcomes)):  # of a page that is done, too
                pages.clear()
        except WaitTimedOut as late:
            outcomes = late.outcomes
            if end_s is not None and time.monotonic() >= end_s:
                is_late = True  # what is behind it is looked at once
            else:
                pages.append(page)
        known.update((outcome.id, outcome) for outcome in outcomes)
    stand = tuple(known[one] for one in ids if one in known)
    if is_late:
        raise WaitTimedOut(stand)
    return v.Waited(len(stand) == len(ids), stand)


def bar(ended: int, size: int, note: str, columns: int) -> str:
    """Return a bar and its note, on one line of so many columns; only the note where there is no room for both."""
    wide = min(_BAR_COLUMNS, columns - len(note) - 4)
    if wide < 4:
        return note[: max(columns - 1, 0)]
    filled = wide * ended // size
    return f"[{'#' * filled}{'.' * (wide - filled)}] {note}"


class _Bar:
    """How far things are, when several tasks are waited for on a terminal."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker
        self.clear = ticker.clear

    def show(self, outcomes: Sequence[v.Outcome]) -> None:
        size = sum(outcome.size for outcome in outcomes)
        if not self._ticker.is_shown or size < 2:
            return
        ended = sum(outcome.ended if outcome.size > 1 else exits.is_ended(outcome) for outcome in outcomes)
        failed = sum(outcome.ended - outcome.succeeded for outcome in outcomes if outcome.size > 1)
        note = f"{ended}/{size}" + (f", {failed} failed" if failed else "")
        self._ticker.draw(bar(ended, size, note, self._ticker.columns))
