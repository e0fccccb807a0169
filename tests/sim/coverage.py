"""What many runs have shown together: every fault at every point of the commit loop, every move that can be made.

A blank in a table is a blank in the proof, so it is asked for (`blanks`). Moves that no client of the simulator makes
are listed, with the reason: whoever teaches it such a command (script.py) takes the line out here, and a run that makes
such a move says so.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from tests.sim.faults import POINTS
from tests.sim.kinds import KINDS
from tests.sim.run import Result
from tq.core.task import TRANSITIONS, State, Trigger

# Moves of the table that nothing here leads to: by trigger, and why.
OUT_OF_REACH: Final[dict[Trigger, str]] = {
    Trigger.SHUT_SCHEDULED: "no start times",
    Trigger.SHUT_HELD: "no start times and edges; a hold at submit is a first state, not a move",
    Trigger.IMPOSSIBLE: "no edges",
    Trigger.HOLD: "no client here holds, but at submit",
    Trigger.EXPIRE: "no start-by times",
    Trigger.RETRY: "no client here retries",
    Trigger.RETRY_BLOCKED: "no edges",
    Trigger.FORCE_RETRY: "no client here retries",
}
NEVER_IN: Final = (State.BLOCKED, State.SCHEDULED)  # nothing brings a task there

# What happens by the way, and must have happened, or the runs are tamer than they look.
SIGHTS: Final = (
    "claims",
    "known_reports",
    "stale_reports",
    "superseded",
    "losses",
    "workers_lost",
    "workers declared lost",
    "late ticks",
    "lists asked for again",
    "output dropped",
    "recalled in time",
    "reconciled",
    "reports kept on disk",
    "submits answered `existed`",
    "answered unknown",
    "answered not_done",
    "turns lost in a crash",
    "turns that a crash kept though nobody was told",
)


def reachable() -> set[tuple[State, Trigger]]:
    """Return the moves that the commands of the simulator can make."""
    moves = {
        (state, trigger) for state, trigger in TRANSITIONS if trigger not in OUT_OF_REACH and state not in NEVER_IN
    }
    return moves - {(State.HELD, Trigger.OPEN)}  # no client here releases


class Coverage:
    """The sum of many results."""

    def __init__(self) -> None:
        self.seeds = 0
        self.fired: Counter[tuple[str, object]] = Counter()
        self.moves: Counter[tuple[State, Trigger]] = Counter()
        self.counts: Counter[str] = Counter()
        self.commands = 0
        self.faults = 0
        self.commands_min = 0
        self.faults_min = 0

    def add(self, result: Result) -> None:
        """Add one run."""
        self.commands_min = min(result.commands, self.commands_min) if self.seeds else result.commands
        self.faults_min = min(result.faults, self.faults_min) if self.seeds else result.faults
        self.seeds += 1
        self.fired.update(result.fired)
        self.moves.update(result.moves)
        self.counts.update(result.counts)
        self.commands += result.commands
        self.faults += result.faults

    def blanks(self) -> list[str]:
        """Return what was not seen and should have been, and what was seen and should not."""
        found = [f"{kind}, at {point.value}" for kind in KINDS for point in POINTS if not self.fired[kind, point]]
        found += [f"move {_name(move)}" for move in sorted(reachable()) if not self.moves[move]]
        found += [f"move {_name(move)} is listed as out of reach" for move in sorted(set(self.moves) - reachable())]
        return found + [sight for sight in SIGHTS if not self.counts[sight]]

    def __str__(self) -> str:
        return f"{self._fault_table()}\n\n{self._move_table()}\n\n{self._sights()}"

    def _fault_table(self) -> str:
        lines = ["faults by the point of the commit loop at which they fired", ""]
        lines.append(f"{'':<34}" + "".join(f"{point.value:>10}" for point in POINTS))
        lines += [f"{kind:<34}" + "".join(f"{self.fired[kind, point]:>10}" for point in POINTS) for kind in KINDS]
        return "\n".join(lines)

    def _move_table(self) -> str:
        lines = ["legal moves", ""]
        lines += [f"{_name(move):<34}{self.moves[move]:>10}" for move in sorted(reachable())]
        lines += ["", "out of reach of the commands that are given here"]
        lines += [f"  {trigger.name.lower():<18}{reason}" for trigger, reason in OUT_OF_REACH.items()]
        words = ", ".join(state.word for state in NEVER_IN)
        return "\n".join([*lines, f"  and every move out of {words}: nothing brings a task there"])

    def _sights(self) -> str:
        return "\n".join(["seen by the way", "", *(f"{sight:<50}{self.counts[sight]:>10}" for sight in SIGHTS)])


def summary(results: Iterable[Result]) -> Coverage:
    """Return what these results show together."""
    coverage = Coverage()
    for result in results:
        coverage.add(result)
    return coverage


def _name(move: tuple[State, Trigger]) -> str:
    return f"{move[0].word}: {move[1].name.lower()} -> {TRANSITIONS[move].word}"
