"""The quick tests find each mutant: by a test that states the broken rule, and most also by the simulator."""

import subprocess
import sys
from typing import Final

import pytest

from tests.mutants import mutants
from tests.mutants.mutants import MUTANTS, Mutant
from tests.sim.faults import NAMES
from tests.sim.test_mutations import caught
from tests.tidy import tree

pytestmark = pytest.mark.slow  # a pytest for each
ATTEMPTS: Final = "tests/core/test_attempts.py"
JOBS: Final = "tests/core/test_jobs.py"
PEERS: Final = "tests/server/test_worker_protocol.py"
LOOP: Final = "tests/server/test_commit_loop.py"
SWEEPS: Final = "tests/core/test_sweeps.py::TestTheLaterWordCounts"
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
        f"{ATTEMPTS}::test_what_the_worker_does_not_hold_goes_back_uncharged_and_is_told_if_it_had_started[False]"
    ),
    mutants.do_not_store_the_key: "tests/core/test_submit.py::test_the_same_key_returns_the_same_job",
    mutants.take_an_untouched_member_of_a_cancelled_array_for_queued: (
        f"{JOBS}::test_cancel_of_ten_million_untouched_members_is_one_field"
    ),
    mutants.accept_a_claim_after_the_successors_lease: (
        f"{ATTEMPTS}::test_a_claim_after_the_successors_lease_is_told_to_stop"
    ),
    mutants.read_what_a_task_was_first: (
        "tests/store/test_disk.py::test_what_was_written_last_is_read_as_it_is_on_disk[0]"
    ),
    mutants.believe_an_old_word_of_silence: (
        "tests/core/test_silent.py::test_a_worker_that_is_back_gets_what_waits_and_an_older_word_changes_nothing"
    ),
    mutants.fill_one_worker_after_the_other: (
        f"{JOBS}::TestChains::test_few_short_tasks_stand_behind_others_as_evenly_as_they_can"
    ),
    mutants.forget_which_hold_came_last: SWEEPS,
    mutants.derive_a_lane_without_what_waits: "tests/core/test_lost_words.py::test_every_rule_holds_and_all_goes_on[0]",
    mutants.give_away_what_is_on_its_way: f"{PEERS}::test_a_list_sent_again_begins_a_session_of_its_own",
    mutants.free_an_input_that_others_use: (
        "tests/core/test_entries.py::test_the_same_request_again_shares_its_entries_until_the_last_job_is_forgotten"
    ),
    mutants.end_trouble_by_what_ran_before: (
        "tests/core/test_worker_backoff.py::test_what_was_leased_before_the_trouble_neither_counts_again_nor_ends_it"
    ),
    mutants.forget_the_widths_of_chains: (
        "tests/core/test_queues.py::test_a_worker_that_comes_back_keeps_the_width_that_it_was_told"
    ),
    mutants.believe_an_older_list_of_a_drain: (
        "tests/core/test_drains.py::test_what_was_asked_while_the_worker_was_cut_off_holds_and_is_told_again[True-False]"
    ),
    mutants.keep_results_without_their_names: (
        "tests/worker/test_spool.py::test_the_names_of_what_is_kept_and_of_what_goes_aside_are_durable"
    ),
    mutants.ask_nothing_back_of_who_comes_back: (
        "tests/core/test_claims.py::test_what_has_not_started_there_comes_back_where_others_have_its_place"
    ),
    mutants.take_any_piece_of_an_input: (
        "tests/worker/test_interpreter.py::test_an_input_that_is_asked_for_anew_is_made_of_the_pieces_that_come_next"
    ),
    mutants.bring_back_what_was_cancelled_after_the_retry: (
        f"{SWEEPS}::test_what_is_cancelled_is_not_brought_back_by_an_older_retry"
    ),
}
SEEDS_MAX: Final = 20
# What the simulator has no way to show, and why.
NOT_SIMULATED: Final[dict[Mutant, str]] = {
    mutants.accept_a_superseded_session: "the session that is superseded is closed before its word reaches the core",
    mutants.read_what_a_task_was_first: "its store is in memory, and reads every row",
    mutants.believe_an_old_word_of_silence: "who is called silent is heard again before long",
    mutants.fill_one_worker_after_the_other: "nobody there judges how evenly work is spread",
    mutants.forget_which_hold_came_last: "it takes a sweep that is killed: let_an_older_word_undo_a_later_one",
    mutants.derive_a_lane_without_what_waits: "no row is ever lost there",
    mutants.give_away_what_is_on_its_way: "a list is asked for again too seldom while something is on its way",
    mutants.end_trouble_by_what_ran_before: "what ran before the trouble is told before it",
    mutants.forget_the_widths_of_chains: "a start fills what seems to be free too seldom",
    mutants.believe_an_older_list_of_a_drain: "it takes a drain that is cut off before it is heard",
    mutants.keep_results_without_their_names: "its disk of a worker loses nothing",
    mutants.ask_nothing_back_of_who_comes_back: "a pause rarely comes just while a worker with untouched work is away",
    mutants.take_any_piece_of_an_input: "an input is rarely asked for anew while a piece of it is on its way",
    mutants.bring_back_what_was_cancelled_after_the_retry: "a cancel rarely comes while a retry of its job is a sweep",
}

LOSSES: Final = ("worker partition", "worker freeze", "worker cut")
# Which faults show a mutant early; all of them do so late.
SHOWN_BY: Final[dict[Mutant, tuple[str, ...]]] = {
    mutants.skip_the_attempt_check: LOSSES,
    mutants.accept_a_claim_after_the_successors_lease: LOSSES,
    mutants.free_an_input_that_others_use: ("client freeze", "worker cut"),
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

    assert caught(SEEDS_MAX, SHOWN_BY.get(mutant, NAMES))
