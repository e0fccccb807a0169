"""After a power cut every acknowledged turn is there and whole, round after round.

TQ_POWER_ROUNDS sets the number of rounds (default 10), TQ_POWER_SEED the first seed. The same for a whole server is
built from the same parts (tests/support/power.py).
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.faults import commit_turns
from tests.support.power import Cut, cut_power, environment, synced_length
from tests.support.store import all_rows, read_store
from tq.core.model.tables import BODY, LANE_NAME, READY, TASK
from tq.errors import StoreDamaged
from tq.store.check import check_bytes

ROUNDS: Final = int(os.environ.get("TQ_POWER_ROUNDS", "10"))
SEED: Final = int(os.environ.get("TQ_POWER_SEED", "1"))


class Round:
    """One life of the committing process: started, killed after so many acknowledgements."""

    def __init__(self, data: Path, library: Path, seed: int, fail_sync: int = 0) -> None:
        self.opened = -1  # the last turn it found, -1 if it was killed before it knew
        self.acknowledged = 0
        self.failure = ""
        self.process = subprocess.Popen(
            [sys.executable, commit_turns.__file__, data, str(seed)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment(library, fail_sync=fail_sync), "PYTHONPATH": str(Path.cwd())},
        )

    def run(self, acknowledgements: int) -> None:
        """Let it acknowledge so many flushes (0 = just opened), then kill it."""
        assert self.process.stdout is not None
        for _ in range(acknowledgements + 1):
            self._take(self.process.stdout.readline())
        self.process.kill()
        for line in self.process.stdout.read().splitlines(keepends=True):
            self._take(line)
        self.process.wait()
        self.process.stdout.close()
        assert self.failure or self.process.returncode == -signal.SIGKILL

    def run_s(self, life_s: float) -> None:
        """Kill it after so long, wherever it is: in its start, while RocksDB recovers, or later."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(life_s)
        self.run(-1)

    def _take(self, line: str) -> None:
        word, _, text = line.partition(" ")
        if not line.endswith("\n"):
            return
        if word == "open":
            self.opened = int(text)
        elif word == "ack":
            self.acknowledged = int(text)
        else:
            self.failure = text.strip()


def assert_whole(data: Path, acknowledged: int) -> int:
    """Assert that every turn up to the last is there and nothing else; return the last, at least `acknowledged`."""
    with read_store(data) as store:
        last = store.sequence
        assert last >= acknowledged
        assert check_bytes(store).problems == []
        tasks = [(turn, 0, member) for turn in range(1, last + 1) for member in range(3)]
        assert [key for key, _ in all_rows(store, TASK)] == tasks
        ready = [(1, 100, turn, part) for turn in range(1, last + 1) for part in range(turn <= last - 5, 40)]
        assert [key for key, _ in all_rows(store, READY)] == ready
        assert [value for _, value in all_rows(store, BODY)] == [
            random.Random(turn).randbytes(700) for turn in range(1, last + 1)
        ]
        assert store.get(LANE_NAME, ("latest",)) == (last or None)
        for turn in range(1, last + 1):
            kept = store.output((turn, 0, 0), 1)  # put before its turn, and with that in another log, perhaps
            assert kept == [(1, 0, commit_turns.output(turn))] or (turn > acknowledged and not kept)
    return last


@pytest.mark.timeout(120 + 5 * ROUNDS)
def test_after_every_power_cut_each_acknowledged_turn_is_there(tmp_path: Path, library: Path) -> None:
    data, acknowledged, last = tmp_path / "data", 0, 0
    data.mkdir(mode=0o700)
    for number in range(ROUNDS):
        dice = random.Random(SEED + number)
        life = Round(data, library, SEED + number)
        if dice.random() < 0.25:
            life.run_s(dice.uniform(0.05, 0.4))
        else:
            life.run(dice.choice([0, 1, dice.randint(2, 60)]))
        acknowledged = max(acknowledged, life.acknowledged)
        assert life.opened in (-1, last), f"round {number}, TQ_POWER_SEED={SEED}"
        cuts = cut_power(data, dice if number % 2 else None)
        assert lost_something(cuts) or life.opened < 0 or number % 2
        is_made = acknowledged or (data / "db/CURRENT").exists()  # else it was killed in its very first start
        last = assert_whole(data, acknowledged) if is_made else 0
    assert acknowledged > ROUNDS


def lost_something(cuts: list[Cut]) -> bool:
    return any(cut.after < cut.before for cut in cuts)


def test_logs_that_lose_what_was_synced_are_noticed(tmp_path: Path, library: Path) -> None:
    """The rounds above can fail: what the cut leaves is needed, to the last log."""
    data = tmp_path / "data"
    life = Round(data, library, SEED)
    life.run(20)
    cut_power(data)
    last = assert_whole(data, life.acknowledged)
    logs = [path for path in (data / "db").glob("*.log") if path.stat().st_size]
    assert all(path.stat().st_size == synced_length(path) for path in logs)
    (data / "watermark").write_bytes(last.to_bytes(8, "big"))
    for path in logs:
        os.truncate(path, 0)
    with pytest.raises(StoreDamaged, match=r"missing: \d+ turns"), read_store(data):
        pass


@pytest.mark.parametrize("number", [30, 45])
def test_after_a_failed_sync_nothing_more_is_acknowledged(tmp_path: Path, library: Path, number: int) -> None:
    data = tmp_path / "data"
    life = Round(data, library, SEED, fail_sync=number)
    life.run(1_000)
    assert life.process.returncode == 74
    assert "IO error" in life.failure
    cut_power(data)
    assert_whole(data, life.acknowledged)
