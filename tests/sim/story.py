"""The short history of a failing seed: what happened to the one task or job that the violation names.

A seed is one trace, so the story costs a run that passes nothing: a failed seed runs once more, told for its subject.
"""

import re
from typing import Final

from tests.sim.world import Subject

LINES_MAX: Final = 60
_NAMED: Final = (
    re.compile(r"AttemptRef\(job=(\d+), part=\d+, member=(\d+)"),
    re.compile(r"\((\d+), 0, (\d+)\)"),
    re.compile(r"(?:job|task) (\d+)(?:\.\d+)?(?:,? member (\d+))?"),
    re.compile(r"\((\d+), 0\)"),
    re.compile(r"ids=\('(\d+)"),
    re.compile(r"id='(\d+)"),
)


def subject_of(violation: str) -> Subject | None:
    """Return the job, and the member if one is named, that the text of a violation is about."""
    found = [match for match in (pattern.search(violation) for pattern in _NAMED) if match]
    if not found:
        return None
    match = min(found, key=lambda match: match.start())
    member = match[2] if match.re.groups > 1 else None
    return int(match[1]), None if member is None else int(member)


def shortened(lines: list[str]) -> list[str]:
    """Return a story of bounded length: its beginning, and most of its end."""
    if len(lines) <= LINES_MAX:
        return lines
    first = LINES_MAX // 4
    return [*lines[:first], f"{'':11} … {len(lines) - LINES_MAX} lines …", *lines[first - LINES_MAX :]]
