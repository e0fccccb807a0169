"""Level 2: the real sessions of server and worker, bytes and all, under faults on their streams."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.sim.ahead import Ahead
from tests.sim.kinds import KINDS
from tests.sim.played_run import LEFT_TO_LEVEL_1, Played, play_seed
from tests.tidy.tree import ROOT
from tq.net.link import Link
from tq.worker.session import Session


@pytest.mark.parametrize("seed", range(1, 4))
def test_real_sessions_keep_every_promise_under_faults(seed: int) -> None:
    played = play_seed(seed)

    print("\n".join(played.history[-40:]), f"\nreplay: python -m tests.sim.played_run {seed}")
    assert played.violation == ""
    assert played.commands >= 400
    assert played.faults >= 14


SEEDS = range(100, 120)


@pytest.fixture(scope="module")
def runs() -> Iterator[Ahead[Played]]:
    with Ahead(play_seed, SEEDS) as runs:
        yield runs


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_many_seeds_of_real_sessions(seed: int, runs: Ahead[Played]) -> None:
    played = runs.result(seed)

    assert played.violation == "", "\n".join(played.history[-40:])


def test_one_seed_of_real_sessions_is_one_trace() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-m", "tests.sim.played_run", "7"],
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True, capture_output=True,
        ).stdout
        for hash_seed in ("0", "77")
    }  # fmt: skip

    assert len(said) == 1
    assert b"every promise was kept" in said.pop()


def test_what_is_left_to_level_1_is_a_fault_there() -> None:
    assert set(LEFT_TO_LEVEL_1) < set(KINDS)


def never_give_up_on_a_silent_server(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Session) -> None:
        return

    patch.setattr(Session, "_beat", nothing)
    patch.setattr(Session, "_listen", nothing)


def push_what_was_pushed_before(patch: pytest.MonkeyPatch) -> None:
    def push(self: Link) -> None:
        prompt = self._free_stream()
        if prompt is not None and self.queued_bytes:
            batch = self._take()
            self._write_now(prompt, batch)
            self._write_now(prompt, batch)

    patch.setattr(Link, "push", push)


def push_the_half_of_a_frame(patch: pytest.MonkeyPatch) -> None:
    def push(self: Link) -> None:
        prompt = self._free_stream()
        if prompt is not None and self.queued_bytes:
            batch = self._take()
            self._write_now(prompt, batch[: len(batch) // 2])

    patch.setattr(Link, "push", push)


def push_while_the_writer_writes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Link, "_free_stream", lambda self: None if self._is_closing else self._prompt)


PUSHES = (push_what_was_pushed_before, push_the_half_of_a_frame, push_while_the_writer_writes)


@pytest.mark.parametrize("broken", PUSHES, ids=lambda broken: broken.__name__)
def test_a_broken_push_is_caught(broken, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)

    assert any(play_seed(seed).violation for seed in range(1, 4))


@pytest.mark.slow
@pytest.mark.parametrize("broken", [never_give_up_on_a_silent_server], ids=lambda broken: broken.__name__)
def test_a_broken_session_is_caught(broken, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)

    assert any(play_seed(seed).violation for seed in range(1, 10))
