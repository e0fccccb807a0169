"""What many runs have shown together: every fault at every point of the commit loop, every move that can be made.

A blank in a table is a blank in the proof, so it is asked for (`rare`, `empty_cells`). Moves that no client of the
simulator makes are listed, with the reason: whoever teaches it such a command (script.py) takes the line out here, and
a run that makes such a move says so.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final, get_args

from tests.sim.faults import POINTS
from tests.sim.kinds import KINDS
from tests.sim.run import Result
from tq.core import vocabulary as v
from tq.core.model.task import TRANSITIONS, State, Trigger

# Moves of the table that nothing here leads to: by trigger, and why.
OUT_OF_REACH: Final[dict[Trigger, str]] = {
    Trigger.SHUT_SCHEDULED: "no start times",
    Trigger.SHUT_HELD: "no start times and edges: a hold at submit is a first state, and by hand it is another move",
    Trigger.IMPOSSIBLE: "no edges",
    Trigger.EXPIRE: "no start-by times",
    Trigger.RETRY_BLOCKED: "no edges",
}
NEVER_IN: Final = (State.BLOCKED, State.SCHEDULED, State.SKIPPED, State.EXPIRED)  # nothing brings a task there

# Commands that no client here gives, and why.
NOT_GIVEN: Final[dict[type, str]] = {
    v.Logs: "answered at the edge, from the store",
    v.StoreStatistics: "answered at the edge, from the store",
    v.Backup: "answered at the edge, from the store",
    v.InputDamaged: "nothing that was stored is damaged here",
    v.Dispatch: "every turn ends with it",
}
KINDS_OF_COMMANDS: Final = tuple(kind for kind in get_args(v.Command) if kind not in NOT_GIVEN)

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
    "dry runs",
    "failures that are tried again",
    "failures that are the last",
    "losses charged",
    "losses not charged",
    "deaths by loss",
    "arrays that ended early",
    "workers poisoned",
    "cut off",
    "drains with a deadline",
    "worker_troubles",
    "jobs forgotten by the janitor",
    "sweeps kept",
    "sweeps kept over a restart",
    "passed over by Dispatch",
    "passed over by Tick",
    "passed over by Retain",
    "passed over by Join",
    "passed over by Report",
    "turns lost in a crash",
    "turns that a crash kept though nobody was told",
)


def reachable() -> set[tuple[State, Trigger]]:
    """Return the moves that the commands of the simulator can make."""
    return {(state, trigger) for state, trigger in TRANSITIONS if trigger not in OUT_OF_REACH and state not in NEVER_IN}


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

    def rare(self, at_least: int = 1) -> list[str]:
        """Return what was seen less often and should have been, and what was seen and should not."""
        by_kind = Counter({kind: sum(self.fired[kind, point] for point in POINTS) for kind in KINDS})
        found = [kind for kind in KINDS if by_kind[kind] < at_least]
        found += [f"move {_name(move)}" for move in sorted(reachable()) if self.moves[move] < at_least]
        found += [f"move {_name(move)} is listed as out of reach" for move in sorted(set(self.moves) - reachable())]
        found += [name for name in map(_command, KINDS_OF_COMMANDS) if self.counts[name] < at_least]
        return found + [sight for sight in SIGHTS if self.counts[sight] < at_least]

    def empty_cells(self) -> list[str]:
        """Return which faults have not fired at which points."""
        return [f"{kind}, at {point.value}" for kind in KINDS for point in POINTS if not self.fired[kind, point]]

    def __str__(self) -> str:
        return f"{self._fault_table()}\n\n{self._command_table()}\n\n{self._move_table()}\n\n{self._sights()}"

    def _fault_table(self) -> str:
        lines = ["faults by the point of the commit loop at which they fired", ""]
        lines.append(f"{'':<34}" + "".join(f"{point.value:>10}" for point in POINTS))
        lines += [f"{kind:<34}" + "".join(f"{self.fired[kind, point]:>10}" for point in POINTS) for kind in KINDS]
        return "\n".join(lines)

    def _command_table(self) -> str:
        lines = ["commands that the engine took", ""]
        lines += [f"{kind.__name__:<34}{self.counts[_command(kind)]:>10}" for kind in KINDS_OF_COMMANDS]
        return "\n".join([*lines, "", "not given", *(f"  {kind.__name__:<18}{why}" for kind, why in NOT_GIVEN.items())])

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


def _command(kind: type) -> str:
    return f"command {kind.__name__}"


def _name(move: tuple[State, Trigger]) -> str:
    return f"{move[0].word}: {move[1].name.lower()} -> {TRANSITIONS[move].word}"
