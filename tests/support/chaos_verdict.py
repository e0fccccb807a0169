"""What the chaos test asserts in the end: what clients were told, what ran, and what the server says, side by side.

`ran` is the file to which each execution adds `TASK ATTEMPT begin` and `TASK ATTEMPT end`; one that found another copy
alive, though none may be, adds `TASK ATTEMPT beside`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, Final, NamedTuple

from tests.support.chaos_clients import Job
from tq.limits import history_max

BEGIN: Final = "begin"
END: Final = "end"
BESIDE: Final = "beside"
# Why an execution was not the last: its worker went away, or it was killed; or what its job is there for, by its key.
AGAIN: Final = ("lost", "signal")
AGAIN_OF: Final = {"failing": "exit", "requeued": "requeue", "alone": "cut_off"}

Show = Callable[[str], dict[str, Any]]


class Figures(NamedTuple):
    """What the run has shown."""

    tasks: int
    states: dict[str, int]
    executions: int
    more_than_one: int
    by_cause: dict[str, int]  # of the executions beyond one
    ended_in_vain: int  # executions that came to their end and were lost or cancelled for all that
    attempts: dict[int, int]  # how many tasks had so many attempts


def executions(text: str) -> dict[str, Counter[tuple[int, str]]]:
    """Return, by task, how often each attempt began and ended."""
    ran: dict[str, Counter[tuple[int, str]]] = defaultdict(Counter)
    for line in text.splitlines():
        task, attempt, word = line.split()
        ran[task][int(attempt), word] += 1
    return ran


def judge(
    jobs: Mapping[str, Job], ran: Mapping[str, Counter[tuple[int, str]]], show: Show, cancelled: Container[str] = ()
) -> tuple[Figures, list[str]]:
    """Compare everything; return the figures, and a line for each promise that was broken.

    `cancelled` are the jobs whose cancel was acknowledged: their tasks are cancelled, or had succeeded before.
    """
    wrong: list[str] = []
    causes, attempts, states = Counter[str](), Counter[int](), Counter[str]()
    tasks = {task: (key, job) for key, job in jobs.items() for task in job.tasks}
    for task, (key, job) in tasks.items():
        shown, counts = show(task), ran.get(task, Counter())
        attempts[shown["attempt"]] += 1
        states[shown["state"]] += 1
        may_be = ("succeeded", "cancelled") if job.id in cancelled else ("succeeded",)
        broken = _broken(shown, key, may_be, counts)
        wrong += [f"{task}: {what}: {shown}, ran {dict(counts)}" for what in broken]
        causes.update(_causes(shown, counts))
    wrong += [f"{task} ran and was never acknowledged: {ran[task]}" for task in ran if task not in tasks]
    begun = sum(_count(counts, BEGIN) for counts in ran.values())
    vain = sum(_count(counts, END) for counts in ran.values()) - states["succeeded"]
    return Figures(len(tasks), dict(states), begun, sum(causes.values()), dict(causes), vain, dict(attempts)), wrong


def _broken(
    shown: Mapping[str, Any], key: str, may_be: Container[str], counts: Counter[tuple[int, str]]
) -> Iterable[str]:
    """Yield what is not as it must be with one task."""
    last, state = shown["attempt"], shown["state"]
    if shown["name"] != key or state not in may_be or (state == "succeeded" and shown["code"]):
        yield "it was acknowledged and has not succeeded"
    if state == "succeeded" and (counts[last, BEGIN] != 1 or counts[last, END] != 1):
        yield "its last attempt has not run once, to its end"
    if any(count > 1 for count in counts.values()):
        yield "an attempt ran twice"
    if _count(counts, BESIDE):
        yield "two copies ran at once, in spite of --if-cut stop"
    if any(attempt > last for attempt, _ in counts):
        yield "an attempt ran that the server does not know"
    causes = _causes(shown, counts)
    if not set(causes) <= {*AGAIN, AGAIN_OF.get(key.partition("-")[0]), "forgotten"}:
        yield f"an execution too many belongs to no attempt that was lost or killed: {causes}"


def _causes(shown: Mapping[str, Any], counts: Counter[tuple[int, str]]) -> list[str]:
    """Return why each execution but the last was not the last, by the task's history; "" for no reason."""
    history = {entry["attempt"]: entry["cause"] for entry in shown.get("history", ())}
    oldest = min(history, default=0) if len(history) >= history_max else 0
    begun = sorted(attempt for attempt, word in counts if word == BEGIN and attempt != shown["attempt"])
    return [history.get(attempt, "forgotten" if attempt < oldest else "") for attempt in begun]


def _count(counts: Counter[tuple[int, str]], word: str) -> int:
    return sum(count for (_, said), count in counts.items() if said == word)
