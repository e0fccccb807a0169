"""The quick tests find each mutant: by a test that states the broken rule, and most also by the simulator."""

import subprocess
import sys
from typing import Final

import pytest

from tests.mutants import mutants
from tests.mutants.mutants import MUTANTS, Mutant
from tests.sim.run import run_seed
from tests.tidy import tree

pytestmark = pytest.mark.slow  # a pytest for each
ATTEMPTS: Final = "tests/core/test_attempts.py"
JOBS: Final = "tests/core/test_jobs.py"
LOOP: Final = "tests/server/test_commit_loop.py"
FOUND_BY: Final[dict[Mutant, str]] = {
    mutants.skip_the_attempt_check: f"{ATTEMPTS}::test_a_report_of_another_worker_is_stale",
    mutants.release_before_the_flush: f"{LOOP}::test_an_answer_leaves_only_after_the_flush_of_its_turn",
    mutants.do_not_persist_the_cursor_of_an_array: f"{JOBS}::test_an_array_runs_each_member_once_in_order",
    mutants.release_a_read_that_saw_an_unflushed_turn: (
        f"{LOOP}::test_a_read_that_could_have_seen_a_turn_waits_for_its_flush"
    ),
    mutants.accept_a_superseded_session: f"{ATTEMPTS}::test_a_word_of_a_superseded_session_is_dropped",
    mutants.charge_no_loss: f"{ATTEMPTS}::test_a_loss_charges_what_may_have_run_and_no_bystander",
    mutants.ignore_what_the_server_has_and_the_worker_does_not_hold: (
        f"{ATTEMPTS}::test_what_the_worker_does_not_hold_goes_back_uncharged"
    ),
    mutants.do_not_store_the_key: "tests/core/test_submit.py::test_the_same_key_returns_the_same_job",
    mutants.take_an_untouched_member_of_a_cancelled_array_for_queued: (
        f"{JOBS}::test_cancel_of_ten_million_untouched_members_is_one_field"
    ),
    mutants.accept_a_claim_after_the_successors_lease: (
        f"{ATTEMPTS}::test_a_claim_after_the_successors_lease_is_told_to_stop"
    ),
}
SEEDS_MAX: Final = 20
# What the simulator has no way to show, and why.
NOT_SIMULATED: Final[dict[Mutant, str]] = {
    mutants.accept_a_superseded_session: "the session that is superseded is closed before its word reaches the core",
}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    quick = ("-q", "-rf", "-m", "not slow", "-p", "no:cacheprovider")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *quick, *words], cwd=tree.ROOT, capture_output=True, text=True, check=False
    )


def test_every_mutant_has_a_test_that_finds_it() -> None:
    assert set(FOUND_BY) == set(MUTANTS)
    assert set(NOT_SIMULATED) < set(MUTANTS)


def test_without_a_mutant_these_tests_pass() -> None:
    done = run(*FOUND_BY.values())

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_quick_test_finds_the_mutant(mutant: Mutant) -> None:
    done = run("-p", "tests.mutants.plugin", "--mutant", mutant.__name__, FOUND_BY[mutant])

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert f"FAILED {FOUND_BY[mutant]}" in done.stdout


@pytest.mark.parametrize(
    "mutant", [mutant for mutant in MUTANTS if mutant not in NOT_SIMULATED], ids=lambda mutant: mutant.__name__
)
def test_the_simulator_finds_the_mutant(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)

    assert any(run_seed(seed, commands=600, faults=20).violation for seed in range(1, SEEDS_MAX + 1))
