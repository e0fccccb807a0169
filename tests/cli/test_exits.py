"""The exit status that stands for how tasks ended: a contract, so every row of it is here."""

import pytest

from tq.cli.showing import exits
from tq.core.vocabulary import Outcome
from tq.errors import BadRequest


def one(state: str, cause: str = "", code: int = 0) -> Outcome:
    return Outcome("42", state, phase="ended", cause=cause, code=code, ended=1, succeeded=int(state == "succeeded"))


def array(size: int, succeeded: int, ended: int | None = None) -> Outcome:
    state = "succeeded" if succeeded == size else "dead"
    return Outcome("43", state, size=size, succeeded=succeeded, ended=size if ended is None else ended)


@pytest.mark.parametrize(
    "outcome, status",
    [
        (one("succeeded", "exit"), 0),
        (one("dead", "exit", 7), 7),
        (one("dead", "exit", 255), 255),
        (one("dead", "exit", 256), 125),
        (one("dead", "signal", -128), 125),
        (one("dead", "signal", -9), 137),
        (one("dead", "signal", -15), 143),
        (one("dead", "time_limit", -15), 124),
        (one("dead", "time_limit", 0), 124),
        (one("dead", "spawn_failed", 127), 127),
        (one("dead", "spawn_failed", 126), 126),
        (one("dead", "spawn_failed", 0), 125),
        (one("dead", "cwd_missing"), 125),
        (one("dead", "lost"), 125),
        (one("dead", "oom", -9), 137),
        (one("dead", "exception", 1), 1),
        (one("dead", "bad_result", 1), 1),
        (one("dead", "bad_result", 0), 125),
        (one("dead", "unknown_function", 127), 127),
        (one("dead", "internal"), 125),
        (one("dead", "something_new"), 125),
        (one("cancelled", "cancelled", -15), 130),
        (one("cancelled", "cancelled", 0), 130),
        (one("cancelled"), 130),
        (one("expired"), 125),
        (one("skipped"), 125),
        (one("forgotten"), 125),
        (array(3, 3), 0),
        (array(3, 2), 1),
        (array(3, 0), 1),
        (Outcome("43", "dead", size=1, ended=1), 1),
        (Outcome("43", "cancelled", size=1, ended=1), 130),
    ],
)
def test_one_job(outcome: Outcome, status: int) -> None:
    assert exits.of_all([outcome])[0] == status


def test_no_failure_is_ever_0() -> None:
    for state in ("dead", "cancelled", "expired", "skipped", "forgotten", "unheard_of"):
        for cause in ("", "exit", "signal", "lost", "oom", "time_limit", "spawn_failed", "exception", "bad_result"):
            for code in (-64, -9, 0, 1, 255):
                for way in exits.WAYS:
                    assert exits.of_all([one(state, cause, code)], way)[0] != 0, (state, cause, code, way)


@pytest.mark.parametrize(
    "code, says",
    [
        (-9, ["42 was killed by signal 9, not by tq: for want of memory, perhaps"]),
        (-11, ["42 was killed by signal 11"]),
        (137, []),
    ],
)
def test_a_signal_is_told_from_the_code_that_stands_for_it(code: int, says: list[str]) -> None:
    assert exits.of_all([one("dead", "signal" if code < 0 else "exit", code)]) == (abs(code) % 128 + 128, says)


def test_several_are_0_only_if_all_succeeded() -> None:
    good, bad = one("succeeded", "exit"), one("dead", "exit", 7)
    assert exits.of_all([good, good])[0] == 0
    assert exits.of_all([good, bad])[0] == 1
    assert exits.of_all([good, bad, one("dead", "signal", -9)], "max")[0] == 137
    assert exits.of_all([bad, bad, array(10, 4)], "count")[0] == 8
    assert exits.of_all([array(1_000_000, 0)], "count")[0] == 100


def test_what_still_runs_beside_a_failure_has_not_failed() -> None:
    """As `wait --for ok` sees it."""
    runs, bad = Outcome("43", "running", "started"), one("dead", "exit", 7)
    assert exits.of_all([runs, bad, runs]) == (1, ["42 did not succeed"])
    assert exits.of_all([runs, bad], "max")[0] == 7
    assert exits.of_all([runs, bad], "count")[0] == 1
    half = Outcome("44", "running", size=10, ended=4, succeeded=3)
    assert exits.of_all([half]) == (1, ["1 of 10 tasks of 44 did not succeed; tq show 44"])
    assert exits.of_all([half, runs], "count")[0] == 1


def test_which_of_several_did_not_succeed_is_said() -> None:
    bad = [Outcome(str(number), "dead", "ended", 7, "exit", ended=1) for number in range(5)]
    assert exits.of_all([*bad, one("cancelled"), one("succeeded", "exit")])[1] == [
        "42 was cancelled",
        "0, 1, 2 and 2 more did not succeed",
    ]


def test_what_has_no_code_of_its_own_is_explained() -> None:
    assert exits.of_all([one("dead", "exit", 7)])[1] == []
    assert exits.of_all([one("dead", "lost")])[1] == ["42 was lost with its worker too often"]
    assert exits.of_all([one("cancelled")])[1] == ["42 was cancelled"]


def test_a_way_that_is_none_is_refused() -> None:
    with pytest.raises(BadRequest, match="--exit-code"):
        exits.check_way("sum")
