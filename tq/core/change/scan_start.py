"""Floors: where a table begins whose rows are worked off from its head.

A deleted key is slow to pass until compaction has taken it away (measured: 100,000 of them, 25 to 35 ms), so who looks
for the oldest rows begins where they began the last time. In memory only: after a start the first look finds out anew.
"""

from collections.abc import Sequence
from typing import TypeVar

from tq.core.change.step import Step
from tq.core.model import tables
from tq.core.model.view import Key, Table
from tq.core.placement.live import LIVE_FLOOR

R = TypeVar("R")


def oldest(step: Step, table: Table[R], high: Key, limit: int) -> Sequence[tuple[Key, R]]:
    """Return the first rows of a table below `high`. What comes into it later is not below `high`, or lowers the floor
    (placement/live.py).
    """
    rows = step.overlay.scan(table, (step.live.floors[table.name],), high, limit)
    step.overlay.put(LIVE_FLOOR, (table.name,), rows[0][0][0] if rows else high[0])
    return rows


def first_job(step: Step) -> int:
    """Return the number of the first job that there is, or is to come."""
    meta = step.overlay.get(tables.META, ())
    behind = meta.next_job if meta else 1
    return next((key[0] for key, _ in oldest(step, tables.JOB, (behind,), 1)), behind)
