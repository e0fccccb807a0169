"""Make a failing seed smaller: leave out one fault after the other, and keep out what the violation does not need.

A fault that is left out leaves the schedule of the others as it is (faults.py), though not what happens between them;
so what is asked for is a violation of the same kind, not the same one.
"""

import re
from functools import partial
from typing import NamedTuple

from tests.sim.run import Result, run_seed


class Shrunk(NamedTuple):
    """The smallest run found: its result, the faults left out, and how many runs that took."""

    result: Result
    left_out: frozenset[int]
    runs: int


def kind_of(violation: str) -> str:
    """Return the words of a violation without what differs from run to run: numbers, names, records."""
    words = violation.partition(" s: ")[2] or violation
    return " ".join(re.findall(r"(?<![\w(=.'])[a-z]{2,}(?![\w(='])", words)[:12])


def shrink(seed: int, *, commands: int, faults: int) -> Shrunk:
    """Run a failing seed with ever fewer faults, the latest first: it is the early ones that lead to it."""
    run = partial(run_seed, seed, commands=commands, faults=faults)
    best, left_out, runs = run(), frozenset[int](), 1
    kind = kind_of(best.violation)
    for fault in reversed(range(best.faults if best.violation else 0)):
        smaller = run(left_out=left_out | {fault})
        runs += 1
        if smaller.violation and kind_of(smaller.violation) == kind:
            best, left_out = smaller, left_out | {fault}
    return Shrunk(best, left_out, runs)
