"""`tq demo`, as a newcomer runs it: it ends well, its claims are checked by itself, and it leaves nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_demo_ends_well_and_leaves_nothing(tmp_path: Path) -> None:
    environ = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    environ |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tq", "demo"], env=environ, capture_output=True, text=True, timeout=240, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit code 7" in done.stdout
    assert "(kill -9 " in done.stdout
    assert "state succeeded, attempt 1, losses 0" in done.stdout
    assert "== Done" in done.stdout
    assert list(tmp_path.iterdir()) == []
    for process in Path("/proc").glob("[0-9]*/environ"):
        try:
            assert f"HOME={tmp_path}".encode() not in process.read_bytes(), f"{process} is left over"
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
