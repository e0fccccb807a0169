"""The programs of bench/ still run: small, and without a look at what they measure."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.parametrize(
    "words, says",
    [
        ("executor_loop.py 20 2", ""),
        ("fdatasync.py . 0.05", ""),
        ("launcher_rate.py 40 2 1", "ratio: best"),
        ("pool_rate.py 200 2", ""),
        ("engine_lives.py 50000", "50000 lives"),
    ],
)
def test_a_measure_runs(words: str, says: str, tmp_path: Path) -> None:
    program, *arguments = words.split()
    done = subprocess.run(
        [sys.executable, str(BENCH / program), *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
