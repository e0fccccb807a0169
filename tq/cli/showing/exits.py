"""The exit status that stands for how tasks ended (the contract for scripts, docs/cli.md).

On one task: its own code, 128 + N for a signal, 124 for its time limit, 130 when it was cancelled, 125 when it ended
without a code of its own. On several: 0 if all succeeded, else 1, or as `--exit-code` says. Never 0 for a failure.
"""

from collections.abc import Sequence
from typing import Final

from tq.cli.showing.pages import first_of
from tq.cli.showing.present import ALIVE, TERMINAL
from tq.core.vocabulary import Outcome
from tq.errors import BadRequest

WAYS: Final = ("any", "max", "count")
TIME_LIMIT: Final = 124
NO_CODE: Final = 125
CANCELLED: Final = 130
_KILL: Final = 9
_COUNT_MAX: Final = 100
_STATUS_MAX: Final = 255
_WORKERS_WORD: Final = frozenset({"exception", "bad_result", "unknown_function", "spawn_failed", "cwd_missing"})
_BEFELL: Final = {
    "exception": "raised an exception",
    "bad_result": "returned what cannot be kept",
    "unknown_function": "could not be called",
    "time_limit": "reached its time limit",
    "oom": "ran out of memory",
    "lost": "was lost with its worker",
    "spawn_failed": "could not be started",
    "cwd_missing": "could not be started: its working directory is missing on the worker",
}
_ENDED: Final = frozenset({*TERMINAL, "forgotten", "ended"})


def is_ended(outcome: Outcome) -> bool:
    """Whether a job or task has ended."""
    return outcome.state in _ENDED or (outcome.size > 1 and outcome.ended >= outcome.size)


def is_failed(outcome: Outcome) -> bool:
    """Whether something in a job or task has ended without success, whatever becomes of the rest."""
    if outcome.size > 1 or outcome.state == "ended":
        return outcome.ended > outcome.succeeded
    return is_ended(outcome) and outcome.state != "succeeded"


def last_failure(outcome: Outcome) -> str:
    """Return what befell an attempt that is followed by another one, "" where nothing did, or of an array."""
    if outcome.phase == "lost":
        attempt, cause, code = outcome.attempt, "lost", 0
    elif outcome.state == "retrying":
        attempt, cause, code = outcome.attempt, outcome.cause, outcome.code
    else:
        attempt, cause, code = outcome.earlier_attempt, outcome.earlier_cause, outcome.earlier_code
    if not attempt:
        return ""
    if cause == "exit":
        return f"attempt {attempt} exited with {code}"
    if cause == "signal":
        return f"attempt {attempt} {_killed(-code)}"
    return f"attempt {attempt} {_BEFELL.get(cause, f'failed ({cause})')}"


def of_one(outcome: Outcome) -> tuple[int, str]:
    """Return the exit status for one ended job, and what to tell the person ("" when the status says it all)."""
    status, why = _of_one(outcome)
    if 0 <= status <= _STATUS_MAX:
        return status, why
    # The system keeps one byte of a status: 256 would be success.
    return NO_CODE, why or f"{outcome.id} ended with the code {outcome.code}, which is none"


def _of_one(outcome: Outcome) -> tuple[int, str]:
    if outcome.size > 1 or outcome.state == "ended":
        failed, job = _failed(outcome), outcome.id
        return (1, f"{failed} of {outcome.size} tasks of {job} did not succeed; tq show {job}") if failed else (0, "")
    if outcome.state == "succeeded":
        return 0, ""
    if outcome.state == "dead" and not outcome.phase:
        return 1, ""  # an array of one member: its job has no attempt, so no code either
    if outcome.state == "cancelled":
        return CANCELLED, f"{outcome.id} was cancelled"
    if outcome.state != "dead":
        return NO_CODE, f"{outcome.id} ended as {outcome.state} without a code of its own"
    return _of_dead(outcome)


def _failed(outcome: Outcome) -> int:
    """Return how many tasks of an array did not succeed, as far as it has come."""
    return (outcome.ended if outcome.state in ALIVE else outcome.size) - outcome.succeeded


def _of_dead(outcome: Outcome) -> tuple[int, str]:
    cause, code = outcome.cause, outcome.code
    why = f"{outcome.id} {_BEFELL[cause]}" if cause in _BEFELL else ""
    if cause == "time_limit":
        return TIME_LIMIT, why
    if cause == "cancelled":
        return CANCELLED, f"{outcome.id} was cancelled"
    if cause in _WORKERS_WORD:
        return code if code > 0 else NO_CODE, why
    if cause == "lost":
        return NO_CODE, f"{why} too often"
    if cause == "oom":
        return 128 - code if code < 0 else code or NO_CODE, why
    if code < 0:
        return 128 - code, f"{outcome.id} {_killed(-code)}"
    return (code, "") if code > 0 else (NO_CODE, f"{outcome.id} failed: {cause or 'no cause is known'}")


def _killed(signal: int) -> str:
    """Say by which signal, since 137 may be a code, too; what tq sends itself has other causes."""
    return f"was killed by signal {signal}{', not by tq: for want of memory, perhaps' if signal == _KILL else ''}"


def of_all(outcomes: Sequence[Outcome], way: str = "any") -> tuple[int, list[str]]:
    """Return the exit status for all of `outcomes`, and what to tell the person."""
    if len(outcomes) == 1 and outcomes[0].size == 1 and outcomes[0].state != "ended":
        status, why = of_one(outcomes[0])
        return status, [why] if why else []
    # Who gives up at the first failure judges what still runs by what it has come to.
    ends = [(0, "") if one.state in ALIVE and not is_failed(one) else of_one(one) for one in outcomes]
    says = [why for status, why in ends if status and why]
    silent = [outcome.id for outcome, (status, why) in zip(outcomes, ends, strict=True) if status and not why]
    if silent and len(outcomes) > 1:
        says.append(f"{first_of(silent)} did not succeed")
    failed = sum(_failed(outcome) if outcome.size > 1 else status != 0
                 for outcome, (status, _) in zip(outcomes, ends, strict=True))  # fmt: skip
    if way == "max":
        return max((status for status, _ in ends), default=0), says
    if way == "count":
        return min(failed, _COUNT_MAX), says
    return min(failed, 1), says


def check_way(way: str) -> str:
    """Check --exit-code."""
    if way not in WAYS:
        raise BadRequest(f"{way!r} is not a choice for --exit-code", hint=f"one of {', '.join(WAYS)}")
    return way
