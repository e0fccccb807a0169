"""The judge of the chaos test can find every promise broken: a check that cannot fail is worse than none."""

from typing import Any, Final

import pytest

from tests.support.chaos_clients import Acknowledged, Job
from tests.support.chaos_verdict import executions, judge

GOOD: Final = {"name": "key", "state": "succeeded", "code": 0, "attempt": 3, "history": [
    {"attempt": 1, "cause": "lost"}, {"attempt": 2, "cause": "signal"},
]}  # fmt: skip
RAN: Final = ["7 1 begin", "7 1 end", "7 2 begin", "7 3 begin", "7 3 end"]


def wrong(lines: list[str], **shown: Any) -> list[str]:
    return judge({"key": Job("7")}, executions("\n".join(lines)), lambda _: {**GOOD, **shown})[1]


def test_what_was_lost_or_killed_may_run_again_and_is_counted() -> None:
    figures, found = judge({"key": Job("7")}, executions("\n".join(RAN)), lambda _: GOOD)

    assert found == []
    assert (figures.tasks, figures.executions, figures.more_than_one, figures.ended_in_vain) == (1, 3, 2, 1)
    assert figures.by_cause == {"lost": 1, "signal": 1}


@pytest.mark.parametrize(
    "lines, shown, rule",
    [
        (RAN, {"state": "dead"}, "has not succeeded"),
        (RAN, {"state": "queued"}, "has not succeeded"),
        (RAN, {"name": "other"}, "has not succeeded"),
        (RAN[:-1], {}, "has not run once"),
        (RAN[:-2], {}, "has not run once"),
        ([*RAN, "7 3 begin", "7 3 end"], {}, "ran twice"),
        ([*RAN, "7 1 begin"], {}, "ran twice"),
        ([*RAN, "7 4 begin"], {}, "does not know"),
        (RAN, {"history": [{"attempt": 2, "cause": "signal"}]}, "belongs to no attempt"),
        (RAN, {"history": [{"attempt": 1, "cause": "exit"}, {"attempt": 2, "cause": "lost"}]}, "belongs to no attempt"),
        ([*RAN, "8 1 begin"], {}, "never acknowledged"),
        ([*RAN, "7 2 beside"], {}, "two copies ran at once"),
    ],
)
def test_each_broken_promise_is_found(lines: list[str], shown: dict[str, Any], rule: str) -> None:
    assert any(rule in line for line in wrong(lines, **shown))


@pytest.mark.parametrize("key, cause", [("failing-1", "exit"), ("requeued-1", "requeue"), ("alone-1", "cut_off")])
def test_what_was_to_fail_or_to_be_requeued_may_run_again_for_that_reason_and_nothing_else(
    key: str, cause: str
) -> None:
    def found(key: str) -> list[str]:
        shown = {**GOOD, "name": key, "attempt": 2, "history": [{"attempt": 1, "cause": cause}]}
        return judge({key: Job("7")}, executions("7 1 begin\n7 2 begin\n7 2 end"), lambda _: shown)[1]

    assert found(key) == []
    assert "belongs to no attempt" in found("array-1")[0]


def test_a_cancelled_task_may_have_run_or_not_and_no_other_may_be_cancelled() -> None:
    shown = {**GOOD, "state": "cancelled", "code": -15}
    for lines in ([], RAN[:-1], RAN):
        assert judge({"key": Job("7")}, executions("\n".join(lines)), lambda _: shown, {"7"})[1] == []

    assert judge({"key": Job("7")}, executions(""), lambda _: shown, {"8"})[1]
    assert judge({"key": Job("7")}, executions("7 4 begin"), lambda _: shown, {"7"})[1]


def test_a_key_that_is_answered_with_two_jobs_is_found(tmp_path: Any) -> None:
    told = Acknowledged(tmp_path / "acknowledged")
    told.add("key", Job("7"))
    told.add("key", Job("7"))
    assert told.wrong == []

    told.add("key", Job("8"))

    assert told.wrong
    assert (tmp_path / "acknowledged").read_text() == "key 7 0\nkey 7 0\nkey 8 0\n"
