"""A fixed handful of seeds, as CI runs them; `make sim-long` runs a thousand and prints the tables."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.sim.ahead import Ahead
from tests.sim.coverage import NEVER_IN, OUT_OF_REACH, Coverage, reachable
from tests.sim.kinds import KINDS
from tests.sim.run import Result, run_seed
from tests.tidy.tree import ROOT
from tq.core.model.task import TRANSITIONS, State, Trigger
from tq.server.commit.commit_loop import Point

COMMANDS = 300
FAULTS = 14

CHUNK = 10
CHUNKS = range(10)
SEEDS = range(1, 1 + CHUNK * len(CHUNKS))
SEEN_MIN = 3  # each command, each kind of fault and each thing worth seeing, over all chunks


@pytest.fixture(scope="module")
def runs() -> Iterator[Ahead[Result]]:
    with Ahead(partial(run_seed, commands=COMMANDS, faults=FAULTS), SEEDS) as runs:
        yield runs


@pytest.mark.parametrize("chunk", CHUNKS)
def test_every_promise_is_kept_under_faults(chunk: int, runs: Ahead[Result]) -> None:
    for result in map(runs.result, SEEDS[chunk * CHUNK : (chunk + 1) * CHUNK]):
        replay = f"python -m tests.sim --seed {result.seed} --commands {COMMANDS} --faults {FAULTS}"
        print("\n".join(result.story or result.history[-40:]), f"\nreplay: {replay}")
        assert result.violation == ""
        assert result.commands >= COMMANDS
        assert result.faults >= FAULTS


def test_all_that_may_happen_has_happened_in_these_seeds(runs: Ahead[Result]) -> None:
    coverage = Coverage()
    for seed in SEEDS:
        result = runs.result(seed)
        coverage.add(result)

    print(coverage)
    assert coverage.rare(SEEN_MIN) == []
    assert len(coverage.empty_cells()) <= len(KINDS) * len(Point) // 20


@pytest.mark.parametrize("seed", [1, 2])
def test_every_promise_is_kept_on_a_real_disk(seed: int, tmp_path: Path) -> None:
    result = run_seed(seed, commands=300, faults=8, data=tmp_path / "data")

    print("\n".join(result.history[-40:]))
    assert result.violation == ""


def test_one_seed_is_one_trace_whatever_the_process_hashes() -> None:
    command = [sys.executable, "-m", "tests.sim", "--seed", "6", "--commands", "400", "--faults", "12"]

    said = {
        subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True, capture_output=True
        ).stdout
        for hash_seed in ("0", "1", "77")
    }

    assert len(said) == 1
    assert b"every promise was kept" in said.pop()


def test_the_seed_decides_the_trace() -> None:
    first, again, other = (run_seed(seed, commands=200, faults=4) for seed in (1, 1, 2))

    assert first == again
    assert first.digest != other.digest


def test_the_moves_that_the_commands_given_here_can_make_are_these() -> None:
    assert reachable() == {
        (State.HELD, Trigger.CANCEL),
        (State.HELD, Trigger.OPEN),
        (State.QUEUED, Trigger.HOLD),
        (State.DEAD, Trigger.RETRY),
        (State.CANCELLED, Trigger.RETRY),
        (State.SUCCEEDED, Trigger.FORCE_RETRY),
        (State.QUEUED, Trigger.LEASE),
        (State.QUEUED, Trigger.CLAIM),
        (State.QUEUED, Trigger.CANCEL),
        (State.RUNNING, Trigger.ACK),
        (State.RUNNING, Trigger.FAIL),
        (State.RETRYING, Trigger.OPEN),
        (State.RETRYING, Trigger.CANCEL),
        (State.RUNNING, Trigger.GIVE_UP),
        (State.RUNNING, Trigger.LOSE),
        (State.RUNNING, Trigger.HAND_BACK),
        (State.RUNNING, Trigger.CANCEL),
    }
    assert {move for move in TRANSITIONS if move[0] not in NEVER_IN and move[1] not in OUT_OF_REACH} == reachable()


def test_a_blank_in_the_tables_is_named() -> None:
    coverage = Coverage()
    coverage.add(run_seed(1, commands=200, faults=2))

    rare = coverage.rare()

    assert len(coverage.empty_cells()) > 100
    assert "server crash" in rare
    assert not any(name.startswith("move queued: lease") for name in rare)
